#include "base/micros.h"

#include <cmath>

namespace sluice {

Micros to_micros(double value) {
  const double scaled = value * static_cast<double>(kMicros);
  if (std::isnan(scaled)) return 0;
  // 2^63 itself is the first double beyond the range.
  if (scaled >= 0x1p63) return INT64_MAX;
  if (scaled < -0x1p63) return INT64_MIN;
  return std::llround(scaled);
}

Micros to_micros_of_integer(std::int64_t value) {
  Micros amount = 0;
  if (!__builtin_mul_overflow(value, kMicros, &amount)) return amount;
  return value < 0 ? INT64_MIN : INT64_MAX;
}

std::string format_micros(Micros amount) {
  // Unsigned: the lowest number has no positive counterpart.
  const auto magnitude =
      amount < 0 ? 0 - static_cast<std::uint64_t>(amount) : static_cast<std::uint64_t>(amount);
  const std::uint64_t one = kMicros;
  std::string text = (amount < 0 ? "-" : "") + std::to_string(magnitude / one);
  std::string digits = std::to_string(one + magnitude % one);  // "1" and six digits
  digits.erase(digits.find_last_not_of('0') + 1);
  if (digits.size() > 1) text += "." + digits.substr(1);
  return text;
}

}  // namespace sluice
