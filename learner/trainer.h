// The incremental learner: samples in sequence order go in, batches are cut, predicted, then learned
// (docs/design.md, "The learner"). Its state after sample n is a function of samples 1..n and the
// semantic config alone: not of threads, of how the samples arrived, or of restarts.
//
// Operation: offer() every sample of the log in sequence order; pass() tells how far event time has
// gone, so that a batch that no sample can join any more is trained at once; finish() trains the
// last partial batch. Each batch end calls the listener, the only moment at which save(), snapshot()
// and digest() describe a batch boundary. One thread calls; the Workers compute.
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
#include "store/tensors.h"

namespace sluice {

// As predicted before any label of the impression was learned. A second sample of an impression
// repeats its first one's.
struct Prediction {
  float ctr_logit = 0;     // a; pCTR = σ(a)
  float cvr_logit = 0;     // b; pCVR = σ(b)
  double pctr = 0;
  double pcvr = 0;
  double pctcvr = 0;       // pCTR · pCVR
};

struct TrainedBatch {
  std::span<const Sample> samples;          // in sequence order
  std::span<const Prediction> predictions;  // one a sample
  std::uint64_t last_sequence = 0;
  TimeMs tick = 0;  // start of the last sample's tick
};

using BatchListener = std::function<Status(const TrainedBatch&)>;

// Everything that training needs to go on, and nothing else.
struct LearnerState {
  nlohmann::ordered_json json;  // sequence, steps, ISA, kept predictions, metric sums, ...
  Tensors tensors;              // weights, slots, rows sorted by (table, key)
};

class Trainer {
 public:
  // The untrained model (sequence 0). `config` and `workers` outlive the trainer.
  Trainer(const Config& config, Workers& workers);
  ~Trainer();

  void set_listener(BatchListener listener);

  // The next sample; its sequence must be next_sequence(). Returns what the listener returned.
  Status offer(Sample sample);
  // No sample of a tick that starts before `frontier` can come any more.
  Status pass(TimeMs frontier);
  // Trains the samples that wait for their batch to fill.
  Status finish();

  std::uint64_t next_sequence() const;   // of the next sample to offer
  std::uint64_t trained_sequence() const;  // of the last sample trained; 0: none
  Digest samples_digest() const;         // chained up to trained_sequence()
  // Sum of hashes over rows, layers, slots and accumulators; 128 bits, independent of their order in
  // memory.
  Digest model_digest() const;

  // Progressive metrics over all samples trained:
  // {"ctr": {"auc", "log_loss", "normalized_entropy", "calibration"}, "ctcvr": ..., "cvr": ...};
  // undefined is null.
  nlohmann::ordered_json metrics() const;
  // The same since the last call of snapshot().
  nlohmann::ordered_json window_metrics() const;
  // Values of a wrong type, by feature.
  nlohmann::ordered_json wrong_types() const;

  // For recovery. A state of another instruction set, config or format is refused.
  LearnerState save() const;
  Status restore(const LearnerState& state);

  // For serving: weights as tensors and the feature schema ("features", "model" of the manifest), so
  // that a reader needs no config. Starts a new metrics window.
  LearnerState snapshot();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice
