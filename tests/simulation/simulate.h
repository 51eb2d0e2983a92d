// One seed from its plan to its verdict.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "ingest/event.h"
#include "tests/simulation/faults.h"
#include "tests/simulation/plan.h"

namespace sluice::simulation {

// How often the logs' own mistakes were met, over all seeds: a run that never meets them says
// little.
struct Reached {
  std::array<std::uint64_t, kRefusals> refused{};
  std::array<std::uint64_t, 4> modes{};
  std::uint64_t records = 0, samples = 0, converted = 0, lives = 0;
  std::uint64_t quiet_commits = 0;  // that advanced a quiet partition
  std::uint64_t checkpoints = 0, snapshots = 0;
  std::uint64_t seeds_late_after_quiet = 0;
  // Snapshots that were published as reproducible before a record came that had to be in them.
  std::uint64_t overtaken_snapshots = 0;
  void add(const Reached& other);
  std::string table() const;
};

struct Verdict {
  std::string failure;  // empty: all is well
  std::string plan;
  std::vector<std::string> trace;  // where it was asked for
  FaultCounts faults;
  Reached reached;
};

Verdict simulate(std::uint64_t seed, bool with_trace);

}  // namespace sluice::simulation
