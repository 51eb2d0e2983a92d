#include "base/lanes.h"

#include <atomic>
#include <chrono>
#include <limits>
#include <mutex>
#include <numeric>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace sluice {
namespace {

class WorkersTest : public ::testing::TestWithParam<std::size_t> {};

TEST_P(WorkersTest, EachPieceIsDoneOnceAndIsThereAfterwards) {
  Workers workers(GetParam());
  EXPECT_EQ(workers.threads(), GetParam());
  for (const std::size_t pieces : {0, 1, 2, 3, 100, 10'000}) {
    std::vector<int> done(pieces, 0);
    std::atomic<bool> is_thread_in_range = true;
    workers.run(pieces, [&](std::size_t piece, std::size_t thread) {
      ++done[piece];
      if (thread >= GetParam()) is_thread_in_range = false;
    });
    EXPECT_EQ(done, std::vector<int>(pieces, 1)) << pieces;
    EXPECT_TRUE(is_thread_in_range);
  }
}

// A run must not see the one before it: its work, its count of pieces, its threads.
TEST_P(WorkersTest, ManyShortRuns) {
  Workers workers(GetParam());
  std::vector<std::uint64_t> sums(GetParam(), 0);
  std::uint64_t expected = 0;
  for (std::uint64_t run = 0; run < 2'000; ++run) {
    const std::size_t pieces = run % 5;
    workers.run(pieces, [&, run](std::size_t piece, std::size_t thread) {
      sums[thread] += run * 10 + piece;
    });
    for (std::size_t piece = 0; piece < pieces; ++piece) expected += run * 10 + piece;
  }
  EXPECT_EQ(std::accumulate(sums.begin(), sums.end(), std::uint64_t{0}), expected);
}

// Threads come to a run while it is open, when it is about to be closed, and too late; they look
// for it or have to be woken. No piece is passed over or done twice, and all are there afterwards.
TEST_P(WorkersTest, EachPieceIsDoneOnceWheneverTheThreadsWakeUp) {
  Workers workers(GetParam());
  std::mt19937 random(7);
  const auto begin = std::chrono::steady_clock::now();
  std::size_t runs = 0;
  while (std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(400)) {
    std::vector<int> done(random() % 8 == 0 ? random() % 200 : random() % 4, 0);
    const unsigned work = random() % 300;
    workers.run(done.size(), [&](std::size_t piece, std::size_t) {
      for (unsigned n = 0; n < work * (piece % 3); ++n) {
        std::atomic_signal_fence(std::memory_order_seq_cst);  // so that the loop takes its time
      }
      ++done[piece];
    });
    ASSERT_EQ(done, std::vector<int>(done.size(), 1)) << runs;
    const auto pause = std::chrono::microseconds(random() % 100);
    if (random() % 16 == 0) std::this_thread::sleep_for(pause);
    ++runs;
  }
  EXPECT_GT(runs, 100U);
}

TEST_P(WorkersTest, EndsWithoutEverHavingRun) {
  const Workers workers(GetParam());
}

TEST_P(WorkersTest, DenormalsAreZeroWhileItRuns) {
  Workers workers(GetParam());
  std::vector<float> halves(64, 1);
  workers.run(halves.size(), [&](std::size_t piece, std::size_t) {
    volatile float smallest = std::numeric_limits<float>::min();
    halves[piece] = smallest * 0.5F;
  });
  EXPECT_EQ(halves, std::vector<float>(64, 0));
}

INSTANTIATE_TEST_SUITE_P(Threads, WorkersTest, ::testing::Values(1, 2, 3, 8));

TEST(Workers, SeveralThreadsTakePart) {
  Workers workers(2);
  std::atomic<int> arrived = 0;
  // Each piece waits for the other: one thread alone would never return.
  workers.run(2, [&](std::size_t, std::size_t) {
    ++arrived;
    while (arrived < 2) std::this_thread::yield();
  });
  EXPECT_EQ(arrived, 2);
}

TEST(SideBySide, EachTaskIsDoneOnceAndIsThereAfterwards) {
  for (const std::size_t threads : {1, 2, 5}) {
    for (const std::size_t tasks : {0, 1, 3, 40}) {
      std::vector<int> done(tasks, 0);
      std::mutex mutex;
      std::set<std::thread::id> seen;
      run_side_by_side(tasks, threads, [&](std::size_t task) {
        ++done[task];
        const std::lock_guard lock(mutex);
        seen.insert(std::this_thread::get_id());
      });
      EXPECT_EQ(done, std::vector<int>(tasks, 1)) << threads;
      EXPECT_LE(seen.size(), threads);
    }
  }
}

TEST(SideBySide, SeveralThreadsTakePart) {
  std::atomic<int> arrived = 0;
  // Each task waits for the other: one thread alone would never return.
  run_side_by_side(2, 2, [&](std::size_t) {
    ++arrived;
    while (arrived < 2) std::this_thread::yield();
  });
  EXPECT_EQ(arrived, 2);
}

TEST(SideBySide, FloatsAreAsOutsideOfWorkers) {
  std::vector<float> halves(4, 0);
  run_side_by_side(halves.size(), 2, [&](std::size_t task) {
    volatile float smallest = std::numeric_limits<float>::min();
    halves[task] = smallest * 0.5F;
  });
  for (const float half : halves) EXPECT_GT(half, 0.0F);
}

TEST(WorkersDeathTest, NoThreadIsAProgrammingError) {
  EXPECT_DEATH(Workers workers(0), "sluice: bug: ");
}

TEST(FlushDenormals, EndsWithTheObject) {
  volatile float smallest = std::numeric_limits<float>::min();
  {
    const FlushDenormals flush;
    EXPECT_EQ(smallest * 0.5F, 0.0F);
  }
  EXPECT_GT(smallest * 0.5F, 0.0F);
}

}  // namespace
}  // namespace sluice
