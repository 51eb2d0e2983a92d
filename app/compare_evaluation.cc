#include "app/compare_evaluation.h"

#include <algorithm>
#include <unordered_map>

#include "app/compare_facts.h"
#include "base/check.h"

namespace sluice {

Result<ComparedSamples> ComparedSamples::load(FileSystem& files, const fs::path& facts,
                                              std::uint64_t samples, double from,
                                              const TruthTable* truth) {
  ComparedSamples table;
  table.begin_ = static_cast<std::uint64_t>(from * static_cast<double>(samples));
  table.users_.reserve(samples);
  if (truth != nullptr) table.truths_.reserve(samples);
  table.cut_slices(samples);
  std::unordered_map<std::uint64_t, std::uint32_t> numbers;
  auto slice = table.slices_.begin();
  SLUICE_TRY(read_facts(files, facts, samples, [&](const SampleFacts& sample) {
    const std::uint64_t index = table.users_.size();
    const bool is_judged = index >= table.begin_;
    const auto next = static_cast<std::uint32_t>(numbers.size());
    table.users_.push_back(is_judged ? numbers.emplace(sample.user, next).first->second : 0);
    if (truth != nullptr) {
      const TrueRates* const rates = truth->find(sample.impression);
      table.truths_.push_back(rates == nullptr ? TrueRates{-1, 0} : *rates);
    }
    if (index == table.begin_) table.begin_time_ = sample.time;
    table.end_time_ = sample.time;
    if (index + 1 == slice->end) (slice++)->time = sample.time;
  }));
  table.judged_users_ = numbers.size();
  return table;
}

void ComparedSamples::cut_slices(std::uint64_t samples) {
  const std::uint64_t count = std::min<std::uint64_t>(kSlices, samples);
  for (std::uint64_t slice = 1; slice <= count; ++slice) {
    slices_.push_back({samples / count * slice + samples % count * slice / count, 0});
  }
}

const TrueRates* ComparedSamples::truth(std::uint64_t index) const {
  return truths_.empty() || truths_[index].pctr < 0 ? nullptr : &truths_[index];
}

namespace {

// The scores of one model, sample by sample, into the judges.
class ScoreWalk {
 public:
  explicit ScoreWalk(const ComparedSamples& samples) : samples_(samples), judge_(samples.users()) {}

  void add(const FinalLabels& labels, const Prediction& prediction) {
    const TrueRates* const truth = samples_.truth(index_);
    slice_.add(0, labels, prediction, truth);
    if (index_ >= samples_.begin()) {
      judge_.add(samples_.user(index_), labels, prediction, truth);
    }
    ++index_;
    if (index_ != samples_.slices()[slices_.size()].end) return;
    slice_.end();
    slices_.push_back(slice_.metrics());
    slice_ = ModelJudge();
  }

  std::uint64_t walked() const { return index_; }
  ModelJudge& judge() { return judge_; }
  std::vector<Metrics> take_slices() { return std::move(slices_); }

 private:
  const ComparedSamples& samples_;
  std::uint64_t index_ = 0;
  ModelJudge judge_;
  ModelJudge slice_;
  std::vector<Metrics> slices_;
};

std::vector<Metrics> resample(const ModelJudge& judge, std::size_t users, std::uint64_t resamplings,
                              Workers& workers) {
  const std::uint64_t blocks = (resamplings + kReplicas - 1) / kReplicas;
  std::vector<Metrics> replicas(blocks * kReplicas);
  std::vector<std::vector<float>> weights(workers.threads());
  workers.run(blocks, [&](std::size_t block, std::size_t thread) {
    weights[thread].resize(users * kReplicas);
    draw_users(block, weights[thread]);
    std::ranges::copy(judge.metrics(weights[thread]), replicas.begin() + block * kReplicas);
  });
  replicas.resize(resamplings);
  return replicas;
}

}  // namespace

Result<ModelVerdict> judge_model(const ComparedSamples& samples, const ReadScores& read_scores,
                                 std::uint64_t resamplings, Workers& workers) {
  ScoreWalk walk(samples);
  SLUICE_ASSIGN(const bool is_whole,
                read_scores([&](const FinalLabels& labels, const Prediction& prediction) {
                  walk.add(labels, prediction);
                }));
  if (!is_whole || walk.walked() != samples.size()) {
    return stop_error("scores.bin does not hold every sample; compare into a new --data-dir");
  }
  ModelVerdict verdict;
  walk.judge().end();
  verdict.metrics = walk.judge().metrics();
  verdict.impressions_with_truth = walk.judge().impressions_with_truth();
  verdict.slices = walk.take_slices();
  verdict.replicas = resample(walk.judge(), samples.users(), resamplings, workers);
  return verdict;
}

}  // namespace sluice
