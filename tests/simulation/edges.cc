#include "tests/simulation/edges.h"

#include <algorithm>

#include "base/check.h"

namespace sluice::simulation {

// ---- the source

SimulatedSource::SimulatedSource(const Plan& plan, const ShopLog& log, SimulatedClock& clock,
                                 FaultCounts& counts)
    : plan_(plan),
      log_(log),
      clock_(clock),
      counts_(counts),
      random_(plan.seed, 3),
      questions_(plan.seed, 8) {
  for (const auto& [where, partition] : log_.partitions) {
    readings_[where].lost_before = partition.begin;
  }
}

bool SimulatedSource::is_fault(std::uint64_t one_in, Fault fault) {
  if (is_calm_ || !random_.one_in(one_in)) return false;
  counts_.note(fault);
  return true;
}

void SimulatedSource::lose_before(StreamPartition where, Position position) {
  Position& lost_before = readings_.at(where).lost_before;
  lost_before = std::max(lost_before, position);
}

void SimulatedSource::forget() {
  for (auto& [where, reading] : readings_) {
    reading.position.reset();
    reading.asked.clear();
    reading.confirmed.reset();
  }
  disconnected_until_ = 0;
}

SimulatedSource::Extent SimulatedSource::extent(StreamPartition where) const {
  const PartitionLog& partition = log_.partitions.at(where);
  const auto& records = partition.records;
  Extent extent;
  if (plan_.mode == Mode::growing && !has_grown_) {
    extent.count = partition.first_count;
    extent.bytes = partition.first_bytes;
  } else if (is_all_revealed() || plan_.mode != Mode::live) {
    extent.count = records.size();
  } else {
    const auto next =
        std::upper_bound(records.begin(), records.end(), clock_.truth,
                         [](TimeMs now, const LogRecord& one) { return now < one.arrival; });
    extent.count = static_cast<std::size_t>(next - records.begin());
    // A file's writer is often in the middle of a line.
    const bool is_writing = plan_.shape.is_like_files && next != records.end() &&
                            next->record.bytes.size() > 1 && next->arrival - clock_.truth < 300;
    if (is_writing) extent.bytes = next->record.bytes.size() / 2;
  }
  if (extent.count == records.size()) extent.bytes = partition.unfinished.size();
  extent.end = partition.end(extent.count, extent.bytes);
  return extent;
}

void SimulatedSource::poll() {
  if (is_disconnected()) return;
  for (auto& [where, reading] : readings_) {
    while (!reading.asked.empty() && reading.asked.front().due_steady <= clock_.steady) {
      reading.confirmed = reading.asked.front().confirmation;
      reading.confirmed->answered_steady_ms = clock_.steady;
      reading.asked.pop_front();
    }
    // Files are confirmed by being read.
    if (plan_.shape.is_like_files || !(is_calm_ || random_.one_in(3))) continue;
    const DurationMs latency = random_.pick({0, 5, 200, 3'000});
    reading.asked.push_back({{extent(where).end, clock_.wall_ms(), 0}, clock_.steady + latency});
  }
}

Position SimulatedSource::read_up_to(StreamPartition where) const {
  return readings_.at(where).position.value_or(0);
}

Status SimulatedSource::fail_start() {
  if (!is_fault(plan_.rates.start_error * 6, Fault::start_error)) return {};
  return retry_error("the broker does not answer (injected)");
}

Result<std::uint32_t> SimulatedSource::partitions() {
  SLUICE_TRY(fail_start());
  return plan_.shape.partitions;
}

Result<Position> SimulatedSource::first_position(StreamPartition where) {
  SLUICE_TRY(fail_start());
  return readings_.at(where).lost_before;
}

Result<Position> SimulatedSource::end_position(StreamPartition where) {
  SLUICE_TRY(fail_start());
  return extent(where).end;
}

Status SimulatedSource::seek(StreamPartition where, Position position) {
  Reading& reading = readings_.at(where);
  if (position < reading.lost_before) {
    return stop_error("positions " + std::to_string(position) + " to " +
                      std::to_string(reading.lost_before) + " are lost");
  }
  reading.position = position;
  return {};
}

// Before the first record from after the break is given. Files know no connections.
void SimulatedSource::connect_again() {
  if (disconnected_until_ == 0 || is_disconnected()) return;
  disconnected_until_ = 0;
  if (!plan_.shape.is_like_files) ++epoch_;
}

Result<ReadResult> SimulatedSource::read(StreamPartition where, std::size_t max_records,
                                         DurationMs wait_ms) {
  ReadResult result;
  Reading& reading = readings_.at(where);
  connect_again();
  if (!is_disconnected() && is_fault(plan_.rates.disconnect, Fault::disconnect)) {
    disconnected_until_ = clock_.steady + random_.between(1, 5'000);
  }
  if (is_fault(plan_.rates.read_error, Fault::read_error)) {
    return retry_error("a read failed (injected)");
  }
  if (is_disconnected() || is_fault(plan_.rates.empty_read, Fault::empty_read)) {
    clock_.sleep_ms(wait_ms);
    return result;
  }
  if (max_records > 1 && is_fault(plan_.rates.short_read, Fault::short_read)) {
    max_records = 1 + random_.below(max_records);
  }
  const auto& records = log_.partitions.at(where).records;
  const TimeMs asked_wall = clock_.wall_ms();
  Extent there = extent(where);
  if (wait_ms > 0 && *reading.position >= there.end - there.bytes) {
    clock_.sleep_ms(wait_ms);
    there = extent(where);
  }
  const auto begin = std::lower_bound(
      records.begin(), records.end(), *reading.position,
      [](const LogRecord& one, Position position) { return one.record.position < position; });
  const auto end = records.begin() + static_cast<std::ptrdiff_t>(there.count);
  for (auto one = begin; one < end && result.records.size() < max_records; ++one) {
    result.records.push_back(one->record);
    reading.position = one->record.next;
  }
  if (!result.records.empty()) return result;
  reading.position = std::max(*reading.position, there.end - there.bytes);
  result.at_end = reading.position;
  if (plan_.shape.is_like_files) {
    reading.confirmed.reset();
    if (there.bytes == 0) {
      reading.confirmed = EndConfirmation{*result.at_end, asked_wall, clock_.steady};
    }
  }
  return result;
}

std::optional<Record> SimulatedSource::unfinished_of(StreamPartition where,
                                                     const Extent& there) const {
  if (there.bytes == 0) return std::nullopt;
  const PartitionLog& partition = log_.partitions.at(where);
  Record record;
  record.position = there.end - there.bytes;
  record.next = there.end;
  record.bytes = there.count < partition.records.size()
                     ? partition.records[there.count].record.bytes.substr(0, there.bytes)
                     : partition.unfinished;
  return record;
}

Result<std::optional<Record>> SimulatedSource::unfinished(StreamPartition where) {
  auto record = unfinished_of(where, extent(where));
  Reading& reading = readings_.at(where);
  if (record && *reading.position <= record->position) reading.position = record->next;
  return record;
}

Result<std::optional<Record>> SimulatedSource::record_at(StreamPartition where, Position position) {
  const Reading& reading = readings_.at(where);
  if (!reading.position) {
    SLUICE_TRY(fail_start());  // it has not been sought yet
  } else if (!plan_.shape.is_like_files && !is_calm_ &&
             (is_disconnected() || questions_.one_in(plan_.rates.question_error))) {
    counts_.note(Fault::question_error);
    clock_.pass(questions_.pick({0, 20, 2'000}));
    return retry_error("the broker does not answer a question (injected)");
  }
  if (position < reading.lost_before) return std::optional<Record>();
  const Extent there = extent(where);
  const auto& records = log_.partitions.at(where).records;
  for (std::size_t index = 0; index < there.count; ++index) {
    if (records[index].record.position == position) return std::optional(records[index].record);
  }
  auto last = unfinished_of(where, there);
  if (last && last->position == position) return last;
  return stop_error("the log has no record at " + describe(where, position));
}

std::optional<EndConfirmation> SimulatedSource::confirmed_end(StreamPartition where) {
  return readings_.at(where).confirmed;
}

std::string SimulatedSource::describe(StreamPartition where, Position position) const {
  return to_string(where) + "@" + std::to_string(position);
}

// ---- the store

void SimulatedStore::fail_after(std::uint64_t commits, bool is_kept) {
  left_ = commits;
  is_kept_ = is_kept;
}

void SimulatedStore::restart() {
  left_.reset();
  has_failed_ = false;
  if (!in_doubt_) return;
  const WriteBatch batch = *std::move(in_doubt_);
  in_doubt_.reset();
  if (!is_kept_) return;
  SLUICE_CHECK(store_->commit(batch).has_value());
  if (on_durable) on_durable();
}

Status SimulatedStore::commit(const WriteBatch& batch) {
  if (on_commit) on_commit();
  if (has_failed_) return stop_error("the store has failed (injected)");
  if (left_ && *left_ == 0) {
    has_failed_ = true;
    in_doubt_ = batch;
    return stop_error("the store fails (injected)");
  }
  if (left_) --*left_;
  SLUICE_TRY(store_->commit(batch));
  if (on_durable) on_durable();
  if (on_commit) on_commit();
  return {};
}

Result<std::optional<std::string>> SimulatedStore::get(Space space, std::string_view key) {
  return store_->get(space, key);
}

Status SimulatedStore::scan(Space space, std::string_view begin, std::string_view end,
                            const std::function<bool(std::string_view, std::string_view)>& visit) {
  return store_->scan(space, begin, end, visit);
}

}  // namespace sluice::simulation
