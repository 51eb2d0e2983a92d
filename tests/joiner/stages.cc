#include "stages.h"

#include <algorithm>
#include <sstream>
#include <utility>

#include "base/check.h"
#include "joiner/sample_log.h"

namespace sluice {
namespace {

constexpr TimeMs kWallMs = 1'700'000'000'000;

template <class T>
T value_of(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "unexpected error: %s\n", result.error().message.c_str());
    SLUICE_CHECK(false);
  }
  return *std::move(result);
}

void expect_ok(const Status& status) {
  if (!status) std::fprintf(stderr, "unexpected error: %s\n", status.error().message.c_str());
  SLUICE_CHECK(status.has_value());
}

std::string text(const std::optional<TimeMs>& time) {
  return time ? std::to_string(*time) : "none";
}

}  // namespace

// ---- MemorySource

Result<Position> MemorySource::end_position(StreamPartition where) {
  const auto& records = logs_[where];
  return records.empty() ? Position{0} : records.back().next;
}

Status MemorySource::seek(StreamPartition where, Position position) {
  positions_[where] = position;
  return {};
}

Result<ReadResult> MemorySource::read(StreamPartition where, std::size_t max_records, DurationMs) {
  ReadResult result;
  Position& position = positions_.at(where);
  for (const Record& record : logs_[where]) {
    if (record.position < position) continue;
    if (result.records.size() == max_records) return result;
    result.records.push_back(record);
    position = record.next;
  }
  if (result.records.empty()) result.at_end = position;
  return result;
}

Result<std::optional<Record>> MemorySource::record_at(StreamPartition where, Position position) {
  for (const Record& record : logs_[where]) {
    if (record.position == position) return std::optional(record);
  }
  return std::optional<Record>();
}

std::string MemorySource::describe(StreamPartition where, Position position) const {
  return to_string(where) + "@" + std::to_string(position);
}

// ---- Stages

Stages::Stages(const Config& config, Source& source, Decoder& decoder, KeyValueStore& store,
               const Rhythm& rhythm)
    : config_(config),
      source_(source),
      decoder_(decoder),
      store_(store),
      rhythm_(rhythm),
      random_(rhythm.seed) {}

// Also after a crash: nothing is known but what the store and the logs hold.
void Stages::start() {
  lanes_.clear();
  partitions_ = value_of(source_.partitions());
  join_ = value_of(Join::open(config_, partitions_, store_));
  SLUICE_CHECK(join_->committed().next_sequence == samples_.size() + 1);
  for (std::size_t index = 0; index < config_.streams.count() * partitions_; ++index) {
    const StreamPartition where{static_cast<Stream>(index / partitions_),
                                static_cast<std::uint32_t>(index % partitions_)};
    const IntakeState& state = join_->committed().intakes[index];
    if (state.has_last_record) {
      const auto last = value_of(source_.record_at(where, state.last_record_position));
      SLUICE_CHECK(last && hash128(last->bytes) == state.last_record_hash);
    }
    lanes_.push_back({Intake(where, config_.streams, config_.join.tick, decoder_, state),
                      state.resume_position});
    expect_ok(source_.seek(where, state.resume_position));
  }
}

void Stages::read(Lane& lane) {
  const StreamPartition where = lane.intake.where();
  const std::size_t count = 1 + random_.below(rhythm_.max_read);
  ReadResult result = value_of(source_.read(where, count, 0));
  std::vector<RefusedRecord> refused;
  for (Record& record : result.records) {
    lane.read_up_to = record.next;
    lane.intake.take(std::move(record), join_->frontier(), refused);
  }
  if (result.at_end) {
    if (const auto last = value_of(source_.unfinished(where))) {
      lane.intake.take_unfinished(*last, refused);
    }
    lane.is_at_end = true;
  }
  join_->refuse(std::move(refused));
}

void Stages::advance() {
  if (rhythm_.quiets && random_.one_in(3)) {
    Lane& quiet = lanes_[random_.below(lanes_.size())];
    const Lane& other = lanes_[random_.below(lanes_.size())];
    quiet.intake.advance_quiet(other.intake.highest_time());
  }
  TimeMs watermark = kTimeMax;
  for (const Lane& lane : lanes_) {
    if (!lane.is_at_end) watermark = std::min(watermark, lane.intake.watermark());
  }
  const DurationMs tick = config_.join.tick;
  TimeMs frontier = floor_to(watermark, tick);
  if (rhythm_.hesitates && !random_.one_in(3) && frontier < floor_to(kTimeMax, tick)) {
    frontier -= static_cast<DurationMs>(random_.below(4)) * tick;
  }
  // Right after a restart the watermarks are behind: what was processed is read again first.
  if (frontier <= join_->frontier()) return;
  std::vector<std::vector<Event>> events(partitions_);
  for (Lane& lane : lanes_) lane.intake.release(frontier, events[lane.intake.where().partition]);
  expect_ok(join_->process(frontier, std::move(events)));
}

std::vector<IntakeState> Stages::states() const {
  std::vector<IntakeState> states;
  for (const Lane& lane : lanes_) states.push_back(lane.intake.state());
  return states;
}

void Stages::commit(const OnCommit& on_commit) {
  const std::uint64_t next = samples_.size() + 1;
  const std::uint64_t first_needed = rhythm_.trims ? 1 + random_.below(next) : 1;
  expect_ok(join_->commit(states(), kWallMs, first_needed));
  std::vector<Sample> added = value_of(read_samples(store_, next, std::size_t{1} << 40));
  SLUICE_CHECK(join_->committed().next_sequence == next + added.size());
  samples_.insert(samples_.end(), added.begin(), added.end());
  on_commit(*this, added);
}

std::vector<Sample> Stages::run(const OnCommit& on_commit) {
  start();
  const TimeMs end = floor_to(kTimeMax, config_.join.tick);
  // After the last one it must converge.
  int crashes_left = rhythm_.crash_one_in == 0 ? 0 : 15;
  while (join_->frontier() < end) {
    read(lanes_[random_.below(lanes_.size())]);
    advance();
    if (random_.one_in(rhythm_.commit_one_in)) commit(on_commit);
    if (crashes_left > 0 && random_.one_in(rhythm_.crash_one_in)) {
      --crashes_left;
      start();
    }
  }
  join_->close();
  commit(on_commit);
  return samples_;
}

Position Stages::read_up_to(StreamPartition where) const {
  return lanes_[static_cast<std::size_t>(where.stream) * partitions_ + where.partition].read_up_to;
}

bool Stages::is_at_end(StreamPartition where) const {
  return lanes_[static_cast<std::size_t>(where.stream) * partitions_ + where.partition].is_at_end;
}

// ---- looking at the outcome

std::vector<StoredDeadLetter> read_dead_letters(KeyValueStore& store) {
  std::vector<StoredDeadLetter> letters;
  expect_ok(store.scan(Space::dead_letters, {}, {}, [&](std::string_view, std::string_view value) {
    ByteReader in(value);
    StoredDeadLetter& letter = letters.emplace_back();
    letter.wall_ms = in.svarint();
    letter.refusal.where.stream = static_cast<Stream>(in.u8());
    letter.refusal.where.partition = static_cast<std::uint32_t>(in.varint());
    letter.refusal.position = in.varint();
    letter.refusal.reason = static_cast<Refusal>(in.u8());
    letter.detail = in.text();
    letter.bytes = in.text();
    SLUICE_CHECK(in.ok() && in.at_end());
    return true;
  }));
  return letters;
}

std::size_t count_keys(KeyValueStore& store, Space space) {
  std::size_t count = 0;
  expect_ok(store.scan(space, {}, {}, [&count](std::string_view, std::string_view) {
    ++count;
    return true;
  }));
  return count;
}

std::string to_string(const Sample& sample) {
  std::ostringstream out;
  out << "sequence " << sample.sequence << " shard " << sample.shard << " time " << sample.time
      << " impression " << sample.impression_id << " at " << sample.impression_time << " user "
      << sample.user_id << " item " << sample.item_id << " click " << text(sample.click_time)
      << " action " << text(sample.action_time) << " purchase " << text(sample.purchase_time)
      << " value " << sample.value << " y " << sample.y << (sample.y_final ? "!" : "") << " action "
      << sample.action << (sample.action_final ? "!" : "") << (sample.action_later ? " later" : "")
      << " z " << sample.z << (sample.z_final ? "!" : "") << (sample.z_earlier ? " earlier" : "")
      << " features of " << sample.features.size() << " bytes, hash " << hash64(sample.features);
  return out.str();
}

std::string difference(const std::vector<Sample>& samples, const std::vector<Sample>& expected) {
  for (std::size_t index = 0; index < std::max(samples.size(), expected.size()); ++index) {
    const std::string is = index < samples.size() ? to_string(samples[index]) : "no sample";
    const std::string should = index < expected.size() ? to_string(expected[index]) : "no sample";
    if (is != should) return "is:       " + is + "\nexpected: " + should;
  }
  return {};
}

std::string difference(const JoinCounters& counters, const OracleResult& expected) {
  std::ostringstream out;
  const auto compare = [&out](const std::string& what, std::uint64_t is, std::uint64_t should) {
    if (is != should) out << what << " is " << is << ", expected " << should << "\n";
  };
  for (std::size_t stream = 0; stream < kStreams; ++stream) {
    const std::string name = kStreamNames[stream];
    compare(name + " used", counters.used[stream], expected.used[stream]);
    for (std::size_t reason = 0; reason < kRefusals; ++reason) {
      compare(name + " refused as " + to_string(static_cast<Refusal>(reason)),
              counters.refused[stream][reason], expected.refused[stream][reason]);
    }
  }
  compare("labelled impressions", counters.labelled_impressions, expected.labelled_impressions);
  compare("clicked", counters.clicked, expected.clicked);
  compare("converted", counters.converted, expected.converted);
  compare("acted", counters.acted, expected.acted);
  compare("purchases without value", counters.without_value, expected.without_value);
  MicrosSum value;
  for (const Sample& sample : expected.samples) value.add(sample.value);
  if (counters.value != value) {
    out << "value is " << counters.value.units << " + " << counters.value.micros
        << " micros, expected " << value.units << " + " << value.micros << "\n";
  }
  return out.str();
}

OracleLogs read_facts(Source& source, std::uint32_t partitions,
                      const std::function<OracleRecord(Stream, const Record&)>& parse,
                      std::size_t streams) {
  OracleLogs logs;
  for (std::uint32_t index = 0; index < streams * partitions; ++index) {
    const StreamPartition where{static_cast<Stream>(index / partitions), index % partitions};
    SLUICE_CHECK(source.seek(where, 0).has_value());
    while (true) {
      const auto result = source.read(where, 10'000, 0);
      SLUICE_CHECK(result.has_value());
      for (const Record& record : result->records) {
        logs[where].push_back(parse(where.stream, record));
      }
      if (result->at_end) break;
    }
  }
  return logs;
}

}  // namespace sluice
