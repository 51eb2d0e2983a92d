#include "app/compare_stage.h"

#include <algorithm>
#include <utility>

#include "joiner/join.h"

namespace sluice {

Result<std::unique_ptr<CompareStage>> CompareStage::open(const std::vector<ComparedModel>& models,
                                                         const LearningOptions& options,
                                                         KeyValueStore& store, FileSystem& files,
                                                         Clock& clock, Workers& workers) {
  std::unique_ptr<CompareStage> stage(new CompareStage(store));
  LearningOptions of_each = options;
  // A checkpoint says that the facts of all its samples are on disk.
  of_each.before_checkpoint = [raw = stage.get()] { return raw->facts_->sync(); };
  const std::vector<FeatureConfig> logged = logged_features(models);
  for (const ComparedModel& model : models) {
    stage->columns_.emplace_back(logged, model.config.features);
    SLUICE_ASSIGN(auto learning,
                  Learning::open(model.config, of_each, store, files, clock, workers));
    stage->learnings_.push_back(std::move(learning));
  }
  stage->facts_path_ = options.data_dir / "compared.bin";
  SLUICE_ASSIGN(stage->facts_,
                FactsLog::open(files, stage->facts_path_, stage->trained_sequence()));
  SLUICE_TRY(stage->check_log(models));
  return stage;
}

// A model that comes later, or whose checkpoints were lost, needs samples that may be gone.
Status CompareStage::check_log(const std::vector<ComparedModel>& models) const {
  SLUICE_ASSIGN(const auto progress, read_progress(store_));
  if (!progress || next_sequence() >= progress->first_logged) return {};
  std::string names;
  for (std::size_t index = 0; index < models.size(); ++index) {
    if (learnings_[index]->next_sequence() >= progress->first_logged) continue;
    names += (names.empty() ? "" : ", ") + models[index].config.model.name;
  }
  return usage_error(
      "the sample log reaches back to sequence " + std::to_string(progress->first_logged) +
      " only, and " + (names.empty() ? "the users of the samples" : names) +
      " must be learned from " + std::to_string(next_sequence()) + " on; take a new --data-dir");
}

Result<bool> CompareStage::learn(const Committed& committed, std::size_t max_samples) {
  // One step takes about as long as that of one model: a stop is heard between two.
  const std::size_t at_once = std::max<std::size_t>(1, max_samples / learnings_.size());
  SLUICE_ASSIGN(auto samples, read_committed(store_, next_sequence(), committed, at_once));
  SLUICE_TRY(facts_->add(samples));
  for (std::size_t model = 0; model < learnings_.size(); ++model) {
    const bool is_last = model + 1 == learnings_.size();
    SLUICE_TRY(learn_from(model, committed, is_last ? std::move(samples) : samples));
  }
  return next_sequence() < committed.next_sequence;
}

// The samples become those of a join of this model alone.
Status CompareStage::learn_from(std::size_t model, const Committed& committed,
                                std::vector<Sample> samples) {
  const FeatureColumns& columns = columns_[model];
  for (Sample& sample : samples) {
    if (columns.are_all()) break;
    auto features = columns.of(sample.features);
    if (!features) {
      return stop_error("the features of sample " + std::to_string(sample.sequence) +
                        " are not those of the configs; the data folder is damaged: compare into a "
                        "new one");
    }
    sample.features = *std::move(features);
  }
  SLUICE_TRY(learnings_[model]->learn_from(committed, std::move(samples)));
  return {};
}

Status CompareStage::finish() {
  for (const auto& learning : learnings_) SLUICE_TRY(learning->finish());
  return facts_->sync();
}

Status CompareStage::stop() {
  for (const auto& learning : learnings_) SLUICE_TRY(learning->stop());
  return facts_->sync();
}

std::uint64_t CompareStage::next_sequence() const {
  std::uint64_t next = facts_->next_sequence();
  for (const auto& learning : learnings_) next = std::min(next, learning->next_sequence());
  return next;
}

std::uint64_t CompareStage::trained_sequence() const {
  std::uint64_t trained = learnings_.front()->trained_sequence();
  for (const auto& learning : learnings_) {
    trained = std::min(trained, learning->trained_sequence());
  }
  return trained;
}

std::uint64_t CompareStage::first_needed() const {
  std::uint64_t needed = facts_->next_sequence();
  for (const auto& learning : learnings_) needed = std::min(needed, learning->first_needed());
  return needed;
}

std::optional<std::uint64_t> CompareStage::last_snapshot() const {
  std::optional<std::uint64_t> last;
  for (const auto& learning : learnings_) {
    const auto snapshot = learning->last_snapshot();
    if (!snapshot) return std::nullopt;
    last = std::min(last.value_or(*snapshot), *snapshot);
  }
  return last;
}

}  // namespace sluice
