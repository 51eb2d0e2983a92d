// What a Trainer holds; shared by trainer.cc (a batch's way) and trainer_state.cc (save, restore,
// digests).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "learner/batch.h"
#include "learner/esmm_loss.h"
#include "learner/metrics.h"
#include "learner/model.h"
#include "learner/optimizer.h"
#include "learner/trainer.h"

namespace sluice {

// All that training changes: a function of the samples up to `trained_sequence`.
struct Learned {
  explicit Learned(const Config& config);

  Model model;
  std::vector<Slot> dense_slots;
  std::vector<std::vector<float>> dense_state;  // by slot, each laid out as Towers::parameters()
  std::uint64_t steps = 0;                      // batches trained
  std::uint64_t trained_sequence = 0;
  TimeMs tick = 0;  // start of the last trained sample's tick
  Digest samples_digest;
  ProgressiveMetrics metrics;
  ProgressiveMetrics window_metrics;
  // First predictions of clicked impressions whose z is not final, by kept_key().
  std::unordered_map<std::string, Prediction> kept;
  std::vector<std::uint64_t> wrong_types;  // by feature
};

// The shard's number (4 bytes, big-endian), then the impression_id.
std::string kept_key(const Sample& sample);

struct Trainer::Impl {
  Impl(const Config& its_config, Workers& its_workers)
      : config(its_config),
        workers(its_workers),
        learned(its_config),
        pending(its_config.training, its_config.join.tick),
        thread_scratch(its_workers.threads()),
        batch_rows(learned.model.tables().size()) {}

  // Trains the pending samples as one batch and tells the listener.
  Status train();

  const Config& config;
  Workers& workers;
  BatchListener listener;
  Learned learned;
  PendingBatch pending;

  // The rest is train()'s: scratch that is made anew by every batch.

  // A lane's part of the batch: samples [begin, end).
  struct Lane {
    std::uint32_t begin = 0;
    std::uint32_t end = 0;
    std::size_t columns = 0;  // padded to tiles
    std::vector<float> parameter_gradients;
    std::vector<float> x_gradients;  // [inputs, columns]
  };
  struct ThreadScratch {
    std::vector<float> x;
    std::vector<float> logits;           // [tower, columns]
    std::vector<float> logit_gradients;  // [tower, columns]
    TowerWorkspace workspace;
  };
  // Distinct rows [begin, end) of one table: a piece of the row updates.
  struct RowPiece {
    std::size_t table;
    std::size_t begin;
    std::size_t end;
  };

  void cut_lanes(std::size_t samples);
  void decode_and_gather(const std::vector<Sample>& samples, std::uint64_t step);
  void compute_gradients(const std::vector<Sample>& samples, std::vector<Prediction>& predictions);
  void compute_lane(std::size_t lane, ThreadScratch& scratch, const std::vector<Sample>& samples,
                    std::vector<Prediction>& predictions);
  Status check_logits(const std::vector<Sample>& samples,
                      const std::vector<Prediction>& predictions) const;
  void validate(const std::vector<Sample>& samples, std::vector<Prediction>& predictions);
  void sum_dense_gradients(std::size_t begin, std::size_t count, float* out) const;
  float dense_clip_scale(const OptimizerStep& optimizer);  // fills dense_gradient
  void update_dense(std::uint64_t step);
  void update_rows(std::uint64_t step);
  Status check_updated(const std::vector<Sample>& samples);

  std::vector<Lane> lanes;  // of the batch; later ones keep their memory
  std::size_t lane_count = 0;
  std::vector<DecodedSamples> decoded;  // by lane
  std::vector<ThreadScratch> thread_scratch;
  std::vector<BatchRows> batch_rows;  // by table
  std::vector<RowPiece> row_pieces;
  std::vector<float> dense_gradient;  // of the batch; only where it is clipped
};

}  // namespace sluice
