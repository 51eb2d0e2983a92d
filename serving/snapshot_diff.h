// How far a model moved from one snapshot to another, by embedding table and by layer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "store/tensors.h"

namespace sluice {

// Distances are Euclidean, of rows that are in both; rows that are equal in all bits do not count
// as changed.
struct TableDiff {
  std::string name;
  std::uint64_t rows_before = 0, rows_after = 0;
  std::uint64_t added = 0, removed = 0, changed = 0;
  double mean_move = 0;     // over the changed ones; 0: none
  double largest_move = 0;  // of a row
  std::uint64_t largest_key = 0;
};

// A tower's weights or biases of one layer.
struct LayerDiff {
  std::string name;
  double move = 0;      // the norm of what changed
  double relative = 0;  // move / norm before; 0 where both are
};

struct SnapshotDiff {
  std::vector<TableDiff> tables;  // by name, as the layers
  std::vector<LayerDiff> layers;
};

// Of the weights of two full snapshots (learner/model_tensors.h). An error where their models
// differ in tables, layers or shapes, so that nothing could be compared.
Result<SnapshotDiff> diff_snapshots(const Tensors& before, const Tensors& after);

}  // namespace sluice
