// The list of all config keys: each with its place in Config, type, unit, kind, what is allowed and
// what it does. Loading, `--set`, `check --effective`, the reference, the JSON Schema and the
// semantic hashes all walk this one list. Defaults are those of a default-constructed Config.
#pragma once

#include <functional>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "config/load.h"
#include "config/toml_tree.h"

namespace sluice {

enum class ValueType {
  text,
  choice,    // one of `words`
  duration,  // "10 s"
  size,      // "64 MiB" or a number of bytes
  count,     // a whole number
  real,
  time,     // "2013-06-30T12:00:00Z"
  counts,   // a list of whole numbers
  buckets,  // "log:8" or a list of edges
  ranges,   // "A..B, C..D": of sequence numbers
  table,    // entries named by the user
};

// Inclusive; durations in ms, sizes in bytes. `above` excludes `min` itself.
struct Range {
  double min = 0;
  double max = std::numeric_limits<double>::infinity();
  bool above = false;
};

using Problems = std::vector<ConfigProblem>;

// `Owner` is Config, or FeatureConfig for the keys of one feature.
template <class Owner>
struct Key {
  std::string name;  // "join.tick"; of a feature: "type"
  KeyGroup group = KeyGroup::operational;
  ValueType type = ValueType::text;
  std::string unit;                // what a number counts, or which clock a duration is of
  std::vector<std::string> words;  // choice: all that is allowed; else: allowed beside others
  Range range;
  std::string allowed;  // completes "must be ..."
  std::string description;
  // Sets several other keys and is not kept by itself.
  bool is_shorthand = false;
  // Semantic, but data folders were begun before there was such a key: at its default, which says
  // what those do, it is not among the keys that a data folder keeps.
  bool is_younger_than_data = false;
  // Semantic, but only where there are actions (streams.actions.topic): else not among those keys.
  bool is_of_actions = false;

  // Takes the value over, or returns false and leaves `owner` as it was. Not for tables.
  std::function<bool(Owner& owner, const TomlNode& value)> set;
  // The value in canonical TOML; empty where the key does not apply. Not for tables.
  std::function<std::string(const Owner& owner)> get;
  // What the data folder keeps instead, where the value only names it (a file).
  std::function<std::string(const Owner& owner)> get_meaning;
  // Tables only: entry name -> value in canonical TOML, secrets masked.
  std::function<std::map<std::string, std::string>(const Owner& owner)> entries;
};

// In the order in which they are applied and printed: a shorthand before the keys that it sets, a
// section's own keys before those of its subsections.
const std::vector<Key<Config>>& config_keys();
// The keys of one entry of [features].
const std::vector<Key<FeatureConfig>>& feature_keys();

// "operational", "semantic, join" or "semantic, learner".
std::string to_string(KeyGroup group);

// "join.tick" -> {"join", "tick"}; "training.dense.beta1" -> {"training.dense", "beta1"}.
std::pair<std::string, std::string> split_key(const std::string& name);

// One feature as an inline table in canonical TOML, every key that applies written out.
std::string feature_toml(const FeatureConfig& feature);

// How a value of the type is written ("as in ..."); empty where that is plain.
std::string example_text(ValueType type);

// Byte sizes: "64 MiB"; KiB, MiB, GiB and TiB, or a whole number of bytes.
std::string format_size(std::uint64_t bytes);

// Properties of librdkafka whose values are secrets are shown as kMasked.
inline constexpr const char* kMasked = "***";
bool is_secret_property(const std::string& name);

}  // namespace sluice
