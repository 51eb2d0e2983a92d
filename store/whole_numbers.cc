#include "store/whole_numbers.h"

#include <limits>

namespace sluice {
namespace {

using nlohmann::ordered_json;

constexpr std::uint64_t kMostSigned = std::numeric_limits<std::int64_t>::max();

Error none_at(const std::string& key) {
  return stop_error("the JSON is damaged: " + key + " is absent, or no whole number in its range");
}

}  // namespace

Result<std::uint64_t> unsigned_at(const ordered_json& json, const std::string& key) {
  const auto value = json.find(key);
  if (value == json.end() || !value->is_number_unsigned()) return none_at(key);
  return value->get<std::uint64_t>();
}

Result<std::int64_t> signed_at(const ordered_json& json, const std::string& key) {
  const auto value = json.find(key);
  if (value == json.end() || !value->is_number_integer()) return none_at(key);
  if (value->is_number_unsigned() && value->get<std::uint64_t>() > kMostSigned) return none_at(key);
  return value->get<std::int64_t>();
}

Result<std::vector<std::uint64_t>> unsigned_list_at(const ordered_json& json,
                                                    const std::string& key) {
  const auto list = json.find(key);
  if (list == json.end() || !list->is_array()) return none_at(key);
  std::vector<std::uint64_t> numbers;
  for (const ordered_json& value : *list) {
    if (!value.is_number_unsigned()) return none_at(key);
    numbers.push_back(value.get<std::uint64_t>());
  }
  return numbers;
}

}  // namespace sluice
