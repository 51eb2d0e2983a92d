// Scores impressions by a snapshot. They are decoded by the code that decodes logs, so that an
// impression means the same in training and in serving.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "base/file.h"
#include "base/result.h"
#include "ingest/decoder.h"
#include "serving/snapshots.h"

namespace sluice {

struct Score {
  std::string impression_id;
  Prediction prediction;
};

// Whether each of the three rates is a number. With recipes whose pCVR has a tower of its own, one
// may be none while the others are.
bool is_finite(const Prediction& prediction);

// One version of a model. Any thread; shared by all that serve from it.
class Scorer {
 public:
  explicit Scorer(Snapshot snapshot);
  ~Scorer();
  Scorer(const Scorer&) = delete;
  Scorer& operator=(const Scorer&) = delete;

  const nlohmann::ordered_json& manifest() const { return manifest_; }
  // Longer impressions are refused; a reader need not keep more of them.
  std::uint64_t max_record_bytes() const { return streams_.max_record_bytes; }

  const ScoringModel& model() const { return model_; }

  // The version that a delta on this one makes. In time and memory it costs the rows changed since
  // the last full snapshot; the others are shared. An error where the delta's base is another
  // snapshot, or the weights come out with another digest than its manifest says.
  Result<std::shared_ptr<const Scorer>> with_delta(SnapshotPart delta) const;
  // Whether this is the snapshot that a delta names as its base.
  bool is_base(const SnapshotBase& base) const;

  // One result for each impression (a JSON object as in the log), in their order: its score, or why
  // it has none. A score's bits do not depend on the other impressions.
  std::vector<tl::expected<Score, std::string>> score(
      std::span<const std::string> impressions) const;

 private:
  // What one call at a time needs; kept for the next one.
  struct Hand;
  std::unique_ptr<Hand> take_hand() const;
  void give_back(std::unique_ptr<Hand> hand) const;

  nlohmann::ordered_json manifest_;
  StreamsConfig streams_;
  ScoringModel model_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Hand>> hands_;  // those that nobody uses now
};

// The snapshot in `folder`, read and checked whole. Where it is a delta that leads back to `near`,
// an earlier version, only the deltas in between are read, and rows are shared with it.
Result<std::shared_ptr<const Scorer>> open_scorer(FileSystem& files,
                                                  const std::filesystem::path& folder,
                                                  const std::shared_ptr<const Scorer>& near = {});

}  // namespace sluice
