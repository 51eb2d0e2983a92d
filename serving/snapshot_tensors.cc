#include "serving/snapshot_tensors.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

namespace sluice {
namespace {

constexpr std::string_view kKeys = ".keys";

// A table's rows in one snapshot.
struct Rows {
  std::vector<std::uint64_t> keys;
  const Tensor* values = nullptr;  // f32 [keys, dim]

  std::size_t row_bytes() const { return values->shape[1] * sizeof(float); }
  const char* row(std::size_t n) const { return values->bytes.data() + n * row_bytes(); }
};

Result<Rows> rows_of(const Tensors& tensors, const std::string& table) {
  const auto keys = tensors.find(table + ".keys");
  const auto values = tensors.find(table + ".rows");
  if (keys == tensors.end() || values == tensors.end()) {
    return stop_error("a delta has no tensors " + table + ".keys and .rows");
  }
  Rows rows;
  SLUICE_ASSIGN(rows.keys, keys->second.values<std::uint64_t>());
  rows.values = &values->second;
  if (rows.values->type != TensorType::f32 || rows.values->shape.size() != 2 ||
      rows.values->shape[0] != rows.keys.size()) {
    return stop_error("tensor " + table + ".rows has another type or shape than its keys");
  }
  if (std::adjacent_find(rows.keys.begin(), rows.keys.end(), std::greater_equal<>()) !=
      rows.keys.end()) {
    return stop_error("tensor " + table + ".keys is not ascending");
  }
  return rows;
}

// Where the last values of a key are that some delta has.
struct Change {
  std::uint64_t key;
  std::uint32_t delta;
  std::uint32_t row;
};

std::vector<Change> last_changes(const std::vector<Rows>& deltas) {
  std::vector<Change> changes;
  for (std::size_t delta = 0; delta < deltas.size(); ++delta) {
    for (std::size_t row = 0; row < deltas[delta].keys.size(); ++row) {
      changes.push_back({deltas[delta].keys[row], static_cast<std::uint32_t>(delta),
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
  SLUICE_ASSIGN(const Rows before, rows_of(full, table));
  std::vector<Rows> changed;
  for (const Tensors& delta : deltas) {
    SLUICE_ASSIGN(Rows rows, rows_of(delta, table));
    if (rows.values->shape[1] != before.values->shape[1]) {
      return stop_error("tensor " + table + ".rows of a delta has another number of columns");
    }
    changed.push_back(std::move(rows));
  }
  const std::vector<Change> changes = last_changes(changed);
  std::vector<std::uint64_t> keys;
  std::string values;
  keys.reserve(before.keys.size() + changes.size());
  values.reserve((before.keys.size() + changes.size()) * before.row_bytes());
  const auto add = [&](std::uint64_t key, const char* row) {
    keys.push_back(key);
    values.append(row, before.row_bytes());
  };
  std::size_t n = 0;
  for (const Change& change : changes) {
    for (; n < before.keys.size() && before.keys[n] < change.key; ++n) {
      add(before.keys[n], before.row(n));
    }
    if (n < before.keys.size() && before.keys[n] == change.key) ++n;
    add(change.key, changed[change.delta].row(change.row));
  }
  for (; n < before.keys.size(); ++n) add(before.keys[n], before.row(n));
  Tensor merged{TensorType::f32, {keys.size(), before.values->shape[1]}, std::move(values)};
  full[table + ".keys"] = Tensor::of<std::uint64_t>({keys.size()}, keys);
  full[table + ".rows"] = std::move(merged);
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
    if (name.starts_with("embedding.") && name.ends_with(kKeys)) {
      tables.push_back(name.substr(0, name.size() - kKeys.size()));
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
