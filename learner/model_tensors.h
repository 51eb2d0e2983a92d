// The names and shapes of the model's arrays as tensors (docs/learner.md):
//   tower.<ctr|cvr>.<i>.weight[_<slot>]  f32 [out, in], row-major as in PyTorch
//   tower.<ctr|cvr>.<i>.bias[_<slot>]    f32 [out]
//   embedding.<table>.keys               u64 [rows], ascending
//   embedding.<table>.rows, .<slot>      f32 [rows, dim], or [rows] of a slot with one number a row
//   embedding.<table>.last_batch         u64 [rows]: the step that last changed the row
// Slots and their names are those of the optimizer (learner/optimizer.h). Snapshots hold the
// weights and keys, checkpoints everything.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "learner/embedding_table.h"
#include "learner/served_rows.h"
#include "learner/towers.h"
#include "store/tensors.h"

namespace sluice {

// `values` is laid out as Towers::parameters(); `suffix` is appended to every name.
void add_tower_tensors(const Towers& towers, std::span<const float> values,
                       const std::string& suffix, Tensors& tensors);
Status read_tower_tensors(const Tensors& tensors, const std::string& suffix, const Towers& towers,
                          std::span<float> values);

// The rows with all that training needs of them: the optimizer's slots and the last batches.
void add_table_tensors(const EmbeddingTable& table, Tensors& tensors);
// Fills an empty table.
Status read_table_tensors(const Tensors& tensors, EmbeddingTable& table);

// The rows alone, as they are served.
void add_table_tensors(const ServedTable& table, Tensors& tensors);

// The table of "embedding.<table>.keys"; empty for any other name.
std::string_view table_of_keys(std::string_view tensor);

// A table's rows where they lie in tensors.
struct TableView {
  RowsView rows;
  std::uint64_t dim = 0;  // whatever stands in the file; nothing is to be allocated by it alone

  std::span<const float> row(std::size_t n) const { return {rows.values + n * dim, dim}; }
};
// Of the table `name`; the tensors outlive the view. An error where types or shapes are not those
// above, or keys do not ascend.
Result<TableView> view_table_tensors(const Tensors& tensors, const std::string& name);
// The same of a table whose rows have `dim` numbers.
Result<RowsView> view_table_tensors(const Tensors& tensors, const std::string& name,
                                    std::uint64_t dim);

}  // namespace sluice
