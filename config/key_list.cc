#include "config/key_list.h"

#include <array>
#include <charconv>
#include <cmath>

namespace sluice {
namespace {

struct SizeUnit {
  std::string_view name;
  std::uint64_t bytes;
};
// Largest first, for format_size.
constexpr std::array<SizeUnit, 4> kSizeUnits = {
    {{"TiB", 1ULL << 40}, {"GiB", 1ULL << 30}, {"MiB", 1ULL << 20}, {"KiB", 1ULL << 10}}};

// A count without a fraction, a decimal number otherwise.
std::string format_bound(ValueType type, double value) {
  switch (type) {
    case ValueType::duration:
      return format_duration(static_cast<DurationMs>(value));
    case ValueType::size:
      return format_size(static_cast<std::uint64_t>(value));
    case ValueType::real: {
      const std::string text = format_real(value);
      return text.ends_with(".0") ? text.substr(0, text.size() - 2) : text;
    }
    default:
      return std::to_string(static_cast<std::uint64_t>(value));
  }
}

std::string range_text(ValueType type, const Range& range) {
  const std::string from = format_bound(type, range.min);
  const std::string low = range.above ? " above " + from : " from " + from;
  if (std::isinf(range.max)) return range.above ? low : low + " on";
  if (range.min == range.max) return ", " + from + " in this version";
  return low + (range.above ? " up to " : " to ") + format_bound(type, range.max);
}

std::string either(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " or ") + toml_text(word);
  return text;
}

}  // namespace

std::optional<std::string> read_text(const TomlNode& node) {
  // A shell's bare word 2024 is meant as a text where a text is wanted.
  const bool is_bare_word = node.place.is_override() && node.is_scalar();
  if (node.kind != TomlNode::Kind::text && !is_bare_word) return std::nullopt;
  return node.text;
}

std::optional<std::int64_t> read_duration(const TomlNode& node) {
  if (node.kind != TomlNode::Kind::text) return std::nullopt;
  const Result<DurationMs> value = parse_duration(node.text);
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<std::uint64_t> read_size(const TomlNode& node) {
  if (node.kind == TomlNode::Kind::integer) return read_count(node);
  if (node.kind != TomlNode::Kind::text) return std::nullopt;
  const std::string& text = node.text;
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  if (error != std::errc()) return std::nullopt;
  if (unit == "B") return number;
  for (const SizeUnit& known : kSizeUnits) {
    if (unit != known.name) continue;
    if (number > (1ULL << 62) / known.bytes) return std::nullopt;
    return number * known.bytes;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> read_count(const TomlNode& node) {
  if (node.kind != TomlNode::Kind::integer || node.integer < 0) return std::nullopt;
  return static_cast<std::uint64_t>(node.integer);
}

std::optional<double> read_real(const TomlNode& node) {
  if (node.kind == TomlNode::Kind::integer) return static_cast<double>(node.integer);
  if (node.kind != TomlNode::Kind::real || !std::isfinite(node.real)) return std::nullopt;
  return node.real;
}

std::optional<TimeMs> read_time(const TomlNode& node) {
  // Beyond this a time's text would have a year of five digits, which cannot be read back.
  constexpr TimeMs kYear10000 = 253'402'300'800'000;
  if (!node.is_scalar()) return std::nullopt;
  const Result<TimeMs> time = parse_time(node.text);
  return time && *time >= 0 && *time < kYear10000 ? std::optional(*time) : std::nullopt;
}

bool is_within(const Range& range, double value) {
  return (range.above ? value > range.min : value >= range.min) && value <= range.max;
}

std::string allowed_text(ValueType type, const std::vector<std::string>& words,
                         const Range& range) {
  const std::string text = range_text(type, range);
  switch (type) {
    case ValueType::text:
      return "a text";
    case ValueType::choice:
      return words.size() == 1 ? either(words) + " in this version" : either(words);
    case ValueType::duration:
      return "a duration" + text + (words.empty() ? "" : ", or " + either(words));
    case ValueType::size:
      return "a size" + text;
    case ValueType::count:
      return "a whole number" + text;
    case ValueType::real:
      return "a number" + text;
    case ValueType::time:
      return "a time from 1970 on";
    case ValueType::counts:
      return "a list of 1 to 16 whole numbers, each" + text;
    case ValueType::buckets:
      return "\"log:N\" with N from 1 to 64, a list of ascending numbers, or \"none\"";
    case ValueType::ranges:
      return "\"A..B, C..D\" with numbers from 1 on, ascending and apart; both ends belong to it";
    case ValueType::table:
      return "a table";
  }
  return "";
}

std::string example_text(ValueType type) {
  switch (type) {
    case ValueType::duration:
      return "as in \"10 s\"";
    case ValueType::size:
      return "as in \"64 MiB\" or a number of bytes";
    case ValueType::time:
      return "as in \"2013-06-30T12:00:00Z\", \"2013-06-30\" or milliseconds since 1970";
    default:
      return "";
  }
}

std::string format_size(std::uint64_t bytes) {
  for (const SizeUnit& unit : kSizeUnits) {
    if (bytes == 0 || bytes % unit.bytes != 0) continue;
    return std::to_string(bytes / unit.bytes) + " " + std::string(unit.name);
  }
  return std::to_string(bytes);
}

}  // namespace sluice
