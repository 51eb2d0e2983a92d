// The incremental learner: samples in sequence order go in, batches are cut, predicted, then
// learned (docs/design.md, "The learner"). Its state after sample n is a function of samples 1..n
// and the semantic config alone: not of threads, of how the samples arrived, or of restarts.
//
// Operation: offer() every sample of the log in sequence order; pass() tells how far event time has
// gone, so that a batch that no sample can join any more is trained at once; finish() trains the
// last partial batch. Each batch end calls the listener. save(), snapshot() and the digests
// describe the last batch end: samples that wait for their batch to fill are in none of them and
// are offered again after a restore(). Where one batch end makes both, a snapshot comes before
// save(), so that a restored trainer has the window of metrics, and of changed rows, that follows
// the snapshot. One thread calls; the Workers compute.
//
// A snapshot does not halt training: begin_snapshot() freezes the model as it is, and its rows are
// copied some at a time, before each batch and with each copy_snapshot(); a row that a batch is
// about to change is copied first. What is taken is the same however the copying was cut.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include <nlohmann/json.hpp>

#include "base/hash.h"
#include "base/lanes.h"
#include "base/result.h"
#include "config/config.h"
#include "joiner/sample.h"
#include "learner/frozen_model.h"
#include "learner/objective.h"
#include "learner/prediction.h"
#include "store/tensors.h"

namespace sluice {

// Its spans hold during the listener's call only.
struct TrainedBatch {
  std::span<const Sample> samples;          // in sequence order
  std::span<const Prediction> predictions;  // one a sample
  std::span<const float> logits;            // [samples, towers]: what these follow from
  std::uint64_t last_sequence = 0;
  TimeMs tick = 0;  // start of the last sample's tick
};

using BatchListener = std::function<Status(const TrainedBatch&)>;

// Everything that training needs to go on, and nothing else.
struct LearnerState {
  nlohmann::ordered_json json;  // sequence, steps, ISA, ...
  Tensors tensors;              // weights, slots, rows sorted by (table, key); kept predictions
                                // and metric sums
};

struct ModelDigests {
  Digest state;    // Trainer::model_digest()
  Digest weights;  // FrozenModel::weights_digest
  friend bool operator==(const ModelDigests&, const ModelDigests&) = default;
};

class Trainer {
 public:
  // The untrained model (sequence 0). `config` and `workers` outlive the trainer.
  Trainer(const Config& config, Workers& workers);
  ~Trainer();

  void set_listener(BatchListener listener);

  // The next sample; its sequence must be next_sequence(), at least one label final, z only with y,
  // and `features` a blob of config.features (all checked). A sample whose y is not final must
  // follow its impression's first one. Returns what the listener returned, or an error where a
  // logit or an updated weight is not finite, before the listener is told of that batch. After an
  // error the trainer is good for nothing but destruction.
  Status offer(Sample sample);
  // No sample of a tick that starts before `frontier` can come any more.
  Status pass(TimeMs frontier);
  // Trains the samples that wait for their batch to fill.
  Status finish();

  std::uint64_t next_sequence() const;     // of the next sample to offer
  std::uint64_t trained_sequence() const;  // of the last sample trained; 0: none
  Digest samples_digest() const;           // chained up to trained_sequence()
  // Sum of hashes over rows, layers, slots, kept predictions, the accumulators of metrics() and the
  // counters; 128 bits, independent of their order in memory. The accumulators of window_metrics()
  // are not in it, so that it is the same before and after a snapshot. Costs what has changed since
  // the last snapshot; while one is being copied, all rows.
  Digest model_digest() const;
  // The same, and the digest of the weights alone (learner/row_digest.h), from all rows one by one:
  // what the others are checked by.
  ModelDigests digests_of_all() const;

  const Objective& objective() const;  // of the recipe

  // Progressive metrics over all samples trained:
  // {"ctr": {"samples", "positives", "auc", "log_loss", "normalized_entropy", "calibration"},
  //  "ctcvr": ..., "cvr": ...}; undefined is null (learner/metrics.h).
  nlohmann::ordered_json metrics() const;
  // The same since the last begin_snapshot().
  nlohmann::ordered_json window_metrics() const;
  // Impressions for whom a ratio of rates above 1 was cut to 1, of recipes with such a rate.
  std::uint64_t cut_ratios() const;
  // Impressions whose value was of a wrong type, by feature: {"<feature>": count, ...}.
  nlohmann::ordered_json wrong_types() const;
  // Impressions without a value, by feature.
  nlohmann::ordered_json absent() const;

  // For recovery. A state of another instruction set, model or format is refused, as is a damaged
  // one; the trainer is then as it was before.
  LearnerState save() const;
  Status restore(const LearnerState& state);

  // For serving (ScoringModel::from_snapshot): weights as tensors (learner/model_tensors.h), and what a
  // reader needs in place of the config: "model", "features", "bucket_edges" (learner/schema.h),
  // with "sequence", "tick", "metrics" and "window_metrics". Of all rows, or of those that changed
  // since the snapshot before (at the first: all). Starts a new window of metrics and of changes.
  // The one before must have been taken.
  void begin_snapshot(CutRows rows);
  // Between begin_snapshot() and take_snapshot(). Copies some more rows; true when all are copied.
  bool copy_snapshot();
  bool is_snapshot_copied() const;
  FrozenModel take_snapshot();  // when all is copied
  // All of this at once, of all rows.
  LearnerState snapshot();
  // How many rows are copied at a time, about.
  void set_rows_at_once(std::size_t rows);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice
