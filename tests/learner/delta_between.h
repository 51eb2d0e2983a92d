// The delta between two states of a model, told from their full weights alone.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "store/tensors.h"

namespace sluice::testing {

// The rows of `after` that `before` lacks or has other values of, towers whole: what a delta holds.
inline Tensors delta_between(const Tensors& before, const Tensors& after) {
  Tensors delta = after;
  for (const auto& [name, keys] : after) {
    if (!name.ends_with(".keys")) continue;
    const std::string rows = name.substr(0, name.size() - 4) + "rows";
    const std::size_t row_bytes = after.at(rows).shape[1] * sizeof(float);
    std::map<std::uint64_t, std::string> old;
    const auto old_keys = *before.at(name).values<std::uint64_t>();
    for (std::size_t n = 0; n < old_keys.size(); ++n) {
      old[old_keys[n]] = before.at(rows).bytes.substr(n * row_bytes, row_bytes);
    }
    std::vector<std::uint64_t> changed;
    std::string values;
    const auto new_keys = *keys.values<std::uint64_t>();
    for (std::size_t n = 0; n < new_keys.size(); ++n) {
      const std::string row = after.at(rows).bytes.substr(n * row_bytes, row_bytes);
      if (const auto found = old.find(new_keys[n]); found != old.end() && found->second == row) {
        continue;
      }
      changed.push_back(new_keys[n]);
      values += row;
    }
    delta[name] = Tensor::of<std::uint64_t>({changed.size()}, changed);
    delta[rows] = {TensorType::f32, {changed.size(), after.at(rows).shape[1]}, values};
  }
  return delta;
}

}  // namespace sluice::testing
