#include "learner/model_tensors.h"

#include <algorithm>
#include <vector>

#include "base/check.h"

namespace sluice {

namespace {

// One array of a table's rows: the weights or a slot.
struct RowArray {
  std::string name;
  std::vector<std::uint64_t> shape;
  std::size_t offset;  // in a row
  std::size_t floats;  // of a row
};

std::vector<RowArray> row_arrays(const EmbeddingTable& table) {
  const RowLayout& layout = table.layout();
  const std::string prefix = "embedding." + table.name() + ".";
  const std::uint64_t rows = table.rows();
  std::vector<RowArray> arrays = {{prefix + "rows", {rows, layout.dim}, 0, layout.dim}};
  for (std::size_t n = 0; n < layout.slots.size(); ++n) {
    const Slot& slot = layout.slots[n];
    std::vector<std::uint64_t> shape = {rows};
    if (!slot.per_row) shape.push_back(layout.dim);
    arrays.push_back(
        {prefix + slot.name, std::move(shape), layout.slot_offset(n), layout.slot_floats(n)});
  }
  return arrays;
}

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

void add_table_tensors(const EmbeddingTable& table, Tensors& tensors) {
  const std::string prefix = "embedding." + table.name();
  const std::vector<const EmbeddingRow*> order = table.by_key();
  std::vector<std::uint64_t> keys;
  std::vector<std::uint64_t> last_batches;
  for (const EmbeddingRow* const row : order) {
    keys.push_back(row->key);
    last_batches.push_back(row->last_batch);
  }
  tensors[prefix + ".keys"] = Tensor::of<std::uint64_t>({order.size()}, keys);
  tensors[prefix + ".last_batch"] = Tensor::of<std::uint64_t>({order.size()}, last_batches);
  for (const RowArray& array : row_arrays(table)) {
    std::vector<float> values;
    values.reserve(order.size() * array.floats);
    for (const EmbeddingRow* const row : order) {
      const float* const begin = row->values() + array.offset;
      values.insert(values.end(), begin, begin + array.floats);
    }
    tensors[array.name] = Tensor::of<float>(array.shape, values);
  }
}

Status read_table_tensors(const Tensors& tensors, EmbeddingTable& table) {
  SLUICE_CHECK(table.rows() == 0);
  const std::string prefix = "embedding." + table.name();
  const auto keys_tensor = tensors.find(prefix + ".keys");
  const std::uint64_t rows = keys_tensor == tensors.end() ? 0 : keys_tensor->second.elements();
  SLUICE_ASSIGN(const auto keys, read_array<std::uint64_t>(tensors, prefix + ".keys", {rows}));
  if (std::adjacent_find(keys.begin(), keys.end(), std::greater_equal<>()) != keys.end()) {
    return stop_error("tensor " + prefix + ".keys is not ascending");
  }
  std::vector<EmbeddingRow*> made;
  for (const std::uint64_t key : keys) made.push_back(table.find_or_create(key));
  for (const RowArray& array : row_arrays(table)) {
    SLUICE_ASSIGN(const auto values, read_array<float>(tensors, array.name, array.shape));
    for (std::size_t row = 0; row < rows; ++row) {
      std::copy_n(values.data() + row * array.floats, array.floats,
                  made[row]->values() + array.offset);
    }
  }
  SLUICE_ASSIGN(const auto last_batches,
                read_array<std::uint64_t>(tensors, prefix + ".last_batch", {rows}));
  for (std::size_t row = 0; row < rows; ++row) made[row]->last_batch = last_batches[row];
  return {};
}

void add_table_tensors(const ServedTable& table, Tensors& tensors) {
  std::vector<std::pair<std::uint64_t, const float*>> order;
  order.reserve(table.rows());
  table.for_each([&](std::uint64_t key, const float* values) { order.emplace_back(key, values); });
  std::sort(order.begin(), order.end());
  std::vector<std::uint64_t> keys;
  std::vector<float> values;
  keys.reserve(order.size());
  values.reserve(order.size() * table.dim());
  for (const auto& [key, row] : order) {
    keys.push_back(key);
    values.insert(values.end(), row, row + table.dim());
  }
  const std::string prefix = "embedding." + table.name();
  tensors[prefix + ".keys"] = Tensor::of<std::uint64_t>({keys.size()}, keys);
  tensors[prefix + ".rows"] = Tensor::of<float>({keys.size(), table.dim()}, values);
}

std::string_view table_of_keys(std::string_view tensor) {
  constexpr std::string_view kPrefix = "embedding.";
  constexpr std::string_view kSuffix = ".keys";
  if (!tensor.starts_with(kPrefix) || !tensor.ends_with(kSuffix)) return {};
  if (tensor.size() <= kPrefix.size() + kSuffix.size()) return {};
  return tensor.substr(kPrefix.size(), tensor.size() - kPrefix.size() - kSuffix.size());
}

Result<TableView> view_table_tensors(const Tensors& tensors, const std::string& name) {
  const std::string prefix = "embedding." + name;
  const auto keys = tensors.find(prefix + ".keys");
  const auto rows = tensors.find(prefix + ".rows");
  for (const auto& [found, of] : {std::pair(keys, ".keys"), std::pair(rows, ".rows")}) {
    if (found == tensors.end()) return stop_error("tensor " + prefix + of + " is missing");
  }
  const Tensor& keys_tensor = keys->second;
  const Tensor& rows_tensor = rows->second;
  SLUICE_ASSIGN(const auto key_values, keys_tensor.view<std::uint64_t>(prefix + ".keys"));
  SLUICE_ASSIGN(const auto row_values, rows_tensor.view<float>(prefix + ".rows"));
  if (keys_tensor.shape != std::vector<std::uint64_t>{key_values.size()}) {
    return stop_error("tensor " + prefix + ".keys has another shape");
  }
  if (rows_tensor.shape.size() != 2 || rows_tensor.shape[0] != key_values.size()) {
    return stop_error("tensor " + prefix + ".rows has another shape");
  }
  if (std::adjacent_find(key_values.begin(), key_values.end(), std::greater_equal<>()) !=
      key_values.end()) {
    return stop_error("tensor " + prefix + ".keys is not ascending");
  }
  return TableView{{key_values, row_values.data()}, rows_tensor.shape[1]};
}

Result<RowsView> view_table_tensors(const Tensors& tensors, const std::string& name,
                                    std::uint64_t dim) {
  SLUICE_ASSIGN(const TableView view, view_table_tensors(tensors, name));
  if (view.dim == dim) return view.rows;
  return stop_error("tensor embedding." + name + ".rows has another shape");
}

}  // namespace sluice
