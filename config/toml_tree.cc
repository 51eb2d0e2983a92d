#include "config/toml_tree.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <exception>
#include <sstream>

#include <toml++/toml.h>

namespace sluice {
namespace {

Place place_of(const toml::source_region& region, const std::string& file) {
  return {file, static_cast<int>(region.begin.line), static_cast<int>(region.begin.column)};
}

// Copies a toml++ value; tables come sorted by their keys' bytes.
TomlNode copy(const toml::node& from, const std::string& file) {
  using Kind = TomlNode::Kind;
  TomlNode to;
  to.place = place_of(from.source(), file);
  from.visit([&](const auto& value) {
    if constexpr (toml::is_table<decltype(value)>) {
      to.kind = Kind::table;
      for (const auto& [key, child] : value) {
        to.children.push_back(copy(child, file));
        to.children.back().name = key.str();
        to.children.back().key_place = place_of(key.source(), file);
      }
    } else if constexpr (toml::is_array<decltype(value)>) {
      to.kind = Kind::list;
      for (const toml::node& child : value) to.children.push_back(copy(child, file));
    } else if constexpr (toml::is_boolean<decltype(value)>) {
      to.kind = Kind::boolean;
      to.boolean = value.get();
      to.text = to.boolean ? "true" : "false";
    } else if constexpr (toml::is_integer<decltype(value)>) {
      to.kind = Kind::integer;
      to.integer = value.get();
      to.text = std::to_string(to.integer);
    } else if constexpr (toml::is_floating_point<decltype(value)>) {
      to.kind = Kind::real;
      to.real = value.get();
      to.text = format_real(to.real);
    } else if constexpr (toml::is_string<decltype(value)>) {
      to.kind = Kind::text;
      to.text = value.get();
    } else {
      to.kind = Kind::date;
      std::ostringstream text;
      text << value.get();
      to.text = text.str();
    }
  });
  return to;
}

constexpr std::size_t kShownLength = 60;

// toml++ bounds the depth of values, not that of names: a.a.a... would exhaust the stack. Gives the
// first line with a name of more than kMaxNameParts parts (or a text that reads like one); 0: none.
int line_of_endless_name(std::string_view text) {
  int line = 1;
  std::size_t parts = 1;
  bool is_after_word = false;
  char quote = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '\n') {
      ++line;
      quote = 0;
      parts = 1;
      is_after_word = false;
    } else if (quote != 0) {
      if (c == '\\' && quote == '"') ++at;
      if (c == quote) {
        quote = 0;
        is_after_word = true;
      }
    } else if (c == '"' || c == '\'') {
      quote = c;
    } else if (c == '.') {
      if (is_after_word && ++parts > kMaxNameParts) return line;
      is_after_word = false;
    } else if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-') {
      is_after_word = true;
    } else if (c != ' ' && c != '\t') {
      parts = 1;
      is_after_word = false;
    }
  }
  return 0;
}

}  // namespace

const TomlNode* TomlNode::find(std::string_view entry) const {
  if (!is_table()) return nullptr;
  const auto found = std::find_if(children.begin(), children.end(),
                                  [&](const TomlNode& child) { return child.name == entry; });
  return found == children.end() ? nullptr : &*found;
}

TomlNode* TomlNode::find(std::string_view entry) {
  return const_cast<TomlNode*>(std::as_const(*this).find(entry));
}

const TomlNode* TomlNode::find_path(std::string_view path) const {
  const std::size_t dot = path.find('.');
  const TomlNode* child = find(path.substr(0, dot));
  if (child == nullptr || dot == std::string_view::npos) return child;
  return child->find_path(path.substr(dot + 1));
}

std::string TomlNode::shown() const {
  std::string result;
  switch (kind) {
    case Kind::text:
      result = toml_text(text);
      break;
    case Kind::list:
      for (const TomlNode& item : children) result += (result.empty() ? "" : ", ") + item.shown();
      result = "[" + result + "]";
      break;
    case Kind::table:
      return "a table";
    default:
      result = text;
  }
  if (result.size() <= kShownLength) return result;
  std::size_t end = kShownLength;
  while (end > 0 && (static_cast<unsigned char>(result[end]) & 0xc0) == 0x80) --end;  // UTF-8
  return result.substr(0, end) + "...";
}

tl::expected<TomlNode, TomlError> parse_toml(std::string_view text, const std::string& file) {
  if (const int line = line_of_endless_name(text); line > 0) {
    return tl::unexpected(TomlError{
        {file, line, 1},
        "a name has more than " + std::to_string(kMaxNameParts) + " parts (a.b.c has three)"});
  }
  try {
    return copy(toml::parse(text, file), file);
  } catch (const toml::parse_error& error) {
    return tl::unexpected(TomlError{place_of(error.source(), file),
                                    "not valid TOML: " + std::string(error.description())});
  } catch (const std::exception& error) {
    return tl::unexpected(TomlError{{file, 0, 0}, std::string("not valid TOML: ") + error.what()});
  }
}

TomlNode parse_override_value(std::string_view text) {
  TomlNode word;
  word.kind = TomlNode::Kind::text;
  word.text = text;
  const auto document = parse_toml("value = " + std::string(text), kOverrideFile);
  // A line break could smuggle in a second key.
  if (document && document->children.size() == 1 && document->children[0].name == "value") {
    TomlNode value = document->children[0];
    if (value.is_scalar() && value.kind != TomlNode::Kind::text) value.text = text;
    word = std::move(value);
  }
  word.name.clear();
  const auto place_everywhere = [](auto& self, TomlNode& node) -> void {
    node.place = node.key_place = {kOverrideFile, 0, 0};
    for (TomlNode& child : node.children) self(self, child);
  };
  place_everywhere(place_everywhere, word);
  return word;
}

std::string toml_text(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      std::array<char, 8> escape{};
      std::snprintf(escape.data(), escape.size(), "\\u%04x", byte);
      result += escape.data();
    } else {
      result += c;
    }
  }
  return result + "\"";
}

std::string format_real(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 40> text{};
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), value);
  std::string result(text.data(), end);
  if (result.find_first_of(".e") == std::string::npos) result += ".0";
  return result;
}

std::string format_name(std::string_view name) {
  const bool is_bare = !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
  return is_bare ? std::string(name) : toml_text(name);
}

}  // namespace sluice
