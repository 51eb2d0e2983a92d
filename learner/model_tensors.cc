#include "learner/model_tensors.h"

#include <algorithm>
#include <array>
#include <vector>

#include "base/check.h"

namespace sluice {

namespace {

// In the order in which a row's values lie in memory.
constexpr std::array<const char*, 3> kRowArrays = {".rows", ".adam_m", ".adam_v"};

template <class T>
Result<std::vector<T>> read_array(const Tensors& tensors, const std::string& name,
                                  const std::vector<std::uint64_t>& shape) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) return stop_error("tensor " + name + " is missing");
  if (found->second.shape != shape) return stop_error("tensor " + name + " has another shape");
  auto values = found->second.values<T>();
  if (!values) return stop_error("tensor " + name + ": " + values.error().message);
  return values;
}

}  // namespace

void add_tower_tensors(const Towers& towers, std::span<const float> values,
                       const std::string& suffix, Tensors& tensors) {
  for (const Towers::Array& array : towers.arrays()) {
    tensors[array.name + suffix] = Tensor::of<float>(array.shape(), Towers::read(array, values));
  }
}

Status read_tower_tensors(const Tensors& tensors, const std::string& suffix, const Towers& towers,
                          std::span<float> values) {
  for (const Towers::Array& array : towers.arrays()) {
    SLUICE_ASSIGN(const std::vector<float> read,
                  read_array<float>(tensors, array.name + suffix, array.shape()));
    Towers::write(array, read, values);
  }
  return {};
}

void add_table_tensors(const EmbeddingTable& table, bool with_slots, Tensors& tensors) {
  const std::string prefix = "embedding." + table.name();
  const std::vector<const EmbeddingRow*> order = table.by_key();
  const std::size_t dim = table.dim();
  const std::size_t arrays = with_slots ? kRowArrays.size() : 1;
  SLUICE_CHECK(table.row_floats() >= arrays * dim);
  std::vector<std::uint64_t> keys;
  std::vector<std::uint64_t> last_batches;
  for (const EmbeddingRow* const row : order) {
    keys.push_back(row->key);
    last_batches.push_back(row->last_batch);
  }
  tensors[prefix + ".keys"] = Tensor::of<std::uint64_t>({order.size()}, keys);
  if (with_slots) {
    tensors[prefix + ".last_batch"] = Tensor::of<std::uint64_t>({order.size()}, last_batches);
  }
  for (std::size_t n = 0; n < arrays; ++n) {
    std::vector<float> values;
    values.reserve(order.size() * dim);
    for (const EmbeddingRow* const row : order) {
      const float* const begin = row->values() + n * dim;
      values.insert(values.end(), begin, begin + dim);
    }
    tensors[prefix + kRowArrays[n]] = Tensor::of<float>({order.size(), dim}, values);
  }
}

Status read_table_tensors(const Tensors& tensors, EmbeddingTable& table) {
  SLUICE_CHECK(table.rows() == 0);
  const std::string prefix = "embedding." + table.name();
  const std::size_t dim = table.dim();
  const bool with_slots = table.row_floats() > dim;
  const auto keys_tensor = tensors.find(prefix + ".keys");
  const std::uint64_t rows = keys_tensor == tensors.end() ? 0 : keys_tensor->second.elements();
  SLUICE_ASSIGN(const auto keys, read_array<std::uint64_t>(tensors, prefix + ".keys", {rows}));
  if (std::adjacent_find(keys.begin(), keys.end(), std::greater_equal<>()) != keys.end()) {
    return stop_error("tensor " + prefix + ".keys is not ascending");
  }
  std::vector<EmbeddingRow*> made;
  for (const std::uint64_t key : keys) made.push_back(table.find_or_create(key));
  for (std::size_t n = 0; n < (with_slots ? kRowArrays.size() : 1); ++n) {
    SLUICE_ASSIGN(const auto values,
                  read_array<float>(tensors, prefix + kRowArrays[n], {rows, dim}));
    for (std::size_t row = 0; row < rows; ++row) {
      std::copy_n(values.data() + row * dim, dim, made[row]->values() + n * dim);
    }
  }
  if (!with_slots) return {};
  SLUICE_ASSIGN(const auto last_batches,
                read_array<std::uint64_t>(tensors, prefix + ".last_batch", {rows}));
  for (std::size_t row = 0; row < rows; ++row) made[row]->last_batch = last_batches[row];
  return {};
}

}  // namespace sluice
