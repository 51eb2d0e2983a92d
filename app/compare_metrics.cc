#include "app/compare_metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "app/shop_random.h"
#include "base/check.h"

namespace sluice {
namespace {

constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();
// Of a rate that is exactly 0 or 1 in the computation: log 2^-53.
constexpr double kLeastLog = -36.736800569677101;

double quotient(double above, double below) {
  return below > 0 ? above / below : kUndefined;
}

double finite_log(double log) {
  return std::isinf(log) ? kLeastLog : log;
}

// −r·log r − (1−r)·log(1−r)
double entropy(double rate) {
  return -rate * std::log(rate) - (1 - rate) * std::log1p(-rate);
}

}  // namespace

// ---- labels

void LabelJudge::add(std::uint32_t user, bool label, const PredictedRate& score) {
  const double loss = -finite_log(label ? score.log_yes : score.log_no);
  const auto count = [&](Sums& sums) {
    sums.samples += 1;
    sums.positives += label ? 1 : 0;
    sums.rate += score.yes;
    sums.loss += loss;
  };
  count(sums_);
  if (!users_.empty()) count(users_[user]);
  ranked_.push_back({score.logit, user, label ? 1U : 0U});
}

void LabelJudge::end() {
  std::sort(ranked_.begin(), ranked_.end(),
            [](const Ranked& a, const Ranked& b) { return a.logit < b.logit; });
  if (!users_.empty()) rank_users();
}

// visit(begin, end) for each run of equal logits, from the lowest on.
template <class Visit>
void LabelJudge::visit_ties(Visit visit) const {
  for (std::size_t begin = 0; begin < ranked_.size();) {
    std::size_t end = begin + 1;
    while (end < ranked_.size() && ranked_[end].logit == ranked_[begin].logit) ++end;
    visit(begin, end);
    begin = end;
  }
}

// Every user's own AUC, in one walk over all ranks.
void LabelJudge::rank_users() {
  std::vector<double> below(users_.size());  // a user's negatives in lower ranks
  std::vector<double> tied(users_.size());   // and among the equal ones
  for (UserSums& user : users_) user.auc = 0;
  visit_ties([&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      if (ranked_[i].label == 0) tied[ranked_[i].user] += 1;
    }
    for (std::size_t i = begin; i < end; ++i) {
      const std::uint32_t user = ranked_[i].user;
      if (ranked_[i].label == 1) users_[user].auc += below[user] + 0.5 * tied[user];
    }
    for (std::size_t i = begin; i < end; ++i) {
      const std::uint32_t user = ranked_[i].user;
      below[user] += tied[user];
      tied[user] = 0;
    }
  });
  for (UserSums& user : users_) {
    user.auc = quotient(user.auc, user.positives * (user.samples - user.positives));
  }
}

double LabelJudge::auc() const {
  double correct = 0;  // pairs
  double below = 0;    // negatives in lower ranks
  visit_ties([&](std::size_t begin, std::size_t end) {
    double positives = 0;
    for (std::size_t i = begin; i < end; ++i) positives += ranked_[i].label;
    const double negatives = static_cast<double>(end - begin) - positives;
    correct += positives * (below + 0.5 * negatives);
    below += negatives;
  });
  return quotient(correct, sums_.positives * (sums_.samples - sums_.positives));
}

PerReplica<double> LabelJudge::auc(std::span<const float> weights) const {
  PerReplica<double> correct{}, below{}, above{};
  visit_ties([&](std::size_t begin, std::size_t end) {
    PerReplica<double> counts[2] = {};  // of negatives and positives
    for (std::size_t i = begin; i < end; ++i) {
      const float* const weight = weights.data() + ranked_[i].user * kReplicas;
      PerReplica<double>& count = counts[ranked_[i].label];
      for (std::size_t r = 0; r < kReplicas; ++r) count[r] += static_cast<double>(weight[r]);
    }
    for (std::size_t r = 0; r < kReplicas; ++r) {
      correct[r] += counts[1][r] * (below[r] + 0.5 * counts[0][r]);
      below[r] += counts[0][r];
      above[r] += counts[1][r];
    }
  });
  PerReplica<double> auc;
  for (std::size_t r = 0; r < kReplicas; ++r) auc[r] = quotient(correct[r], above[r] * below[r]);
  return auc;
}

void LabelJudge::fill(const Sums& sums, LabelMetrics& metrics) {
  const double loss = quotient(sums.loss, sums.samples);
  const double rate = quotient(sums.positives, sums.samples);
  const bool has_both = sums.positives > 0 && sums.positives < sums.samples;
  metrics[static_cast<std::size_t>(LabelMetric::log_loss)] = loss;
  metrics[static_cast<std::size_t>(LabelMetric::normalized_entropy)] =
      has_both ? loss / entropy(rate) : kUndefined;
  metrics[static_cast<std::size_t>(LabelMetric::calibration)] = quotient(sums.rate, sums.positives);
}

LabelMetrics LabelJudge::metrics() const {
  LabelMetrics metrics{};
  fill(sums_, metrics);
  metrics[static_cast<std::size_t>(LabelMetric::auc)] = auc();
  double sum = 0;
  double samples = 0;  // of the users that have an AUC
  for (const UserSums& user : users_) {
    if (std::isnan(user.auc)) continue;
    sum += user.samples * user.auc;
    samples += user.samples;
  }
  metrics[static_cast<std::size_t>(LabelMetric::gauc)] = quotient(sum, samples);
  return metrics;
}

PerReplica<LabelMetrics> LabelJudge::metrics(std::span<const float> weights) const {
  SLUICE_CHECK(weights.size() == users_.size() * kReplicas);
  PerReplica<Sums> sums{};
  PerReplica<double> gauc{}, gauc_samples{};
  for (std::size_t u = 0; u < users_.size(); ++u) {
    const UserSums& user = users_[u];
    const bool is_ranked = !std::isnan(user.auc);
    const double weighted_auc = is_ranked ? user.samples * user.auc : 0;
    const double ranked_samples = is_ranked ? user.samples : 0;
    for (std::size_t r = 0; r < kReplicas; ++r) {
      const auto weight = static_cast<double>(weights[u * kReplicas + r]);
      sums[r].samples += weight * user.samples;
      sums[r].positives += weight * user.positives;
      sums[r].rate += weight * user.rate;
      sums[r].loss += weight * user.loss;
      gauc[r] += weight * weighted_auc;
      gauc_samples[r] += weight * ranked_samples;
    }
  }
  const PerReplica<double> whole_auc = auc(weights);
  PerReplica<LabelMetrics> metrics{};
  for (std::size_t r = 0; r < kReplicas; ++r) {
    fill(sums[r], metrics[r]);
    metrics[r][static_cast<std::size_t>(LabelMetric::auc)] = whole_auc[r];
    metrics[r][static_cast<std::size_t>(LabelMetric::gauc)] = quotient(gauc[r], gauc_samples[r]);
  }
  return metrics;
}

// ---- the truth

void TruthJudge::add(std::uint32_t user, double truth, const PredictedRate& score) {
  const double error = score.yes - truth;
  // Kullback-Leibler divergence: what the log loss will be above that of the true rate.
  const double divergence =
      (truth > 0 ? truth * (std::log(truth) - finite_log(score.log_yes)) : 0) +
      (truth < 1 ? (1 - truth) * (std::log1p(-truth) - finite_log(score.log_no)) : 0);
  const auto count = [&](Sums& sums) {
    sums.samples += 1;
    sums.error += std::abs(error);
    sums.square += error * error;
    sums.divergence += divergence;
    sums.rate += score.yes;
    sums.truth += truth;
  };
  count(sums_);
  if (!users_.empty()) count(users_[user]);
}

TruthMetrics TruthJudge::metrics_of(const Sums& sums) {
  const double mean_square = quotient(sums.square, sums.samples);
  return {quotient(sums.error, sums.samples), std::sqrt(mean_square),
          quotient(sums.divergence, sums.samples), quotient(sums.rate, sums.truth)};
}

TruthMetrics TruthJudge::metrics() const {
  return metrics_of(sums_);
}

PerReplica<TruthMetrics> TruthJudge::metrics(std::span<const float> weights) const {
  SLUICE_CHECK(weights.size() == users_.size() * kReplicas);
  PerReplica<Sums> sums{};
  for (std::size_t u = 0; u < users_.size(); ++u) {
    const Sums& user = users_[u];
    for (std::size_t r = 0; r < kReplicas; ++r) {
      const auto weight = static_cast<double>(weights[u * kReplicas + r]);
      sums[r].samples += weight * user.samples;
      sums[r].error += weight * user.error;
      sums[r].square += weight * user.square;
      sums[r].divergence += weight * user.divergence;
      sums[r].rate += weight * user.rate;
      sums[r].truth += weight * user.truth;
    }
  }
  PerReplica<TruthMetrics> metrics;
  for (std::size_t r = 0; r < kReplicas; ++r) metrics[r] = metrics_of(sums[r]);
  return metrics;
}

// ---- a model

ModelJudge::ModelJudge(std::size_t users) {
  labels_.fill(LabelJudge(users));
  truths_.fill(TruthJudge(users));
}

void ModelJudge::add(std::uint32_t user, const FinalLabels& labels, const Prediction& scores,
                     const TrueRates* truth) {
  auto& [ctr, cvr, ctcvr] = labels_;
  if (labels.y_final) ctr.add(user, labels.y, scores.ctr);
  if (labels.z_final && labels.y) cvr.add(user, labels.z, scores.cvr);
  if (labels.z_final) ctcvr.add(user, labels.z, scores.ctcvr);
  if (truth == nullptr || !labels.y_final) return;
  const double pctr = truth->pctr;
  const double pcvr = truth->pcvr;
  truths_[0].add(user, pctr, scores.ctr);
  truths_[1].add(user, pcvr, scores.cvr);
  truths_[2].add(user, pctr * pcvr, scores.ctcvr);
}

void ModelJudge::end() {
  for (LabelJudge& judge : labels_) judge.end();
}

std::uint64_t ModelJudge::impressions_with_truth() const {
  return static_cast<std::uint64_t>(truths_[0].samples());
}

Metrics ModelJudge::metrics() const {
  Metrics metrics;
  auto next = metrics.begin();
  for (std::size_t rate = 0; rate < kRates; ++rate) {
    next = std::ranges::copy(labels_[rate].metrics(), next).out;
    next = std::ranges::copy(truths_[rate].metrics(), next).out;
  }
  return metrics;
}

PerReplica<Metrics> ModelJudge::metrics(std::span<const float> weights) const {
  PerReplica<Metrics> metrics;
  for (std::size_t rate = 0; rate < kRates; ++rate) {
    const PerReplica<LabelMetrics> labels = labels_[rate].metrics(weights);
    const PerReplica<TruthMetrics> truths = truths_[rate].metrics(weights);
    for (std::size_t r = 0; r < kReplicas; ++r) {
      const auto begin = metrics[r].begin() + rate * kMetricsOfRate;
      std::ranges::copy(truths[r], std::ranges::copy(labels[r], begin).out);
    }
  }
  return metrics;
}

void draw_users(std::uint64_t block, std::span<float> weights) {
  constexpr std::uint64_t kSeed = 1;
  constexpr std::uint64_t kPurpose = 0x626f6f74;  // "boot"
  const std::size_t users = weights.size() / kReplicas;
  std::ranges::fill(weights, 0.0F);
  for (std::size_t r = 0; r < kReplicas; ++r) {
    Random random(kSeed, kPurpose, block * kReplicas + r);
    for (std::size_t draw = 0; draw < users; ++draw) {
      weights[random.below(users) * kReplicas + r] += 1;
    }
  }
}

}  // namespace sluice
