// How well predicted rates fit labels, exactly, over any weighting of the users: what a comparison
// says of a model, and of a model under resampled users. docs/compare.md has the definitions and
// where they come from.
//
// NaN is undefined: no sample, one class only, no positive.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "learner/labels.h"
#include "learner/prediction.h"

namespace sluice {

// Of one impression, where they are known.
struct TrueRates {
  float pctr = 0;
  float pcvr = 0;
};

// So many weightings are computed at a time. Weights are [users, kReplicas], whole numbers.
inline constexpr std::size_t kReplicas = 8;
template <class T>
using PerReplica = std::array<T, kReplicas>;

// ---- one rate against one label

enum class LabelMetric : std::uint8_t { auc, gauc, log_loss, normalized_entropy, calibration };
inline constexpr std::size_t kLabelMetrics = 5;
inline constexpr std::array<const char*, kLabelMetrics> kLabelMetricNames = {
    "auc", "gauc", "log_loss", "normalized_entropy", "calibration"};
using LabelMetrics = std::array<double, kLabelMetrics>;

class LabelJudge {
 public:
  // Users are numbered from 0; with 0 users there is no GAUC and no weighting.
  explicit LabelJudge(std::size_t users = 0) : users_(users) {}
  void add(std::uint32_t user, bool label, const PredictedRate& score);
  // After the last add(), before what follows.
  void end();

  LabelMetrics metrics() const;  // sums in the order of add()
  PerReplica<LabelMetrics> metrics(std::span<const float> weights) const;

 private:
  struct Sums {
    double samples = 0, positives = 0, rate = 0, loss = 0;
  };
  struct UserSums : Sums {
    double auc = 0;  // NaN: one class only
  };
  struct Ranked {
    double logit;
    std::uint32_t user;
    std::uint32_t label;
  };

  template <class Visit>
  void visit_ties(Visit visit) const;
  void rank_users();
  double auc() const;
  PerReplica<double> auc(std::span<const float> weights) const;
  static void fill(const Sums& sums, LabelMetrics& metrics);

  Sums sums_;
  std::vector<UserSums> users_;
  std::vector<Ranked> ranked_;  // by logit, once ended
};

// ---- one rate against the true one

enum class TruthMetric : std::uint8_t { mean_error, rms_error, excess_log_loss, ratio };
inline constexpr std::size_t kTruthMetrics = 4;
inline constexpr std::array<const char*, kTruthMetrics> kTruthMetricNames = {
    "mean_error", "rms_error", "excess_log_loss", "ratio"};
using TruthMetrics = std::array<double, kTruthMetrics>;

class TruthJudge {
 public:
  explicit TruthJudge(std::size_t users = 0) : users_(users) {}
  void add(std::uint32_t user, double truth, const PredictedRate& score);

  double samples() const { return sums_.samples; }
  TruthMetrics metrics() const;  // sums in the order of add()
  PerReplica<TruthMetrics> metrics(std::span<const float> weights) const;

 private:
  struct Sums {
    double samples = 0, error = 0, square = 0, divergence = 0, rate = 0, truth = 0;
  };
  static TruthMetrics metrics_of(const Sums& sums);

  Sums sums_;
  std::vector<Sums> users_;
};

// ---- all of one model

inline constexpr std::size_t kRates = 3;
inline constexpr std::array<const char*, kRates> kRateNames = {"ctr", "cvr", "ctcvr"};
// By rate: its label metrics, then its truth metrics.
inline constexpr std::size_t kMetricsOfRate = kLabelMetrics + kTruthMetrics;
inline constexpr std::size_t kMetrics = kRates * kMetricsOfRate;
using Metrics = std::array<double, kMetrics>;

constexpr std::size_t metric_index(std::size_t rate, LabelMetric metric) {
  return rate * kMetricsOfRate + static_cast<std::size_t>(metric);
}
constexpr std::size_t metric_index(std::size_t rate, TruthMetric metric) {
  return rate * kMetricsOfRate + kLabelMetrics + static_cast<std::size_t>(metric);
}

class ModelJudge {
 public:
  explicit ModelJudge(std::size_t users = 0);
  // One sample. CTR counts where y is final, CTCVR where z is, CVR where z is and y is 1; the
  // truth, of all three, on an impression's first sample. `truth`: null where it is not known.
  void add(std::uint32_t user, const FinalLabels& labels, const Prediction& scores,
           const TrueRates* truth);
  void end();
  Metrics metrics() const;
  std::uint64_t impressions_with_truth() const;
  PerReplica<Metrics> metrics(std::span<const float> weights) const;

 private:
  std::array<LabelJudge, kRates> labels_;
  std::array<TruthJudge, kRates> truths_;
};

// Resampling number block · kReplicas + r draws as many users as there are, each one equally often
// likely and with return: weights[u, r] is how often it drew u. A function of these numbers alone.
void draw_users(std::uint64_t block, std::span<float> weights);

}  // namespace sluice
