// Several models that learn from one join, in step: each sample of the log is read once and offered
// to each of them, with the features that its config names among those of the log
// (logged_features). What a model becomes is what it would have become alone (app/learning.h): same
// folder, same digests.
//
// After a restart each goes on from its own newest checkpoint; samples are read from where the one
// that is furthest behind needs them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/compare_facts.h"
#include "app/compare_models.h"
#include "app/learn_stage.h"
#include "app/learning.h"
#include "ingest/features.h"

namespace sluice {

class CompareStage final : public LearnStage {
 public:
  // Recovers every model. The references, and `models`, outlive it. A usage error where the sample
  // log no longer reaches back to what a new model needs.
  static Result<std::unique_ptr<CompareStage>> open(const std::vector<ComparedModel>& models,
                                                    const LearningOptions& options,
                                                    KeyValueStore& store, FileSystem& files,
                                                    Clock& clock, Workers& workers);

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
  Status learn_from(std::size_t model, const Committed& committed, std::vector<Sample> samples);
  Status check_log(const std::vector<ComparedModel>& models) const;

  KeyValueStore& store_;
  std::filesystem::path facts_path_;
  std::unique_ptr<FactsLog> facts_;  // outlives the models, which sync it
  std::vector<std::unique_ptr<Learning>> learnings_;
  std::vector<FeatureColumns> columns_;  // of each model, of those in the log
};

}  // namespace sluice
