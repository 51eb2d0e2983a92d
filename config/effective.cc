#include <algorithm>
#include <string_view>

#include "config/load.h"
#include "config/schema.h"

namespace sluice {
namespace {

constexpr std::size_t kWidth = 100;

// "# ..." lines of at most kWidth characters.
std::string comment(const std::string& text) {
  std::string result;
  std::size_t column = 0;
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    const std::size_t length = end - begin;
    if (column == 0 || column + 1 + length > kWidth) {
      if (column != 0) result += '\n';
      result += '#';
      column = 1;
    }
    result += ' ' + text.substr(begin, length);
    column += 1 + length;
    begin = end + 1;
  }
  return result + '\n';
}

std::string key_comment(const Key<Config>& key) {
  std::string rule = "Must be " + key.allowed;
  if (!key.unit.empty()) rule += " (" + key.unit + ")";
  return comment(key.description) + comment(rule + "; " + to_string(key.group) + ".");
}

std::string table_comment(const Key<Config>& key) {
  std::string text = comment(key.description + " These are " + to_string(key.group) + ".");
  if (key.name == "features") {
    for (const Key<FeatureConfig>& feature_key : feature_keys()) {
      text += comment("  " + feature_key.name + ": " + feature_key.description);
    }
  }
  return text;
}

}  // namespace

std::string effective_toml(const Config& config) {
  std::string text =
      comment("The effective config: every key, with its default where the config file has none.");
  std::string section;
  for (const Key<Config>& key : config_keys()) {
    if (key.type == ValueType::table) {
      section = key.name;
      text += "\n[" + section + "]\n" + table_comment(key);
      bool has_masked = false;
      for (const auto& [name, value] : key.entries(config)) {
        text += format_name(name) + " = " + value + "\n";
        has_masked = has_masked || value == toml_text(kMasked);
      }
      if (has_masked) text += comment(std::string(kMasked) + " stands for a secret.");
      continue;
    }
    const auto [key_section, name] = split_key(key.name);
    if (key_section != section) {
      section = key_section;
      text += "\n[" + section + "]\n";
    }
    text += key_comment(key) + name + " = " + key.get(config) + "\n";
  }
  return text;
}

std::map<std::string, std::string> semantic_keys(const Config& config, KeyGroup group) {
  const Config defaults;
  std::map<std::string, std::string> values;
  for (const Key<Config>& key : config_keys()) {
    if (key.group != group || key.is_shorthand) continue;
    if (key.is_of_actions && !config.streams.has_actions()) continue;
    if (key.type != ValueType::table) {
      const std::string value = key.get_meaning ? key.get_meaning(config) : key.get(config);
      if (!key.is_younger_than_data || value != key.get(defaults)) values[key.name] = value;
      continue;
    }
    for (const auto& [name, value] : key.entries(config)) values[key.name + "." + name] = value;
  }
  return values;
}

Digest semantic_hash(const Config& config, KeyGroup group) {
  std::string text;
  for (const auto& [key, value] : semantic_keys(config, group)) text += key + " = " + value + "\n";
  return hash128(text);
}

}  // namespace sluice
