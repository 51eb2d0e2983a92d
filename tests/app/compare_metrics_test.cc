// The metrics of a comparison against brute force: every pair of samples is looked at, every
// resampling is written out as a list of samples.
#include "app/compare_metrics.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "app/compare_result.h"
#include "tests/learner/test_data.h"

namespace sluice {
namespace {

struct Drawn {
  std::uint32_t user = 0;
  bool label = false;
  int logit = 0;  // in quarters: ties are common
  double truth = 0;
};

PredictedRate score_of(int quarters) {
  return testing::esmm_prediction(static_cast<float>(quarters) / 4, 0).ctr;
}

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// Correct pairs / pairs.
double naive_auc(const std::vector<Drawn>& samples) {
  double correct = 0;
  double pairs = 0;
  for (const Drawn& positive : samples) {
    for (const Drawn& negative : samples) {
      if (!positive.label || negative.label) continue;
      pairs += 1;
      if (positive.logit > negative.logit) correct += 1;
      if (positive.logit == negative.logit) correct += 0.5;
    }
  }
  return pairs > 0 ? correct / pairs : kNone;
}

double naive_gauc(const std::vector<Drawn>& samples) {
  std::map<std::uint32_t, std::vector<Drawn>> by_user;
  for (const Drawn& sample : samples) by_user[sample.user].push_back(sample);
  double sum = 0;
  double weight = 0;
  for (const auto& [user, own] : by_user) {
    const double auc = naive_auc(own);
    if (std::isnan(auc)) continue;
    sum += auc * static_cast<double>(own.size());
    weight += static_cast<double>(own.size());
  }
  return weight > 0 ? sum / weight : kNone;
}

LabelMetrics naive_label_metrics(const std::vector<Drawn>& samples) {
  double loss = 0, rate = 0, positives = 0;
  const auto count = static_cast<double>(samples.size());
  for (const Drawn& sample : samples) {
    const double p = 1 / (1 + std::exp(-sample.logit / 4.0));
    loss -= sample.label ? std::log(p) : std::log(1 - p);
    rate += p;
    positives += sample.label ? 1 : 0;
  }
  const double base = positives / count;
  const double entropy = -base * std::log(base) - (1 - base) * std::log(1 - base);
  return {naive_auc(samples), naive_gauc(samples), samples.empty() ? kNone : loss / count,
          base > 0 && base < 1 ? loss / count / entropy : kNone,
          positives > 0 ? rate / positives : kNone};
}

TruthMetrics naive_truth_metrics(const std::vector<Drawn>& samples) {
  double error = 0, square = 0, divergence = 0, rate = 0, truth = 0;
  const auto count = static_cast<double>(samples.size());
  for (const Drawn& sample : samples) {
    const double p = 1 / (1 + std::exp(-sample.logit / 4.0));
    const double t = sample.truth;
    error += std::abs(p - t);
    square += (p - t) * (p - t);
    if (t > 0) divergence += t * std::log(t / p);
    if (t < 1) divergence += (1 - t) * std::log((1 - t) / (1 - p));
    rate += p;
    truth += t;
  }
  if (samples.empty()) return {kNone, kNone, kNone, kNone};
  return {error / count, std::sqrt(square / count), divergence / count,
          truth > 0 ? rate / truth : kNone};
}

template <class Values>
void expect_near(const Values& found, const Values& expected) {
  for (std::size_t i = 0; i < found.size(); ++i) {
    RC_ASSERT(std::isnan(found[i]) == std::isnan(expected[i]));
    if (std::isnan(found[i])) continue;
    RC_ASSERT(std::abs(found[i] - expected[i]) <= 1e-9 * std::max(1.0, std::abs(expected[i])));
  }
}

constexpr std::uint32_t kUsers = 5;

std::vector<Drawn> draw_samples() {
  return *rc::gen::container<std::vector<Drawn>>(rc::gen::build<Drawn>(
      rc::gen::set(&Drawn::user, rc::gen::inRange<std::uint32_t>(0, kUsers)),
      rc::gen::set(&Drawn::label), rc::gen::set(&Drawn::logit, rc::gen::inRange(-12, 12)),
      rc::gen::set(&Drawn::truth,
                   rc::gen::map(rc::gen::inRange(0, 11), [](int n) { return n / 10.0; }))));
}

// As if each user had come so often: a copy is a user of its own.
std::vector<Drawn> written_out(const std::vector<Drawn>& samples, const std::vector<float>& weights,
                               std::size_t replica) {
  std::vector<Drawn> result;
  for (const Drawn& sample : samples) {
    const auto times = static_cast<std::uint32_t>(weights[sample.user * kReplicas + replica]);
    for (std::uint32_t copy = 0; copy < times; ++copy) {
      result.push_back(sample);
      result.back().user += copy * kUsers;
    }
  }
  return result;
}

RC_GTEST_PROP(CompareMetrics, OfLabelsAreThoseOfBruteForce, ()) {
  const auto samples = draw_samples();
  LabelJudge judge(kUsers);
  for (const Drawn& s : samples) judge.add(s.user, s.label, score_of(s.logit));
  judge.end();
  expect_near(judge.metrics(), naive_label_metrics(samples));
}

RC_GTEST_PROP(CompareMetrics, OfResampledUsersAreThoseOfTheSamplesWrittenOut, ()) {
  const auto samples = draw_samples();
  LabelJudge judge(kUsers);
  TruthJudge truth(kUsers);
  for (const Drawn& s : samples) {
    judge.add(s.user, s.label, score_of(s.logit));
    truth.add(s.user, s.truth, score_of(s.logit));
  }
  judge.end();
  std::vector<float> weights(kUsers * kReplicas);
  draw_users(*rc::gen::inRange<std::uint64_t>(0, 100), weights);
  const auto found = judge.metrics(weights);
  const auto found_truth = truth.metrics(weights);
  for (std::size_t r = 0; r < kReplicas; ++r) {
    const auto expected = written_out(samples, weights, r);
    expect_near(found[r], naive_label_metrics(expected));
    expect_near(found_truth[r], naive_truth_metrics(expected));
  }
}

RC_GTEST_PROP(CompareMetrics, OfTheTruthAreThoseOfTheFormulas, ()) {
  const auto samples = draw_samples();
  TruthJudge judge(kUsers);
  for (const Drawn& s : samples) judge.add(s.user, s.truth, score_of(s.logit));
  expect_near(judge.metrics(), naive_truth_metrics(samples));
}

TEST(CompareMetrics, ThreeScoresOfAPrediction) {
  const Prediction scores = testing::esmm_prediction(-1.5F, 0.5F);
  EXPECT_NEAR(scores.ctr.yes, 1 / (1 + std::exp(1.5)), 1e-12);
  EXPECT_NEAR(scores.cvr.yes, 1 / (1 + std::exp(-0.5)), 1e-12);
  const double ctcvr = scores.ctr.yes * scores.cvr.yes;
  EXPECT_NEAR(scores.ctcvr.yes, ctcvr, 1e-12);
  EXPECT_NEAR(scores.ctcvr.log_yes, std::log(ctcvr), 1e-12);
  EXPECT_NEAR(scores.ctcvr.log_no, std::log(1 - ctcvr), 1e-12);
  EXPECT_NEAR(scores.ctcvr.logit, std::log(ctcvr / (1 - ctcvr)), 1e-12);
}

TEST(CompareMetrics, WhichSamplesCountForWhich) {
  const Prediction scores = testing::esmm_prediction(0.0F, 0.0F);  // 1/2, 1/2, 1/4
  const TrueRates truth = {0.25F, 0.75F};
  ModelJudge judge(1);
  judge.add(0, {false, true, false, true}, scores, &truth);  // unclicked: y and z final
  judge.add(0, {true, true, false, false}, scores, &truth);  // clicked, z open
  judge.add(0, {true, false, true, true}, scores, &truth);   // its purchase: z alone
  judge.add(0, {false, true, false, true}, scores, nullptr);
  judge.end();
  const Metrics metrics = judge.metrics();
  const auto at = [&](std::size_t rate, auto metric) {
    return metrics[metric_index(rate, metric)];
  };
  EXPECT_DOUBLE_EQ(at(0, LabelMetric::calibration), 1.5);   // 3 · 1/2 over 1 click
  EXPECT_DOUBLE_EQ(at(1, LabelMetric::calibration), 0.5);   // 1/2 over 1 purchase
  EXPECT_DOUBLE_EQ(at(2, LabelMetric::calibration), 0.75);  // 3 · 1/4 over 1 purchase
  EXPECT_EQ(judge.impressions_with_truth(), 2U);
  EXPECT_DOUBLE_EQ(at(0, TruthMetric::ratio), 2.0);
  EXPECT_DOUBLE_EQ(at(1, TruthMetric::mean_error), 0.25);
  EXPECT_DOUBLE_EQ(at(2, TruthMetric::mean_error), 0.25 - 0.1875);
  EXPECT_TRUE(std::isnan(at(1, LabelMetric::auc)));  // one class only
}

TEST(CompareMetrics, EveryResamplingDrawsAsManyUsersAsThereAre) {
  constexpr std::size_t kMany = 1'000;
  std::vector<float> weights(kMany * kReplicas);
  std::vector<float> again(kMany * kReplicas);
  std::vector<double> drawn(kMany);
  constexpr std::size_t kBlocks = 25;
  double sum_of_squares = 0;
  for (std::size_t block = 0; block < kBlocks; ++block) {
    draw_users(block, weights);
    draw_users(block, again);
    EXPECT_EQ(weights, again);
    draw_users(block + 1, again);
    EXPECT_NE(weights, again);
    for (std::size_t r = 0; r < kReplicas; ++r) {
      double sum = 0;
      for (std::size_t user = 0; user < kMany; ++user) {
        const double weight = weights[user * kReplicas + r];
        sum += weight;
        drawn[user] += weight;
        sum_of_squares += weight * weight;
      }
      EXPECT_EQ(sum, kMany);
    }
  }
  // Binomial, about Poisson(1): the mean of the squares is 2 − 1/n.
  EXPECT_NEAR(sum_of_squares / (kMany * kBlocks * kReplicas), 2.0, 0.02);
  for (const double times : drawn) EXPECT_NEAR(times, kBlocks * kReplicas, 6 * std::sqrt(200.0));
}

TEST(CompareMetrics, QuantilesAreLinearBetweenTwoValues) {
  EXPECT_DOUBLE_EQ(quantile({7}, 0.025), 7);
  EXPECT_DOUBLE_EQ(quantile({1, 2, 3, 4, 5}, 0.5), 3);
  EXPECT_DOUBLE_EQ(quantile({1, 2, 3, 4, 5}, 0.025), 1.1);
  EXPECT_DOUBLE_EQ(quantile({1, 2, 3, 4, 5}, 0.975), 4.9);
  EXPECT_DOUBLE_EQ(quantile({1, 2}, 1), 2);
}

TEST(CompareMetrics, EachHasAName) {
  EXPECT_EQ(metric_name(metric_index(0, LabelMetric::auc)), "ctr.auc");
  EXPECT_EQ(metric_name(metric_index(1, TruthMetric::mean_error)), "cvr.true.mean_error");
  EXPECT_EQ(metric_name(kMetrics - 1), "ctcvr.true.ratio");
}

}  // namespace
}  // namespace sluice
