// The model as it serves: read from snapshots, never changed afterwards, shared by any number of
// threads. Its bits are those that training predicts with the same weights.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/aligned_array.h"
#include "base/result.h"
#include "learner/batch.h"
#include "learner/model.h"
#include "learner/objective.h"
#include "learner/prediction.h"
#include "learner/schema.h"
#include "learner/served_rows.h"
#include "learner/tower_pass.h"
#include "learner/towers.h"
#include "store/tensors.h"

namespace sluice {

class ScoringModel {
 public:
  // From what Trainer::snapshot() gave, of a full snapshot; keys and tensors beyond the model's are
  // passed over.
  static Result<ScoringModel> from_snapshot(const nlohmann::ordered_json& json,
                                            const Tensors& tensors);
  // The version after this one, from a delta: all towers, and the rows that changed since. The
  // tables' other rows are shared with this one. An error where the delta is of another model.
  Result<ScoringModel> with_delta(const nlohmann::ordered_json& json, const Tensors& tensors) const;

  // All weights as a full snapshot has them.
  Tensors tensors() const;

  // The features whose blobs score() reads, for decoding impressions (ingest/).
  std::vector<FeatureConfig> features() const { return schema_->features(); }

  // What one call needs and the next one may use again. One thread at a time; of one model, which
  // outlives it.
  class Scratch {
   public:
    explicit Scratch(const ScoringModel& model);

   private:
    friend class ScoringModel;
    std::vector<TowerPass> passes;  // by embedding set
    DecodedSamples own, shared;     // the impressions' columns and their contexts'
    std::vector<Digest> digests;
    BatchContexts contexts;
    AlignedArray<float> absent;  // initial values of rows that are not there
    std::vector<float> logits;
  };

  // Sets out[i] for each feature blob (ingest/features.h, of features()). The same bits for a blob
  // alone or among others, and the same as the trainer's from these weights. Allocates nothing once
  // `scratch` has seen as many.
  void score(std::span<const std::string_view> blobs, Scratch& scratch,
             std::span<Prediction> out) const;
  std::vector<Prediction> score(std::span<const std::string_view> blobs) const;

  struct Set {
    std::vector<ServedTable> tables;  // in the order of Schema::tables()
    Towers towers;                    // in the recipe's order
  };
  const Schema& schema() const { return *schema_; }
  const Objective& objective() const { return *objective_; }
  const std::vector<Set>& sets() const { return sets_; }             // in the recipe's order
  const std::vector<TowerPlace>& places() const { return places_; }  // by tower

 private:
  ScoringModel(std::shared_ptr<const Schema> schema, std::shared_ptr<const Objective> objective);
  template <class F>
  Status read(const Tensors& tensors, const F& table_of);
  void score_some(std::span<const std::string_view> blobs, Scratch& scratch,
                  std::span<Prediction> out) const;
  void find_rows(DecodedSamples& decoded, std::size_t set, Scratch& scratch) const;

  std::shared_ptr<const Schema> schema_;  // the same of all versions that deltas made of one
  std::shared_ptr<const Objective> objective_;
  std::vector<TowerPlace> places_;
  std::vector<Set> sets_;
};

}  // namespace sluice
