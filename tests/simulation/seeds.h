// Runs of many seeds: kept ones, fresh ones, and what is told of them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/simulation/simulate.h"

namespace sluice::simulation {

// The seeds of a list: a number a line; what follows a '#' is for people.
std::vector<std::uint64_t> read_seeds(const std::filesystem::path& list);

// From the machine's entropy: other ones at every call.
std::vector<std::uint64_t> fresh_seeds(std::size_t count);

// A check that fails ends the process, as does a fault of memory: then the seed that was running is
// told on stderr, with the command that repeats it.
void tell_seed_on_fatal_signals();

struct Tally {
  FaultCounts faults;
  Reached reached;
  std::uint64_t seeds = 0;
  std::vector<std::uint64_t> failed;
};

// Runs one seed and adds it to the tally; what went wrong is told on stderr. `is_told`: tells its
// plan and all that was done to it too.
void run_seed(std::uint64_t seed, bool is_told, Tally& tally);

}  // namespace sluice::simulation
