// Logs in memory that a test writes while they are read, a clock that it sets, and records of the
// least that is accepted.
#pragma once

#include <algorithm>
#include <atomic>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/time.h"
#include "ingest/log_reader.h"
#include "ingest/source.h"

namespace sluice {

inline constexpr TimeMs kT0 = 1'700'000'000'000;

inline constexpr StreamPartition kImpressions{Stream::impressions, 0};
inline constexpr StreamPartition kClicks{Stream::clicks, 0};
inline constexpr StreamPartition kPurchases{Stream::purchases, 0};
inline constexpr EndPolicy kClose{EndPolicy::Kind::close, 0, false};
inline constexpr EndPolicy kHold{EndPolicy::Kind::hold, 0, false};
inline constexpr EndPolicy kLive{EndPolicy::Kind::hold, 0, true};

class ManualClock final : public Clock {
 public:
  TimeMs wall_ms() override { return wall; }
  DurationMs steady_ms() override { return steady; }
  void sleep_ms(DurationMs duration) override { pass(duration); }
  void pass(DurationMs duration) {
    wall += duration;
    steady += duration;
  }

  // Whoever writes beside the test reads them while it sets them.
  std::atomic<TimeMs> wall = 1'700'000'000'000;
  std::atomic<DurationMs> steady = 5'000;
};

class ScriptedSource final : public Source {
 public:
  explicit ScriptedSource(std::uint32_t partitions) : partitions_(partitions) {}

  // ---- what the log holds

  // Positions count up by one, as Kafka's offsets do.
  void append(StreamPartition where, std::string bytes) {
    const Position position = end_[where]++;
    logs_[where].push_back({position, position + 1, std::move(bytes), std::nullopt});
  }
  // Positions without records (control records, aborted ones).
  void skip(StreamPartition where, Position count) { end_[where] += count; }
  void change(StreamPartition where, std::size_t index, std::string bytes) {
    logs_[where].at(index).bytes = std::move(bytes);
  }
  void remove_before(StreamPartition where, Position position) {
    begin_[where] = position;
    std::erase_if(logs_[where], [&](const Record& r) { return r.position < position; });
  }
  Position end_of(StreamPartition where) { return end_[where]; }

  // ---- what the source says of it

  void confirm(StreamPartition where, const EndConfirmation& confirmation) {
    confirmations_[where] = confirmation;
  }
  // Until told otherwise read() finds neither records nor the end, as while a fetch is under way.
  void set_fetching(StreamPartition where, bool is_fetching) {
    if (is_fetching) {
      fetching_.insert(where);
    } else {
      fetching_.erase(where);
    }
  }

  // ---- what the reader did

  struct Read {
    StreamPartition where;
    std::size_t records;
    DurationMs wait_ms;
  };
  std::vector<Read> reads;
  std::map<StreamPartition, Position> sought;

  // ---- Source

  Result<std::uint32_t> partitions() override { return partitions_; }
  Result<Position> first_position(StreamPartition where) override { return begin_[where]; }
  Result<Position> end_position(StreamPartition where) override { return end_[where]; }
  Status seek(StreamPartition where, Position position) override {
    if (position < begin_[where]) return stop_error("lost");
    sought[where] = positions_[where] = position;
    return {};
  }
  Result<ReadResult> read(StreamPartition where, std::size_t max_records,
                          DurationMs wait_ms) override {
    ReadResult result;
    Position& position = positions_.at(where);
    if (!fetching_.contains(where)) {
      for (const Record& record : logs_[where]) {
        if (record.position < position) continue;
        if (result.records.size() == max_records) break;
        result.records.push_back(record);
      }
      if (result.records.empty()) result.at_end = end_[where];
    }
    if (!result.records.empty()) position = result.records.back().next;
    reads.push_back({where, result.records.size(), wait_ms});
    return result;
  }
  Result<std::optional<Record>> record_at(StreamPartition where, Position position) override {
    for (const Record& record : logs_[where]) {
      if (record.position == position) return std::optional(record);
    }
    return std::optional<Record>();
  }
  std::optional<EndConfirmation> confirmed_end(StreamPartition where) override {
    const auto found = confirmations_.find(where);
    return found == confirmations_.end() ? std::nullopt : std::optional(found->second);
  }
  std::string describe(StreamPartition where, Position position) const override {
    return to_string(where) + "@" + std::to_string(position);
  }

 private:
  std::uint32_t partitions_;
  std::map<StreamPartition, std::vector<Record>> logs_;
  std::map<StreamPartition, Position> begin_, end_, positions_;
  std::map<StreamPartition, EndConfirmation> confirmations_;
  std::set<StreamPartition> fetching_;
};

// A record of any stream; `name` is its impression_id and its event_id.
inline std::string event_line(TimeMs time, const std::string& name) {
  return R"({"ts":)" + std::to_string(time) + R"(,"impression_id":")" + name + R"(","event_id":")" +
         name + R"("})";
}

}  // namespace sluice
