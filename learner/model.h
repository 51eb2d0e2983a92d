// The model as it is trained by Trainer: what it is (schema, recipe), embedding tables and towers.
// learner/scoring_model.h is the one that serves.
#pragma once

#include <string>
#include <vector>

#include "learner/embedding_table.h"
#include "learner/objective.h"
#include "learner/schema.h"
#include "learner/towers.h"

namespace sluice {

// Where a tower of the recipe is: in which embedding set, and which of its towers.
struct TowerPlace {
  std::size_t set, tower;
};
std::vector<TowerPlace> tower_places(const Recipe& recipe);  // by tower

// Each embedding set's towers, in the recipe's order, with their initial weights.
std::vector<Towers> make_towers(const Schema& schema);

// The name of a set's table in tensors: a recipe's only set has the names of the tables alone.
std::string table_name(const Recipe& recipe, std::size_t set, const std::string& table);

// Tables, and the towers that read them: one of the recipe's embedding sets.
struct EmbeddingSet {
  std::vector<EmbeddingTable> tables;  // in the order of Schema::tables()
  Towers towers;                       // in the recipe's order
};

class Model {
 public:
  // Initial weights, no rows. `row_slots`: each row's optimizer state.
  Model(Schema schema, const std::vector<Slot>& row_slots);

  const Schema& schema() const { return schema_; }
  const Objective& objective() const { return objective_; }
  std::vector<EmbeddingSet>& sets() { return sets_; }  // in the recipe's order
  const std::vector<EmbeddingSet>& sets() const { return sets_; }
  const std::vector<TowerPlace>& places() const { return places_; }  // by tower

 private:
  Schema schema_;
  Objective objective_;
  std::vector<EmbeddingSet> sets_;
  std::vector<TowerPlace> places_;
};

// Adds up each field's rows of an embedding set (RowTerm::row, all set) and places the dense
// numbers: position `at` of the batch's inputs is x[at − first]. x is zero before.
void pool(const DecodedSamples& decoded, std::size_t set, std::size_t dim, std::uint32_t first,
          float* x);

}  // namespace sluice
