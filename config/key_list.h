// How the list of keys is written down: KeyList binds a section's keys to the fields of its struct
// and knows the TOML form of each type. Used by config/schema.cc only.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/schema.h"

namespace sluice {

// A value as the schema wants it, or none.
std::optional<std::string> read_text(const TomlNode& node);
std::optional<std::int64_t> read_duration(const TomlNode& node);
std::optional<std::uint64_t> read_size(const TomlNode& node);
std::optional<std::uint64_t> read_count(const TomlNode& node);
std::optional<double> read_real(const TomlNode& node);
std::optional<TimeMs> read_time(const TomlNode& node);

bool is_within(const Range& range, double value);
// The noun phrase that completes "must be ...".
std::string allowed_text(ValueType type, const std::vector<std::string>& words, const Range& range);

// Adds keys of one section to a list. `Part` takes an Owner& to the section's struct; a field takes
// that struct to a value: member pointers, or generic lambdas that keep constness.
template <class Owner, class Part>
class KeyList {
 public:
  KeyList(std::vector<Key<Owner>>& keys, std::string prefix, KeyGroup group, Part part)
      : keys_(keys), prefix_(std::move(prefix)), group_(group), part_(part) {}

  // The keys that follow are of another kind than the section's.
  void group(KeyGroup group) { group_ = group; }

  template <class Field>
  Key<Owner>& text(const char* name, Field field, std::string allowed, const char* description,
                   bool (*is_allowed)(const std::string&)) {
    Key<Owner>& key = add(name, ValueType::text, "", {}, {}, description);
    key.allowed = std::move(allowed);
    bind(
        key, field,
        [is_allowed](const TomlNode& node) {
          std::optional<std::string> value = read_text(node);
          return value && is_allowed(*value) ? value : std::nullopt;
        },
        toml_text);
    return key;
  }

  // A text of which only `words` are allowed.
  template <class Field>
  Key<Owner>& word(const char* name, Field field, std::vector<std::string> words,
                   const char* description) {
    Key<Owner>& key = add(name, ValueType::choice, "", words, {}, description);
    bind(
        key, field,
        [words](const TomlNode& node) -> std::optional<std::string> {
          const std::optional<std::string> value = read_text(node);
          for (const std::string& known : words) {
            if (value == known) return value;
          }
          return std::nullopt;
        },
        toml_text);
    return key;
  }

  // An enum; `values` in the order of the enumerators, from 0.
  template <class Enum, class Field>
  Key<Owner>& choice(const char* name, Field field, std::vector<std::string> values,
                     const char* description) {
    Key<Owner>& key = add(name, ValueType::choice, "", values, {}, description);
    bind(
        key, field,
        [values](const TomlNode& node) -> std::optional<Enum> {
          const std::optional<std::string> value = read_text(node);
          for (std::size_t i = 0; i < values.size(); ++i) {
            if (value == values[i]) return static_cast<Enum>(i);
          }
          return std::nullopt;
        },
        [values](Enum value) { return toml_text(values[static_cast<std::size_t>(value)]); });
    return key;
  }

  template <class Field>
  Key<Owner>& duration(const char* name, Field field, Range range, const char* clock,
                       const char* description) {
    Key<Owner>& key = add(name, ValueType::duration, clock, {}, range, description);
    bind(key, field, within<DurationMs>(read_duration, range),
         [](DurationMs value) { return toml_text(format_duration(value)); });
    return key;
  }

  // A duration that may be absent; `none` is the word for that.
  template <class Field>
  Key<Owner>& optional_duration(const char* name, Field field, Range range, const char* none,
                                const char* clock, const char* description) {
    Key<Owner>& key = add(name, ValueType::duration, clock, {none}, range, description);
    const auto read = within<DurationMs>(read_duration, range);
    using Value = std::optional<DurationMs>;
    bind(
        key, field,
        [read, none](const TomlNode& node) -> std::optional<Value> {
          if (read_text(node) == none) return Value();
          const std::optional<DurationMs> value = read(node);
          return value ? std::optional<Value>(value) : std::nullopt;
        },
        [none](const Value& value) { return toml_text(value ? format_duration(*value) : none); });
    return key;
  }

  template <class Field>
  Key<Owner>& size(const char* name, Field field, Range range, const char* description) {
    Key<Owner>& key = add(name, ValueType::size, "", {}, range, description);
    bind(key, field, within<std::uint64_t>(read_size, range), [](std::uint64_t value) {
      const std::string text = format_size(value);
      return text.find(' ') == std::string::npos ? text : toml_text(text);
    });
    return key;
  }

  template <class Field>
  Key<Owner>& count(const char* name, Field field, Range range, const char* unit,
                    const char* description) {
    Key<Owner>& key = add(name, ValueType::count, unit, {}, range, description);
    bind(key, field, within<std::uint64_t>(read_count, range),
         [](std::uint64_t value) { return std::to_string(value); });
    return key;
  }

  template <class Field>
  Key<Owner>& real(const char* name, Field field, Range range, const char* description) {
    Key<Owner>& key = add(name, ValueType::real, "", {}, range, description);
    bind(key, field, within<double>(read_real, range), format_real);
    return key;
  }

  template <class Field>
  Key<Owner>& time(const char* name, Field field, const char* description) {
    Key<Owner>& key = add(name, ValueType::time, "event time", {}, {}, description);
    bind(key, field, read_time, [](TimeMs value) { return toml_text(format_time(value)); });
    return key;
  }

  // Fills in what every key has; binding is the caller's.
  Key<Owner>& add(const char* name, ValueType type, const char* unit,
                  std::vector<std::string> words, Range range, const char* description) {
    Key<Owner> key;
    key.name = prefix_.empty() ? name : prefix_ + "." + name;
    key.group = group_;
    key.type = type;
    key.unit = unit;
    key.allowed = allowed_text(type, words, range);
    key.words = std::move(words);
    key.range = range;
    key.description = description;
    keys_.push_back(std::move(key));
    return keys_.back();
  }

  // `read` gives an optional value of the field's type, `format` its canonical TOML.
  template <class Field, class Read, class Format>
  void bind(Key<Owner>& key, Field field, Read read, Format format) {
    key.set = [part = part_, field, read](Owner& owner, const TomlNode& node) {
      auto value = read(node);
      if (!value) return false;
      std::invoke(field, std::invoke(part, owner)) = *std::move(value);
      return true;
    };
    key.get = [part = part_, field, format](const Owner& owner) -> std::string {
      return format(std::invoke(field, std::invoke(part, owner)));
    };
  }

 private:
  template <class T>
  static auto within(std::optional<T> (*read)(const TomlNode&), Range range) {
    return [read, range](const TomlNode& node) {
      const std::optional<T> value = read(node);
      return value && is_within(range, static_cast<double>(*value)) ? value : std::nullopt;
    };
  }

  std::vector<Key<Owner>>& keys_;
  std::string prefix_;
  KeyGroup group_;
  Part part_;
};

// The keys of [serving] (config/schema_serving.cc).
void add_serving_keys(std::vector<Key<Config>>& keys);

}  // namespace sluice
