// What each model of a comparison predicted, judged: over one range of the samples with resampled
// users, and over time. One model at a time, so that memory is bounded: about 12 bytes a sample for
// all, and 16 bytes a sample and rate for the one in hand, and as much again for its users.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "app/compare_metrics.h"
#include "app/compare_truth.h"
#include "app/predictions_file.h"
#include "base/lanes.h"
#include "base/result.h"
#include "base/time.h"

namespace sluice {

inline constexpr std::size_t kSlices = 50;

// Equal parts of all samples, for what changes over time.
struct SampleSlice {
  std::uint64_t end = 0;  // after so many samples
  TimeMs time = 0;        // event time of its last sample
};

// What is known of all samples, whatever the model.
class ComparedSamples {
 public:
  // Reads the facts of `samples` samples. Judged are those from `from` · samples on (rounded down).
  static Result<ComparedSamples> load(FileSystem& files, const std::filesystem::path& facts,
                                      std::uint64_t samples, double from, const TruthTable* truth);

  std::uint64_t size() const { return users_.size(); }
  std::uint64_t begin() const { return begin_; }  // of what is judged, counted from 0
  std::size_t users() const { return judged_users_; }
  TimeMs begin_time() const { return begin_time_; }
  TimeMs end_time() const { return end_time_; }
  const std::vector<SampleSlice>& slices() const { return slices_; }

  // Of sample `index`, from 0. Users are numbered as they first appear from begin() on; before it
  // the number says nothing.
  std::uint32_t user(std::uint64_t index) const { return users_[index]; }
  const TrueRates* truth(std::uint64_t index) const;

 private:
  void cut_slices(std::uint64_t samples);

  std::uint64_t begin_ = 0;
  std::size_t judged_users_ = 0;
  TimeMs begin_time_ = 0, end_time_ = 0;
  std::vector<std::uint32_t> users_;  // [samples]
  std::vector<TrueRates> truths_;     // [samples], pctr below 0: not known; empty without a truth
  std::vector<SampleSlice> slices_;
};

struct ModelVerdict {
  Metrics metrics{};
  std::vector<Metrics> replicas;             // [resamplings]
  std::vector<Metrics> slices;               // [kSlices or fewer]; without GAUC
  std::uint64_t impressions_with_truth = 0;  // among those that are judged
};

// Calls its argument for every sample in order; false: the scores were not kept from the first on.
using ReadScores = std::function<Result<bool>(const ScoreVisitor& visit)>;

// The verdict is the same on any number of workers. An error where the scores are not all there.
Result<ModelVerdict> judge_model(const ComparedSamples& samples, const ReadScores& read_scores,
                                 std::uint64_t resamplings, Workers& workers);

}  // namespace sluice
