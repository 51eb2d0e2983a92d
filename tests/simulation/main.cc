// simulation --seeds N | --seconds S | --minutes M | --seed S | --kept | --from A --seeds N
//            [--part K --parts N]
//
// Exit code 0 where every seed held, 1 where one failed, 2 for a wrong usage.
#include <chrono>
#include <cstdio>

#include <spdlog/spdlog.h>
#include <CLI/CLI.hpp>

#include "tests/simulation/seeds.h"

int main(int argc, char** argv) {
  using namespace sluice::simulation;
  CLI::App app("Runs the service under a seeded simulator of everything around it");
  std::uint64_t count = 0;
  std::uint64_t from = 0;
  double seconds = 0;
  double minutes = 0;
  std::vector<std::uint64_t> seeds;
  std::size_t parts = 1;
  std::size_t part = 0;
  bool is_kept = false;
  bool is_first_only = false;
  const auto* from_option = app.add_option("--from", from, "Seeds FROM, FROM+1, ... instead");
  app.add_option("--seeds", count, "So many fresh seeds");
  app.add_option("--seconds", seconds, "As many fresh seeds as fit into so many seconds");
  app.add_option("--minutes", minutes, "The same in minutes");
  app.add_option("--seed", seeds, "Repeats these seeds and tells what was done");
  app.add_flag("--kept", is_kept, "The kept seeds");
  app.add_option("--parts", parts, "Of the seeds only one in so many: several processes share them")
      ->check(CLI::PositiveNumber);
  app.add_option("--part", part, "Which of the parts, from 0 on");
  app.add_flag("--until-failure", is_first_only, "Stops at the first seed that fails");
  CLI11_PARSE(app, argc, argv);
  seconds += 60 * minutes;
  if (count == 0 && seconds == 0 && seeds.empty() && !is_kept) {
    std::fputs(app.help().c_str(), stderr);
    return 2;
  }
  tell_seed_on_fatal_signals();
  const bool is_told = !seeds.empty();
  spdlog::set_level(is_told ? spdlog::level::warn : spdlog::level::off);

  if (is_kept) {
    for (const std::uint64_t seed :
         read_seeds(std::string(SLUICE_SOURCE_DIR) + "/tests/simulation/kept_seeds.txt")) {
      seeds.push_back(seed);
    }
  }
  if (*from_option) {
    for (std::uint64_t index = 0; index < count; ++index) seeds.push_back(from + index);
  } else if (count > 0) {
    for (const std::uint64_t seed : fresh_seeds(count)) seeds.push_back(seed);
  }
  const auto begin = std::chrono::steady_clock::now();
  const auto passed = [&begin] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  Tally tally;
  const auto must_stop = [&] { return is_first_only && !tally.failed.empty(); };
  for (std::size_t index = part; index < seeds.size() && !must_stop(); index += parts) {
    run_seed(seeds[index], is_told, tally);
  }
  while (!must_stop() && passed() < seconds) run_seed(fresh_seeds(1).front(), false, tally);

  std::printf("%llu seeds in %.1f s, %zu failed\n%s%s",
              static_cast<unsigned long long>(tally.seeds), passed(), tally.failed.size(),
              tally.reached.table().c_str(), tally.faults.table().c_str());
  for (const std::uint64_t seed : tally.failed) {
    std::printf("failed: repeat with ./dev test --seed %llu\n",
                static_cast<unsigned long long>(seed));
  }
  return tally.failed.empty() ? 0 : 1;
}
