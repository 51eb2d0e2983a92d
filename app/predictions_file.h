// The progressive predictions: as CSV for users (--predictions), and as records of a fixed size for
// the metrics of a replay's second half and of comparisons.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/file.h"
#include "base/result.h"
#include "learner/objective.h"
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

// One record a sample: each tower's logit as an f32, in the recipe's order, and its flags.
constexpr std::uint64_t score_bytes(std::size_t towers) {
  return 4 * towers + 8;
}
// 1 y, 2 y final, 4 z, 8 z final.
std::uint64_t score_flags(const SampleLabels& sample);
struct ScoreRecord {
  Prediction prediction;
  std::uint64_t flags = 0;
};
ScoreRecord read_score(ByteReader& bytes, const Objective& objective);

// The records of all samples. Owned by the learning thread.
class ScoreLog {
 public:
  // Cut back to `trained_sequence` records. Where fewer are there the log is not whole and second
  // halves are unknown from then on.
  static Result<std::unique_ptr<ScoreLog>> open(FileSystem& files,
                                                const std::filesystem::path& path,
                                                std::uint64_t trained_sequence, std::size_t towers);
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
                         std::uint64_t samples, std::uint64_t first, const Objective& objective,
                         const ScoreVisitor& visit);

// The metrics over lines ⌊samples/2⌋ to the end; null where the log is not whole.
Result<nlohmann::ordered_json> second_half_metrics(FileSystem& files,
                                                   const std::filesystem::path& path,
                                                   std::uint64_t samples,
                                                   const Objective& objective);

}  // namespace sluice
