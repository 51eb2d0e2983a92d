#include "app/compare.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <system_error>
#include <utility>

#include <unistd.h>

#include "app/compare_evaluation.h"
#include "app/compare_page.h"
#include "app/compare_result.h"
#include "app/compare_stage.h"
#include "app/compare_text.h"
#include "app/compare_truth.h"
#include "app/service.h"
#include "app/text_table.h"
#include "joiner/join.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kTruthFolder = "truth";  // as `sluice generate` names it

// What was read and learned, a line a model with its digest.
std::string learned_text(const JoinStage& join, const Throughput& throughput,
                         const std::vector<ComparedResult>& results) {
  const JoinProgress& progress = join.committed();
  const JoinCounters& counters = progress.counters;
  std::string text = "labels    " + std::to_string(counters.labelled_impressions) +
                     " impressions, " + std::to_string(counters.clicked) + " clicked, " +
                     std::to_string(counters.converted) + " converted\n";
  text += "samples   " + std::to_string(progress.next_sequence - 1) + ", " +
          std::to_string(throughput.samples) + " of them learned by this start, digest " +
          progress.samples_digest.hex() + "\n";
  std::vector<std::vector<std::string>> rows;
  for (const ComparedResult& result : results) {
    rows.push_back({"model    ", result.model.config.model.name, "digest " + result.model_digest});
  }
  return text + text_table(rows);
}

// The first config's is the join's; but the sample log is for all, and while a model waits for a
// whole batch the join must go on.
Config join_config(const std::vector<ComparedModel>& models) {
  Config config = models.front().config;
  config.features = logged_features(models);
  for (const ComparedModel& model : models) {
    config.training.batch_size =
        std::max(config.training.batch_size, model.config.training.batch_size);
  }
  return config;
}

class CompareTask final : public ServiceTask {
 public:
  CompareTask(const CompareOptions& options, const std::vector<ComparedModel>& models)
      : options_(options), models_(models) {}

  Result<std::unique_ptr<LearnStage>> open_learner(const ServiceParts& parts) override {
    // Before a model that is new to the folder is begun in it.
    SLUICE_TRY(compare_join_identity(join_config(models_), parts.store));
    LearningOptions options{options_.data_dir, std::nullopt, parts.provenance};
    options.make_background = make_background_thread;
    SLUICE_ASSIGN(auto stage, CompareStage::open(models_, options, parts.store, parts.files,
                                                 parts.clock, parts.workers.threads()));
    stage_ = stage.get();
    files_ = &parts.files;
    workers_ = &parts.workers;
    return std::unique_ptr<LearnStage>(std::move(stage));
  }

  Status report(const JoinStage& join, const Throughput& throughput) override;

 private:
  Result<std::optional<TruthTable>> load_truth();
  Result<std::vector<ComparedResult>> judge(const ComparedSamples& samples);
  Status write(const Json& comparison);

  const CompareOptions& options_;
  const std::vector<ComparedModel>& models_;
  CompareStage* stage_ = nullptr;
  FileSystem* files_ = nullptr;
  Workers* workers_ = nullptr;
};

Status CompareTask::report(const JoinStage& join, const Throughput& throughput) {
  const std::uint64_t samples = join.committed().next_sequence - 1;
  if (!join.is_closed() || stage_->trained_sequence() < samples) {
    std::printf("stopped at sample %s; the same command goes on from there\n",
                std::to_string(stage_->trained_sequence()).c_str());
    return {};
  }
  SLUICE_ASSIGN(const auto truth, load_truth());
  SLUICE_ASSIGN(const ComparedSamples compared,
                ComparedSamples::load(*files_, stage_->facts_path(), samples, options_.from,
                                      truth ? &*truth : nullptr));
  SLUICE_ASSIGN(const auto results, judge(compared));
  const ComparisonFacts facts = {join.committed().samples_digest.hex(), options_.bootstrap,
                                 options_.baseline};
  const Json comparison = make_comparison(results, compared, facts);
  std::fputs(learned_text(join, throughput, results).c_str(), stdout);
  std::fputs(comparison_tables(comparison).c_str(), stdout);
  return options_.out ? write(comparison) : Status();
}

Result<std::optional<TruthTable>> CompareTask::load_truth() {
  const Config& config = models_.front().config;
  const fs::path folder = options_.truth.value_or(fs::path(config.source.root) / kTruthFolder);
  const bool may_be_there = config.source.type == SourceConfig::Type::files;
  if (!options_.truth && (!may_be_there || !files_->exists(folder))) {
    return std::optional<TruthTable>();
  }
  SLUICE_ASSIGN(TruthTable table, TruthTable::load(*files_, folder));
  return std::optional<TruthTable>(std::move(table));
}

Result<std::vector<ComparedResult>> CompareTask::judge(const ComparedSamples& samples) {
  std::vector<ComparedResult> results;
  for (std::size_t index = 0; index < models_.size(); ++index) {
    Learning& learning = stage_->learning(index);
    const auto read = [&](const ScoreVisitor& visit) { return learning.read_scores(visit); };
    SLUICE_ASSIGN(ModelVerdict verdict, judge_model(samples, read, options_.bootstrap, *workers_));
    results.push_back(
        {models_[index], learning.trainer().model_digest().hex(), std::move(verdict)});
  }
  return results;
}

Status CompareTask::write(const Json& comparison) {
  const fs::path& out = *options_.out;
  SLUICE_TRY(files_->create_directories(out));
  SLUICE_TRY(write_atomically(*files_, out / "compare.csv", comparison_csv(comparison)));
  SLUICE_TRY(write_atomically(*files_, out / "compare.html", comparison_page(comparison)));
  SLUICE_TRY(write_atomically(*files_, out / "compare.json", comparison.dump(2) + "\n"));
  std::printf("\nthe page is %s\n", (out / "compare.html").c_str());
  return {};
}

// It is made at the end, as it may lie in a data folder that is not begun yet; what is there of its
// path must take it.
Status check_out(const fs::path& out) {
  std::error_code code;
  fs::path there = fs::absolute(out);
  while (!fs::exists(there, code) && there != there.parent_path()) there = there.parent_path();
  if (fs::is_directory(there, code) && ::access(there.c_str(), W_OK | X_OK) == 0) return {};
  return usage_error("--out " + out.string() + ": " + there.string() +
                     " is no folder that can be written to");
}

// What would otherwise be found only at the end.
Status check_options(const CompareOptions& options, const std::vector<ComparedModel>& models) {
  SLUICE_TRY(check_baseline(models, options.baseline));
  RealFileSystem files;
  if (options.truth && !files.exists(*options.truth)) {
    return usage_error("--truth: there is no " + options.truth->string());
  }
  return options.out ? check_out(*options.out) : Status();
}

}  // namespace

Status run_compare(const CompareOptions& options) {
  SLUICE_ASSIGN(const auto models, load_compared_models(options.models));
  SLUICE_TRY(check_options(options, models));
  ServiceOptions service;
  service.data_dir = options.data_dir;
  service.threads = options.threads;
  service.end.kind = EndPolicy::Kind::close;
  CompareTask task(options, models);
  return run_service(service, join_config(models), task);
}

}  // namespace sluice
