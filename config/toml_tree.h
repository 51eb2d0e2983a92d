// A TOML document as plain data: what the schema reads. Every node knows its place, and overrides
// are merged into the same tree. toml++ is included in toml_tree.cc only.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sluice {

inline constexpr const char* kOverrideFile = "--set";

struct Place {
  std::string file;  // or kOverrideFile
  int line = 0;      // 1-based; 0: none
  int column = 0;    // 1-based
  bool is_override() const { return file == kOverrideFile; }
};

struct TomlNode {
  enum class Kind { boolean, integer, real, text, date, list, table };
  Kind kind = Kind::table;
  std::string name;  // its key in the table that holds it; empty in a list and at the root
  Place key_place;
  Place place;  // of the value
  bool boolean = false;
  std::int64_t integer = 0;
  double real = 0;
  std::string text;  // text: its content; other scalars: as written, or in canonical form
  std::vector<TomlNode> children;  // list: its items; table: its entries, names distinct

  bool is_table() const { return kind == Kind::table; }
  bool is_scalar() const { return kind != Kind::list && kind != Kind::table; }
  // A table's entry; null where there is none.
  const TomlNode* find(std::string_view entry) const;
  TomlNode* find(std::string_view entry);
  // The entry at "a.b.c"; null where there is none.
  const TomlNode* find_path(std::string_view path) const;
  // As one would write it in TOML, cut to a readable length: for messages.
  std::string shown() const;
};

struct TomlError {
  Place place;
  std::string message;
};

// Names of more parts than this are refused: a.b.c has three.
inline constexpr std::size_t kMaxNameParts = 16;

// tl::expected with an error that has a place. The parser stops at the first one.
tl::expected<TomlNode, TomlError> parse_toml(std::string_view text, const std::string& file);

// The value of an override: TOML, or else a bare word taken as text.
TomlNode parse_override_value(std::string_view text);

// Canonical TOML of scalars.
std::string toml_text(std::string_view text);
std::string format_real(double value);  // shortest text that reads back equal; always a TOML float
// `name` as a TOML key: bare where that is allowed, else quoted.
std::string format_name(std::string_view name);

}  // namespace sluice
