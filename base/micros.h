// Amounts, as the value of a purchase, in whole millionths: their sums are exact, and the same bits
// everywhere.
#pragma once

#include <cstdint>
#include <string>

namespace sluice {

using Micros = std::int64_t;
inline constexpr Micros kMicros = 1'000'000;  // 1

// The nearest one (halves away from 0) to `value` · 10^6, computed in double; where that is beyond
// 64 bits the end of their range, and 0 of what is no number. A decimal of up to six digits behind
// the point comes out exactly up to ±2·10^9.
Micros to_micros(double value);
// The same of an integer, exact.
Micros to_micros_of_integer(std::int64_t value);

// The end of the range where the sum is beyond it.
constexpr Micros add_saturating(Micros a, Micros b) {
  Micros sum = 0;
  if (!__builtin_add_overflow(a, b, &sum)) return sum;
  return a < 0 ? INT64_MIN : INT64_MAX;
}

constexpr double to_double(Micros amount) {
  return static_cast<double>(amount) / static_cast<double>(kMicros);
}

// In decimal, without zeros at the end: "19.9", "-0.000001", "0".
std::string format_micros(Micros amount);

// A sum over a whole lineage: its range is wider by a million, and the order of what is added does
// not matter within it.
struct MicrosSum {
  std::int64_t units = 0;  // whole ones, rounded down
  Micros micros = 0;       // beside them, in [0, kMicros)

  void add(Micros amount) {
    units = add_saturating(units, amount / kMicros);
    micros += amount % kMicros;
    if (micros >= kMicros) {
      micros -= kMicros;
      units = add_saturating(units, 1);
    } else if (micros < 0) {
      micros += kMicros;
      units = add_saturating(units, -1);
    }
  }
  double value() const { return static_cast<double>(units) + to_double(micros); }
  friend bool operator==(const MicrosSum&, const MicrosSum&) = default;
};

}  // namespace sluice
