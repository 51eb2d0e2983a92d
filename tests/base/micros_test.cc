#include "base/micros.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/hash.h"

namespace sluice {
namespace {

constexpr Micros kMost = std::numeric_limits<Micros>::max();
constexpr Micros kLeast = std::numeric_limits<Micros>::min();

TEST(Micros, ADecimalIsItsMillionths) {
  EXPECT_EQ(to_micros(19.99), 19'990'000);
  EXPECT_EQ(to_micros(-0.000001), -1);
  EXPECT_EQ(to_micros(0.1), 100'000);
  EXPECT_EQ(to_micros(-0.0), 0);
  EXPECT_EQ(to_micros(0.0000006), 1);
  EXPECT_EQ(to_micros(0.0000004), 0);
  EXPECT_EQ(to_micros(0.00000075), 1);
  EXPECT_EQ(to_micros(1.0 / 3), 333'333);
}

// As long as a double tells all six digits apart.
TEST(Micros, UpToTwoBillionsEveryDecimalOfSixDigitsIsExact) {
  for (std::uint64_t n = 0; n < 200'000; ++n) {
    const auto amount =
        static_cast<Micros>(mix64(n) % 4'000'000'000'000'000) - 2'000'000'000'000'000;
    ASSERT_EQ(to_micros(std::stod(format_micros(amount))), amount);
  }
}

TEST(Micros, BeyondTheRangeIsItsEnd) {
  EXPECT_EQ(to_micros(9.3e12), kMost);
  EXPECT_EQ(to_micros(-9.3e12), kLeast);
  EXPECT_EQ(to_micros(1e308), kMost);  // ten times as many micros are beyond double
  EXPECT_EQ(to_micros(std::numeric_limits<double>::infinity()), kMost);
  EXPECT_EQ(to_micros(-std::numeric_limits<double>::infinity()), kLeast);
  EXPECT_EQ(to_micros(std::nan("")), 0);
  EXPECT_EQ(to_micros(9.2e12), 9'200'000'000'000'000'000);
  EXPECT_EQ(to_micros_of_integer(7), 7'000'000);
  EXPECT_EQ(to_micros_of_integer(9'223'372'036'854), 9'223'372'036'854'000'000);
  EXPECT_EQ(to_micros_of_integer(9'223'372'036'855), kMost);
  EXPECT_EQ(to_micros_of_integer(-9'223'372'036'855), kLeast);
  EXPECT_EQ(to_micros_of_integer(kLeast), kLeast);
}

TEST(Micros, ASumStaysAtTheEndsOfItsRange) {
  EXPECT_EQ(add_saturating(5, -7), -2);
  EXPECT_EQ(add_saturating(kMost, 1), kMost);
  EXPECT_EQ(add_saturating(kLeast, -1), kLeast);
  EXPECT_EQ(add_saturating(kMost, kLeast), -1);
  EXPECT_EQ(add_saturating(add_saturating(kMost, 5), -5), kMost - 5);
}

TEST(Micros, AreWrittenWithoutZerosAtTheEnd) {
  EXPECT_EQ(format_micros(0), "0");
  EXPECT_EQ(format_micros(1'000'000), "1");
  EXPECT_EQ(format_micros(20'000'000), "20");
  EXPECT_EQ(format_micros(19'900'000), "19.9");
  EXPECT_EQ(format_micros(-1), "-0.000001");
  EXPECT_EQ(format_micros(1'000'010), "1.00001");
  EXPECT_EQ(format_micros(kMost), "9223372036854.775807");
  EXPECT_EQ(format_micros(kLeast), "-9223372036854.775808");
}

TEST(MicrosSum, HasOneFormInAnyOrderAndAWiderRange) {
  std::vector<Micros> amounts = {kMost,      1,         -1,    kLeast, 999'999,
                                 -1'000'001, 2'500'000, kMost, kMost};
  MicrosSum forward, backward;
  for (std::size_t n = 0; n < amounts.size(); ++n) {
    forward.add(amounts[n]);
    backward.add(amounts[amounts.size() - 1 - n]);
  }
  EXPECT_EQ(forward, backward);
  EXPECT_EQ(forward.units, 18'446'744'073'712);
  EXPECT_EQ(forward.micros, 51'611);
  MicrosSum negative;
  negative.add(-1);
  EXPECT_EQ(negative.units, -1);
  EXPECT_EQ(negative.micros, 999'999);
  EXPECT_NEAR(negative.value(), -1e-6, 1e-15);
}

}  // namespace
}  // namespace sluice
