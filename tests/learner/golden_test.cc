// Three whole training steps, by every update rule and of every built-in recipe, against numbers
// that tests/golden/esmm_step.py and recipe_step.py made in float64 with another library's
// automatic differentiation.
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

void expect_recipe(const json& numbers, const std::string& recipe, const json& run) {
  Config config = config_of(numbers, numbers.at("runs").at(0));
  config.model.recipe = recipe;
  Workers workers(2);
  Trainer trainer(config, workers);
  std::vector<float> logits;
  trainer.set_listener([&](const TrainedBatch& batch) {
    logits.insert(logits.end(), batch.logits.begin(), batch.logits.end());
    return Status();
  });
  for (const json& item : numbers.at("samples")) {
    ASSERT_TRUE(trainer.offer(sample_of(item, config, trainer.next_sequence())).has_value());
  }
  const std::vector<double> wanted = flat(run.at("logits"));
  ASSERT_EQ(logits.size(), wanted.size());
  for (std::size_t n = 0; n < wanted.size(); ++n) EXPECT_NEAR(logits[n], wanted[n], 2e-6) << n;
  const LearnerState state = trainer.save();
  std::set<std::string> names;  // of rows and layers: no other is there
  for (const auto& [name, values] : run.at("towers").items()) {
    names.insert(name);
    expect_near(state.tensors, name, values, 2e-6, 1e-6);
  }
  for (const auto& [name, values] : run.at("tables").items()) {
    const std::string prefix = "embedding." + name;
    names.insert(prefix + ".rows");
    ASSERT_TRUE(state.tensors.contains(prefix + ".keys")) << prefix;
    EXPECT_EQ(*state.tensors.at(prefix + ".keys").values<std::uint64_t>(),
              values.at("keys").get<std::vector<std::uint64_t>>());
    EXPECT_EQ(*state.tensors.at(prefix + ".last_batch").values<std::uint64_t>(),
              values.at("last_batch").get<std::vector<std::uint64_t>>());
    expect_near(state.tensors, prefix + ".rows", values.at("w"), 2e-6, 1e-6);
  }
  for (const auto& [name, tensor] : state.tensors) {
    const bool is_weight =
        name.ends_with(".rows") || name.ends_with(".weight") || name.ends_with(".bias");
    EXPECT_TRUE(!is_weight || names.contains(name)) << name;
  }
}

TEST(Golden, ThreeStepsOfEveryBuiltInRecipe) {
  const json numbers = golden("esmm_step.json");
  const json recipes = golden("recipe_step.json").at("recipes");
  std::set<std::string> names;
  for (const auto& [recipe, run] : recipes.items()) {
    SCOPED_TRACE(recipe);
    names.insert(parse_recipe_name(recipe)->recipe);
    expect_recipe(numbers, recipe, run);
  }
  for (const BuiltInRecipe& recipe : built_in_recipes()) {
    EXPECT_TRUE(names.contains(std::string(recipe.name))) << recipe.name;
  }
}

}  // namespace
}  // namespace sluice
