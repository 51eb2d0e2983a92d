// What the tables of keys are written with.
#pragma once

#include <string>

namespace sluice {

inline constexpr double kSecond = 1e3;  // durations are milliseconds
inline constexpr double kHour = 3'600 * kSecond;
inline constexpr double kDay = 24 * kHour;
inline constexpr double kKiB = 1 << 10;  // sizes are bytes
inline constexpr double kMiB = 1 << 20;
inline constexpr double kGiB = 1 << 30;

inline bool is_any_text(const std::string&) {
  return true;
}

}  // namespace sluice
