// The kept seeds: those that once failed, and some of each mode. Fresh ones: ./dev test --seeds N.
#include <gtest/gtest.h>

#include <set>

#include <spdlog/spdlog.h>

#include "tests/simulation/seeds.h"

namespace sluice::simulation {
namespace {

const std::string kList = std::string(SLUICE_SOURCE_DIR) + "/tests/simulation/kept_seeds.txt";

TEST(Simulation, EveryKeptSeedHoldsSlow) {
  spdlog::set_level(spdlog::level::off);
  tell_seed_on_fatal_signals();
  Tally tally;
  for (const std::uint64_t seed : read_seeds(kList)) run_seed(seed, false, tally);
  EXPECT_TRUE(tally.failed.empty()) << tally.failed.size() << " seeds failed; see stderr";
  // A list that meets no faults would say nothing.
  EXPECT_GE(tally.seeds, 20u);
  for (std::size_t index = 0; index < kFaults; ++index) {
    EXPECT_GT(tally.faults.injected[index], 0u) << text_of(static_cast<Fault>(index)).name;
  }
  for (std::size_t mode = 0; mode < tally.reached.modes.size(); ++mode) {
    EXPECT_GT(tally.reached.modes[mode], 0u) << to_string(static_cast<Mode>(mode));
  }
  for (std::size_t reason = 0; reason < kRefusals; ++reason) {
    EXPECT_GT(tally.reached.refused[reason], 0u) << sluice::to_string(static_cast<Refusal>(reason));
  }
  std::cout << tally.reached.table() << tally.faults.table();
}

// The whole of it rests on this: a seed says everything.
TEST(Simulation, OneSeedIsOneRun) {
  spdlog::set_level(spdlog::level::off);
  for (const std::uint64_t seed : {3, 4, 5}) {
    const Verdict one = simulate(seed, true);
    const Verdict other = simulate(seed, true);
    EXPECT_EQ(one.plan, other.plan);
    EXPECT_EQ(one.trace, other.trace);
    EXPECT_EQ(one.failure, other.failure);
    EXPECT_EQ(one.faults.injected, other.faults.injected);
  }
}

}  // namespace
}  // namespace sluice::simulation
