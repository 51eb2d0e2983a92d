// Three whole training steps, by every update rule and of every built-in recipe, against numbers
// that tests/golden/esmm_step.py and recipe_step.py made in float64 with another library's
// automatic differentiation.
#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <set>

#include <gtest/gtest.h>

#include "config/recipe.h"
#include "learner/model.h"
#include "learner/trainer.h"
#include "tests/learner/test_data.h"

namespace sluice {
namespace {

using nlohmann::json;

constexpr double kWeightError = 2e-6;  // of a recipe's weights, beside them and of them

json golden(const std::string& name) {
  std::ifstream file(SLUICE_SOURCE_DIR "/tests/golden/" + name);
  return json::parse(file);
}

Config config_of(const json& numbers, const json& run) {
  Config config;
  const std::map<std::string, FeatureConfig::Type> types = {
      {"id", FeatureConfig::Type::id},
      {"ids", FeatureConfig::Type::ids},
      {"weighted_ids", FeatureConfig::Type::weighted_ids},
      {"number", FeatureConfig::Type::number}};
  for (const json& item : numbers.at("features")) {
    FeatureConfig feature = testing::feature(item.at("name"), types.at(item.at("type")),
                                             item.value("table", std::string()));
    feature.log_buckets = item.value("log_buckets", 0);
    feature.edges = item.value("edges", std::vector<double>());
    config.features.push_back(feature);
  }
  config.model.seed = numbers.at("seed");
  config.model.embedding_dim = numbers.at("dim");
  config.model.hidden = numbers.at("hidden").get<std::vector<std::uint64_t>>();
  config.training.batch_size = numbers.at("batch_size");
  config.training.lane = numbers.at("lane");
  config.training.dense = testing::optimizer_of(run.at("dense"));
  config.training.embeddings = testing::optimizer_of(run.at("embeddings"));
  return config;
}

Sample sample_of(const json& item, const Config& config, std::uint64_t sequence) {
  Sample sample;
  sample.sequence = sequence;
  sample.time = 1'700'000'000'000 + static_cast<TimeMs>(sequence);
  sample.impression_id = item.at("impression_id");
  sample.y = item.at("y");
  sample.y_final = item.at("y_final");
  sample.z = item.at("z");
  sample.z_final = item.at("z_final");
  sample.action = item.value("action", false);
  sample.action_final = item.value("action_final", false);
  sample.action_later = item.value("action_later", false);
  sample.z_earlier = item.value("z_earlier", false);
  sample.features = testing::encode_features(config.features, item.at("features"));
  return sample;
}

std::vector<double> flat(const json& array) {
  if (!array.is_array()) return {array.get<double>()};
  std::vector<double> values;
  for (const json& item : array) {
    for (const double value : flat(item)) values.push_back(value);
  }
  return values;
}

// Within `relative` of the larger magnitude, or within `absolute`.
void expect_near(const Tensors& tensors, const std::string& name, const json& expected,
                 double absolute, double relative) {
  SCOPED_TRACE(name);
  ASSERT_TRUE(tensors.contains(name));
  const auto values = tensors.at(name).values<float>();
  ASSERT_TRUE(values.has_value());
  const std::vector<double> wanted = flat(expected);
  ASSERT_EQ(values->size(), wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_NEAR((*values)[i], wanted[i], absolute + relative * std::abs(wanted[i]))
        << "[" << i << "]";
  }
}

TEST(Golden, InitialTowersAreTheFormulasValues) {
  const json numbers = golden("esmm_step.json");
  const Config config = config_of(numbers, numbers.at("runs").at(0));
  Workers workers(1);
  const LearnerState state = Trainer(config, workers).save();
  for (const auto& [name, values] : numbers.at("initial_towers").items()) {
    expect_near(state.tensors, name, values, 0, 0);
  }
}

// Weights to 1e-6; slots, which may be tiny, to their own magnitudes.
void expect_slots(const Tensors& tensors, const std::string& prefix, const json& slots) {
  for (const auto& [slot, values] : slots.items()) {
    const bool is_square = slot == "adam_v";
    expect_near(tensors, prefix + slot, values,
                is_square          ? 1e-13
                : slot == "ftrl_z" ? 2e-6
                                   : 1e-8,
                2e-5);
  }
}

void expect_golden(const json& numbers, const json& run) {
  const Config config = config_of(numbers, run);
  Workers workers(2);
  Trainer trainer(config, workers);
  std::vector<Prediction> predictions;
  trainer.set_listener([&](const TrainedBatch& batch) {
    predictions.insert(predictions.end(), batch.predictions.begin(), batch.predictions.end());
    return Status();
  });
  for (const json& item : numbers.at("samples")) {
    ASSERT_TRUE(trainer.offer(sample_of(item, config, trainer.next_sequence())).has_value());
  }
  ASSERT_EQ(trainer.trained_sequence(), numbers.at("samples").size());

  for (std::size_t s = 0; s < predictions.size(); ++s) {
    EXPECT_NEAR(predictions[s].ctr.logit, run.at("logits")[s][0].get<double>(), 1e-6) << s;
    EXPECT_NEAR(predictions[s].cvr.logit, run.at("logits")[s][1].get<double>(), 1e-6) << s;
  }
  const LearnerState state = trainer.save();
  for (const auto& [name, values] : run.at("towers").items()) {
    expect_near(state.tensors, name, values.at("w"), 1e-6, 1e-6);
    expect_slots(state.tensors, name + "_", values.at("slots"));
  }
  for (const auto& [name, values] : run.at("tables").items()) {
    const std::string prefix = "embedding." + name;
    EXPECT_EQ(*state.tensors.at(prefix + ".keys").values<std::uint64_t>(),
              values.at("keys").get<std::vector<std::uint64_t>>());
    EXPECT_EQ(*state.tensors.at(prefix + ".last_batch").values<std::uint64_t>(),
              values.at("last_batch").get<std::vector<std::uint64_t>>());
    expect_near(state.tensors, prefix + ".rows", values.at("w"), 1e-6, 1e-6);
    expect_slots(state.tensors, prefix + ".", values.at("slots"));
  }
}

TEST(Golden, ThreeStepsByEveryOptimizer) {
  const json numbers = golden("esmm_step.json");
  EXPECT_EQ(numbers.at("runs").size(), 5U);
  for (const json& run : numbers.at("runs")) {
    SCOPED_TRACE(run.at("dense").dump() + " " + run.at("embeddings").dump());
    expect_golden(numbers, run);
  }
}

// A golden recipe's config and samples: those of esmm_step.json, with the rule of recipe_step.json;
// recipes with in-shop actions have samples of their own.
struct RecipeRun {
  Config config;
  std::vector<Sample> samples;
};

RecipeRun run_of(const json& numbers, const json& recipes, const std::string& recipe) {
  RecipeRun run{config_of(numbers, recipes), {}};
  run.config.model.recipe = recipe;
  const bool has_actions = recipe_of(run.config.model)->uses_action();
  for (const json& item : (has_actions ? recipes.at("action_samples") : numbers.at("samples"))) {
    run.samples.push_back(sample_of(item, run.config, run.samples.size() + 1));
  }
  return run;
}

void expect_recipe(const RecipeRun& run, const json& wanted_numbers) {
  Workers workers(2);
  Trainer trainer(run.config, workers);
  std::vector<float> logits;
  trainer.set_listener([&](const TrainedBatch& batch) {
    logits.insert(logits.end(), batch.logits.begin(), batch.logits.end());
    return Status();
  });
  for (const Sample& sample : run.samples) ASSERT_TRUE(trainer.offer(sample).has_value());
  const std::vector<double> wanted = flat(wanted_numbers.at("logits"));
  ASSERT_EQ(logits.size(), wanted.size());
  for (std::size_t n = 0; n < wanted.size(); ++n) EXPECT_NEAR(logits[n], wanted[n], 2e-6) << n;
  const LearnerState state = trainer.save();
  std::set<std::string> names;  // of rows and layers: no other is there
  for (const auto& [name, values] : wanted_numbers.at("towers").items()) {
    names.insert(name);
    expect_near(state.tensors, name, values, kWeightError, kWeightError);
  }
  for (const auto& [name, values] : wanted_numbers.at("tables").items()) {
    const std::string prefix = "embedding." + name;
    names.insert(prefix + ".rows");
    ASSERT_TRUE(state.tensors.contains(prefix + ".keys")) << prefix;
    EXPECT_EQ(*state.tensors.at(prefix + ".keys").values<std::uint64_t>(),
              values.at("keys").get<std::vector<std::uint64_t>>());
    EXPECT_EQ(*state.tensors.at(prefix + ".last_batch").values<std::uint64_t>(),
              values.at("last_batch").get<std::vector<std::uint64_t>>());
    expect_near(state.tensors, prefix + ".rows", values.at("w"), kWeightError, kWeightError);
  }
  for (const auto& [name, tensor] : state.tensors) {
    const bool is_weight =
        name.ends_with(".rows") || name.ends_with(".weight") || name.ends_with(".bias");
    EXPECT_TRUE(!is_weight || names.contains(name)) << name;
  }
}

// The config's recipe, where this term counts nothing but still reaches its towers' rows.
ModelConfig without_term(ModelConfig model, const std::string& term) {
  std::string text = recipe_of(model)->canonical;
  const std::size_t at = text.find("name = \"" + term + "\"\n");
  const std::size_t end = std::min(text.find("[[terms]]", at), text.size());
  std::string block = text.substr(at, end - at);
  if (const std::size_t weight = block.find("\nweight = "); weight != std::string::npos) {
    block.erase(weight, block.find('\n', weight + 1) - weight);
  }
  block.insert(block.find('\n'), "\nweight = 0");
  model.recipe_text = text.replace(at, end - at, block);
  return model;
}

// By how much the trained layers and rows are from the golden ones, at most.
double distance(const RecipeRun& run, const json& wanted) {
  Workers workers(1);
  Trainer trainer(run.config, workers);
  testing::offer_all(trainer, run.samples);
  const LearnerState state = trainer.save();
  double most = 0;
  const auto compare = [&](const std::string& name, const json& values) {
    const std::vector<double> numbers = flat(values);
    const auto weights = *state.tensors.at(name).values<float>();
    ASSERT_EQ(weights.size(), numbers.size()) << name;
    for (std::size_t n = 0; n < numbers.size(); ++n) {
      most = std::max(most, std::abs(weights[n] - numbers[n]));
    }
  };
  for (const auto& [name, values] : wanted.at("towers").items()) compare(name, values);
  for (const auto& [name, values] : wanted.at("tables").items()) {
    compare("embedding." + name + ".rows", values.at("w"));
  }
  return most;
}

TEST(Golden, ThreeStepsOfEveryBuiltInRecipe) {
  const json numbers = golden("esmm_step.json");
  const json recipes = golden("recipe_step.json");
  std::set<std::string> names;
  for (const auto& [recipe, wanted] : recipes.at("recipes").items()) {
    SCOPED_TRACE(recipe);
    names.insert(parse_recipe_name(recipe)->recipe);
    expect_recipe(run_of(numbers, recipes, recipe), wanted);
  }
  for (const BuiltInRecipe& recipe : built_in_recipes()) {
    EXPECT_TRUE(names.contains(std::string(recipe.name))) << recipe.name;
  }
}

// What the steps above are worth: each term has a loss in some batch, and a trainer that left it
// out would be far from the golden numbers.
TEST(Golden, EveryTermOfEveryBuiltInRecipeIsSeen) {
  const json numbers = golden("esmm_step.json");
  const json recipes = golden("recipe_step.json");
  for (const auto& [recipe, wanted] : recipes.at("recipes").items()) {
    const RecipeRun run = run_of(numbers, recipes, recipe);
    EXPECT_LT(distance(run, wanted), 5 * kWeightError) << recipe;
    const Recipe parsed = *recipe_of(run.config.model);
    ASSERT_EQ(wanted.at("losses").size(), parsed.terms.size()) << recipe;
    for (const RecipeTerm& term : parsed.terms) {
      SCOPED_TRACE(recipe + ", " + term.name);
      const std::vector<double> losses = flat(wanted.at("losses").at(term.name));
      EXPECT_TRUE(std::any_of(losses.begin(), losses.end(), [](double loss) { return loss != 0; }));
      RecipeRun without = run;
      without.config.model = without_term(run.config.model, term.name);
      ASSERT_TRUE(recipe_of(without.config.model));
      EXPECT_GT(distance(without, wanted), 1'000 * kWeightError);
    }
  }
}

// Which labels become final together: each alone, each two, and all.
TEST(Golden, ActionsBecomeFinalInEveryWay) {
  std::set<std::array<bool, 3>> ways;
  const json recipes = golden("recipe_step.json");
  for (const json& item : recipes.at("action_samples")) {
    ways.insert({item.at("y_final").get<bool>(), item.at("action_final").get<bool>(),
                 item.at("z_final").get<bool>()});
  }
  EXPECT_EQ(ways.size(), 7U);
}

}  // namespace
}  // namespace sluice
