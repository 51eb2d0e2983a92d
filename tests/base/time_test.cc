#include "base/time.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace sluice {
namespace {

TEST(Duration, Units) {
  EXPECT_EQ(parse_duration("250 ms").value(), 250);
  EXPECT_EQ(parse_duration("10s").value(), 10'000);
  EXPECT_EQ(parse_duration("30 min").value(), 1'800'000);
  EXPECT_EQ(parse_duration("24 h").value(), 86'400'000);
  EXPECT_EQ(parse_duration("7   d").value(), 604'800'000);
  EXPECT_EQ(parse_duration("0 s").value(), 0);
}

TEST(Duration, WhatIsNoneIsAUsageErrorThatNamesIt) {
  for (const char* text : {"", "10", "s", "-1 s", "+1 s", "1.5 s", "1 m", "1 S", "1 s ", " 1 s",
                           "99999999999999999999 s", "9223372036854775807 d"}) {
    const Result<DurationMs> duration = parse_duration(text);
    ASSERT_FALSE(duration) << text;
    EXPECT_EQ(duration.error().kind, ErrorKind::usage);
    EXPECT_THAT(duration.error().message, ::testing::HasSubstr(std::string("'") + text + "'"));
  }
}

TEST(Duration, IsFormattedInItsLargestUnit) {
  EXPECT_EQ(format_duration(1'800'000), "30 min");
  EXPECT_EQ(format_duration(86'400'000), "1 d");
  EXPECT_EQ(format_duration(90'000), "90 s");
  EXPECT_EQ(format_duration(1'001), "1001 ms");
  EXPECT_EQ(format_duration(0), "0 s");
}

RC_GTEST_PROP(Duration, WhatIsFormattedReadsBack, ()) {
  const DurationMs duration = *rc::gen::inRange<DurationMs>(0, kTimeMax);
  RC_ASSERT(parse_duration(format_duration(duration)).value() == duration);
}

TEST(Time, Forms) {
  EXPECT_EQ(parse_time("1970-01-01").value(), 0);
  EXPECT_EQ(parse_time("2013-06-30").value(), 1'372'550'400'000);
  EXPECT_EQ(parse_time("2013-06-30T12:00:00Z").value(), 1'372'593'600'000);
  EXPECT_EQ(parse_time("2013-06-30T12:00:00.250Z").value(), 1'372'593'600'250);
  EXPECT_EQ(parse_time("2012-02-29").value(), 1'330'473'600'000);
  EXPECT_EQ(parse_time("1372593600250").value(), 1'372'593'600'250);
  EXPECT_EQ(parse_time("1969-12-31T23:59:59Z").value(), -1'000);
}

TEST(Time, WhatIsNoneIsAUsageError) {
  for (const char* text :
       {"", "x", "2013-", "2013-6-30x", "2013-02-29", "2013-13-01", "2013-06-31", "2013/06/30",
        "2013-06-30T12:00:00", "2013-06-30 12:00:00Z", "2013-06-30T24:00:00Z",
        "2013-06-30T12:60:00Z", "2013-06-30T12:00:60Z", "2013-06-30T12:00:00.2Z",
        "2013-06-30T12:00:00+01", "2013-06-30T", "-5", "99999999999999999999"}) {
    const Result<TimeMs> time = parse_time(text);
    ASSERT_FALSE(time) << text;
    EXPECT_EQ(time.error().kind, ErrorKind::usage) << text;
  }
}

TEST(Time, IsFormattedInUtc) {
  EXPECT_EQ(format_time(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(format_time(1'372'593'600'250), "2013-06-30T12:00:00.250Z");
  EXPECT_EQ(format_time(-1), "1969-12-31T23:59:59.999Z");
  EXPECT_EQ(format_time(kTimeMin), "the beginning");
  EXPECT_EQ(format_time(kTimeMax), "the end");
}

RC_GTEST_PROP(Time, WhatIsFormattedReadsBack, ()) {
  // From year 0 to 9999: the years of four digits.
  const TimeMs time = *rc::gen::inRange<TimeMs>(-62'167'219'200'000, 253'402'300'800'000);
  RC_ASSERT(parse_time(format_time(time)).value() == time);
}

TEST(FloorTo, RoundsTowardsThePast) {
  EXPECT_EQ(floor_to(1'999, 1'000), 1'000);
  EXPECT_EQ(floor_to(1'000, 1'000), 1'000);
  EXPECT_EQ(floor_to(0, 1'000), 0);
  EXPECT_EQ(floor_to(-1, 1'000), -1'000);
  EXPECT_EQ(floor_to(-1'000, 1'000), -1'000);
}

RC_GTEST_PROP(FloorTo, IsTheStartOfThePeriodThatHoldsTheTime, ()) {
  const TimeMs time = *rc::gen::inRange<TimeMs>(-1'000'000, 1'000'000);
  const DurationMs period = *rc::gen::inRange<DurationMs>(1, 5'000);
  const TimeMs start = floor_to(time, period);
  RC_ASSERT(start % period == 0);
  RC_ASSERT(start <= time && time < start + period);
}

TEST(SystemClock, SteadyTimeDoesNotGoBackAndSleepLastsAsLong) {
  SystemClock clock;
  const DurationMs before = clock.steady_ms();
  clock.sleep_ms(3);
  EXPECT_GE(clock.steady_ms() - before, 2);  // each reading is cut to whole milliseconds
  EXPECT_GT(clock.wall_ms(), parse_time("2020-01-01").value());
}

}  // namespace
}  // namespace sluice
