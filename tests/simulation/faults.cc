#include "tests/simulation/faults.h"

#include <cstdio>

namespace sluice::simulation {
namespace {

constexpr std::array<FaultText, kFaults> kTexts = {{
    {"process_crash", "the process ends between two steps"},
    {"machine_crash", "the machine ends: what was not synced may be gone, in any order"},
    {"machine_crash_in_write", "the machine ends in the middle of writing files"},
    {"file_error", "a write, sync, rename or removal fails; the process stops and starts again"},
    {"lasting_file_error", "the same, still failing at several starts"},
    {"commit_lost", "a commit of the store fails and is not there afterwards"},
    {"commit_kept", "a commit of the store fails and is there afterwards"},
    {"damaged_checkpoint", "a byte of the newest checkpoint is changed"},
    {"stop_and_start", "asked to stop (SIGTERM), then started again"},
    {"restart_when_done", "started again when all was done"},
    {"config_change", "operational keys are changed at a start"},
    {"policy_change", "a start with another end of the logs: live, hold, at a time, close"},
    {"learner_starves", "the learner does not run for a while, or the join does not"},
    {"learner_inside_commit", "the learner runs while a commit is being written"},
    {"join_inside_write", "the join runs while the learner is writing a file"},
    {"learner_after_failure", "the learner goes on for a moment after the join has failed"},
    {"read_error", "a read of the log fails and may be tried again"},
    {"disconnect", "no reads and no confirmed ends for a while"},
    {"short_read", "a read gives fewer records than it could"},
    {"empty_read", "a read gives nothing although more is there"},
    {"question_error", "what was read before is asked for again, and no answer comes"},
    {"start_error", "the source fails while the service starts"},
    {"retention", "the log loses its records before the resume positions"},
    {"log_grows_behind_pin", "records come after a replay has pinned the logs' ends"},
    {"wall_step_back", "the wall clock is set back by up to 1 h"},
    {"wall_step_forward", "the wall clock is set forward by up to 1 h"},
    {"stall", "the process is suspended for a while"},
}};

}  // namespace

const FaultText& text_of(Fault fault) {
  return kTexts.at(static_cast<std::size_t>(fault));
}

void FaultCounts::add_seed(const FaultCounts& seed) {
  for (std::size_t index = 0; index < kFaults; ++index) {
    injected[index] += seed.injected[index];
    seeds[index] += seed.injected[index] > 0 ? 1 : 0;
  }
}

std::string FaultCounts::table() const {
  std::string text;
  for (std::size_t index = 0; index < kFaults; ++index) {
    std::array<char, 160> line{};
    std::snprintf(line.data(), line.size(), "%-24s %10llu in %6llu seeds   ", kTexts[index].name,
                  static_cast<unsigned long long>(injected[index]),
                  static_cast<unsigned long long>(seeds[index]));
    text += line.data();
    text += kTexts[index].what;
    text += '\n';
  }
  return text;
}

}  // namespace sluice::simulation
