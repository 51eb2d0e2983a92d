// What a Trainer holds; shared by trainer.cc (a batch's way) and trainer_state.cc (save, restore,
// digests).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "learner/batch.h"
#include "learner/metrics.h"
#include "learner/model.h"
#include "learner/optimizer.h"
#include "learner/tower_pass.h"
#include "learner/trainer.h"

namespace sluice {

// All that training changes: a function of the samples up to `trained_sequence`.
struct Learned {
  explicit Learned(const Config& config);

  Model model;
  std::vector<Slot> dense_slots;
  // By embedding set, by slot, each laid out as Towers::parameters().
  std::vector<std::vector<std::vector<float>>> dense_state;
  std::uint64_t steps = 0;  // batches trained
  std::uint64_t trained_sequence = 0;
  TimeMs tick = 0;  // start of the last trained sample's tick
  Digest samples_digest;
  ProgressiveMetrics metrics;
  ProgressiveMetrics window_metrics;
  // The logits that the first predictions of clicked impressions follow from, where z is not final;
  // by kept_key().
  std::unordered_map<std::string, std::vector<float>> kept;
  std::uint64_t cut_ratios = 0;            // impressions that were predicted with one
  std::vector<std::uint64_t> wrong_types;  // by feature
  std::vector<std::uint64_t> absent;       // by feature
};

FinalLabels labels_of(const SampleLabels& sample);

// The shard's number (4 bytes, big-endian), then the impression_id.
std::string kept_key(const Sample& sample);

struct Trainer::Impl {
  Impl(const Config& its_config, Workers& its_workers)
      : config(its_config),
        workers(its_workers),
        learned(its_config),
        pending(its_config.training, its_config.join.tick),
        gather_scratch(its_workers.threads()) {
    make_passes();
  }

  void make_passes();  // of what was learned, whenever that is another object
  // Trains the pending samples as one batch and tells the listener.
  Status train();

  const Config& config;
  Workers& workers;
  BatchListener listener;
  Learned learned;
  PendingBatch pending;

  // The rest is train()'s: scratch that is made anew by every batch.

  // Rows [begin, end) of what one thread computes at a time; at most training.lane of them, rounded
  // up to 32.
  struct Lane {
    std::size_t begin = 0, end = 0;
  };
  std::vector<Lane> lanes_of(std::size_t rows) const;
  // What a batch needs of one embedding set.
  struct SetPass {
    TowerPass towers;
    std::array<BatchRows, EmbeddingTable::kParts> rows = {};
    std::vector<float> dense_gradient = {};  // of the batch; only where it is clipped
  };
  // A piece of the weights' updates, and one of the rows': distinct rows [begin, end) of one part
  // of a set's tables.
  struct WeightPiece {
    std::size_t set;
    TowerPass::Piece piece;
  };
  struct RowPiece {
    std::size_t set, part, begin, end;
  };

  // Whether the sample trains anything at all.
  bool is_learned(const Sample& sample) const;
  void decode();
  void free_past(std::size_t lane);
  void decode_contexts();
  void gather(std::uint64_t step);
  void forward_contexts();
  void forward(std::size_t lane, std::size_t thread);
  TermDivisors term_divisors();
  void compute_lanes();
  void differentiate(std::size_t sample, const TermDivisors& divisors);
  void backward_contexts();
  Status check_logits() const;
  Status update(std::uint64_t step);
  void validate();
  float dense_clip_scale(const OptimizerStep& optimizer);  // fills dense_gradient
  bool update_weights(const WeightPiece& piece, std::size_t thread, const OptimizerStep& optimizer,
                      float scale);
  std::optional<std::size_t> update_rows(const RowPiece& piece, const OptimizerStep& optimizer);
  Status not_finite_row(const RowPiece& piece, std::size_t row) const;
  Status check_bounds() const;

  std::vector<Sample> samples;  // of the batch
  std::vector<Sample> past;     // of the batch before, not freed yet
  std::span<float> logits_of(std::size_t sample) {
    const std::size_t towers = learned.model.places().size();
    return std::span(logits).subspan(sample * towers, towers);
  }

  std::vector<std::uint16_t> reached;  // by sample: the sets that its terms reach, as bits
  std::vector<float> logits;           // [samples, towers]
  std::vector<Prediction> predictions;
  std::vector<SetPass> passes;  // by embedding set; their inputs lie alike
  std::vector<WeightPiece> weight_pieces;
  std::vector<Lane> lanes;              // of samples
  std::vector<DecodedSamples> own;      // by lane: the impressions' own columns
  std::vector<Digest> context_digests;  // by sample
  BatchContexts contexts;
  std::vector<Lane> context_lanes;
  std::vector<DecodedSamples> shared;         // by lane of contexts
  std::vector<GatherScratch> gather_scratch;  // by thread
};

}  // namespace sluice
