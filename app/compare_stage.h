// Several models that learn from one join, in step: each sample of the log is read once and offered
// to each of them, with the features that its config names among those of the log
// (logged_features). What a model becomes is what it would have become alone (app/learning.h): same
// folder, same digests. The threads are shared out among the models, which learn side by side: a
// model's batch has less to share out, and every thread has to wait for each of its steps.
//
// After a restart each goes on from its own newest checkpoint; samples are read from where the one
// that is furthest behind needs them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "app/compare_facts.h"
#include "app/compare_models.h"
#include "app/learn_stage.h"
#include "app/learning.h"
#include "base/lanes.h"
#include "ingest/features.h"

namespace sluice {

class CompareStage final : public LearnStage {
 public:
  // Recovers every model; `threads`, at least 1, is how many compute. The references, and `models`,
  // outlive it. A usage error where the sample log no longer reaches back to what a new model
  // needs.
  static Result<std::unique_ptr<CompareStage>> open(const std::vector<ComparedModel>& models,
                                                    const LearningOptions& options,
                                                    KeyValueStore& store, FileSystem& files,
                                                    Clock& clock, std::size_t threads);

  Result<bool> learn(const Committed& committed, std::size_t max_samples) override;
  Status finish() override;
  Status stop() override;

  std::uint64_t next_sequence() const override;
  std::uint64_t trained_sequence() const override;
  std::uint64_t first_needed() const override;
  std::optional<std::uint64_t> last_snapshot() const override;

  // In the order of the models.
  std::size_t size() const { return learnings_.size(); }
  Learning& learning(std::size_t model) { return *learnings_[model]; }
  // Of all samples that were read (read_facts).
  const std::filesystem::path& facts_path() const { return facts_path_; }

 private:
  explicit CompareStage(KeyValueStore& store) : store_(store) {}
  Result<bool> learn_from(std::size_t model, const Committed& committed,
                          std::vector<Sample> samples);
  Status for_each_model(const std::function<Status(std::size_t model)>& work);
  Status sync_facts();
  Status check_log(const std::vector<ComparedModel>& models) const;

  KeyValueStore& store_;
  std::filesystem::path facts_path_;
  std::unique_ptr<FactsLog> facts_;  // outlives the models, which sync it
  std::mutex syncing_facts_;
  std::unique_ptr<DigestLog> digests_;             // of all models
  std::size_t side_by_side_ = 1;                   // so many models at a time
  std::vector<std::unique_ptr<Workers>> workers_;  // of each model
  std::vector<std::unique_ptr<Learning>> learnings_;
  std::vector<FeatureColumns> columns_;  // of each model, of those in the log
};

}  // namespace sluice
