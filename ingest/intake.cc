#include "ingest/intake.h"

#include <algorithm>
#include <utility>

namespace sluice {
namespace {

// How many ticks' memory is kept to be used again: of those with room for a few events, and of
// larger ones.
constexpr std::size_t kSpareTicks = 4096;
constexpr std::size_t kLargeSpareTicks = 64;
constexpr std::size_t kFewEvents = 16;

}  // namespace

void IntakeState::encode(ByteWriter& out) const {
  out.varint(resume_position);
  out.svarint(highest_before_resume);
  out.varint(read_position);
  out.u8(has_last_record ? 1 : 0);
  out.varint(last_record_position);
  out.u64(last_record_hash.low);
  out.u64(last_record_hash.high);
  out.svarint(quiet_watermark);
}

IntakeState IntakeState::decode(ByteReader& in) {
  IntakeState state;
  state.resume_position = in.varint();
  state.highest_before_resume = in.svarint();
  state.read_position = in.varint();
  state.has_last_record = in.u8() != 0;
  state.last_record_position = in.varint();
  state.last_record_hash.low = in.u64();
  state.last_record_hash.high = in.u64();
  state.quiet_watermark = in.svarint();
  return state;
}

Intake::Intake(StreamPartition where, const StreamsConfig& streams, DurationMs tick,
               Decoder& decoder, const IntakeState& state)
    : where_(where),
      max_out_of_orderness_(streams.max_out_of_orderness[static_cast<std::size_t>(where.stream)]),
      max_ahead_(streams.max_ahead),
      max_record_bytes_(streams.max_record_bytes),
      tick_(tick),
      decoder_(decoder),
      state_(state),
      next_position_(state.resume_position),
      is_rereading_(state.has_last_record && state.resume_position <= state.last_record_position),
      highest_(state.highest_before_resume) {}

bool Intake::note_read(const Record& record) {
  next_position_ = record.next;
  if (record.position >= state_.last_record_position) is_rereading_ = false;
  if (record.position < state_.read_position) return false;
  state_.read_position = record.next;
  state_.has_last_record = true;
  state_.last_record_position = record.position;
  return true;
}

// Only the hash of the very last one is asked for: most are never made.
void Intake::keep_last(std::string& bytes) {
  last_record_.swap(bytes);
  is_hash_due_ = true;
}

void Intake::take(Record&& record, TimeMs frontier, std::vector<RefusedRecord>& refused) {
  const bool is_new = note_read(record);
  const auto refuse = [&](Refusal reason, std::string detail) {
    if (!is_new) return;
    refused.push_back({where_, record.position, reason, std::move(detail), last_record_});
  };
  auto decoded = decoder_.decode(where_.stream, record);
  if (is_new) keep_last(record.bytes);
  if (!decoded) {
    refuse(decoded.error().reason, std::move(decoded.error().detail));
    return;
  }
  Event& event = decoded->event;
  const TimeMs time = event.time();
  // Any log time can stand in a record: it is not added to, which could overflow.
  if (decoded->log_time && time - max_ahead_ > *decoded->log_time) {
    refuse(Refusal::future, format_time(time) +
                                " is more than streams.max_ahead after its log time " +
                                format_time(*decoded->log_time));
    return;
  }
  if (time < highest_ - max_out_of_orderness_) {
    refuse(Refusal::late, format_time(time) + " is behind the watermark " +
                              format_time(highest_ - max_out_of_orderness_));
    return;
  }
  const TimeMs highest_before = highest_;
  highest_ = std::max(highest_, time);
  if (time < frontier) {
    // Processed before the restart, or its tick went by while the partition was quiet.
    refuse(Refusal::late_after_quiet, format_time(time) +
                                          " came after the quiet partition was passed at " +
                                          format_time(frontier));
    return;
  }
  unprocessed_.push_back({record.position, time, highest_before});
  buffered_bytes_ += event.bytes();
  events_of(floor_to(time, tick_)).push_back(std::move(event));
}

// Where events are sparse most ticks have one or two: the map's nodes are used again, too.
std::vector<Event>& Intake::events_of(TimeMs tick) {
  const auto at = buffer_.lower_bound(tick);
  if (at != buffer_.end() && at->first == tick) return at->second;
  if (spare_.empty()) return buffer_.emplace_hint(at, tick, std::vector<Event>())->second;
  Buffer::node_type node = std::move(spare_.back());
  spare_.pop_back();
  node.key() = tick;
  return buffer_.insert(at, std::move(node))->second;
}

void Intake::take_unfinished(const Record& record, std::vector<RefusedRecord>& refused) {
  if (!note_read(record)) return;
  last_record_ = record.bytes;
  is_hash_due_ = true;
  const bool is_oversized = record.bytes.size() > max_record_bytes_;
  refused.push_back({where_, record.position,
                     is_oversized ? Refusal::oversized : Refusal::malformed,
                     "the log's last line has no end", record.bytes});
}

TimeMs Intake::watermark() const {
  const TimeMs own = highest_ == kTimeMin ? kTimeMin : highest_ - max_out_of_orderness_;
  return is_rereading_ ? own : std::max(own, state_.quiet_watermark);
}

void Intake::advance_quiet(TimeMs watermark) {
  state_.quiet_watermark = std::max(state_.quiet_watermark, watermark);
}

void Intake::release(TimeMs frontier, std::vector<Event>& out) {
  while (!buffer_.empty() && buffer_.begin()->first < frontier) {
    for (Event& event : buffer_.begin()->second) {
      buffered_bytes_ -= event.bytes();
      out.push_back(std::move(event));
    }
    Buffer::node_type node = buffer_.extract(buffer_.begin());
    node.mapped().clear();
    const bool is_small = node.mapped().capacity() <= kFewEvents;
    if (spare_.size() < (is_small ? kSpareTicks : kLargeSpareTicks)) {
      spare_.push_back(std::move(node));
    }
  }
  while (!unprocessed_.empty() && unprocessed_.front().time < frontier) unprocessed_.pop_front();
}

IntakeState Intake::state() const {
  IntakeState state = state_;
  if (is_hash_due_) state.last_record_hash = hash128(last_record_);
  if (unprocessed_.empty()) {
    state.resume_position = next_position_;
    state.highest_before_resume = highest_;
  } else {
    state.resume_position = unprocessed_.front().position;
    state.highest_before_resume = unprocessed_.front().highest_before;
  }
  return state;
}

}  // namespace sluice
