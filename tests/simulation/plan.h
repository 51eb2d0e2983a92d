// What a seed decides before its run begins: the shape of the logs, the config, and how often each
// fault strikes. Each kind is off in some seeds, so that the others get far.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "base/hash.h"
#include "base/time.h"
#include "config/config.h"

namespace sluice::simulation {

// Counter-based random numbers: equal everywhere for one seed and purpose.
class Random {
 public:
  Random(std::uint64_t seed, std::uint64_t purpose) : seed_(mix64(mix64(seed) ^ purpose)) {}
  std::uint64_t next() { return mix64(seed_ + count_++); }
  std::uint64_t below(std::uint64_t bound) { return next() % bound; }
  // 0: never.
  bool one_in(std::uint64_t n) { return n != 0 && below(n) == 0; }
  bool permille(std::uint64_t n) { return below(1'000) < n; }
  // Both included.
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(below(static_cast<std::uint64_t>(high - low + 1)));
  }
  std::int64_t pick(std::initializer_list<std::int64_t> values) {
    return *(values.begin() + below(values.size()));
  }

 private:
  std::uint64_t seed_;
  std::uint64_t count_ = 0;
};

enum class Mode {
  replay,   // the logs are there, read to their ends
  staged,   // the same, with starts that hold, or stop at a time, before
  growing,  // a replay whose logs go on growing behind the ends that it has pinned
  live,     // a service that follows the logs as they are written; a replay then closes them
};
const char* to_string(Mode mode);

// Chances are in 1 of 1,000.
struct Shape {
  std::uint32_t partitions = 1;
  std::uint64_t impressions = 0;
  DurationMs span = 0;  // of event time
  std::uint64_t users = 1;
  std::uint64_t items = 1;
  std::uint64_t clicks = 0;     // of impressions
  std::uint64_t purchases = 0;  // of clicks
  std::uint64_t actions = 0;    // of clicks; where there is a stream of them
  std::uint64_t repeats = 0, duplicates = 0, orphans = 0, malformed = 0, nonsense_times = 0;
  std::uint64_t wrong_partitions = 0, odd_features = 0;
  std::uint64_t too_disordered = 0;  // by more than streams.max_out_of_orderness
  std::uint64_t ahead = 0;           // records of clocks that go ahead
  std::uint64_t too_delayed = 0;     // by more than source.max_delay: late after quiet, if unlucky
  std::uint64_t silent = 0;          // stream-partitions that end early or hold nothing
  bool has_bursts = false;
  bool has_gaps = false;  // between positions, as control records leave them
  bool is_like_files = false;
  bool has_unfinished = false;  // files: last lines without an end
  bool has_log_times = false;
  bool has_broker_times = false;  // log times of the topic, not of a field
  bool has_number_ids = false;
};

// One in so many steps, operations or reads; 0: never.
struct Rates {
  std::uint64_t process_crash = 0, machine_crash = 0, stop = 0;
  std::uint64_t file_error = 0;                           // one in so many starts
  std::uint64_t commit_error = 0;                         // one in so many starts
  std::uint64_t damaged_checkpoint = 0, start_error = 0;  // one in so many starts
  std::uint64_t config_change = 0, retention = 0;         // one in so many starts
  std::uint64_t learner_inside_commit = 0, join_inside_write = 0;
  std::uint64_t read_error = 0, disconnect = 0, short_read = 0, empty_read = 0;
  std::uint64_t question_error = 0;
  std::uint64_t wall_step = 0, stall = 0;
  bool may_step_forward = false;
};

struct Plan {
  std::uint64_t seed = 0;
  Mode mode = Mode::replay;
  Shape shape;
  Config config;
  Rates rates;
  bool has_predictions = true;
  std::uint64_t lives = 0;         // starts until the faults end
  std::uint64_t turns = 0;         // about, for the logs' span
  bool writes_beside = false;      // snapshots are written while the learner goes on
  std::uint64_t rows_at_once = 1;  // of a snapshot, copied between two batches
  bool may_be_late_quiet = false;  // records may come so late that their quiet tick is over
};

Plan draw_plan(std::uint64_t seed);
// Draws the operational keys anew that may change at any start.
void draw_operational(Random& random, Config& config);
void draw_lane(Random& random, Config& config);  // operational too
std::string describe(const Plan& plan);

}  // namespace sluice::simulation
