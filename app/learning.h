// The learning stage: reads committed samples from the sample log, trains, and keeps what survives:
// checkpoints for recovery, snapshots for serving, digests.jsonl, predictions.
//
// Layout, under <data-dir>/models/<name>/: identity.txt (semantic keys), checkpoints/<sequence>/,
// snapshots/<sequence>/ and snapshots/LATEST, scores.bin; digests.jsonl lies in <data-dir>.
// Recovery: the newest checkpoint whose checksums hold; then the samples after it are trained
// again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/freshness.h"
#include "app/handoff.h"
#include "app/learn_stage.h"
#include "app/predictions_file.h"
#include "base/file.h"
#include "base/lanes.h"
#include "base/result.h"
#include "config/config.h"
#include "learner/trainer.h"
#include "store/key_value.h"
#include "store/published_folder.h"

namespace sluice {

struct LearningOptions {
  std::filesystem::path data_dir;
  std::optional<std::filesystem::path> predictions;
  std::string provenance;          // JSON object for provenance.json: build, host, source
  Freshness* freshness = nullptr;  // of a live service: told of every batch
  // What must be on disk before a checkpoint that speaks of it; none: nothing else.
  std::function<Status()> before_checkpoint = {};
};

// Owned by the learning thread once opened.
class Learning final : public LearnStage {
 public:
  // Recovers. The references outlive it. A usage error where the folder was begun with another
  // semantic config of the learner.
  static Result<std::unique_ptr<Learning>> open(const Config& config,
                                                const LearningOptions& options,
                                                KeyValueStore& store, FileSystem& files,
                                                Clock& clock, Workers& workers);

  Result<bool> learn(const Committed& committed, std::size_t max_samples) override;
  // The same with samples that were read already: consecutive, the first at or before
  // next_sequence(); those that were offered before are passed over.
  Result<bool> learn_from(const Committed& committed, std::vector<Sample> samples);
  Status finish() override;
  Status stop() override;

  std::uint64_t next_sequence() const override { return trainer_.next_sequence(); }
  std::uint64_t trained_sequence() const override { return trainer_.trained_sequence(); }
  std::uint64_t first_needed() const override { return first_needed_; }
  std::optional<std::uint64_t> last_snapshot() const override { return last_snapshot_; }
  const Trainer& trainer() const { return trainer_; }
  // Snapshots that did not become LATEST, since this process began (app/snapshot_gate.h).
  std::uint64_t snapshots_held() const { return snapshots_held_; }
  Result<nlohmann::ordered_json> second_half_metrics();
  // Of every trained sample in order, as predicted before it was learned; false where they were not
  // kept from the first on.
  Result<bool> read_scores(const ScoreVisitor& visit);

 private:
  Learning(const Config& config, const LearningOptions& options, KeyValueStore& store,
           FileSystem& files, Clock& clock, Workers& workers);

  Status sync_folders();
  Status check_identity();
  Status recover();
  Status load_digests();
  Status restore(std::uint64_t sequence, const PublishedFolder& folder);
  Status on_batch(const TrainedBatch& batch);
  Status checkpoint();
  Status snapshot(TimeMs tick, bool is_last);
  Status put_into_use(std::uint64_t sequence, const nlohmann::ordered_json& manifest);
  Status write_digest_line(const char* kind);
  Status update_first_needed();
  bool is_snapshot_due(TimeMs tick);

  const Config& config_;
  LearningOptions options_;
  std::filesystem::path folder_;  // models/<name>
  KeyValueStore& store_;
  FileSystem& files_;
  Clock& clock_;
  Trainer trainer_;
  std::unique_ptr<PredictionsFile> predictions_;
  std::unique_ptr<ScoreLog> scores_;
  std::map<std::uint64_t, std::string> digest_lines_;  // by sequence, what was said before
  Digest offered_digest_;                              // chained over every sample offered
  std::uint64_t first_needed_ = 1;
  bool is_finishing_ = false;  // the last batch of closed logs is being trained
  std::uint64_t last_checkpoint_ = 0;
  DurationMs last_checkpoint_steady_ = 0;
  TimeMs last_tick_ = kTimeMin;                 // of the last trained batch
  TimeMs next_snapshot_ = kTimeMin;             // event time; kTimeMin before the first batch
  std::uint64_t snapshot_at_ = 0;               // sequence of the last snapshot of this lineage
  std::optional<std::uint64_t> last_snapshot_;  // the newest that LATEST named
  std::uint64_t snapshots_held_ = 0;
  Committed committed_;
};

// The committed samples from `first` on, about `max_samples` of them, at least one; none where
// nothing from there on is committed.
Result<std::vector<Sample>> read_committed(KeyValueStore& store, std::uint64_t first,
                                           const Committed& committed, std::size_t max_samples);

// A usage error that names the keys in which `config` differs from the learner's config that the
// model in `folder` (models/<name>) was begun with; fine where nothing was begun.
Status compare_learner_identity(const Config& config, FileSystem& files,
                                const std::filesystem::path& folder);

}  // namespace sluice
