#include <cmath>
#include <string>

#include <nlohmann/json.hpp>

#include "config/load.h"
#include "config/schema.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

const char* const kIntroduction =
    R"(# The config

Every key of a config file. This page is made from the list in `config/schema.cc` and a test keeps
it so. `config/sluice.toml` is an annotated file to start from; `sluice check FILE` names every
problem of a file, and `sluice check --effective FILE` prints all of its keys with their values.

- *Kind*: the model is a function of the event logs and the *semantic* keys. Those of the join are
  kept beside the join's state, those of the learner beside the model; a data folder that was begun
  with other values is refused, naming the keys that differ. *Operational* keys may change at any
  start.
- *Durations* are texts of a whole number and a unit: `ms`, `s`, `min`, `h` or `d`, as in `"10 s"`.
- *Times* are texts, `"2013-06-30T12:00:00Z"` or `"2013-06-30"`, or milliseconds since 1970.
- *Sizes* are numbers of bytes, or texts with `KiB`, `MiB`, `GiB` or `TiB`, as in `"64 MiB"`.
- `--set section.key=value` sets any key from the command line; it replaces what the file says, the
  last one wins. The value is TOML, or a bare word: `--set join.tick="500 ms"`,
  `--set training.dense.learning_rate=0.01`, `--set features.site.type=id`.
- Unknown keys are refused.
)";

// '|' would end a table's cell, '<' would begin a tag.
std::string cell(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '|' || c == '<') result += '\\';
    result += c;
  }
  return result;
}

std::string code(const std::string& text) {
  return text.empty() ? "" : "`" + text + "`";
}

template <class Owner>
std::string row(const Key<Owner>& key, const std::string& shown_default) {
  std::string allowed = key.allowed;
  if (!key.unit.empty()) allowed += " (" + key.unit + ")";
  return "| `" + split_key(key.name).second + "` | " + cell(shown_default) + " | " + cell(allowed) +
         " | " + to_string(key.group) + " | " + cell(key.description) + " |\n";
}

const char* const kTableHead =
    "\n| key | default | allowed | kind | meaning |\n|---|---|---|---|---|\n";

// A value in canonical TOML as JSON.
ordered_json to_json(const TomlNode& node) {
  switch (node.kind) {
    case TomlNode::Kind::boolean:
      return node.boolean;
    case TomlNode::Kind::integer:
      return node.integer;
    case TomlNode::Kind::real:
      return node.real;
    case TomlNode::Kind::list: {
      ordered_json list = ordered_json::array();
      for (const TomlNode& item : node.children) list.push_back(to_json(item));
      return list;
    }
    default:
      return node.text;
  }
}

void add_bounds(const Range& range, ordered_json& schema) {
  schema[range.above ? "exclusiveMinimum" : "minimum"] = range.min;
  if (std::isfinite(range.max)) schema["maximum"] = range.max;
}

ordered_json whole_number(const Range& range) {
  ordered_json schema = {{"type", "integer"}};
  schema["minimum"] = static_cast<std::uint64_t>(range.min);
  if (std::isfinite(range.max)) schema["maximum"] = static_cast<std::uint64_t>(range.max);
  return schema;
}

ordered_json text_like(const char* pattern) {
  return {{"type", "string"}, {"pattern", pattern}};
}

ordered_json object_schema() {
  return {
      {"type", "object"}, {"properties", ordered_json::object()}, {"additionalProperties", false}};
}

// What JSON Schema can say of a value; ranges of durations and sizes it cannot.
template <class Owner>
ordered_json value_schema(const Key<Owner>& key) {
  constexpr const char* kDuration = "^[0-9]+ *(ms|s|min|h|d)$";
  switch (key.type) {
    case ValueType::text:
    case ValueType::time:
      return {{"type", "string"}};
    case ValueType::choice:
      return {{"enum", key.words}};
    case ValueType::duration:
      if (key.words.empty()) return text_like(kDuration);
      return {{"anyOf", {text_like(kDuration), {{"enum", key.words}}}}};
    case ValueType::size:
      return {{"anyOf", {whole_number(key.range), text_like("^[0-9]+ *(B|KiB|MiB|GiB|TiB)$")}}};
    case ValueType::count:
      return whole_number(key.range);
    case ValueType::real: {
      ordered_json schema = {{"type", "number"}};
      add_bounds(key.range, schema);
      return schema;
    }
    case ValueType::counts:
      return {
          {"type", "array"}, {"minItems", 1}, {"maxItems", 16}, {"items", whole_number(key.range)}};
    case ValueType::buckets:
      return {{"anyOf",
               {text_like("^(log:[0-9]+|none)$"),
                {{"type", "array"}, {"minItems", 1}, {"items", {{"type", "number"}}}}}}};
    case ValueType::ranges:
      return text_like("^([0-9]+[.][.][0-9]+(, ?[0-9]+[.][.][0-9]+)*)?$");
    case ValueType::table:
      break;
  }
  return {{"type", "object"}};
}

template <class Owner>
ordered_json key_schema(const Key<Owner>& key, const std::string& default_toml) {
  ordered_json schema = value_schema(key);
  schema["description"] =
      key.description + " Must be " + key.allowed + ". Kind: " + to_string(key.group) + ".";
  if (!default_toml.empty()) schema["default"] = to_json(parse_override_value(default_toml));
  return schema;
}

ordered_json table_schema(const Key<Config>& key) {
  ordered_json schema = {{"type", "object"}, {"description", key.description}};
  if (key.name != "features") {
    schema["additionalProperties"] = {{"type", {"string", "number", "boolean", "object"}}};
    return schema;
  }
  ordered_json feature = object_schema();
  for (const Key<FeatureConfig>& feature_key : feature_keys()) {
    feature["properties"][feature_key.name] = key_schema(feature_key, "");
  }
  feature["required"] = {"path"};
  schema["minProperties"] = 1;
  schema["additionalProperties"] = std::move(feature);
  return schema;
}

}  // namespace

std::string config_reference_markdown() {
  const Config defaults;
  std::string text = kIntroduction;
  std::string section;
  for (const Key<Config>& key : config_keys()) {
    if (key.type == ValueType::table) {
      section = key.name;
      text +=
          "\n## [" + section + "]\n\n" + key.description + " Kind: " + to_string(key.group) + ".\n";
      if (key.name != "features") continue;
      text +=
          "\nBy its name, as in `site = { path = \"features.user.site\", type = \"id\" }`. At "
          "least one is needed.\n";
      text += kTableHead;
      for (const Key<FeatureConfig>& feature_key : feature_keys()) {
        const std::string value = feature_key.get(FeatureConfig());
        text += row(feature_key, value == toml_text("") ? "" : code(value));
      }
      continue;
    }
    if (const std::string key_section = split_key(key.name).first; key_section != section) {
      section = key_section;
      text += "\n## [" + section + "]\n" + kTableHead;
    }
    text += row(key, code(key.get(defaults)));
  }
  return text;
}

std::string config_json_schema() {
  const Config defaults;
  ordered_json root = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                       {"title", "Config of Sluice"}};
  root.update(object_schema());
  for (const Key<Config>& key : config_keys()) {
    ordered_json* object = &root;
    std::string rest = key.name;
    for (std::size_t dot = rest.find('.'); dot != std::string::npos; dot = rest.find('.')) {
      ordered_json& inner = (*object)["properties"][rest.substr(0, dot)];
      if (inner.is_null()) inner = object_schema();
      object = &inner;
      rest.erase(0, dot + 1);
    }
    (*object)["properties"][rest] =
        key.type == ValueType::table ? table_schema(key) : key_schema(key, key.get(defaults));
  }
  root["required"] = {"features"};
  return root.dump(2) + "\n";
}

}  // namespace sluice
