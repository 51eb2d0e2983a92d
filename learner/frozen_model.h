// A model's weights as of one batch end, apart from the model: what a snapshot is written from,
// while training goes on. Owned by whoever has it; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/hash.h"
#include "learner/row_changes.h"
#include "store/tensors.h"

namespace sluice {

struct FrozenModel {
  // "model", "features", "bucket_edges", "sequence", "tick", "metrics", "window_metrics"
  nlohmann::ordered_json json;
  Digest samples_digest;
  Digest model_digest;
  Digest weights_digest;  // of all weights, whichever rows are here

  struct Table {
    std::string name;  // EmbeddingTable::name()
    std::size_t dim = 0;
    std::vector<FrozenRows> parts = {};  // distinct keys

    std::uint64_t rows() const;
  };
  Tensors towers;
  std::vector<Table> tables;

  // How many rows are here, by table.
  nlohmann::ordered_json rows_by_table() const;
  // Towers and rows, sorted by key, as learner/model_tensors.h names them. Leaves nothing here.
  Tensors take_tensors();
};

}  // namespace sluice
