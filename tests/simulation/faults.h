// The kinds of faults that the simulator injects, and how often it did.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace sluice::simulation {

enum class Fault : std::uint8_t {
  process_crash,
  machine_crash,
  machine_crash_in_write,
  file_error,
  lasting_file_error,
  commit_lost,
  commit_kept,
  damaged_checkpoint,
  stop_and_start,
  restart_when_done,
  config_change,
  policy_change,
  learner_starves,
  learner_inside_commit,
  join_inside_write,
  learner_after_failure,
  read_error,
  disconnect,
  short_read,
  empty_read,
  question_error,
  start_error,
  retention,
  log_grows_behind_pin,
  wall_step_back,
  wall_step_forward,
  stall,
  count,
};
inline constexpr std::size_t kFaults = static_cast<std::size_t>(Fault::count);

// Its name, and in words what was done.
struct FaultText {
  const char* name;
  const char* what;
};
const FaultText& text_of(Fault fault);

struct FaultCounts {
  std::array<std::uint64_t, kFaults> injected{};
  std::array<std::uint64_t, kFaults> seeds{};  // that met it

  void note(Fault fault) { ++injected[static_cast<std::size_t>(fault)]; }
  // Adds those of one more seed.
  void add_seed(const FaultCounts& seed);
  // One line a kind.
  std::string table() const;
};

}  // namespace sluice::simulation
