#include "learner/metrics.h"

#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "tests/learner/test_data.h"

namespace sluice {
namespace {

using testing::esmm_prediction;

struct Scored {
  FinalLabels labels;
  Prediction prediction;
};

// Logits on a grid of 1/16, so that equal scores are ties and others are in bins of their own.
std::vector<Scored> random_scored(std::uint32_t seed, std::size_t count) {
  std::mt19937 random(seed);
  std::vector<Scored> scored(count);
  for (Scored& one : scored) {
    const float a = (static_cast<float>(random() % 128) - 80) / 16;
    const float b = (static_cast<float>(random() % 128) - 60) / 16;
    one.prediction = esmm_prediction(a, b);
    const bool first = random() % 4 != 0;
    const bool y = !first || random() % 1000 < 1000 * one.prediction.ctr.yes;
    const bool z_final = !first || !y || random() % 2 == 0;
    one.labels = {y, first, y && z_final && random() % 3 == 0, z_final};
  }
  return scored;
}

struct Naive {
  std::vector<std::pair<double, bool>> scores;  // p, label

  double auc() const {
    double correct = 0, pairs = 0;
    for (const auto& [p, label] : scores) {
      for (const auto& [other, other_label] : scores) {
        if (!label || other_label) continue;
        pairs += 1;
        if (p > other) correct += 1;
        if (p == other) correct += 0.5;
      }
    }
    return correct / pairs;
  }
  double rate() const {
    double positives = 0;
    for (const auto& [p, label] : scores) positives += label ? 1 : 0;
    return positives / static_cast<double>(scores.size());
  }
  double log_loss() const {
    double sum = 0;
    for (const auto& [p, label] : scores) sum -= std::log(label ? p : 1 - p);
    return sum / static_cast<double>(scores.size());
  }
  double normalized_entropy() const {
    return log_loss() / -(rate() * std::log(rate()) + (1 - rate()) * std::log(1 - rate()));
  }
  double calibration() const {
    double sum = 0;
    for (const auto& [p, label] : scores) sum += p;
    return sum / (rate() * static_cast<double>(scores.size()));
  }
};

void expect_naive(const nlohmann::ordered_json& metric, const Naive& naive, double auc_error) {
  EXPECT_EQ(metric["samples"], naive.scores.size());
  EXPECT_NEAR(metric["auc"].get<double>(), naive.auc(), auc_error);
  EXPECT_NEAR(metric["log_loss"].get<double>(), naive.log_loss(), 1e-12);
  EXPECT_NEAR(metric["normalized_entropy"].get<double>(), naive.normalized_entropy(), 1e-12);
  EXPECT_NEAR(metric["calibration"].get<double>(), naive.calibration(), 1e-12);
}

TEST(Metrics, EqualTheNaiveComputation) {
  const std::vector<Scored> scored = random_scored(1, 1500);
  ProgressiveMetrics metrics;
  Naive ctr, ctcvr, cvr;
  for (const Scored& one : scored) {
    metrics.add(one.labels, one.prediction);
    if (one.labels.y_final) ctr.scores.emplace_back(one.prediction.ctr.yes, one.labels.y);
    if (one.labels.z_final) ctcvr.scores.emplace_back(one.prediction.ctcvr.yes, one.labels.z);
    if (one.labels.z_final && one.labels.y) {
      cvr.scores.emplace_back(one.prediction.cvr.yes, one.labels.z);
    }
  }
  const auto json = metrics.json();
  expect_naive(json["ctr"], ctr, 1e-12);
  expect_naive(json["cvr"], cvr, 1e-12);
  expect_naive(json["ctcvr"], ctcvr, 1e-3);  // its logits are not on the grid: bins make ties
}

TEST(Metrics, UndefinedIsNull) {
  ProgressiveMetrics metrics;
  const auto empty = metrics.json();
  for (const auto& [rate, metric] : empty.items()) {
    for (const char* key : {"auc", "log_loss", "normalized_entropy", "calibration"}) {
      EXPECT_TRUE(metric[key].is_null()) << rate << "." << key;
    }
  }
  metrics.add({false, true, false, true}, esmm_prediction(0, 0));
  const auto json = metrics.json();
  EXPECT_DOUBLE_EQ(json["ctr"]["log_loss"].get<double>(), std::log(2.0));
  EXPECT_TRUE(json["ctr"]["auc"].is_null());
  EXPECT_TRUE(json["ctr"]["normalized_entropy"].is_null());
  EXPECT_TRUE(json["ctr"]["calibration"].is_null());
  EXPECT_EQ(json["cvr"]["samples"], 0);
}

TEST(Metrics, EveryFiniteLogitHasABin) {
  ProgressiveMetrics metrics;
  for (const float logit : {-3e38F, -100.0F, -32.0F, 31.9999F, 32.0F, 3e38F}) {
    metrics.add({logit > 0, true, logit > 0, true}, esmm_prediction(logit, logit));
  }
  EXPECT_EQ(metrics.json()["ctr"]["auc"], 1.0);
  EXPECT_EQ(metrics.json()["ctcvr"]["auc"], 1.0);
}

TEST(Metrics, EncodingKeepsEveryBit) {
  const std::vector<Scored> scored = random_scored(2, 300);
  ProgressiveMetrics whole;
  ProgressiveMetrics resumed;
  for (const Scored& one : scored) {
    whole.add(one.labels, one.prediction);
    const auto loaded = ProgressiveMetrics::decode(resumed.encode());
    ASSERT_TRUE(loaded.has_value());
    resumed = *loaded;
    resumed.add(one.labels, one.prediction);
  }
  EXPECT_EQ(whole.encode(), resumed.encode());
  EXPECT_EQ(whole.json().dump(), resumed.json().dump());
}

TEST(Metrics, DamagedBytesAreRefused) {
  ProgressiveMetrics metrics;
  for (const Scored& one : random_scored(3, 30)) metrics.add(one.labels, one.prediction);
  const std::string bytes = metrics.encode();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(ProgressiveMetrics::decode(bytes.substr(0, size)).has_value()) << size;
  }
  EXPECT_FALSE(ProgressiveMetrics::decode(bytes + '\0').has_value());
  std::string changed = bytes;
  changed[0] ^= 1;  // the number of samples is no longer that of the bins
  EXPECT_FALSE(ProgressiveMetrics::decode(changed).has_value());
}

}  // namespace
}  // namespace sluice
