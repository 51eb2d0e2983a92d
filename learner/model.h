// The model: what it is (schema, recipe), embedding tables and towers. Trained by Trainer, or read
// from a snapshot to score impressions with.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "learner/embedding_table.h"
#include "learner/objective.h"
#include "learner/prediction.h"
#include "learner/schema.h"
#include "learner/tower_pass.h"
#include "learner/towers.h"
#include "store/tensors.h"

namespace sluice {

// Tables, and the towers that read them: one of the recipe's embedding sets.
struct EmbeddingSet {
  std::vector<EmbeddingTable> tables;  // in the order of Schema::tables()
  Towers towers;                       // in the recipe's order
};

class Model {
 public:
  // Initial weights, no rows. `row_slots`: each row's optimizer state; none to score.
  Model(Schema schema, const std::vector<Slot>& row_slots);

  // From what Trainer::snapshot() gave; keys and tensors beyond the model's are passed over.
  static Result<Model> from_snapshot(const nlohmann::ordered_json& json, const Tensors& tensors);

  // The features whose blobs score() reads, for decoding impressions (ingest/).
  std::vector<FeatureConfig> features() const { return schema_.features(); }

  // One prediction for each feature blob (ingest/features.h, of features()). The same bits for a
  // blob alone or among others, and the same as the trainer's from these weights. Thread-safe.
  std::vector<Prediction> score(std::span<const std::string_view> blobs) const;

  const Schema& schema() const { return schema_; }
  const Objective& objective() const { return objective_; }
  std::vector<EmbeddingSet>& sets() { return sets_; }  // in the recipe's order
  const std::vector<EmbeddingSet>& sets() const { return sets_; }

  // Where a tower of the recipe is: in which set, and which of its towers.
  struct Place {
    std::size_t set, tower;
  };
  const std::vector<Place>& places() const { return places_; }  // by tower

 private:
  void score_some(std::span<const std::string_view> blobs, std::vector<TowerPass>& passes,
                  std::vector<Prediction>& out) const;
  void find_rows(DecodedSamples& decoded, std::size_t set,
                 std::vector<std::unique_ptr<float[]>>& absent_rows) const;

  Schema schema_;
  Objective objective_;
  std::vector<EmbeddingSet> sets_;
  std::vector<Place> places_;
};

// Adds up each field's rows of an embedding set (RowTerm::row, all set) and places the dense
// numbers: position `at` of the batch's inputs is x[at − first]. x is zero before.
void pool(const DecodedSamples& decoded, std::size_t set, std::size_t dim, std::uint32_t first,
          float* x);

}  // namespace sluice
