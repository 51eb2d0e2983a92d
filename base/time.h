// Event time, durations, and the clock edge. All event times and durations are in milliseconds.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "base/result.h"

namespace sluice {

using TimeMs = std::int64_t;      // event time: milliseconds since 1970-01-01T00:00:00Z
using DurationMs = std::int64_t;  // milliseconds

// Before and after every time an event can have (a log's end counts as kTimeMax).
inline constexpr TimeMs kTimeMin = std::numeric_limits<TimeMs>::min() / 4;
inline constexpr TimeMs kTimeMax = std::numeric_limits<TimeMs>::max() / 4;

// The start of the tick (or other period) that holds `time`; rounds towards the past.
constexpr TimeMs floor_to(TimeMs time, DurationMs period) {
  const TimeMs remainder = time % period;
  return remainder < 0 ? time - remainder - period : time - remainder;
}

// "250 ms", "10 s", "30 min", "24 h", "7 d"; a unit is required, the space is not.
Result<DurationMs> parse_duration(std::string_view text);
// The largest unit that divides it: 1800000 -> "30 min".
std::string format_duration(DurationMs duration);

// "2013-06-30T12:00:00Z", "2013-06-30" (midnight UTC), or milliseconds as a decimal number.
Result<TimeMs> parse_time(std::string_view text);
// ISO 8601 in UTC with milliseconds where there are any: "2013-06-30T12:00:00.250Z".
std::string format_time(TimeMs time);

// For measuring what takes less than a millisecond; never goes back.
std::int64_t steady_ns();

// One of the four edges that tests replace (clock, source, store, file system). Any thread may ask
// it.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimeMs wall_ms() = 0;        // may step; compared with event time only
  virtual DurationMs steady_ms() = 0;  // never goes back; for intervals and rates
  virtual void sleep_ms(DurationMs duration) = 0;
};

// The machine's clock: the only place that reads it.
class SystemClock final : public Clock {
 public:
  TimeMs wall_ms() override;
  DurationMs steady_ms() override;
  void sleep_ms(DurationMs duration) override;
};

}  // namespace sluice
