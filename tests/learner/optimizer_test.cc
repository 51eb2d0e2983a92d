// The update rules against numbers that tests/golden/optimizer_steps.py made in float64, and what
// must hold of each whatever the numbers.
#include "learner/optimizer.h"

#include <cmath>
#include <fstream>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <nlohmann/json.hpp>
#include "tests/learner/test_data.h"

namespace sluice {
namespace {

using nlohmann::json;
using Rule = OptimizerConfig::Rule;

class GoldenCase {
 public:
  explicit GoldenCase(json numbers) : numbers_(std::move(numbers)) {}

  static std::vector<GoldenCase> all() {
    std::ifstream file(SLUICE_SOURCE_DIR "/tests/golden/optimizer_steps.json");
    const json numbers = json::parse(file);
    std::vector<GoldenCase> cases;
    for (const json& one : numbers.at("cases")) cases.emplace_back(one);
    EXPECT_EQ(cases.size(), 6U);
    return cases;
  }

  OptimizerConfig config() const { return testing::optimizer_of(numbers_.at("config")); }
  std::string name() const { return numbers_.at("config").dump(); }

  // The largest deviation from the numbers over all steps, where rows are updated by `config`:
  // relative to the magnitude, or absolute below 1.
  double deviation(const OptimizerConfig& config) const {
    const auto weights = numbers_.at("weights").get<std::vector<float>>();
    const RowLayout layout{weights.size(), slots_of(config)};
    EXPECT_EQ(names(layout), numbers_.at("slots").get<std::vector<std::string>>());
    std::vector<float> row(layout.floats());
    std::copy(weights.begin(), weights.end(), row.begin());
    layout.begin_slots(row.data());
    double worst = row_deviation(row, layout, numbers_.at("weights"), numbers_.at("start"));
    std::uint64_t step = 0;
    for (const json& wanted : numbers_.at("steps")) {
      auto gradient = wanted.at("gradient").get<std::vector<float>>();
      OptimizerStep(config, ++step).apply_row(layout.dim, gradient.data(), row.data());
      worst = std::max(worst, row_deviation(row, layout, wanted.at("w"), wanted.at("slots")));
    }
    return worst;
  }

 private:
  static std::vector<std::string> names(const RowLayout& layout) {
    std::vector<std::string> result;
    for (const Slot& slot : layout.slots) result.emplace_back(slot.name);
    return result;
  }

  static double row_deviation(const std::vector<float>& row, const RowLayout& layout,
                              const json& weights, const json& slots) {
    auto wanted = weights.get<std::vector<double>>();
    for (const json& slot : slots) {
      for (const json& value : slot) wanted.push_back(value);
    }
    EXPECT_EQ(wanted.size(), layout.floats());
    double worst = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      worst = std::max(worst, std::abs(row[i] - wanted[i]) / std::max(1.0, std::abs(wanted[i])));
    }
    return worst;
  }

  json numbers_;
};

std::vector<OptimizerConfig> golden_configs() {
  std::vector<OptimizerConfig> configs;
  for (const GoldenCase& one : GoldenCase::all()) configs.push_back(one.config());
  return configs;
}

TEST(Optimizer, FollowsTheFormulasInDouble) {
  for (const GoldenCase& one : GoldenCase::all()) {
    EXPECT_LT(one.deviation(one.config()), 2e-6) << one.name();
  }
}

// A number that a rule passed over would make the test above blind for its term.
TEST(Optimizer, EveryNumberOfARuleCountsInItsGoldenSteps) {
  const OptimizerConfig defaults;
  const auto without = [&](auto field) {
    std::size_t cases = 0;
    for (const GoldenCase& one : GoldenCase::all()) {
      OptimizerConfig config = one.config();
      if (config.*field == defaults.*field) continue;
      config.*field = defaults.*field;
      if (slots_of(config).size() != slots_of(one.config()).size()) continue;  // momentum 0
      EXPECT_GT(one.deviation(config), 1e-3) << one.name();
      ++cases;
    }
    return cases;
  };
  EXPECT_EQ(without(&OptimizerConfig::learning_rate), 6U);
  EXPECT_EQ(without(&OptimizerConfig::beta1), 1U);
  EXPECT_EQ(without(&OptimizerConfig::beta2), 1U);
  EXPECT_EQ(without(&OptimizerConfig::epsilon), 3U);
  EXPECT_EQ(without(&OptimizerConfig::momentum), 1U);
  EXPECT_EQ(without(&OptimizerConfig::initial_accumulator), 2U);
  EXPECT_EQ(without(&OptimizerConfig::ftrl_beta), 1U);
  EXPECT_EQ(without(&OptimizerConfig::l1), 1U);
  EXPECT_EQ(without(&OptimizerConfig::l2), 6U);
  EXPECT_EQ(without(&OptimizerConfig::warmup_steps), 6U);
  EXPECT_EQ(without(&OptimizerConfig::clip_norm), 6U);
}

// Any finite floats, of a size at which nothing overflows.
std::vector<float> any_floats(std::size_t n) {
  std::vector<float> values(n);
  for (float& value : values) {
    value = static_cast<float>(*rc::gen::inRange(-1'000'000, 1'000'001)) / 65'536.0F;
  }
  return values;
}

struct Parameters {
  std::vector<float> gradient, weight, slot0, slot1;

  static Parameters any(std::size_t n) {
    Parameters made{any_floats(n), any_floats(n), any_floats(n), any_floats(n)};
    for (float& sum : made.slot0) sum = std::abs(sum);  // it may be a sum of squares
    for (float& sum : made.slot1) sum = std::abs(sum);
    return made;
  }
  void apply(const OptimizerStep& step, std::size_t begin, std::size_t n) {
    step.apply(n, &gradient[begin], &weight[begin], &slot0[begin], &slot1[begin]);
  }
};

// However an array is cut into pieces, so wherever a piece begins and which tail it has.
RC_GTEST_PROP(OptimizerProperty, TheSameBitsHoweverTheArrayIsCut, ()) {
  const OptimizerConfig config = *rc::gen::elementOf(golden_configs());
  if (config.optimizer == Rule::rowwise_adagrad) return;  // a sum over the row
  const OptimizerStep step(config, *rc::gen::inRange<std::uint64_t>(1, 100));
  const auto n = *rc::gen::inRange<std::size_t>(1, 70);
  Parameters whole = Parameters::any(n);
  Parameters cut = whole;
  whole.apply(step, 0, n);
  for (std::size_t begin = 0; begin < n;) {
    const std::size_t count = std::min(n - begin, *rc::gen::inRange<std::size_t>(1, 20));
    cut.apply(step, begin, count);
    begin += count;
  }
  RC_ASSERT(whole.weight == cut.weight);
  RC_ASSERT(whole.slot0 == cut.slot0);
  RC_ASSERT(whole.slot1 == cut.slot1);
}

RC_GTEST_PROP(OptimizerProperty, ARowHasTheSameBitsWhereverItLies, ()) {
  const OptimizerConfig config = *rc::gen::elementOf(golden_configs());
  const OptimizerStep step(config, *rc::gen::inRange<std::uint64_t>(1, 100));
  const RowLayout layout{*rc::gen::inRange<std::size_t>(1, 40), slots_of(config)};
  const std::vector<float> gradient = any_floats(layout.dim);
  std::vector<float> row = any_floats(layout.floats());
  for (std::size_t i = layout.dim; i < row.size(); ++i) row[i] = std::abs(row[i]);
  std::vector<std::vector<float>> results;
  for (const std::size_t offset : {0, 1, 3}) {
    std::vector<float> shifted_gradient(offset + layout.dim);
    std::copy(gradient.begin(), gradient.end(), &shifted_gradient[offset]);
    std::vector<float> shifted(offset + row.size());
    std::copy(row.begin(), row.end(), &shifted[offset]);
    step.apply_row(layout.dim, &shifted_gradient[offset], &shifted[offset]);
    results.emplace_back(shifted.begin() + static_cast<std::ptrdiff_t>(offset), shifted.end());
  }
  RC_ASSERT(results[0] == results[1]);
  RC_ASSERT(results[0] == results[2]);
}

// A row is clipped by its own norm and is then a piece of dense parameters.
RC_GTEST_PROP(OptimizerProperty, ARowIsDenseParametersOfItsOwnNorm, ()) {
  OptimizerConfig config = *rc::gen::elementOf(golden_configs());
  if (config.optimizer == Rule::rowwise_adagrad) return;
  config.clip_norm = *rc::gen::element(0.0, 0.5, 20.0, 1e6);
  const OptimizerStep step(config, 3);
  const auto dim = *rc::gen::inRange<std::size_t>(1, 40);
  Parameters dense = Parameters::any(dim);
  const RowLayout layout{dim, slots_of(config)};
  std::vector<float> row = dense.weight;
  if (!layout.slots.empty()) row.insert(row.end(), dense.slot0.begin(), dense.slot0.end());
  if (layout.slots.size() > 1) row.insert(row.end(), dense.slot1.begin(), dense.slot1.end());
  std::vector<float> gradient = dense.gradient;
  step.apply_row(dim, gradient.data(), row.data());

  const float scale = step.clip_scale(sum_of_squares(dim, dense.gradient.data()));
  for (float& g : dense.gradient) g *= scale;
  dense.apply(step, 0, dim);
  RC_ASSERT(std::equal(dense.weight.begin(), dense.weight.end(), row.begin()));
}

TEST(Optimizer, AClippedGradientHasTheNorm) {
  OptimizerConfig config;
  config.clip_norm = 2.5;
  const OptimizerStep step(config, 1);
  EXPECT_EQ(step.clip_scale(0), 1);
  EXPECT_EQ(step.clip_scale(2.5 * 2.5), 1);
  EXPECT_FLOAT_EQ(step.clip_scale(25), 0.5F);
  EXPECT_FALSE(OptimizerStep(OptimizerConfig{}, 1).clips());
  EXPECT_EQ(OptimizerStep(OptimizerConfig{}, 1).clip_scale(1e30), 1);
}

TEST(Optimizer, SumsOfSquaresAreInDouble) {
  const std::vector<float> values = {1e30F, 3, -4, 0.5F, 1e-20F, 0, 7, 1, 2, 1e30F};
  double sum = 0;
  for (const float value : values) sum += double{value} * value;
  EXPECT_DOUBLE_EQ(sum_of_squares(values.size(), values.data()), sum);
  EXPECT_DOUBLE_EQ(sum_of_squares(3, &values[1]), 25.25);
  EXPECT_EQ(sum_of_squares(0, nullptr), 0);
}

// Of a weight and, where only that overflows, of its state.
TEST(Optimizer, WhatIsNotFiniteAfterwardsIsSeenUnderEveryRule) {
  constexpr std::size_t kDim = 18;
  for (const OptimizerConfig& golden : golden_configs()) {
    OptimizerConfig config = golden;
    config.clip_norm = 0;
    const OptimizerStep step(config, 1);
    const bool has_squares = config.optimizer != Rule::sgd;
    const RowLayout layout{kDim, slots_of(config)};
    const auto stays_finite = [&](std::size_t at, float gradient_there) {
      std::vector<float> gradient(kDim, 0.5F);
      std::vector<float> row(layout.floats(), 0.25F);
      layout.begin_slots(row.data());
      gradient[at] = gradient_there;
      return step.apply_row(kDim, gradient.data(), row.data());
    };
    for (std::size_t at = 0; at < kDim; ++at) {
      EXPECT_TRUE(stays_finite(at, -3)) << at;
      EXPECT_FALSE(stays_finite(at, std::numeric_limits<float>::infinity())) << at;
      EXPECT_FALSE(stays_finite(at, std::numeric_limits<float>::quiet_NaN())) << at;
      EXPECT_EQ(stays_finite(at, 1e25F), !has_squares) << at;
    }
  }
}

// Limits that are known without the formulas of the other steps.

TEST(Optimizer, FtrlWithoutPenaltiesIsAStepByTheRootOfItsSum) {
  OptimizerConfig config;
  config.optimizer = Rule::ftrl;
  config.learning_rate = 0.5;
  config.ftrl_beta = 2;
  const RowLayout layout{1, slots_of(config)};
  std::vector<float> row = {0.75F, 0, 0};
  layout.begin_slots(row.data());
  double w = 0.75, n = 0;
  for (std::uint64_t step = 1; step < 30; ++step) {
    float g = static_cast<float>(static_cast<int>(step * 37 % 11) - 5) / 4;
    n += double{g} * g;
    w -= 0.5 * g / (2 + std::sqrt(n));
    OptimizerStep(config, step).apply_row(1, &g, row.data());
    EXPECT_NEAR(row[0], w, 1e-5) << step;
  }
}

TEST(Optimizer, FtrlWithoutAGradientKeepsItsWeight) {
  OptimizerConfig config;
  config.optimizer = Rule::ftrl;
  config.warmup_steps = 10;
  const RowLayout layout{3, slots_of(config)};
  std::vector<float> row = {0.75F, -0.03F, 0, 0, 0, 0, 0, 0, 0};
  layout.begin_slots(row.data());
  const std::vector<float> before = row;
  for (std::uint64_t step = 1; step < 20; ++step) {
    std::vector<float> gradient(3);
    OptimizerStep(config, step).apply_row(3, gradient.data(), row.data());
  }
  for (std::size_t i = 0; i < 3; ++i) EXPECT_FLOAT_EQ(row[i], before[i]);
}

TEST(Optimizer, FtrlsL1MakesAWeightExactlyZeroAndAStrongGradientBringsItBack) {
  OptimizerConfig config;
  config.optimizer = Rule::ftrl;
  config.learning_rate = 1;
  config.l1 = 1;
  std::vector<float> row = {0.5F, 0, 0};
  RowLayout{1, slots_of(config)}.begin_slots(row.data());
  float g = 0.25F;
  OptimizerStep(config, 1).apply_row(1, &g, row.data());
  EXPECT_EQ(row[0], 0);
  g = -5;
  OptimizerStep(config, 2).apply_row(1, &g, row.data());
  EXPECT_GT(row[0], 0);
}

// A first step of Adagrad from an empty sum, and each one of Adam by a constant gradient, is lr.
TEST(Optimizer, TheFirstStepIsTheLearningRate) {
  for (const Rule rule : {Rule::adam, Rule::adagrad, Rule::rowwise_adagrad}) {
    OptimizerConfig config;
    config.optimizer = rule;
    config.learning_rate = 0.25;
    const RowLayout layout{2, slots_of(config)};
    std::vector<float> row(layout.floats());
    row[0] = row[1] = 1;
    std::vector<float> gradient = {-3, 3};
    OptimizerStep(config, 1).apply_row(2, gradient.data(), row.data());
    EXPECT_NEAR(row[0], 1.25, 1e-6);
    EXPECT_NEAR(row[1], 0.75, 1e-6);
  }
}

TEST(Optimizer, LayoutOfARow) {
  OptimizerConfig config;
  EXPECT_EQ((RowLayout{5, slots_of(config)}.floats()), 15U);
  config.optimizer = Rule::rowwise_adagrad;
  EXPECT_EQ((RowLayout{5, slots_of(config)}.floats()), 6U);
  config.optimizer = Rule::sgd;
  EXPECT_EQ((RowLayout{5, slots_of(config)}.floats()), 10U);
  config.momentum = 0;
  EXPECT_EQ((RowLayout{5, slots_of(config)}.floats()), 5U);
}

TEST(Optimizer, IntegerPower) {
  EXPECT_EQ(integer_power(0.9, 0), 1.0);
  EXPECT_EQ(integer_power(2, 62), 0x1p62);
  for (const std::uint64_t n : {1ULL, 2ULL, 7ULL, 1000ULL, 123'456ULL}) {
    EXPECT_NEAR(integer_power(0.9999, n), std::pow(0.9999, static_cast<double>(n)), 1e-13) << n;
  }
}

}  // namespace
}  // namespace sluice
