// The progressive predictions: as CSV for users (--predictions), and as fixed 16-byte records for
// the metrics of a replay's second half and of comparisons.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/result.h"
#include "learner/esmm_loss.h"
#include "learner/trainer.h"

namespace sluice {

// One line a sample, in sequence order:
// sequence,impression_id,y,y_final,z,z_final,pctr,pcvr,pctcvr. Owned by the learning thread.
class PredictionsFile {
 public:
  // Begins the file, or cuts it back to the lines up to `trained_sequence` and continues it. A
  // usage error where those lines are not all there: predictions are made once, before learning.
  static Result<std::unique_ptr<PredictionsFile>> open(FileSystem& files,
                                                       const std::filesystem::path& path,
                                                       std::uint64_t trained_sequence);
  Status add(const TrainedBatch& batch);
  // What was added survives a crash once this has returned.
  Status sync();

 private:
  explicit PredictionsFile(std::unique_ptr<WritableFile> file) : file_(std::move(file)) {}
  Status flush();
  std::unique_ptr<WritableFile> file_;
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

// The records from number `first` (from 0) on, in order; false, and none, where the log does not
// hold `samples` of them.
using ScoreVisitor = std::function<void(const FinalLabels& labels, const Prediction& prediction)>;
Result<bool> read_scores(FileSystem& files, const std::filesystem::path& path,
                         std::uint64_t samples, std::uint64_t first, const ScoreVisitor& visit);

// The metrics over lines ⌊samples/2⌋ to the end; null where the log is not whole.
Result<nlohmann::ordered_json> second_half_metrics(FileSystem& files,
                                                   const std::filesystem::path& path,
                                                   std::uint64_t samples);

}  // namespace sluice
