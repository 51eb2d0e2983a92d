#include "store/whole_numbers.h"

#include <limits>

namespace sluice {
namespace {

using nlohmann::ordered_json;

constexpr std::uint64_t kMostSigned = std::numeric_limits<std::int64_t>::max();

nlohmann::json::exception none_at(const std::string& key, const ordered_json& value) {
  return nlohmann::json::type_error::create(302, key + " is no whole number: " + value.dump(),
                                            &value);
}

std::uint64_t unsigned_of(const ordered_json& value, const std::string& key) {
  if (!value.is_number_unsigned()) throw none_at(key, value);
  return value.get<std::uint64_t>();
}

}  // namespace

std::uint64_t unsigned_at(const ordered_json& json, const std::string& key) {
  return unsigned_of(json.at(key), key);
}

std::int64_t signed_at(const ordered_json& json, const std::string& key) {
  const ordered_json& value = json.at(key);
  const bool is_too_large = value.is_number_unsigned() && value.get<std::uint64_t>() > kMostSigned;
  if (!value.is_number_integer() || is_too_large) throw none_at(key, value);
  return value.get<std::int64_t>();
}

std::vector<std::uint64_t> unsigned_list_at(const ordered_json& json, const std::string& key) {
  std::vector<std::uint64_t> list;
  for (const ordered_json& value : json.at(key)) list.push_back(unsigned_of(value, key));
  return list;
}

}  // namespace sluice
