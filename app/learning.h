// The learning stage: reads committed samples from the sample log, trains, and keeps what survives:
// checkpoints for recovery, snapshots for serving, digests.jsonl, predictions.
//
// Layout, under <data-dir>/models/<name>/: identity.txt (semantic keys), checkpoints/<sequence>/,
// snapshots/<sequence>/ and snapshots/LATEST, scores.bin; digests.jsonl lies in <data-dir>.
// Recovery: the newest checkpoint whose checksums hold; then the samples after it are trained
// again.
//
// A snapshot does not halt training: its rows are copied between batches, then it is written beside
// (SnapshotWriter). A checkpoint, the next snapshot and the end wait until it is published: so the
// samples behind a checkpoint make all snapshots that are not there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/digest_log.h"
#include "app/freshness.h"
#include "app/handoff.h"
#include "app/learn_stage.h"
#include "app/predictions_file.h"
#include "app/snapshot_writer.h"
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
  // Where snapshots are written; none: on the learning thread, at once.
  std::function<std::unique_ptr<Background>()> make_background = {};
  std::size_t rows_at_once = 32'768;  // of a snapshot, copied between two batches
  DigestLog* digests = nullptr;       // shared by several models, outlives them; none: its own
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
  // Of the trained samples: those that were not learned (training.skip_samples).
  std::uint64_t skipped() const;
  std::uint64_t first_needed() const override { return first_needed_; }
  std::optional<std::uint64_t> last_snapshot() const override { return writer_.newest(); }
  const Trainer& trainer() const { return trainer_; }
  // The newest snapshot that did not become LATEST (app/snapshot_gate.h).
  std::optional<std::uint64_t> candidate() const { return writer_.candidate(); }
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
  Status restore(std::uint64_t sequence, const PublishedFolder& folder);
  Status on_batch(const TrainedBatch& batch);
  Status checkpoint();
  Status begin_snapshot(TimeMs tick, bool is_last);
  bool is_full_snapshot() const;
  nlohmann::ordered_json snapshot_manifest(TimeMs tick, bool is_last) const;
  Status go_on_with_snapshot();
  Status await_snapshot();
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
  std::unique_ptr<DigestLog> own_digests_;  // where none is shared
  DigestLog* digests_ = nullptr;
  Digest offered_digest_;  // chained over every sample offered
  std::uint64_t first_needed_ = 1;
  bool is_finishing_ = false;  // the last batch of closed logs is being trained
  std::uint64_t last_checkpoint_ = 0;
  DurationMs last_checkpoint_steady_ = 0;
  TimeMs last_tick_ = kTimeMin;      // of the last trained batch
  TimeMs next_snapshot_ = kTimeMin;  // event time; kTimeMin before the first batch
  // Of this lineage's last snapshot: its sequence, which one it is (from 1), and the checksum of
  // its manifest, once it is written.
  std::uint64_t snapshot_at_ = 0;
  std::uint64_t snapshot_ordinal_ = 0;
  std::string snapshot_checksum_;
  std::optional<nlohmann::ordered_json> copying_;  // the manifest of one whose rows are copied
  Committed committed_;
  SnapshotWriter writer_;  // ends first
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
