#include "tests/simulation/seeds.h"

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>

#include <unistd.h>

namespace sluice::simulation {
namespace {

// Read by a signal handler, which can be given nothing.
std::atomic<std::uint64_t> running_seed{0};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

// Only what a signal handler may do.
void on_fatal_signal(int) {
  char text[128] = "ended by a signal; repeat with ./dev test --seed ";
  char digits[24];
  std::size_t size = std::strlen(text);
  std::size_t count = 0;
  std::uint64_t seed = running_seed;
  do {
    digits[count++] = static_cast<char>('0' + seed % 10);
    seed /= 10;
  } while (seed > 0);
  while (count > 0) text[size++] = digits[--count];
  text[size++] = '\n';
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text, size);
}

}  // namespace

std::vector<std::uint64_t> read_seeds(const std::filesystem::path& list) {
  std::vector<std::uint64_t> seeds;
  std::ifstream in(list);
  for (std::string line; std::getline(in, line);) {
    line = line.substr(0, line.find('#'));
    if (line.find_first_of("0123456789") == std::string::npos) continue;
    seeds.push_back(std::strtoull(line.c_str(), nullptr, 10));
  }
  return seeds;
}

std::vector<std::uint64_t> fresh_seeds(std::size_t count) {
  std::random_device entropy;
  std::vector<std::uint64_t> seeds;
  // Short enough to be typed.
  for (std::size_t index = 0; index < count; ++index) seeds.push_back(entropy());
  return seeds;
}

void tell_seed_on_fatal_signals() {
  for (const int signal : {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV}) {
    struct sigaction action {};
    sigaction(signal, nullptr, &action);
    if (action.sa_handler != SIG_DFL) continue;  // a sanitizer's, which tells more
    action.sa_handler = on_fatal_signal;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigaction(signal, &action, nullptr);
  }
}

void run_seed(std::uint64_t seed, bool is_told, Tally& tally) {
  running_seed = seed;
  const Verdict verdict = simulate(seed, true);
  ++tally.seeds;
  tally.faults.add_seed(verdict.faults);
  tally.reached.add(verdict.reached);
  if (is_told || !verdict.failure.empty()) {
    std::fprintf(stderr, "%s", verdict.plan.c_str());
    const std::size_t lines = verdict.trace.size();
    constexpr std::size_t kLastLines = 25;
    const std::size_t begin = is_told || lines < kLastLines ? 0 : lines - kLastLines;
    for (std::size_t index = begin; index < lines; ++index) {
      std::fprintf(stderr, "  %s\n", verdict.trace[index].c_str());
    }
  }
  if (verdict.failure.empty()) return;
  tally.failed.push_back(seed);
  std::fprintf(stderr, "seed %llu: %s\nrepeat with ./dev test --seed %llu\n",
               static_cast<unsigned long long>(seed), verdict.failure.c_str(),
               static_cast<unsigned long long>(seed));
  std::fflush(stderr);
}

}  // namespace sluice::simulation
