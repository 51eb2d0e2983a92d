#include "serving/instance.h"

#include <algorithm>

#include "base/json_text.h"
#include "config/suggest.h"
#include "store/whole_numbers.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

std::string first_key(const std::string& path) {
  return path.substr(0, path.find('.'));
}

FeatureConfig::Type type_of(const std::string& name) {
  if (name == "ids") return FeatureConfig::Type::ids;
  if (name == "weighted_ids") return FeatureConfig::Type::weighted_ids;
  return name == "number" ? FeatureConfig::Type::number : FeatureConfig::Type::id;
}

}  // namespace

InputForm::Node& InputForm::add(Node& root, std::string_view path) {
  Node* node = &root;
  while (!path.empty()) {
    const std::size_t dot = path.find('.');
    const std::string_view key = path.substr(0, dot);
    path = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
    const auto found = std::find_if(node->children.begin(), node->children.end(),
                                    [&](const Node& child) { return child.key == key; });
    node = found != node->children.end()
               ? &*found
               : &node->children.emplace_back(Node{std::string(key), std::nullopt, {}});
  }
  return *node;
}

Result<InputForm> InputForm::from_manifest(const ordered_json& manifest) try {
  InputForm form;
  const auto place_of = [&form](const std::string& path) {
    Node& node = add(form.root_, path);
    if (!node.place) node.place = form.places_++;
    return *node.place;
  };
  for (const ordered_json& json : manifest.at("features")) {
    form.features_.push_back({json.at("name").get<std::string>(),
                              type_of(json.at("type").get<std::string>()),
                              place_of(json.at("path").get<std::string>())});
  }
  std::sort(form.features_.begin(), form.features_.end(),
            [](const Feature& a, const Feature& b) { return a.name < b.name; });
  const ordered_json& streams = manifest.at("streams");
  const auto ts = streams.at("ts").get<std::string>();
  const auto id = streams.at("impression_id").get<std::string>();
  form.time_place_ = place_of(ts);
  form.id_place_ = place_of(id);
  form.time_key_ = first_key(ts);
  form.id_key_ = first_key(id);
  // Any time that is accepted: a score knows no time, unless it is a feature, which stands first.
  SLUICE_ASSIGN(const std::int64_t time, signed_at(streams, "not_before"));
  form.time_value_ = std::to_string(time);
  return form;
} catch (const nlohmann::json::exception& error) {
  return stop_error(std::string("the manifest does not say what the model reads: ") + error.what());
}

const InputForm::Feature* InputForm::find(std::string_view name) const {
  const auto found = std::lower_bound(
      features_.begin(), features_.end(), name,
      [](const Feature& feature, std::string_view key) { return feature.name < key; });
  return found != features_.end() && found->name == name ? &*found : nullptr;
}

std::string InputForm::unknown(std::string_view name) const {
  std::vector<std::string> known;
  for (const Feature& feature : features_) known.push_back(feature.name);
  std::string text = "the model has no feature ";
  append_json_text(text, name.substr(0, 100));
  const Nearest nearest = nearest_word(std::string(name.substr(0, 100)), known);
  if (nearest.is_likely) text += "; did you mean \"" + nearest.name + "\"?";
  return text;
}

bool InputForm::is_event(bool has_time_key, bool has_id_key) const {
  if (!has_time_key || !has_id_key) return false;
  return find(time_key_) == nullptr || find(id_key_) == nullptr;
}

bool InputForm::Row::set(const Feature& feature, std::string_view value) {
  std::string_view& place = values_[feature.place];
  if (!place.empty()) return place == value;
  place = value;
  return true;
}

bool InputForm::has_value(const Node& node, const std::vector<std::string_view>& values) const {
  if (node.place && !values[*node.place].empty()) return true;
  return std::any_of(node.children.begin(), node.children.end(),
                     [&](const Node& child) { return has_value(child, values); });
}

// Writes what is inside the node; false where two values exclude each other.
bool InputForm::write(const Node& node, const std::vector<std::string_view>& values,
                      std::string& out) const {
  bool is_first = true;
  out += '{';
  for (const Node& child : node.children) {
    if (!has_value(child, values)) continue;
    if (!is_first) out += ',';
    is_first = false;
    append_json_text(out, child.key);
    out += ':';
    if (child.place && !values[*child.place].empty()) {
      out += values[*child.place];
      for (const Node& inner : child.children) {
        if (has_value(inner, values)) return false;
      }
    } else if (!write(child, values, out)) {
      return false;
    }
  }
  out += '}';
  return true;
}

Result<std::string> InputForm::Row::event(std::string_view impression_id) const {
  std::vector<std::string_view> values = values_;
  std::string id;
  append_json_text(id, impression_id);
  if (values[form_.time_place_].empty()) values[form_.time_place_] = form_.time_value_;
  if (values[form_.id_place_].empty()) values[form_.id_place_] = id;
  std::string text;
  if (!form_.write(form_.root_, values, text)) {
    return usage_error(
        "two of its features lie in each other in the log; give the whole event instead");
  }
  return text;
}

}  // namespace sluice
