// Random numbers of the synthetic shop: counter-based, so that a page, a user or an item is drawn
// alike whatever was drawn before it, and equal for every standard library.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

#include "base/hash.h"

namespace sluice {

// A sequence of its own for each (seed, purpose, index).
class Random {
 public:
  Random(std::uint64_t seed, std::uint64_t purpose, std::uint64_t index)
      : state_(mix64(mix64(mix64(seed) ^ purpose) ^ index)) {}

  std::uint64_t bits() {
    const std::uint64_t value = mix64(state_);
    state_ += 0x9e3779b97f4a7c15ULL;
    return value;
  }
  // In [0, 1), 53 bits.
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  bool chance(double probability) { return uniform() < probability; }
  // In [0, count); count > 0. The bias, below count / 2^32, does not matter here.
  std::uint64_t below(std::uint64_t count) {
    return static_cast<std::uint64_t>(uniform() * static_cast<double>(count));
  }
  // Mean 0, standard deviation 1 (Box and Muller's cosine branch).
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }
  double exponential(double mean) { return -mean * std::log(1.0 - uniform()); }
  double lognormal(double median, double sigma) { return median * std::exp(sigma * normal()); }

 private:
  std::uint64_t state_;
};

}  // namespace sluice
