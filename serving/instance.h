// From what a request says of an impression to the text of an event, so that the decoder of the
// logs reads it and a value means what it means there: 5 and "5" are one id, what is of a wrong
// type is absent.
//
// A row names features as the config does; each value is put at its feature's path. What a row does
// not name is absent, as it would be from an event. A name that is no feature is an error.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "config/config.h"

namespace sluice {

// What a snapshot wants of an impression. Read-only, for any thread.
class InputForm {
 public:
  struct Feature {
    std::string name;
    FeatureConfig::Type type = FeatureConfig::Type::id;
    std::size_t place = 0;  // of its value among a row's; features of one path share it
  };

  static Result<InputForm> from_manifest(const nlohmann::ordered_json& manifest);

  const std::vector<Feature>& features() const { return features_; }
  // None for an unknown name.
  const Feature* find(std::string_view name) const;
  // For people: why `name` is none.
  std::string unknown(std::string_view name) const;

  // A whole event, as in the log, is told by these two keys: the first of the fields of time and of
  // impression_id. Where both are features' names a row is never an event.
  bool is_event(bool has_time_key, bool has_id_key) const;
  const std::string& time_key() const { return time_key_; }
  const std::string& id_key() const { return id_key_; }

  // A row that is being put together.
  class Row {
   public:
    explicit Row(const InputForm& form) : form_(form), values_(form.places_) {}
    // `value` is a JSON text that is valid and outlives event(). False where another value was set
    // at the same path.
    bool set(const Feature& feature, std::string_view value);
    void clear() { values_.assign(values_.size(), {}); }
    // The event's text, with `impression_id` where no feature lies there. An error where two values
    // exclude each other: one lies inside the other.
    Result<std::string> event(std::string_view impression_id) const;

   private:
    const InputForm& form_;
    std::vector<std::string_view> values_;  // by place; empty: absent
  };

 private:
  // The paths as a tree; a node's children stand behind it.
  struct Node {
    std::string key;
    std::optional<std::size_t> place;
    std::vector<Node> children;
  };
  static Node& add(Node& root, std::string_view path);
  bool has_value(const Node& node, const std::vector<std::string_view>& values) const;
  bool write(const Node& node, const std::vector<std::string_view>& values, std::string& out) const;

  std::vector<Feature> features_;  // sorted by name
  Node root_;
  std::size_t places_ = 0;  // features' paths, then time and id
  std::size_t time_place_ = 0, id_place_ = 0;
  std::string time_key_, id_key_;
  std::string time_value_;
};

}  // namespace sluice
