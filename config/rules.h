// What a config must fulfil beyond each key's own type and range, and how problems are worded.
#pragma once

#include <string>
#include <vector>

#include "config/schema.h"
#include "config/suggest.h"
#include "config/toml_tree.h"

namespace sluice {

inline ConfigProblem problem_at(const Place& place, std::string key, std::string message) {
  return {place.file, place.line, place.column, std::move(key), std::move(message)};
}

// "unknown key; did you mean ...?", of a node whose full name is none of the `known`.
std::string unknown_text(const TomlNode& node, const std::string& name,
                         const std::vector<std::string>& known);

// Why `value` was refused, and what is allowed.
template <class Owner>
std::string refused_value_text(const Key<Owner>& key, const TomlNode& value) {
  std::string text = value.shown() + " is not allowed; must be " + key.allowed;
  const std::string example = example_text(key.type);
  if (!example.empty()) text += ", " + example;
  if (!key.words.empty() && value.kind == TomlNode::Kind::text) {
    const Nearest nearest = nearest_word(value.text, key.words);
    if (nearest.is_likely) text += "; did you mean " + toml_text(nearest.name) + "?";
  }
  return text;
}

// Reads [source.properties]; refuses what Sluice sets itself.
void read_properties(const TomlNode& table, SourceConfig& source, Problems& problems);

// Reads [features].
void read_features(const TomlNode& table, Config& config, Problems& problems);

// Rules over several keys; a key that `problems` names already is not judged again. `root` gives
// the places.
void check_rules(const TomlNode& root, const std::string& file, const Config& config,
                 Problems& problems);

}  // namespace sluice
