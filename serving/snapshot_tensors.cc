#include "serving/snapshot_tensors.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "learner/model_tensors.h"

namespace sluice {
namespace {

// Where the last values of a key are that some delta has.
struct Change {
  std::uint64_t key;
  std::uint32_t delta;
  std::uint32_t row;
};

std::vector<Change> last_changes(const std::vector<TableView>& deltas) {
  std::vector<Change> changes;
  for (std::size_t delta = 0; delta < deltas.size(); ++delta) {
    for (std::size_t row = 0; row < deltas[delta].rows.keys.size(); ++row) {
      changes.push_back({deltas[delta].rows.keys[row], static_cast<std::uint32_t>(delta),
                         static_cast<std::uint32_t>(row)});
    }
  }
  std::sort(changes.begin(), changes.end(), [](const Change& a, const Change& b) {
    return a.key != b.key ? a.key < b.key : a.delta > b.delta;
  });
  const auto end = std::unique(changes.begin(), changes.end(),
                               [](const Change& a, const Change& b) { return a.key == b.key; });
  changes.erase(end, changes.end());
  return changes;
}

Status merge_table(const std::string& table, const std::vector<Tensors>& deltas, Tensors& full) {
  SLUICE_ASSIGN(const TableView before, view_table_tensors(full, table));
  std::vector<TableView> changed;
  for (const Tensors& delta : deltas) {
    SLUICE_ASSIGN(const TableView view, view_table_tensors(delta, table));
    if (view.dim != before.dim) {
      return stop_error("tensor embedding." + table +
                        ".rows of a delta has another number of columns");
    }
    changed.push_back(view);
  }
  const std::vector<Change> changes = last_changes(changed);
  const std::span<const std::uint64_t> old_keys = before.rows.keys;
  std::vector<std::uint64_t> keys;
  std::string values;
  keys.reserve(old_keys.size() + changes.size());
  values.reserve((old_keys.size() + changes.size()) * before.dim * sizeof(float));
  const auto add = [&](std::uint64_t key, std::span<const float> row) {
    keys.push_back(key);
    values.append(reinterpret_cast<const char*>(row.data()), row.size_bytes());
  };
  std::size_t n = 0;
  for (const Change& change : changes) {
    for (; n < old_keys.size() && old_keys[n] < change.key; ++n) add(old_keys[n], before.row(n));
    if (n < old_keys.size() && old_keys[n] == change.key) ++n;
    add(change.key, changed[change.delta].row(change.row));
  }
  for (; n < old_keys.size(); ++n) add(old_keys[n], before.row(n));
  Tensor merged{TensorType::f32, {keys.size(), before.dim}, std::move(values)};
  const std::string prefix = "embedding." + table;
  full[prefix + ".keys"] = Tensor::of<std::uint64_t>({keys.size()}, keys);
  full[prefix + ".rows"] = std::move(merged);
  return {};
}

}  // namespace

Result<Tensors> apply_deltas(Tensors full, const std::vector<Tensors>& deltas) {
  if (deltas.empty()) return full;
  std::vector<std::string> tables;
  for (auto& [name, tensor] : full) {
    for (const Tensors& delta : deltas) {
      if (!delta.contains(name)) return stop_error("a delta has no tensor " + name);
    }
    if (const std::string_view table = table_of_keys(name); !table.empty()) {
      tables.emplace_back(table);
    } else if (name.starts_with("tower.")) {
      const Tensor& last = deltas.back().at(name);
      if (last.type != tensor.type || last.shape != tensor.shape) {
        return stop_error("tensor " + name + " of a delta has another type or shape");
      }
      tensor = last;
    }
  }
  for (const std::string& table : tables) SLUICE_TRY(merge_table(table, deltas, full));
  return full;
}

}  // namespace sluice
