#include "app/compare_stage.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "joiner/join.h"

namespace sluice {

Result<std::unique_ptr<CompareStage>> CompareStage::open(const std::vector<ComparedModel>& models,
                                                         const LearningOptions& options,
                                                         KeyValueStore& store, FileSystem& files,
                                                         Clock& clock, std::size_t threads) {
  std::unique_ptr<CompareStage> stage(new CompareStage(store));
  LearningOptions of_each = options;
  // A checkpoint says that the facts of all its samples are on disk.
  of_each.before_checkpoint = [raw = stage.get()] { return raw->sync_facts(); };
  SLUICE_ASSIGN(stage->digests_, DigestLog::open(files, options.data_dir));
  of_each.digests = stage->digests_.get();
  stage->side_by_side_ = std::min(threads, models.size());
  const std::vector<FeatureConfig> logged = logged_features(models);
  for (const ComparedModel& model : models) {
    stage->columns_.emplace_back(logged, model.config.features);
    auto& workers =
        stage->workers_.emplace_back(std::make_unique<Workers>(threads / stage->side_by_side_));
    SLUICE_ASSIGN(auto learning,
                  Learning::open(model.config, of_each, store, files, clock, *workers));
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
  const std::size_t at_once =
      std::max<std::size_t>(1, max_samples * side_by_side_ / learnings_.size());
  SLUICE_ASSIGN(const auto samples, read_committed(store_, next_sequence(), committed, at_once));
  SLUICE_TRY(facts_->add(samples));
  std::atomic<bool> has_more = false;
  SLUICE_TRY(for_each_model([&](std::size_t model) -> Status {
    SLUICE_ASSIGN(const bool more, learn_from(model, committed, samples));
    if (more) has_more = true;
    return {};
  }));
  return has_more || next_sequence() < committed.next_sequence;
}

// Side by side. The error of the first model that has one.
Status CompareStage::for_each_model(const std::function<Status(std::size_t)>& work) {
  std::vector<Status> done(learnings_.size());
  run_side_by_side(done.size(), side_by_side_,
                   [&](std::size_t model) { done[model] = work(model); });
  for (const Status& status : done) SLUICE_TRY(status);
  return {};
}

Status CompareStage::sync_facts() {
  const std::lock_guard lock(syncing_facts_);
  return facts_->sync();
}

// The samples become those of a join of this model alone.
Result<bool> CompareStage::learn_from(std::size_t model, const Committed& committed,
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
  return learnings_[model]->learn_from(committed, std::move(samples));
}

Status CompareStage::finish() {
  SLUICE_TRY(for_each_model([&](std::size_t model) { return learnings_[model]->finish(); }));
  return sync_facts();
}

Status CompareStage::stop() {
  SLUICE_TRY(for_each_model([&](std::size_t model) { return learnings_[model]->stop(); }));
  return sync_facts();
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
