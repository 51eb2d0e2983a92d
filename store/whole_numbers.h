// Whole numbers of a JSON document that may be damaged. nlohmann's own get() converts whatever
// number is there: 8.5 becomes 8, -1 becomes 2^64 - 1, and 1e300 is undefined.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"

namespace sluice {

// The value of an object's `key`; an error that names the key where it is none.
Result<std::uint64_t> unsigned_at(const nlohmann::ordered_json& json, const std::string& key);
Result<std::int64_t> signed_at(const nlohmann::ordered_json& json, const std::string& key);
Result<std::vector<std::uint64_t>> unsigned_list_at(const nlohmann::ordered_json& json,
                                                    const std::string& key);

}  // namespace sluice
