#include "ingest/log_reader.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"

namespace sluice {
namespace {

// So long may a topic be another one, made anew without a sign on the connection, before it is
// seen.
constexpr DurationMs kRecheckMs = 5'000;

}  // namespace

LogReader::LogReader(const Config& config, Source& source, Clock& clock, std::uint32_t partitions,
                     const EndPolicy& policy)
    : config_(config),
      source_(source),
      clock_(clock),
      policy_(policy),
      partition_count_(partitions),
      decoder_(config.streams, config.join, config.features) {}

Status LogReader::check_logs(const std::vector<IntakeState>& states,
                             std::vector<Position> pinned_ends) {
  SLUICE_CHECK(states.size() == config_.streams.count() * partition_count_ && partitions_.empty());
  const DurationMs now = clock_.steady_ms();
  if (policy_.kind == EndPolicy::Kind::close) pinned_ends_ = std::move(pinned_ends);
  partitions_.reserve(states.size());
  for (std::size_t index = 0; index < states.size(); ++index) {
    const StreamPartition where{static_cast<Stream>(index / partition_count_),
                                static_cast<std::uint32_t>(index % partition_count_)};
    Partition& partition = partitions_.emplace_back(
        Intake(where, config_.streams, config_.join.tick, decoder_, states[index]));
    partition.position = states[index].resume_position;
    partition.last_record_steady = now;
    partition.read_steady = now;
    partition.anchor = states[index];
    SLUICE_TRY(check_last_record(index, states[index]));
  }
  return {};
}

Status LogReader::start(std::vector<IntakeState> states, bool is_first,
                        std::vector<Position> pinned_ends, LostRecords lost) {
  for (std::size_t index = 0; is_first && index < states.size(); ++index) {
    const StreamPartition where{static_cast<Stream>(index / partition_count_),
                                static_cast<std::uint32_t>(index % partition_count_)};
    SLUICE_ASSIGN(states[index].resume_position, source_.first_position(where));
    states[index].read_position = states[index].resume_position;
  }
  if (!is_first && lost == LostRecords::pass_over) {
    SLUICE_TRY(pass_over_lost(states, pinned_ends));
  } else if (!is_first) {
    SLUICE_TRY(check_begins_early_enough(states));
  }
  rechecked_steady_ = clock_.steady_ms();
  const std::uint64_t epoch = source_.connection_epoch();
  SLUICE_TRY(check_logs(states, std::move(pinned_ends)));
  for (std::size_t index = 0; index < partitions_.size(); ++index) {
    Partition& partition = partitions_[index];
    partition.checked_epoch = epoch;
    SLUICE_TRY(source_.seek(partition.intake.where(), partition.position));
    if (!pinned_ends_.empty()) SLUICE_TRY(check_pinned_end(index));
  }
  if (policy_.kind != EndPolicy::Kind::close) return {};
  if (pinned_ends_.empty()) {
    for (const Partition& partition : partitions_) {
      SLUICE_ASSIGN(const Position end, source_.end_position(partition.intake.where()));
      pinned_ends_.push_back(end);
    }
  }
  for (std::size_t index = 0; index < partitions_.size(); ++index) {
    SLUICE_TRY(finish_if_at_end(index));
  }
  return {};
}

Status LogReader::check_last_record(std::size_t index, const IntakeState& state) {
  if (!state.has_last_record) return {};
  const StreamPartition where = partitions_[index].intake.where();
  SLUICE_ASSIGN(auto record, source_.record_at(where, state.last_record_position));
  if (record) cut_unfinished(index, *record);
  // Where retention has removed it, seek() tells whether the log still reaches back far enough.
  if (!record || hash128(record->bytes) == state.last_record_hash) return {};
  return stop_error("the log was changed: " + source_.describe(where, state.last_record_position) +
                    " is not the record that was read there before; take the right logs, or replay "
                    "into a new data folder");
}

// A broker is asked by seek(). Files that are simply not there any more are not missed otherwise.
Status LogReader::check_begins_early_enough(const std::vector<IntakeState>& states) const {
  if (config_.source.type != SourceConfig::Type::files) return {};
  for (std::size_t index = 0; index < states.size(); ++index) {
    if (!states[index].has_last_record) continue;
    const StreamPartition where{static_cast<Stream>(index / partition_count_),
                                static_cast<std::uint32_t>(index % partition_count_)};
    SLUICE_ASSIGN(const Position oldest, source_.oldest_position(where));
    if (states[index].resume_position >= oldest) continue;
    return stop_error("the log now begins with " + source_.describe(where, oldest) +
                      " but was processed up to " +
                      source_.describe(where, states[index].resume_position) +
                      ": what lies between is lost; put it back, replay into a new data folder, or "
                      "start once with --accept-lost to go on without it");
  }
  return {};
}

// A topic can be deleted and made anew while nothing is asked of it: then no connection breaks, and
// the new log is read on as if it were the old one. So in turn one partition of each stream is
// looked at: what was read of it some time ago must still be there.
Status LogReader::recheck() {
  const DurationMs now = clock_.steady_ms();
  if (config_.source.type != SourceConfig::Type::kafka || now - rechecked_steady_ < kRecheckMs) {
    return {};
  }
  Status status;
  for (std::size_t stream = 0; status && stream < config_.streams.count(); ++stream) {
    const std::size_t index = stream * partition_count_ + recheck_partition_;
    status = check_last_record(index, partitions_[index].anchor);
    if (status) partitions_[index].anchor = partitions_[index].intake.state();
  }
  recheck_partition_ = (recheck_partition_ + 1) % partition_count_;
  // After the answer: one that was waited for in vain must not be asked for at every step.
  rechecked_steady_ = clock_.steady_ms();
  // Nothing is taken because of it; a break of the connection is a matter of read_checked().
  if (!status && status.error().kind == ErrorKind::retry) return {};
  return status;
}

// Moves the states, and the ends that were pinned, to what the logs still hold. The records that
// are left of those that were read, but not processed, are judged again by what is known: the
// highest event time before the lost ones.
Status LogReader::pass_over_lost(std::vector<IntakeState>& states,
                                 std::vector<Position>& pinned_ends) {
  for (std::size_t index = 0; index < states.size(); ++index) {
    const StreamPartition where{static_cast<Stream>(index / partition_count_),
                                static_cast<std::uint32_t>(index % partition_count_)};
    IntakeState& state = states[index];
    SLUICE_ASSIGN(const Position oldest, source_.oldest_position(where));
    SLUICE_ASSIGN(const Position end, source_.end_position(where));
    const auto tell = [&](Position first, Position last, const char* what) {
      passed_over_.push_back(source_.describe(where, first) + " up to " +
                             source_.describe(where, last) + ", this one not included: " + what);
    };
    if (state.resume_position < oldest) {
      tell(state.resume_position, oldest, "removed before they were processed");
      state.resume_position = oldest;
      state.read_position = std::max(state.read_position, oldest);
    }
    if (const Position read = std::max(state.read_position, state.resume_position); end < read) {
      tell(end, read, "they were read, but the log was cut");
      state.resume_position = std::min(state.resume_position, end);
      state.read_position = end;
    }
    if (!pinned_ends.empty() && end < pinned_ends[index]) {
      if (end >= state.read_position && state.read_position < pinned_ends[index]) {
        tell(std::max(end, state.read_position), pinned_ends[index],
             "the log ends before the place that was its end when this replay began");
      }
      pinned_ends[index] = end;
    }
    // What is not there any more can neither be compared nor waited for.
    if (state.last_record_position < oldest || state.last_record_position >= end) {
      state.has_last_record = false;
    }
  }
  return {};
}

// A log of a broker that was cut below its pinned end would be waited for in vain. (Files are
// looked at where they end.)
Status LogReader::check_pinned_end(std::size_t index) const {
  if (config_.source.type == SourceConfig::Type::files) return {};
  const StreamPartition where = partitions_[index].intake.where();
  SLUICE_ASSIGN(const Position end, source_.end_position(where));
  if (end >= pinned_ends_[index]) return {};
  return stop_error("the records from " + source_.describe(where, end) + " up to " +
                    source_.describe(where, pinned_ends_[index]) +
                    " are gone: the log was cut since this replay began, or made anew; replay into "
                    "a new data folder, or start once with --accept-lost to go on without them");
}

TimeMs LogReader::watermark_of(const Partition& partition) const {
  if (partition.is_finished) return kTimeMax;
  const TimeMs own = partition.intake.watermark();
  if (policy_.kind != EndPolicy::Kind::at_time) return own;
  if (partition.is_at_end && !policy_.is_live) return policy_.time;
  return std::min(own, policy_.time);
}

TimeMs LogReader::watermark() const {
  TimeMs lowest = kTimeMax;
  for (const Partition& partition : partitions_) {
    lowest = std::min(lowest, watermark_of(partition));
  }
  return lowest;
}

std::vector<std::size_t> LogReader::reading_order() const {
  std::vector<std::size_t> order;
  for (std::size_t index = 0; index < partitions_.size(); ++index) {
    const Partition& partition = partitions_[index];
    const bool is_done = partition.is_finished || (policy_.kind == EndPolicy::Kind::at_time &&
                                                   watermark_of(partition) >= policy_.time);
    if (!is_done) order.push_back(index);
  }
  std::sort(order.begin(), order.end(), [this](std::size_t a, std::size_t b) {
    const TimeMs a_time = watermark_of(partitions_[a]);
    const TimeMs b_time = watermark_of(partitions_[b]);
    return a_time != b_time ? a_time < b_time : a < b;
  });
  return order;
}

bool LogReader::is_exhausted() const {
  const std::vector<std::size_t> order = reading_order();
  if (order.empty()) return true;
  if (policy_.is_live || policy_.kind == EndPolicy::Kind::close) return false;
  return partitions_[order.front()].is_at_end;
}

Result<std::size_t> LogReader::step(TimeMs frontier, DurationMs wait_ms) {
  if (is_exhausted()) return std::size_t{0};
  SLUICE_TRY(recheck());
  const std::vector<std::size_t> order = reading_order();
  const std::size_t allowance = config_.source.max_queued_bytes / partitions_.size();
  std::size_t taken = 0;
  for (const std::size_t index : order) {
    // Those ahead of the slowest are read only while the slowest has nothing, and not far.
    const bool may_read =
        index == order.front() || partitions_[index].intake.buffered_bytes() < allowance;
    if (!may_read) continue;
    SLUICE_ASSIGN(taken, read_one(index, frontier, 0));
    if (taken > 0 || is_exhausted()) break;
  }
  if (taken == 0 && wait_ms > 0 && !is_exhausted()) {
    SLUICE_ASSIGN(taken, read_one(order.front(), frontier, wait_ms));
  }
  if (policy_.is_live) declare_quiet();
  return taken;
}

Result<std::size_t> LogReader::read_one(std::size_t index, TimeMs frontier, DurationMs wait_ms) {
  Partition& partition = partitions_[index];
  if (partition.is_finished) return std::size_t{0};
  SLUICE_ASSIGN(ReadResult result, read_checked(index, wait_ms));
  std::size_t taken = 0;
  for (Record& record : result.records) {
    if (!pinned_ends_.empty()) {
      if (record.position >= pinned_ends_[index]) break;
      if (cut_unfinished(index, record)) {
        partition.intake.take_unfinished(record, refused_);
        partition.position = record.next;
        ++taken;
        break;
      }
    }
    partition.position = record.next;
    partition.intake.take(std::move(record), frontier, refused_);
    ++taken;
  }
  partition.is_at_end = result.at_end.has_value();
  if (result.at_end) partition.position = std::max(partition.position, *result.at_end);
  if (taken > 0) {
    partition.last_record_steady = clock_.steady_ms();
    partition.is_quiet = false;
  }
  if (taken > 0 && !partition.anchor.has_last_record) partition.anchor = partition.intake.state();
  if (policy_.is_live) note_held(partition, partition.is_at_end);
  const bool is_past_pinned =
      !result.records.empty() && !pinned_ends_.empty() && taken < result.records.size();
  if (is_past_pinned) partition.position = std::max(partition.position, pinned_ends_[index]);
  SLUICE_TRY(finish_if_at_end(index));
  source_.give_back(std::move(result.records));
  return taken;
}

// Reads, and looks first whether the log is still the one that was read where the source is not
// sure. What was read stays here until that is known: the source does not give it again.
Result<ReadResult> LogReader::read_checked(std::size_t index, DurationMs wait_ms) {
  Partition& partition = partitions_[index];
  const StreamPartition where = partition.intake.where();
  if (partition.unchecked.records.empty()) {
    SLUICE_ASSIGN(partition.unchecked, source_.read(where, config_.source.read_records, wait_ms));
  }
  const std::uint64_t epoch = source_.connection_epoch();
  const DurationMs now = clock_.steady_ms();
  const bool is_unsure =
      epoch != partition.checked_epoch || (config_.source.type == SourceConfig::Type::kafka &&
                                           now - partition.read_steady >= kRecheckMs + wait_ms);
  const bool matters = !partition.unchecked.records.empty() || !pinned_ends_.empty();
  if (is_unsure && matters) {
    SLUICE_TRY(check_last_record(index, partition.intake.state()));
    if (!pinned_ends_.empty()) SLUICE_TRY(check_pinned_end(index));
    partition.checked_epoch = epoch;
  }
  partition.read_steady = now;
  return std::exchange(partition.unchecked, {});
}

void LogReader::note_held(Partition& partition, bool is_at_end) {
  std::optional<EndConfirmation> confirmation;
  if (is_at_end) confirmation = source_.confirmed_end(partition.intake.where());
  if (!confirmation || confirmation->end <= partition.position) {
    partition.held_since.reset();
    return;
  }
  partition.held_until = clock_.steady_ms();
  if (!partition.held_since) partition.held_since = partition.held_until;
  partition.held_end = confirmation->end;
}

// Whether the record is a file's line that was still unfinished when the ends were pinned. Then it
// is cut to what was there of it: what came later is not its part.
bool LogReader::cut_unfinished(std::size_t index, Record& record) const {
  if (pinned_ends_.empty() || config_.source.type != SourceConfig::Type::files) return false;
  const Position pinned = pinned_ends_[index];
  if (record.position >= pinned || record.next <= pinned) return false;
  // The last line of a segment goes on at the next segment, which may have come after the pinning:
  // whether the line was whole is seen by its length.
  if (record.position + record.bytes.size() + 1 <= pinned) return false;
  record.bytes.resize(std::min<std::size_t>(record.bytes.size(), pinned - record.position));
  record.next = pinned;
  return true;
}

// With `close`: at the pinned end nothing more comes.
Status LogReader::finish_if_at_end(std::size_t index) {
  if (pinned_ends_.empty()) return {};
  Partition& partition = partitions_[index];
  if (partition.position < pinned_ends_[index] && partition.is_at_end) {
    const StreamPartition where = partition.intake.where();
    SLUICE_ASSIGN(auto record, source_.unfinished(where));
    if (record) {
      cut_unfinished(index, *record);
      partition.position = record->next;
      partition.intake.take_unfinished(*record, refused_);
    } else if (config_.source.type == SourceConfig::Type::files) {
      return stop_error("the log " + source_.describe(where, partition.position) +
                        " ends before the place that was its end when this replay began");
    }
  }
  partition.is_finished = partition.position >= pinned_ends_[index];
  return {};
}

bool LogReader::is_confirmed_quiet(const Partition& partition, DurationMs now,
                                   TimeMs& bound) const {
  const DurationMs idle_after = *config_.source.idle_after;
  if (!partition.is_at_end || now - partition.last_record_steady < idle_after) return false;
  const auto confirmation = source_.confirmed_end(partition.intake.where());
  if (!confirmation || confirmation->end > partition.position ||
      now - confirmation->answered_steady_ms > idle_after) {
    return false;
  }
  bound = confirmation->requested_wall_ms - config_.source.max_delay;
  return true;
}

void LogReader::declare_quiet() {
  if (!config_.source.idle_after) return;
  const DurationMs now = clock_.steady_ms();
  std::vector<TimeMs> bounds(partitions_.size());
  TimeMs lowest_of_others = kTimeMax;
  TimeMs highest_time = kTimeMin;
  DurationMs last_record = partitions_.front().last_record_steady;
  bool all_quiet = true;
  for (std::size_t index = 0; index < partitions_.size(); ++index) {
    Partition& partition = partitions_[index];
    partition.is_quiet = is_confirmed_quiet(partition, now, bounds[index]);
    highest_time = std::max(highest_time, partition.intake.highest_time());
    last_record = std::max(last_record, partition.last_record_steady);
    if (partition.is_quiet) continue;
    all_quiet = false;
    lowest_of_others = std::min(lowest_of_others, watermark_of(partition));
  }
  if (highest_time == kTimeMin) return;
  const TimeMs target = all_quiet ? highest_time + (now - last_record) : lowest_of_others;
  for (std::size_t index = 0; index < partitions_.size(); ++index) {
    if (!partitions_[index].is_quiet) continue;
    partitions_[index].intake.advance_quiet(std::min(target, bounds[index]));
  }
}

TimeMs LogReader::first_buffered() const {
  TimeMs first = kTimeMax;
  for (const Partition& partition : partitions_) {
    first = std::min(first, partition.intake.first_buffered());
  }
  return first;
}

std::vector<std::vector<Event>> LogReader::release(TimeMs frontier) {
  std::vector<std::vector<Event>> events(partition_count_);
  for (Partition& partition : partitions_) {
    partition.intake.release(frontier, events[partition.intake.where().partition]);
  }
  return events;
}

std::vector<RefusedRecord> LogReader::take_refused() {
  return std::exchange(refused_, {});
}

std::vector<IntakeState> LogReader::states() const {
  std::vector<IntakeState> states;
  for (const Partition& partition : partitions_) states.push_back(partition.intake.state());
  return states;
}

StreamPartition LogReader::slowest() const {
  const auto lowest = std::min_element(
      partitions_.begin(), partitions_.end(),
      [this](const Partition& a, const Partition& b) { return watermark_of(a) < watermark_of(b); });
  return lowest->intake.where();
}

std::optional<std::uint64_t> LogReader::lag_records() const {
  // Positions in files count bytes.
  if (!policy_.is_live || config_.source.type == SourceConfig::Type::files) return std::nullopt;
  std::uint64_t lag = 0;
  for (const Partition& partition : partitions_) {
    const auto confirmation = source_.confirmed_end(partition.intake.where());
    if (!confirmation) return std::nullopt;
    if (confirmation->end > partition.position) lag += confirmation->end - partition.position;
  }
  return lag;
}

std::size_t LogReader::quiet_partitions() const {
  return static_cast<std::size_t>(std::count_if(partitions_.begin(), partitions_.end(),
                                                [](const Partition& p) { return p.is_quiet; }));
}

std::vector<HeldBack> LogReader::held_back(DurationMs at_least_ms) const {
  std::vector<HeldBack> held;
  for (const Partition& partition : partitions_) {
    if (!partition.held_since) continue;
    const DurationMs for_ms = partition.held_until - *partition.held_since;
    if (for_ms < at_least_ms) continue;
    held.push_back({partition.intake.where(), partition.position, partition.held_end, for_ms});
  }
  return held;
}

std::optional<double> LogReader::fraction_read() const {
  if (pinned_ends_.empty()) return std::nullopt;
  if (const auto fraction = source_.fraction_read()) return fraction;
  double read = 0;
  double total = 0;
  for (std::size_t index = 0; index < partitions_.size(); ++index) {
    const auto end = static_cast<double>(pinned_ends_[index]);
    total += end;
    read += std::min(static_cast<double>(partitions_[index].position), end);
  }
  return total > 0 ? std::optional<double>(read / total) : std::nullopt;
}

}  // namespace sluice
