#include "app/record_repair.h"

#include <charconv>
#include <limits>
#include <optional>

#include <nlohmann/json.hpp>

namespace sluice {
namespace {

// A member of an object in a text: [begin, end) of its key, quotes included, and of its value.
struct Member {
  std::size_t key_begin, key_end, value_begin, value_end;
};

// Walks over a text that is known to be valid JSON.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  std::size_t skip_space(std::size_t at) const {
    return std::min(text_.find_first_not_of(" \t\r\n", at), text_.size());
  }
  std::size_t skip_string(std::size_t at) const {
    for (++at; text_[at] != '"'; ++at) {
      if (text_[at] == '\\') ++at;
    }
    return at + 1;
  }
  std::size_t skip_value(std::size_t at) const {
    if (text_[at] == '"') return skip_string(at);
    if (text_[at] != '{' && text_[at] != '[') {
      return std::min(text_.find_first_of(",]} \t\r\n", at), text_.size());
    }
    for (std::size_t depth = 0;;) {
      const char c = text_[at];
      if (c == '"') {
        at = skip_string(at);
        continue;
      }
      ++at;
      if (c == '{' || c == '[') ++depth;
      if ((c == '}' || c == ']') && --depth == 0) return at;
    }
  }

  // The first member of that name in the object that begins at `at`, as the join takes it.
  std::optional<Member> find(std::size_t at, std::string_view name) const {
    at = skip_space(at);
    if (at == text_.size() || text_[at] != '{') return std::nullopt;
    for (at = skip_space(at + 1); text_[at] != '}';) {
      Member member{};
      member.key_begin = at;
      member.key_end = skip_string(at);
      at = skip_space(member.key_end);  // the colon
      member.value_begin = skip_space(at + 1);
      member.value_end = skip_value(member.value_begin);
      const auto key =
          nlohmann::json::parse(text_.substr(member.key_begin, member.key_end - member.key_begin));
      if (key.get_ref<const std::string&>() == name) return member;
      at = skip_space(member.value_end);
      if (text_[at] == ',') at = skip_space(at + 1);
    }
    return std::nullopt;
  }

  // The member at a path, and where its object begins.
  std::optional<Member> find_path(std::string_view path, std::size_t& object) const {
    object = skip_space(0);
    while (true) {
      const std::size_t dot = path.find('.');
      const auto member = find(object, path.substr(0, dot));
      if (!member || dot == std::string_view::npos) return member;
      object = member->value_begin;
      path.remove_prefix(dot + 1);
    }
  }

 private:
  std::string_view text_;
};

bool is_json_object(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  return first != std::string_view::npos && text[first] == '{' && nlohmann::json::accept(text);
}

// "1351970209.884" · 1000 / 1, exactly; towards the past where it is no whole number. None where it
// is no plain decimal number or too large.
std::optional<TimeMs> scaled_time(std::string_view token, const Repair& repair) {
  if (token.size() >= 2 && token.front() == '"') token = token.substr(1, token.size() - 2);
  const bool is_negative = !token.empty() && token.front() == '-';
  if (is_negative) token.remove_prefix(1);
  __extension__ using Wide = __int128;
  Wide digits = 0;
  Wide divisor = repair.denominator;
  bool is_fraction = false;
  bool has_digits = false;
  constexpr Wide kMost = Wide{1} << 62;
  for (const char c : token) {
    if (c == '.' && !is_fraction && has_digits) {
      is_fraction = true;
      continue;
    }
    if (c < '0' || c > '9') return std::nullopt;
    has_digits = true;
    digits = digits * 10 + (c - '0');
    if (is_fraction) divisor *= 10;
    if (digits > kMost || divisor > kMost) return std::nullopt;
  }
  if (!has_digits || token.back() == '.') return std::nullopt;
  if (is_negative) digits = -digits;
  const Wide product = digits * static_cast<Wide>(repair.numerator);
  Wide time = product / divisor;
  if (product % divisor < 0) --time;
  time += repair.shift;
  if (time > std::numeric_limits<TimeMs>::max() || time < std::numeric_limits<TimeMs>::min()) {
    return std::nullopt;
  }
  return static_cast<TimeMs>(time);
}

Result<std::uint64_t> parse_factor(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  constexpr std::uint64_t kMost = 1'000'000'000;
  if (code != std::errc() || end != text.data() + text.size() || value == 0 || value > kMost) {
    return usage_error("--scale-time: '" + std::string(text) +
                       "' is no whole number from 1 to 1000000000");
  }
  return value;
}

}  // namespace

Result<Repair::Rename> parse_rename(const std::string& text) {
  const std::size_t split = text.find('=');
  Repair::Rename rename;
  if (split != std::string::npos) rename = {text.substr(0, split), text.substr(split + 1)};
  if (rename.from.empty() || rename.to.empty() || rename.to.find('.') != std::string::npos) {
    return usage_error("--rename-field: '" + text +
                       "' is not from=to, as in time=ts or user.name=id; the new name has no dot");
  }
  return rename;
}

Status parse_scale(const std::string& text, Repair& repair) {
  const std::string_view all(text);
  const std::size_t slash = all.find('/');
  SLUICE_ASSIGN(repair.numerator, parse_factor(all.substr(0, slash)));
  if (slash != std::string_view::npos) {
    SLUICE_ASSIGN(repair.denominator, parse_factor(all.substr(slash + 1)));
  }
  repair.changes_time = true;
  return {};
}

Result<RepairedRecord> repair_record(const Repair& repair, std::string_view record) {
  if (!is_json_object(record)) return stop_error("it is no JSON object");
  RepairedRecord result{std::string(record), {}};
  std::size_t object = 0;
  for (const Repair::Rename& rename : repair.renames) {
    const Scanner scanner(result.text);
    const auto member = scanner.find_path(rename.from, object);
    if (!member || scanner.find(object, rename.to)) continue;
    result.text.replace(member->key_begin, member->key_end - member->key_begin,
                        nlohmann::json(rename.to).dump());
    result.edits.push_back(rename.from + " renamed to " + rename.to);
  }
  if (!repair.changes_time) return result;
  const auto time = Scanner(result.text).find_path(repair.time_field, object);
  if (!time) return stop_error("it has no field " + repair.time_field);
  const std::string token =
      result.text.substr(time->value_begin, time->value_end - time->value_begin);
  const auto changed = scaled_time(token, repair);
  if (!changed) return stop_error(repair.time_field + ": no decimal number");
  const std::string now = std::to_string(*changed);
  if (now == token) return result;
  result.text.replace(time->value_begin, token.size(), now);
  result.edits.push_back(repair.time_field + " was " + token + ", is " + now);
  return result;
}

}  // namespace sluice
