// Replays, in every build, the inputs that are kept for the fuzzers, and a few random changes of
// each of them. A fuzzer aborts where it finds something.
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "base/file.h"

extern "C" {
int fuzz_events(const std::uint8_t* data, std::size_t size);
int fuzz_config(const std::uint8_t* data, std::size_t size);
int fuzz_snapshots(const std::uint8_t* data, std::size_t size);
int fuzz_join_state(const std::uint8_t* data, std::size_t size);
int fuzz_checkpoints(const std::uint8_t* data, std::size_t size);
int fuzz_log_files(const std::uint8_t* data, std::size_t size);
int fuzz_csv(const std::uint8_t* data, std::size_t size);
int fuzz_requests(const std::uint8_t* data, std::size_t size);
}

namespace sluice {
namespace {

constexpr std::uint64_t kSeed = 20;
constexpr int kChanges = 50;  // of each kept input
constexpr std::size_t kFewest = 10;

using Fuzzer = int (*)(const std::uint8_t* data, std::size_t size);

void run(Fuzzer fuzzer, const std::string& input) {
  EXPECT_EQ(fuzzer(reinterpret_cast<const std::uint8_t*>(input.data()), input.size()), 0);
}

std::string changed(std::string input, std::mt19937_64& random) {
  const auto below = [&](std::size_t end) { return static_cast<std::size_t>(random() % end); };
  for (std::size_t left = 1 + below(3); left > 0; --left) {
    const std::size_t place = below(input.size() + 1);
    switch (random() % 4) {
      case 0:
        input.insert(place, 1 + below(3), static_cast<char>(random()));
        break;
      case 1:
        input.erase(place, 1 + below(8));
        break;
      case 2:
        input.insert(place, input.substr(below(input.size() + 1), below(16)));
        break;
      default:
        if (place < input.size()) input[place] = static_cast<char>(random());
    }
  }
  return input;
}

void replay(const char* name, Fuzzer fuzzer) {
  RealFileSystem files;
  const fs::path folder = fs::path(SLUICE_FUZZ_CORPUS) / name;
  const auto names = files.list(folder);
  ASSERT_TRUE(names) << names.error().message;
  ASSERT_GE(names->size(), kFewest) << folder;
  // Where it aborts, the last line says with what: to repeat it, run the test again.
  std::mt19937_64 random(kSeed);
  run(fuzzer, "");
  for (const std::string& file : *names) {
    std::printf("%s, then %d changes of it (seed %llu)\n", (folder / file).c_str(), kChanges,
                static_cast<unsigned long long>(kSeed));
    std::fflush(stdout);
    const auto input = files.read(folder / file);
    ASSERT_TRUE(input) << input.error().message;
    run(fuzzer, *input);
    for (int n = 0; n < kChanges; ++n) run(fuzzer, changed(*input, random));
  }
}

TEST(FuzzCorpus, Events) {
  replay("events", fuzz_events);
}
TEST(FuzzCorpus, Config) {
  replay("config", fuzz_config);
}
TEST(FuzzCorpus, Snapshots) {
  replay("snapshots", fuzz_snapshots);
}
TEST(FuzzCorpus, JoinState) {
  replay("join_state", fuzz_join_state);
}
TEST(FuzzCorpus, Checkpoints) {
  replay("checkpoints", fuzz_checkpoints);
}
TEST(FuzzCorpus, LogFiles) {
  replay("log_files", fuzz_log_files);
}
TEST(FuzzCorpus, Csv) {
  replay("csv", fuzz_csv);
}
TEST(FuzzCorpus, Requests) {
  replay("requests", fuzz_requests);
}

}  // namespace
}  // namespace sluice
