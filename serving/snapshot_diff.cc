#include "serving/snapshot_diff.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>

namespace sluice {
namespace {

constexpr std::string_view kTablePrefix = "embedding.";
constexpr std::string_view kKeysSuffix = ".keys";

bool is_of_table(std::string_view name) {
  return name.starts_with(kTablePrefix);
}

double distance(const float* a, const float* b, std::size_t count) {
  double sum = 0;
  for (std::size_t k = 0; k < count; ++k) {
    const double difference = static_cast<double>(a[k]) - static_cast<double>(b[k]);
    sum += difference * difference;
  }
  return std::sqrt(sum);
}

// A table's keys, ascending, and its rows.
struct Table {
  std::vector<std::uint64_t> keys;
  std::vector<float> rows;
  std::size_t dim = 0;
};

Result<Table> read_table(const Tensors& tensors, const std::string& prefix) {
  const auto keys = tensors.find(prefix + ".keys");
  const auto rows = tensors.find(prefix + ".rows");
  if (keys == tensors.end() || rows == tensors.end() || rows->second.shape.size() != 2 ||
      rows->second.shape[0] != keys->second.elements()) {
    return stop_error("a snapshot's " + prefix + " is no table");
  }
  Table table;
  SLUICE_ASSIGN(table.keys, keys->second.values<std::uint64_t>());
  SLUICE_ASSIGN(table.rows, rows->second.values<float>());
  table.dim = rows->second.shape[1];
  return table;
}

TableDiff diff_tables(const Table& before, const Table& after) {
  TableDiff diff;
  diff.rows_before = before.keys.size();
  diff.rows_after = after.keys.size();
  double sum = 0;
  std::size_t b = 0;
  std::size_t a = 0;
  while (b < before.keys.size() || a < after.keys.size()) {
    if (a == after.keys.size() || (b < before.keys.size() && before.keys[b] < after.keys[a])) {
      ++diff.removed;
      ++b;
      continue;
    }
    if (b == before.keys.size() || after.keys[a] < before.keys[b]) {
      ++diff.added;
      ++a;
      continue;
    }
    const float* const was = before.rows.data() + b * before.dim;
    const float* const is = after.rows.data() + a * after.dim;
    if (std::memcmp(was, is, before.dim * sizeof(float)) != 0) {
      const double move = distance(was, is, before.dim);
      ++diff.changed;
      sum += move;
      if (move > diff.largest_move) {
        diff.largest_move = move;
        diff.largest_key = before.keys[b];
      }
    }
    ++a;
    ++b;
  }
  if (diff.changed > 0) diff.mean_move = sum / static_cast<double>(diff.changed);
  return diff;
}

Result<LayerDiff> diff_layers(const std::string& name, const Tensor& before, const Tensor& after) {
  SLUICE_ASSIGN(const std::vector<float> was, before.values<float>());
  SLUICE_ASSIGN(const std::vector<float> is, after.values<float>());
  const std::vector<float> zeros(was.size());
  LayerDiff diff{name, distance(was.data(), is.data(), was.size()), 0};
  const double norm = distance(was.data(), zeros.data(), was.size());
  if (diff.move > 0) diff.relative = diff.move / norm;
  return diff;
}

bool is_comparable(const std::string& name, const Tensor& before, const Tensor& after) {
  if (before.type != after.type) return false;
  if (!is_of_table(name)) return before.shape == after.shape;
  return before.shape.size() == after.shape.size() &&
         std::equal(before.shape.begin() + 1, before.shape.end(), after.shape.begin() + 1);
}

}  // namespace

Result<SnapshotDiff> diff_snapshots(const Tensors& before, const Tensors& after) {
  const auto cannot = [](const std::string& name) {
    return stop_error("the snapshots are of different models: they cannot be compared in " + name);
  };
  for (const auto& [name, tensor] : after) {
    if (!before.contains(name)) return cannot(name);
  }
  for (const auto& [name, tensor] : before) {
    const auto other = after.find(name);
    if (other == after.end() || !is_comparable(name, tensor, other->second)) return cannot(name);
  }
  SnapshotDiff diff;
  for (const auto& [name, tensor] : before) {
    const auto other = after.find(name);
    if (!is_of_table(name)) {
      SLUICE_ASSIGN(LayerDiff layer, diff_layers(name, tensor, other->second));
      diff.layers.push_back(std::move(layer));
    } else if (name.ends_with(kKeysSuffix)) {
      const std::string prefix = name.substr(0, name.size() - kKeysSuffix.size());
      SLUICE_ASSIGN(const Table was, read_table(before, prefix));
      SLUICE_ASSIGN(const Table is, read_table(after, prefix));
      diff.tables.push_back(diff_tables(was, is));
      diff.tables.back().name = prefix.substr(kTablePrefix.size());
    }
  }
  return diff;
}

}  // namespace sluice
