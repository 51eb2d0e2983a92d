// The progressive predictions: as CSV for users (--predictions), and as fixed 16-byte records for
// the metrics of a replay's second half.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/result.h"
#include "learner/trainer.h"

namespace sluice {

// What a line has that not every lineage knows, in this order.
struct PredictionColumns {
  bool value = false;   // value: with join.purchase_value
  bool action = false;  // action,action_final: with streams.actions
};

// One line a sample, in sequence order:
// sequence,impression_id,y,y_final,z,z_final,pctr,pcvr,pctcvr and further columns.
// Owned by the learning thread.
class PredictionsFile {
 public:
  // Begins the file, or cuts it back to the lines up to `trained_sequence` and continues it. A
  // usage error where those lines are not all there: predictions are made once, before learning.
  static Result<std::unique_ptr<PredictionsFile>> open(FileSystem& files,
                                                       const std::filesystem::path& path,
                                                       std::uint64_t trained_sequence,
                                                       const PredictionColumns& columns);
  Status add(const TrainedBatch& batch);
  // What was added survives a crash once this has returned.
  Status sync();

 private:
  PredictionsFile(std::unique_ptr<WritableFile> file, const PredictionColumns& columns)
      : file_(std::move(file)), columns_(columns) {}
  Status flush();
  std::unique_ptr<WritableFile> file_;
  PredictionColumns columns_;
  std::string buffer_;
};

// One record a sample: f32 CTR logit, f32 CVR logit, flags (1 y, 2 y final, 4 z, 8 z final), 7 zero
// bytes. Owned by the learning thread.
class ScoreLog {
 public:
  // Cut back to `trained_sequence` records. Where fewer are there the log is not whole and second
  // halves are unknown from then on.
  static Result<std::unique_ptr<ScoreLog>> open(FileSystem& files,
                                                const std::filesystem::path& path,
                                                std::uint64_t trained_sequence);
  Status add(const TrainedBatch& batch);
  Status sync();

 private:
  explicit ScoreLog(std::unique_ptr<WritableFile> file) : file_(std::move(file)) {}
  std::unique_ptr<WritableFile> file_;  // none: not whole
};

// The metrics over lines ⌊samples/2⌋ to the end; null where the log is not whole.
Result<nlohmann::ordered_json> second_half_metrics(FileSystem& files,
                                                   const std::filesystem::path& path,
                                                   std::uint64_t samples);

}  // namespace sluice
