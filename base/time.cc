#include "base/time.h"

#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <thread>

namespace sluice {
namespace {

struct Unit {
  std::string_view name;
  DurationMs size_ms;
};
// Largest first, for format_duration.
constexpr std::array<Unit, 5> kUnits = {
    {{"d", 86'400'000}, {"h", 3'600'000}, {"min", 60'000}, {"s", 1'000}, {"ms", 1}}};

bool all_digits(std::string_view text) {
  if (text.empty()) return false;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
  }
  return true;
}

bool parse_field(std::string_view text, std::size_t at, std::size_t length, int& value) {
  if (at + length > text.size()) return false;
  const std::string_view part = text.substr(at, length);
  if (!all_digits(part)) return false;
  std::from_chars(part.data(), part.data() + part.size(), value);
  return true;
}

}  // namespace

Result<DurationMs> parse_duration(std::string_view text) {
  DurationMs number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  if (error == std::errc() && number >= 0) {
    for (const Unit& known : kUnits) {
      if (unit != known.name) continue;
      if (number > kTimeMax / known.size_ms) break;
      return number * known.size_ms;
    }
  }
  return usage_error("'" + std::string(text) +
                     "' is not a duration: a whole number and ms, s, min, h or d, as in \"10 s\"");
}

std::string format_duration(DurationMs duration) {
  for (const Unit& unit : kUnits) {
    if (duration % unit.size_ms == 0 && (duration != 0 || unit.name == "s")) {
      return std::to_string(duration / unit.size_ms) + " " + std::string(unit.name);
    }
  }
  return std::to_string(duration) + " ms";
}

Result<TimeMs> parse_time(std::string_view text) {
  const Error error = usage_error("'" + std::string(text) +
                                  "' is not a time: as in 2013-06-30T12:00:00Z, 2013-06-30, or "
                                  "milliseconds since 1970");
  if (all_digits(text)) {
    TimeMs time = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), time);
    if (code != std::errc() || time > kTimeMax) return error;
    return time;
  }
  int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0, millisecond = 0;
  if (!parse_field(text, 0, 4, year) || !parse_field(text, 5, 2, month) ||
      !parse_field(text, 8, 2, day) || text[4] != '-' || text[7] != '-') {
    return error;
  }
  if (text.size() > 10) {
    const bool has_fraction = text.size() == 24 && text[19] == '.';
    if ((text.size() != 20 && !has_fraction) || text[10] != 'T' || text[13] != ':' ||
        text[16] != ':' || text.back() != 'Z' || !parse_field(text, 11, 2, hour) ||
        !parse_field(text, 14, 2, minute) || !parse_field(text, 17, 2, second) ||
        (has_fraction && !parse_field(text, 20, 3, millisecond)) || hour > 23 || minute > 59 ||
        second > 59) {
      return error;
    }
  }
  using namespace std::chrono;
  const year_month_day date{std::chrono::year{year},
                            std::chrono::month(static_cast<unsigned>(month)),
                            std::chrono::day(static_cast<unsigned>(day))};
  if (!date.ok()) return error;
  const milliseconds since_epoch = sys_days{date}.time_since_epoch() + hours{hour} +
                                   minutes{minute} + seconds{second} + milliseconds{millisecond};
  return since_epoch.count();
}

std::string format_time(TimeMs time) {
  constexpr TimeMs kYear0 = -62'167'219'200'000;
  constexpr TimeMs kYear10000 = 253'402'300'800'000;
  if (time < kYear0) return "the beginning";
  if (time >= kYear10000) return "the end";
  using namespace std::chrono;
  const sys_time<milliseconds> point{milliseconds{time}};
  const auto day_start = floor<days>(point);
  const year_month_day date{day_start};
  const hh_mm_ss clock{point - day_start};
  std::array<char, 80> text{};
  std::snprintf(text.data(), text.size(), "%04d-%02u-%02uT%02d:%02d:%02d",
                static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                static_cast<unsigned>(date.day()), static_cast<int>(clock.hours().count()),
                static_cast<int>(clock.minutes().count()),
                static_cast<int>(clock.seconds().count()));
  std::string result = text.data();
  if (const auto rest = clock.subseconds().count(); rest != 0) {
    std::snprintf(text.data(), text.size(), ".%03d", static_cast<int>(rest));
    result += text.data();
  }
  return result + "Z";
}

TimeMs SystemClock::wall_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

std::int64_t steady_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

DurationMs SystemClock::steady_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

void SystemClock::sleep_ms(DurationMs duration) {
  std::this_thread::sleep_for(std::chrono::milliseconds(duration));
}

}  // namespace sluice
