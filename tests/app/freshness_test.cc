// How far the model is behind: each sample counts from when its label could be decided.
#include "app/freshness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace sluice {
namespace {

// The oracle sorts: a quantile is never below the right one, and at most 1/32 above.
TEST(FreshnessTest, QuantilesAreThoseOfTheSortedValuesAndAtMostAThirtySecondMore) {
  for (const std::uint64_t seed : {1U, 2U, 3U, 4U, 5U}) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    DurationHistogram histogram;
    std::vector<DurationMs> values;
    for (std::size_t left = 1 + random() % 3000; left > 0; --left) {
      // All sizes that a duration can have, small ones often.
      values.push_back(static_cast<DurationMs>(random() >> (1 + random() % 63)));
      histogram.add(values.back());
    }
    std::sort(values.begin(), values.end());
    const auto check = [&](double share, DurationMs found) {
      const auto rank =
          static_cast<std::size_t>(std::ceil(share * static_cast<double>(values.size())));
      const DurationMs right = values[std::max<std::size_t>(rank, 1) - 1];
      EXPECT_GE(found, right);
      EXPECT_LE(found - right, right / 32);
    };
    const FreshnessFigures figures = histogram.figures();
    check(0.5, figures.median);
    check(0.99, figures.p99);
    check(1, figures.longest);
    EXPECT_EQ(histogram.count(), values.size());
  }
}

TEST(FreshnessTest, CountsFromTheEndOfTheTickAndTheLargestDisorder) {
  Config config;
  config.join.tick = 1'000;
  config.streams.max_out_of_orderness = {200, 300, 100};
  Freshness freshness(config);
  EXPECT_FALSE(freshness.all());
  EXPECT_FALSE(freshness.take_recent());

  std::vector<Sample> samples(2);
  samples[0].time = 1'700'000'000'000;  // a tick's first moment, and its last
  samples[1].time = 1'700'000'000'999;
  freshness.add(samples, 1'700'000'001'340);
  const auto first = freshness.take_recent();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->median, 40);
  EXPECT_EQ(first->longest, 40);
  EXPECT_FALSE(freshness.take_recent());

  // A clock that is behind: nothing is learned before it can be.
  freshness.add(samples, 1'700'000'000'000);
  ASSERT_TRUE(freshness.all());
  EXPECT_EQ(freshness.all()->median, 0);
  EXPECT_EQ(freshness.all()->longest, 40);
  EXPECT_EQ(freshness.take_recent()->longest, 0);
}

}  // namespace
}  // namespace sluice
