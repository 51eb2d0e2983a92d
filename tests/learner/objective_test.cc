#include "learner/objective.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <nlohmann/json.hpp>

#include "base/lanes.h"
#include "tests/learner/esmm_loss.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

Recipe recipe_named(const std::string& name) {
  ModelConfig model;
  model.recipe = name;
  const Result<Recipe> recipe = recipe_of(model);
  EXPECT_TRUE(recipe) << recipe.error().message;
  return *recipe;
}

// Towers a and b, rates of a, and the terms given, each "name = ..." and so on.
Recipe recipe_with(const std::string& terms, const std::string& rates = "") {
  const std::string text =
      "[towers]\na = {}\nb = {}\n[rates]\npctr = \"sigmoid(a)\"\npcvr = \"sigmoid(b)\"\n"
      "pctcvr = \"pctr * pcvr\"\n" +
      rates + terms + "[[terms]]\nname = \"reached\"\nweight = 0\nloss = \"a + b\"\n";
  ParsedRecipe parsed = parse_recipe(text, "r");
  for (const ConfigProblem& problem : parsed.problems) ADD_FAILURE() << problem.text();
  return std::move(parsed.recipe);
}

std::string term(const std::string& name, const std::string& loss, const std::string& more = "") {
  return "[[terms]]\nname = \"" + name + "\"\nloss = \"" + loss + "\"\n" + more + "\n";
}

Json golden() {
  std::ifstream file(std::string(SLUICE_SOURCE_DIR) + "/tests/golden/objectives.json");
  return Json::parse(file);
}

FinalLabels labels_of(const Json& json) {
  FinalLabels labels;
  labels.y = json["y"];
  labels.y_final = json["y_final"];
  labels.action = json["action"];
  labels.action_final = json["action_final"];
  labels.z = json["z"];
  labels.z_final = json["z_final"];
  return labels;
}

std::string text_of(const FinalLabels& labels) {
  return std::string("y ") + (labels.y ? "1" : "0") + (labels.y_final ? " final" : "") +
         ", action " + (labels.action ? "1" : "0") + (labels.action_final ? " final" : "") +
         ", z " + (labels.z ? "1" : "0") + (labels.z_final ? " final" : "");
}

// Relative error; what lies near the smallest normal double may be 0.
void expect_near(double value, double wanted, const std::string& what, double floor = 1e-300) {
  ASSERT_TRUE(std::isfinite(value)) << what;
  EXPECT_LE(std::abs(value - wanted), 2e-12 * std::abs(wanted) + floor)
      << what << ": " << value << ", wanted " << wanted;
}

// Gradients and loss of one sample, with the golden file's divisors.
struct Evaluated {
  std::vector<double> gradients;
  Prediction predictions;
  double loss = 0;
};
Evaluated evaluated(const Objective& objective, const std::vector<float>& logits,
                    const FinalLabels& labels, const std::string& id, const Json& file) {
  const std::vector<double> sums(objective.terms(), file["weights"].get<double>());
  const TermDivisors divisors = objective.divisors(file["batch"].get<std::size_t>(), sums);
  Evaluated result;
  result.gradients.resize(objective.towers());
  objective.gradients(logits, labels, id, divisors, result.gradients, result.predictions);
  result.loss = objective.loss(logits, labels, id, divisors);
  return result;
}

void expect_rate(const PredictedRate& rate, const Json& wanted, const std::string& what) {
  expect_near(rate.yes, wanted[0], what);
  expect_near(rate.log_yes, wanted[1], what + ", log p");
  if (wanted[2].is_null()) {
    EXPECT_EQ(rate.log_no, -std::numeric_limits<double>::infinity()) << what;
    EXPECT_EQ(rate.logit, std::numeric_limits<double>::infinity()) << what;
    return;
  }
  expect_near(rate.log_no, wanted[2], what + ", log(1-p)");
  const double logit = wanted[1].get<double>() - wanted[2].get<double>();
  EXPECT_LE(std::abs(rate.logit - logit), 1e-12 * (1 + std::abs(logit))) << what;
}

void expect_sample(const Evaluated& got, const Json& wanted, const std::string& what,
                   double floor) {
  expect_near(got.loss, wanted["loss"], what + ", loss", floor);
  ASSERT_EQ(got.gradients.size(), wanted["gradients"].size());
  for (std::size_t t = 0; t < got.gradients.size(); ++t) {
    // Terms may cancel each other.
    const double scale = wanted["scales"][t];
    expect_near(got.gradients[t], wanted["gradients"][t], what + ", tower " + std::to_string(t),
                floor + 2e-12 * scale);
  }
}

// Where a term's samples are drawn, whether this one is: its one chance, from its own draw.
bool is_drawn(const Objective& objective, const Prediction& predictions, const std::string& id) {
  for (std::size_t n = 0; n < objective.terms(); ++n) {
    const RecipeTerm& its = objective.recipe().terms[n];
    if (its.chance == RecipeTerm::kNone) continue;
    const double chance = its.name == "missing_as_negative"
                              ? 0.1
                              : 1 / (1 + std::exp(predictions.ctr.logit));  // unbias: 1 − pCTR
    return objective.draw(n, id) < chance;
  }
  return true;
}

void expect_golden(const std::string& name, const Json& file) {
  const Objective objective(recipe_named(name), 3);
  const Json& recipe = file["recipes"][name];
  ASSERT_EQ(recipe["towers"].size(), objective.towers());
  for (std::size_t t = 0; t < objective.towers(); ++t) {
    EXPECT_EQ(recipe["towers"][t], objective.recipe().towers[t].name);
  }
  // Beside |1 − (p + q)| a double has p + q = 1 where one of them is below 1e-16; and the error
  // that is imputed is the difference of two losses.
  const double floor = name == "dcmt" ? 1e-19 : name == "escm2_dr" ? 1e-13 : 1e-300;
  for (const Json& one : recipe["cases"]) {
    const auto logits = one["logits"].get<std::vector<float>>();
    const std::string where = name + " at " + one["logits"].dump();
    const Prediction predictions = objective.predict(logits);
    expect_rate(predictions.ctr, one["rates"][0], where + ", pCTR");
    expect_rate(predictions.cvr, one["rates"][1], where + ", pCVR");
    expect_rate(predictions.ctcvr, one["rates"][2], where + ", pCTCVR");
    for (std::size_t n = 0; n < file["samples"].size(); ++n) {
      const FinalLabels labels = labels_of(file["samples"][n]);
      for (const std::string id : {"i1", "i2", "i3", "i4", "i5", "i6", "i7", "i8", "i9", "i10"}) {
        const Evaluated got = evaluated(objective, logits, labels, id, file);
        EXPECT_EQ(got.predictions, predictions);
        const bool drawn = is_drawn(objective, predictions, id);
        expect_sample(got, one["samples"][n][drawn ? "drawn" : "rejected"],
                      where + ", " + text_of(labels), floor);
        if (::testing::Test::HasFailure()) return;
        if (!one["samples"][n].contains("rejected")) break;
      }
    }
  }
}

TEST(Objective, IsThatOfTheGoldenFile) {
  const Json file = golden();
  EXPECT_EQ(file["recipes"].size(), built_in_recipes().size());
  for (const BuiltInRecipe& recipe : built_in_recipes()) {
    SCOPED_TRACE(recipe.name);
    expect_golden(std::string(recipe.name), file);
  }
}

// ---- ESMM
// ----------------------------------------------------------------------------------------

constexpr FinalLabels kEsmmLabels[] = {
    {false, true, false, true}, {true, true, false, true},  {true, true, true, true},
    {true, true, false, false}, {true, false, false, true}, {true, false, true, true},
};

void expect_esmm_bits(const Objective& objective, float a, float b, double batch) {
  const TermDivisors divisors(2, batch);
  const float logits[] = {a, b};
  for (const FinalLabels& labels : kEsmmLabels) {
    const Rate p = rate_of(a);
    const Rate q = rate_of(b);
    const LossGradients wanted = esmm_gradients(a, b, p, q, labels);
    double gradients[2] = {};
    Prediction predictions;
    objective.gradients(logits, labels, "id", divisors, gradients, predictions);
    const double wanted_bits[2] = {wanted.ctr / batch, wanted.cvr / batch};
    ASSERT_EQ(std::memcmp(gradients, wanted_bits, sizeof gradients), 0)
        << "a " << a << " b " << b << ", " << text_of(labels) << ": " << gradients[0] << " "
        << gradients[1] << ", wanted " << wanted_bits[0] << " " << wanted_bits[1];
    ASSERT_EQ(predictions.ctr.yes, p.yes);
    ASSERT_EQ(predictions.cvr.yes, q.yes);
    ASSERT_EQ(predictions.ctcvr.yes, p.yes * q.yes);
    ASSERT_EQ(predictions.ctr.logit, a);
    ASSERT_EQ(predictions.cvr.logit, b);
    // As the metrics have had them.
    const LogRate log_p = log_rate_of(a);
    const LogRate log_q = log_rate_of(b);
    const double log_no = log_no_conversion(log_p, log_q);
    ASSERT_EQ(predictions.ctr.log_yes, log_p.yes);
    ASSERT_EQ(predictions.ctr.log_no, log_p.no);
    ASSERT_EQ(predictions.cvr.log_yes, log_q.yes);
    ASSERT_EQ(predictions.cvr.log_no, log_q.no);
    ASSERT_EQ(predictions.ctcvr.log_yes, log_p.yes + log_q.yes);
    ASSERT_EQ(predictions.ctcvr.log_no, log_no);
    ASSERT_EQ(predictions.ctcvr.logit, log_p.yes + log_q.yes - log_no);
  }
}

// Models that were begun before recipes were data go on with the same bits.
TEST(Objective, EsmmIsBitForBitTheClosedForm) {
  const Objective objective(recipe_named("esmm"), 1);
  for (const bool flushes : {false, true}) {
    std::optional<FlushDenormals> flush;
    if (flushes) flush.emplace();
    for (const float a : {0.0F,   -0.0F,  1.5F,   -1.5F,   20.0F,  -20.0F, 40.0F,   -40.0F,
                          320.0F, 321.5F, 640.0F, 644.8F,  650.0F, 700.0F, -700.0F, 708.5F,
                          710.0F, 740.0F, 750.0F, -750.0F, 1e6F,   -1e6F,  3e38F,   -3e38F}) {
      for (const float b : {0.0F, 1.0F, -1.0F, 40.0F, -40.0F, 322.0F, 643.0F, 645.0F, 700.0F,
                            -700.0F, 709.0F, 745.0F, 800.0F, -800.0F, 3e38F, -3e38F}) {
        expect_esmm_bits(objective, a, b, 1'024);
        expect_esmm_bits(objective, b, a, 7);
      }
    }
  }
}

RC_GTEST_PROP(ObjectiveProperty, EsmmIsBitForBitTheClosedForm, ()) {
  const Objective objective(recipe_named("esmm"), 1);
  const auto logit = rc::gen::map(rc::gen::inRange(-800'000, 800'000),
                                  [](int n) { return static_cast<float>(n) / 1'000.0F; });
  for (int n = 0; n < 50; ++n) {
    expect_esmm_bits(objective, *logit, *logit, *rc::gen::inRange(1, 5'000));
  }
  RC_ASSERT(!::testing::Test::HasFatalFailure());
}

// ---- Any recipe
// ----------------------------------------------------------------------------------

// All logits of a float: what the trainer would refuse must never come from the objective.
TEST(Objective, IsFiniteForEveryFiniteLogit) {
  const float kLogits[] = {0.0F,   -0.5F,   36.0F,  -36.0F,  40.0F,   -40.0F,
                           350.0F, -350.0F, 700.0F, -700.0F, 745.0F,  -745.0F,
                           1e5F,   -1e5F,   1e15F,  -1e15F,  3.4e38F, -3.4e38F};
  const Json file = golden();
  for (const BuiltInRecipe& recipe : built_in_recipes()) {
    // The imputation's square has no bound.
    if (recipe.name == "escm2_dr") continue;
    const Objective objective(recipe_named(std::string(recipe.name)), 3);
    const std::size_t towers = objective.towers();
    for (std::size_t n = 0; n < 2'000; ++n) {
      std::vector<float> logits(towers);
      for (std::size_t t = 0; t < towers; ++t) {
        logits[t] = kLogits[mix64(n * towers + t) % std::size(kLogits)];
        // Sums of logits (esmc, esms) would leave the floats' range.
        if (towers > 3 || recipe.name == "esmc") logits[t] /= 4;
      }
      for (const Json& sample : file["samples"]) {
        const Evaluated got = evaluated(objective, logits, labels_of(sample), "i", file);
        EXPECT_TRUE(std::isfinite(got.loss)) << recipe.name << " " << Json(logits).dump();
        for (const double gradient : got.gradients) {
          ASSERT_TRUE(std::isfinite(gradient)) << recipe.name << " " << Json(logits).dump();
          ASSERT_LE(std::abs(gradient), 20) << recipe.name << " " << Json(logits).dump();
        }
        for (const PredictedRate& rate :
             {got.predictions.ctr, got.predictions.cvr, got.predictions.ctcvr}) {
          ASSERT_TRUE(rate.yes >= 0 && rate.yes <= 1) << recipe.name;
          ASSERT_LE(rate.log_yes, 0) << recipe.name;
          ASSERT_TRUE(std::isfinite(rate.log_yes)) << recipe.name;
          ASSERT_LE(rate.log_no, 0) << recipe.name;
          ASSERT_FALSE(std::isnan(rate.logit)) << recipe.name;
        }
      }
    }
  }
}

// Random losses of every operation, against central differences.
std::string random_rate(int depth);
std::string random_real(int depth) {
  const auto real = [&] { return random_real(depth - 1); };
  const auto rate = [&] { return random_rate(depth - 1); };
  if (depth == 0) return *rc::gen::element<std::string>("a", "b", "0.5", "-2", "z");
  switch (*rc::gen::inRange(0, 12)) {
    case 0:
      return "(" + real() + ") + (" + real() + ")";
    case 1:
      return "(" + real() + ") - (" + real() + ")";
    case 2:
      return "(" + real() + ") * 0.75";
    case 3:
      return "(" + rate() + ") * (" + real() + ")";
    case 4:
      return "(" + real() + ") / (1 + (" + rate() + "))";
    case 5:
      return "-(" + real() + ")";
    case 6:
      return "abs(" + real() + ")";
    case 7:
      return "square(0.5 * (" + rate() + ") - 1)";
    case 8:
      return "clip(" + real() + ", -1, 3)";
    case 9:
      return "softplus(" + real() + ")";
    case 10:
      return "log(" + rate() + ")";
    default:
      return "bce(" + *rc::gen::element<std::string>("y", "z", "0", "1") + ", " + rate() + ")";
  }
}
std::string random_rate(int depth) {
  const auto rate = [&] { return random_rate(depth - 1); };
  if (depth <= 0) return *rc::gen::element<std::string>("pctr", "pcvr", "sigmoid(b - a)");
  switch (*rc::gen::inRange(0, 5)) {
    case 0:
      return "sigmoid(b - 0.5 * (" + random_real(depth - 1) + "))";
    case 1:
      return "1 - (" + rate() + ")";
    case 2:
      return "(" + rate() + ") * (" + rate() + ")";
    case 3:
      return "0.25 * (" + rate() + ")";
    default:
      return "mix(" + rate() + ", " + rate() + ", " + rate() + ")";
  }
}

RC_GTEST_PROP(ObjectiveProperty, GradientsAreTheSlopesOfTheLoss, ()) {
  const std::string loss = random_real(4) + " + bce(y, pctr)";
  RC_PRE(loss.size() < 1'000);
  RC_LOG() << loss << "\n";
  const Recipe recipe = recipe_with(term("t", loss, "weight = 1.5"));
  RC_ASSERT(!::testing::Test::HasFailure());
  const Objective objective(recipe, 1);
  const FinalLabels labels = {*rc::gen::arbitrary<bool>(), true, *rc::gen::arbitrary<bool>(), true};
  const TermDivisors divisors = objective.divisors(3, {});
  const float kStep = 1.0F / 256;  // logits are multiples of it, so that steps are exact
  for (int n = 0; n < 20; ++n) {
    float logits[2] = {};
    for (float& logit : logits) logit = static_cast<float>(*rc::gen::inRange(-700, 700)) / 256.0F;
    double gradients[2] = {};
    Prediction predictions;
    objective.gradients(logits, labels, "id", divisors, gradients, predictions);
    for (int t = 0; t < 2; ++t) {
      const auto at = [&](float steps) {
        float moved[2] = {logits[0], logits[1]};
        moved[t] += steps * kStep;
        return objective.loss(moved, labels, "id", divisors);
      };
      const double near = (at(1) - at(-1)) / (2 * kStep);
      const double far = (at(2) - at(-2)) / (4 * kStep);
      // Two steps agree where the loss is smooth; where there is a kink between them, either these
      // differ, or the bends do.
      const double near_bend = (at(1) - 2 * at(0) + at(-1)) / kStep;
      const double far_bend = (at(2) - 2 * at(0) + at(-2)) / (2 * kStep);
      const double error = std::abs(near - far) + std::abs(far_bend - 2 * near_bend);
      RC_LOG() << "at " << logits[0] << " " << logits[1] << ", tower " << t << ": " << gradients[t]
               << ", slope " << near << " with error " << error << "\n";
      RC_ASSERT(std::abs(gradients[t] - near) <= error + 1e-6 * (1 + std::abs(near)));
    }
  }
}

// What a rate divides by where it is near 0 is bounded; the bound stops the gradient.
TEST(Objective, ABoundPassesNoGradientFromBeyond) {
  const Objective objective(recipe_with(term("t", "min(1 / pctr, 15)")), 1);
  const FinalLabels labels = {true, true, false, false};
  double gradients[2] = {};
  Prediction predictions;
  const TermDivisors divisors = objective.divisors(1, {});
  for (const float a : {-5.0F, -100.0F, -800.0F, -3e38F}) {
    const float logits[] = {a, 0.0F};
    objective.gradients(logits, labels, "id", divisors, gradients, predictions);
    EXPECT_EQ(gradients[0], 0) << a;
  }
  const float logits[] = {0.0F, 0.0F};
  objective.gradients(logits, labels, "id", divisors, gradients, predictions);
  EXPECT_DOUBLE_EQ(gradients[0], -1) << "d (1/p) = -(1-p)/p";
}

TEST(Objective, NoGradientPassesAStopAWeightOrAChance) {
  const std::string more = "weight = \"min(1 / pctr, 15)\"\nchance = \"sigmoid(a)\"";
  const Objective objective(recipe_with(term("t", "bce(z, pcvr) * stop(pctr)", more)), 1);
  double gradients[2] = {};
  Prediction predictions;
  const float logits[] = {40.0F, 1.0F};
  const FinalLabels labels = {true, true, true, true};
  objective.gradients(logits, labels, "id", objective.divisors(1, {}), gradients, predictions);
  EXPECT_EQ(gradients[0], 0);
  EXPECT_NE(gradients[1], 0);
}

// ---- Which samples train which terms
// --------------------------------------------------------------

// One impression's samples, in every way its labels can become final.
std::vector<std::vector<FinalLabels>> all_lives() {
  std::vector<std::vector<FinalLabels>> lives;
  for (const bool y : {false, true}) {
    for (const bool action : {false, true}) {
      for (const bool z : {false, true}) {
        if (!y && (action || z)) continue;
        // On which sample action and z become final: y on the first, 0.
        for (int at_action = 0; at_action < 3; ++at_action) {
          for (int at_z = 0; at_z < 3; ++at_z) {
            std::vector<FinalLabels> life;
            for (int n = 0; n <= std::max(at_action, at_z); ++n) {
              FinalLabels one;
              one.y = y;
              one.y_final = n == 0;
              one.action = action && at_action <= n;
              one.action_final = at_action == n;
              one.action_was_final = at_action < n;
              one.z = z && at_z <= n;
              one.z_final = at_z == n;
              one.z_was_final = at_z < n;
              if (one.y_final || one.action_final || one.z_final) life.push_back(one);
            }
            lives.push_back(life);
          }
        }
      }
    }
  }
  return lives;
}

int times_trained(const Objective& objective, const std::vector<FinalLabels>& life) {
  int times = 0;
  for (const FinalLabels& labels : life) {
    const float logits[] = {0.5F, -0.5F};
    double gradients[2] = {};
    Prediction predictions;
    objective.gradients(logits, labels, "id", objective.divisors(1, {}), gradients, predictions);
    const TowerSet reached = objective.reached(labels, "id");
    if (gradients[1] != 0) ++times;
    EXPECT_TRUE(gradients[1] == 0 || (reached & 2) != 0);
  }
  return times;
}

TEST(Objective, ATermTrainsOnceAnImpression) {
  struct Case {
    const char* loss;
    const char* samples;
  };
  const Case cases[] = {{"bce(y, pcvr)", "all"},
                        {"bce(z, pcvr)", "all"},
                        {"bce(action, pcvr)", "all"},
                        {"bce(z, pcvr) * (1 + action)", "all"},
                        {"bce(z, pcvr) * (1 + y)", "all"},
                        {"b", "all"},
                        {"b", "clicked"},
                        {"b", "unclicked"},
                        {"b", "acted"},
                        {"bce(z, pcvr)", "clicked"},
                        {"bce(z, pcvr)", "acted"},
                        {"bce(action, pcvr)", "unclicked"}};
  const auto lives = all_lives();
  ASSERT_EQ(lives.size(), 5U * 9);
  for (const Case& one : cases) {
    const std::string more = std::string("samples = \"") + one.samples + "\"";
    const Objective objective(recipe_with(term("t", one.loss, more)), 1);
    for (const auto& life : lives) {
      const bool clicked = life.front().y;
      const bool acted = life.back().action;
      const std::string samples = one.samples;
      const bool is_in = samples == "all" || (samples == "clicked" && clicked) ||
                         (samples == "unclicked" && !clicked) || (samples == "acted" && acted);
      EXPECT_EQ(times_trained(objective, life), is_in ? 1 : 0)
          << one.loss << " of " << samples << ", " << text_of(life.front()) << " and "
          << life.size() << " samples";
    }
  }
}

// It trains on the very sample on which the last of its labels is final.
TEST(Objective, EsmmTrainsCtrByYAndCtcvrByZ) {
  const Objective objective(recipe_named("esmm"), 1);
  const auto reached = [&](const FinalLabels& labels) { return objective.reached(labels, "i"); };
  EXPECT_EQ(reached({false, true, false, true}), 3U);
  EXPECT_EQ(reached({true, true, false, false}), 1U);
  EXPECT_EQ(reached({true, false, true, true}), 3U) << "CTCVR reaches both towers";
  EXPECT_EQ(objective.embedding_sets(3), 1U);
}

TEST(Objective, ReachedFollowsLabelsAndConstantChances) {
  const Objective base(recipe_named("base"), 1);
  EXPECT_EQ(base.reached({false, true, false, true}, "i"), 1U) << "an unclicked one trains no CVR";
  EXPECT_EQ(base.reached({true, true, false, false}, "i"), 1U);
  EXPECT_EQ(base.reached({true, false, false, true}, "i"), 2U);
  EXPECT_EQ(base.embedding_sets(1), 1U);
  EXPECT_EQ(base.embedding_sets(2), 2U);
  EXPECT_EQ(base.embedding_sets(3), 3U);
  EXPECT_EQ(base.embedding_sets(0), 0U);

  const Objective aman(recipe_named("aman"), 1);
  const Objective unbias(recipe_named("unbias"), 1);
  int reached = 0;
  for (int n = 0; n < 1'000; ++n) {
    const std::string id = "i" + std::to_string(n);
    const bool is_drawn = aman.draw(2, id) < 0.1;
    EXPECT_EQ(aman.reached({false, true, false, true}, id), is_drawn ? 3U : 1U);
    reached += is_drawn ? 1 : 0;
    // The chance is a rate's: it is not known before the logits are.
    EXPECT_EQ(unbias.reached({true, false, false, true}, id), 2U);
  }
  EXPECT_GT(reached, 60);
  EXPECT_LT(reached, 140);
}

// ---- Draws
// ---------------------------------------------------------------------------------------

TEST(Objective, ADrawIsAFunctionOfSeedIdAndTerm) {
  const Recipe recipe = recipe_named("aman");
  const Objective objective(recipe, 1);
  EXPECT_EQ(objective.draw(2, "i1"), Objective(recipe, 1).draw(2, "i1"));
  EXPECT_NE(objective.draw(2, "i1"), Objective(recipe, 2).draw(2, "i1"));
  EXPECT_NE(objective.draw(2, "i1"), objective.draw(2, "i2"));
  EXPECT_NE(objective.draw(2, "i1"), objective.draw(1, "i1"));
  // Of the name, not of the place: the same term of another recipe draws the same.
  const Recipe other =
      recipe_with(term("missing_as_negative", "bce(0, pcvr)", "samples = \"unclicked\""));
  EXPECT_EQ(objective.draw(2, "i1"), Objective(other, 1).draw(0, "i1"));
  // Models that exist were made with these draws.
  EXPECT_EQ(objective.draw(2, "i1"), 0x1.e856aa044b6b4p-2);
}

TEST(Objective, DrawsAreUniformAndIndependent) {
  const Objective objective(recipe_named("aman"), 7);
  constexpr int kIds = 20'000;
  std::vector<int> tenths(10);
  int both = 0;
  for (int n = 0; n < kIds; ++n) {
    const std::string id = std::to_string(n);
    const double draw = objective.draw(2, id);
    ASSERT_TRUE(draw >= 0 && draw < 1);
    ++tenths[static_cast<std::size_t>(draw * 10)];
    if (draw < 0.5 && objective.draw(1, id) < 0.5) ++both;
  }
  for (const int count : tenths) EXPECT_NEAR(count, kIds / 10, 5 * std::sqrt(kIds * 0.09));
  EXPECT_NEAR(both, kIds / 4, 5 * std::sqrt(kIds * 0.1875));
}

TEST(Objective, AChanceOfOneOrNoneTakesAll) {
  const FinalLabels labels = {true, true, true, true};
  for (const auto& [chance, reached] : {std::pair("1", 2U), std::pair("0", 0U)}) {
    const Objective objective(
        recipe_with(term("t", "bce(z, pcvr)", std::string("chance = ") + chance)), 1);
    for (int n = 0; n < 100; ++n) {
      const std::string id = std::to_string(n);
      double gradients[2] = {};
      Prediction predictions;
      const float logits[] = {0.5F, 0.5F};
      objective.gradients(logits, labels, id, objective.divisors(1, {}), gradients, predictions);
      EXPECT_EQ(gradients[1] != 0, reached != 0) << chance;
    }
  }
}

// ---- Divisors
// ------------------------------------------------------------------------------------

TEST(Objective, WeightsAreSummedWhereTheyDivide) {
  const Objective ips(recipe_named("escm2_ips"), 1);
  EXPECT_FALSE(ips.needs_weight_sums());
  const Objective objective(recipe_named("escm2_snips"), 1);
  ASSERT_TRUE(objective.needs_weight_sums());
  std::vector<double> sums(objective.terms());
  const float logits[] = {-1.0F, 0.5F};
  objective.add_weights(logits, {false, true, false, true}, "i1", sums);
  EXPECT_EQ(sums, std::vector<double>(3)) << "not of the term's samples";
  objective.add_weights(logits, {true, true, false, true}, "i1", sums);
  const double weight = 1 / objective.predict(logits).ctr.yes;
  EXPECT_EQ(sums, (std::vector<double>{0, weight, 0}));
  const float rare[] = {-5.0F, 0.5F};
  objective.add_weights(rare, {true, false, true, true}, "i2", sums);
  EXPECT_EQ(sums[1], weight + 15);
  EXPECT_EQ(objective.divisors(4, sums), (TermDivisors{4, weight + 15, 4}));
}

// The gradients of a batch's samples add up to those of a mean over its clicked ones.
TEST(Objective, ATermDividedByItsWeightsIsAMean) {
  const std::string more = "samples = \"clicked\"\nnormalize = \"weights\"\nweight = \"1 + 3 * z\"";
  const Objective objective(recipe_with(term("t", "bce(z, pcvr)", more)), 1);
  const FinalLabels kLabels[] = {
      {true, true, true, true}, {true, true, false, true}, {false, true, false, true}};
  const float logits[] = {0.0F, 0.0F};
  std::vector<double> sums(objective.terms());
  for (const FinalLabels& labels : kLabels) objective.add_weights(logits, labels, "i", sums);
  double loss = 0, gradient = 0;
  for (const FinalLabels& labels : kLabels) {
    double gradients[2] = {};
    Prediction predictions;
    const TermDivisors divisors = objective.divisors(3, sums);
    objective.gradients(logits, labels, "i", divisors, gradients, predictions);
    loss += objective.loss(logits, labels, "i", divisors);
    gradient += gradients[1];
  }
  EXPECT_DOUBLE_EQ(loss, std::log(2.0));
  EXPECT_DOUBLE_EQ(gradient, (4 * -0.5 + 0.5) / 5);
}

// ---- Rates that are quotients
// --------------------------------------------------------------------

TEST(Objective, ARatioIsCutToOneAndCounted) {
  const Objective objective(recipe_named("division"), 1);
  const float below[] = {-2.0F, 1.0F};  // ctcvr, ctr
  EXPECT_EQ(objective.predict(below).cut_ratios, 0U);
  EXPECT_LT(objective.predict(below).cvr.yes, 1);
  const float above[] = {1.0F, -2.0F};
  EXPECT_EQ(objective.predict(above).cut_ratios, 1U);
  EXPECT_EQ(objective.predict(above).cvr.yes, 1);
  const float equal[] = {1.0F, 1.0F};
  EXPECT_EQ(objective.predict(equal).cut_ratios, 0U) << "exactly 1 is not above 1";
  EXPECT_EQ(objective.predict(equal).cvr.yes, 1);
}

}  // namespace
}  // namespace sluice
