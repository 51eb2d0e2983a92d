// Numbers into text, without locale and without allocation of their own.
#pragma once

#include <charconv>
#include <concepts>
#include <cstdint>
#include <string>

namespace sluice {

template <std::integral Integer>
void append_number(std::string& out, Integer value) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  out.append(digits, end);
}

// 1990 -> "19.90", -5 -> "-0.05".
inline void append_hundredths(std::string& out, std::int64_t hundredths) {
  if (hundredths < 0) out += '-';
  const std::uint64_t magnitude = hundredths < 0 ? 0 - static_cast<std::uint64_t>(hundredths)
                                                 : static_cast<std::uint64_t>(hundredths);
  append_number(out, magnitude / 100);
  out += '.';
  out += static_cast<char>('0' + magnitude % 100 / 10);
  out += static_cast<char>('0' + magnitude % 10);
}

// Six significant digits.
inline void append_rate(std::string& out, double value) {
  char digits[40];
  const auto end =
      std::to_chars(digits, digits + sizeof digits, value, std::chars_format::general, 6).ptr;
  out.append(digits, end);
}

}  // namespace sluice
