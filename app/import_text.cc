#include "app/import_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>

#include "base/json_text.h"

namespace sluice {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_short_integer(std::string_view text) {
  const std::string_view digits = text.substr(!text.empty() && text.front() == '-' ? 1 : 0);
  if (digits.empty() || digits.size() > 18 ||
      !std::all_of(digits.begin(), digits.end(), is_digit)) {
    return false;
  }
  return digits.front() != '0' || (digits.size() == 1 && digits.size() == text.size());
}

constexpr double kMostMs = 31'556'952'000'000.0;  // 1000 years

// Integers exactly, decimals rounded to the millisecond.
std::optional<std::int64_t> parse_scaled(std::string_view text, std::int64_t scale) {
  std::int64_t whole = 0;
  const char* const end = text.data() + text.size();
  if (const auto [stop, code] = std::from_chars(text.data(), end, whole);
      code == std::errc() && stop == end) {
    if (std::abs(static_cast<double>(whole)) > 10 * kMostMs / static_cast<double>(scale)) return {};
    return whole * scale;
  }
  const auto number = parse_number(text);
  if (!number || std::abs(*number) > 10 * kMostMs / static_cast<double>(scale)) return {};
  return std::llround(*number * static_cast<double>(scale));
}

std::optional<TimeMs> parse_iso(std::string_view text) {
  std::string form(text);
  if (form.size() > 10 && form[10] == ' ') form[10] = 'T';
  if (form.size() > 10 && form.back() != 'Z') form += 'Z';
  const bool has_date = form.size() >= 10 && form[4] == '-';  // parse_time() takes numbers too
  if (!has_date) return {};
  const auto time = parse_time(form);
  return time ? std::optional(*time) : std::nullopt;
}

}  // namespace

void append_json_id(std::string& out, std::string_view text) {
  if (is_short_integer(text)) {
    out += text;
  } else {
    append_json_text(out, text);
  }
}

std::optional<double> parse_number(std::string_view text) {
  if (text.starts_with("+-")) return {};  // a sign behind a sign
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(text.data(), end, value);
  if (code != std::errc() || stop != end || !std::isfinite(value)) return {};
  return value;
}

std::optional<bool> parse_label(std::string_view text) {
  if (text == "0" || text == "0.0") return false;
  if (text == "1" || text == "1.0") return true;
  return {};
}

std::optional<TimeMs> parse_table_time(std::string_view text, TimeUnit unit, TimeMs start) {
  if (unit == TimeUnit::iso) return parse_iso(text);
  const bool is_seconds = unit == TimeUnit::seconds || unit == TimeUnit::seconds_from_start;
  const bool is_from_start =
      unit == TimeUnit::seconds_from_start || unit == TimeUnit::milliseconds_from_start;
  auto time = parse_scaled(text, is_seconds ? 1'000 : 1);
  if (time && is_from_start) *time += start;
  return time;
}

std::optional<DurationMs> parse_seconds(std::string_view text) {
  const auto duration = parse_scaled(text, 1'000);
  if (!duration || *duration < 0 || static_cast<double>(*duration) > kMostMs) return {};
  return duration;
}

std::string feature_name(std::string_view column) {
  constexpr std::size_t kMost = 64;
  std::string name;
  for (const char c : column.substr(0, kMost)) {
    const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    name += is_letter || is_digit(c) || (c == '-' && !name.empty()) ? c : '_';
  }
  return name.empty() ? "_" : name;
}

}  // namespace sluice
