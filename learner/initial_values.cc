#include "learner/initial_values.h"

#include <cmath>
#include <string>

#include "base/check.h"
#include "base/hash.h"

namespace sluice {

float initial_value(std::uint64_t bits, double range) {
  const std::int64_t odd = 2 * static_cast<std::int64_t>(bits >> 40) + 1 - (std::int64_t{1} << 24);
  return static_cast<float>(static_cast<double>(odd) * 0x1p-24 * range);
}

void initialize_layer(std::uint64_t seed, std::string_view name, std::size_t fan_in,
                      std::span<float> out) {
  SLUICE_CHECK(fan_in > 0);
  const std::uint64_t stream = hash64(name, seed);
  const double range = 1.0 / std::sqrt(static_cast<double>(fan_in));
  for (std::size_t k = 0; k < out.size(); ++k) out[k] = initial_value(mix64(stream + k), range);
}

InitialRows::InitialRows(std::uint64_t seed, std::string_view table)
    : stream_(hash64("embedding." + std::string(table), seed)),
      range_(kRowStandardDeviation * std::sqrt(3.0)) {}

void InitialRows::fill(std::uint64_t key, std::span<float> out) const {
  const std::uint64_t row = mix64(stream_ + key);
  for (std::size_t j = 0; j < out.size(); ++j) out[j] = initial_value(mix64(row + j), range_);
}

}  // namespace sluice
