#include "serving/snapshot_diff.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <string_view>

#include "learner/model_tensors.h"

namespace sluice {
namespace {

bool is_of_table(std::string_view name) {
  return name.starts_with("embedding.");
}

double distance(const float* a, const float* b, std::size_t count) {
  double sum = 0;
  for (std::size_t k = 0; k < count; ++k) {
    const double difference = static_cast<double>(a[k]) - static_cast<double>(b[k]);
    sum += difference * difference;
  }
  return std::sqrt(sum);
}

TableDiff diff_tables(const TableView& before, const TableView& after) {
  const std::span<const std::uint64_t> old_keys = before.rows.keys;
  const std::span<const std::uint64_t> new_keys = after.rows.keys;
  TableDiff diff;
  diff.rows_before = old_keys.size();
  diff.rows_after = new_keys.size();
  double sum = 0;
  std::size_t b = 0;
  std::size_t a = 0;
  while (b < old_keys.size() || a < new_keys.size()) {
    if (a == new_keys.size() || (b < old_keys.size() && old_keys[b] < new_keys[a])) {
      ++diff.removed;
      ++b;
      continue;
    }
    if (b == old_keys.size() || new_keys[a] < old_keys[b]) {
      ++diff.added;
      ++a;
      continue;
    }
    const float* const was = before.row(b).data();
    const float* const is = after.row(a).data();
    if (std::memcmp(was, is, before.dim * sizeof(float)) != 0) {
      const double move = distance(was, is, before.dim);
      ++diff.changed;
      sum += move;
      if (move > diff.largest_move) {
        diff.largest_move = move;
        diff.largest_key = old_keys[b];
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
    if (!is_of_table(name)) {
      SLUICE_ASSIGN(LayerDiff layer, diff_layers(name, tensor, after.at(name)));
      diff.layers.push_back(std::move(layer));
    } else if (const std::string table(table_of_keys(name)); !table.empty()) {
      SLUICE_ASSIGN(const TableView was, view_table_tensors(before, table));
      SLUICE_ASSIGN(const TableView is, view_table_tensors(after, table));
      diff.tables.push_back(diff_tables(was, is));
      diff.tables.back().name = table;
    }
  }
  return diff;
}

}  // namespace sluice
