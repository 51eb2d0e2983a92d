// Every built-in recipe in training: the promises that hold for any of them, and which rows exist.
#include <array>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/recipe.h"
#include "learner/scoring_model.h"
#include "learner/trainer.h"
#include "tests/learner/test_data.h"

namespace sluice {
namespace {

using testing::Machine;
using testing::model_digests;
using testing::offer_all;
using testing::SampleStream;

// Every second recipe has a feature group, every third is in bf16: what a recipe's towers cannot
// share is no context, and what is rounded is the same on any lane.
std::vector<Config> configs_by_recipe() {
  std::vector<Config> configs;
  for (const BuiltInRecipe& recipe : built_in_recipes()) {
    Config config = testing::small_config();
    config.model.recipe = recipe.name;
    if (configs.size() % 2 == 0) testing::group_features(config, {"b_ids", "d_log", "f_dense"});
    if (configs.size() % 3 == 0) config.model.precision = ModelConfig::Precision::bf16;
    config.training.dense.clip_norm = configs.size() % 4 == 0 ? 0.01 : 0;
    configs.push_back(config);
  }
  return configs;
}

LearnerState by_way_of_bytes(const LearnerState& state) {
  return {nlohmann::ordered_json::parse(state.json.dump()),
          *decode_tensors(encode_tensors(state.tensors))};
}

TEST(Recipes, AnyNumberOfThreadsAndAnyLaneGiveTheSameModel) {
  std::set<std::string> distinct;
  for (const Config& config : configs_by_recipe()) {
    SCOPED_TRACE(config.model.recipe);
    const std::vector<Sample> samples = SampleStream(config, 1).take(333);
    std::set<std::string> digests =
        model_digests(config, samples, std::array{Machine{1, 4096}, Machine{2, 1}, Machine{3, 64}});
    EXPECT_EQ(digests.size(), 1U);
    distinct.merge(digests);
  }
  EXPECT_EQ(distinct.size(), built_in_recipes().size());  // each of them is another model
}

TEST(Recipes, RestoredEqualsUninterrupted) {
  for (const Config& config : configs_by_recipe()) {
    SCOPED_TRACE(config.model.recipe);
    const std::vector<Sample> samples = SampleStream(config, 3).take(300);
    Workers workers(2);
    Trainer uninterrupted(config, workers);
    offer_all(uninterrupted, samples);
    Trainer before(config, workers);
    offer_all(before, {samples.begin(), samples.begin() + 150});
    Trainer after(config, workers);
    offer_all(after, {samples.begin(), samples.begin() + 50});  // and has passes of its own
    ASSERT_TRUE(after.restore(by_way_of_bytes(before.save())).has_value());
    EXPECT_EQ(after.model_digest(), before.model_digest());
    EXPECT_EQ(after.cut_ratios(), before.cut_ratios());
    offer_all(after, {samples.begin() + 150, samples.end()});
    EXPECT_EQ(after.model_digest(), uninterrupted.model_digest());
    EXPECT_EQ(after.metrics(), uninterrupted.metrics());
    EXPECT_EQ(after.cut_ratios(), uninterrupted.cut_ratios());
    EXPECT_EQ(encode_tensors(after.save().tensors), encode_tensors(uninterrupted.save().tensors));
  }
}

TEST(Recipes, ASnapshotAloneScoresTheBitsThatTrainingPredicts) {
  for (const Config& config : configs_by_recipe()) {
    SCOPED_TRACE(config.model.recipe);
    SampleStream stream(config, 5);
    Workers workers(1);
    Trainer trainer(config, workers);
    offer_all(trainer, stream.take(4 * config.training.batch_size));
    const LearnerState snapshot = by_way_of_bytes(trainer.snapshot());
    const auto model = ScoringModel::from_snapshot(snapshot.json, snapshot.tensors);
    ASSERT_TRUE(model.has_value()) << model.error().message;
    std::vector<Sample> seen;
    std::vector<Prediction> predicted;
    trainer.set_listener([&](const TrainedBatch& batch) {
      seen.assign(batch.samples.begin(), batch.samples.end());
      predicted.assign(batch.predictions.begin(), batch.predictions.end());
      return Status();
    });
    offer_all(trainer, stream.take(config.training.batch_size));  // with ids never seen before
    std::vector<std::string_view> blobs;
    for (const Sample& sample : seen) blobs.push_back(sample.features);
    const std::vector<Prediction> scored = model->score(blobs);
    std::size_t firsts = 0;
    for (std::size_t s = 0; s < seen.size(); ++s) {
      EXPECT_EQ(model->score({&blobs[s], 1})[0], scored[s]) << s;
      if (!seen[s].y_final) continue;  // those repeat an older prediction
      EXPECT_EQ(scored[s], predicted[s]) << s;
      ++firsts;
    }
    EXPECT_GT(firsts, 20U);
  }
}

// A recipe that is no built-in is in the snapshot as its text.
TEST(Recipes, ATextOfOnesOwnGoesIntoTheSnapshot) {
  Config config = testing::small_config();
  config.model.recipe = "somewhere/own.toml";
  config.model.recipe_text = recipe_of(ModelConfig())->canonical;
  Workers workers(1);
  Trainer trainer(config, workers);
  offer_all(trainer, SampleStream(config, 5).take(100));
  Config built_in = testing::small_config();
  Trainer same(built_in, workers);
  offer_all(same, SampleStream(config, 5).take(100));
  EXPECT_EQ(trainer.model_digest(), same.model_digest());
  const LearnerState snapshot = trainer.snapshot();
  EXPECT_EQ(snapshot.json["model"]["recipe"], "own");
  EXPECT_TRUE(ScoringModel::from_snapshot(snapshot.json, snapshot.tensors).has_value());
}

// Which of a recipe's sets a sample trains, said here of some recipes.
struct Reached {
  std::string recipe;
  std::map<std::string, bool (*)(const Sample&)> sets;  // by the tables' prefix
};

bool has_y(const Sample& sample) {
  return sample.y_final;
}
bool has_z(const Sample& sample) {
  return sample.z_final;
}
bool has_clicked_z(const Sample& sample) {
  return sample.y && sample.z_final;
}
bool is_any(const Sample&) {
  return true;
}

// A row exists from the first batch on in which a sample that trains its set names it, and keeps
// the number of the last such batch. Rows of others have their initial values.
TEST(Recipes, RowsAreThoseThatSomeSampleTrained) {
  const std::vector<Reached> recipes = {
      {"base", {{"ctr.", has_y}, {"cvr.", has_clicked_z}}},
      {"division", {{"ctr.", has_y}, {"ctcvr.", has_z}}},
      // Both terms reach the CTR tower.
      {"esmm_ns", {{"ctr.", is_any}, {"cvr.", has_z}}},
      {"esmm", {{"", is_any}}},
  };
  for (const Reached& reached : recipes) {
    for (const bool is_grouped : {false, true}) {
      Config config = testing::small_config();
      config.model.recipe = reached.recipe;
      if (is_grouped) testing::group_features(config, {"b_ids", "d_log", "f_dense"});
      const std::vector<Sample> samples = SampleStream(config, 7).take(400);
      Workers workers(2);
      Trainer trainer(config, workers);
      offer_all(trainer, samples);
      const LearnerState state = trainer.save();

      const Schema schema(config.features, config.model);
      std::map<std::string, std::map<std::uint64_t, std::uint64_t>> wanted;  // key: last batch
      for (std::size_t n = 0; n < trainer.trained_sequence(); ++n) {
        DecodedSamples decoded = schema.make_decoded();
        Digest context;
        ASSERT_TRUE(schema.decode(samples[n].features, 0, false, decoded, context));
        if (is_grouped) schema.decode_context(samples[n].features, 0, decoded);
        for (const auto& keys : decoded.keys) {
          for (const DecodedSamples::Key& key : keys) {
            for (const auto& [prefix, trains] : reached.sets) {
              if (!trains(samples[n])) continue;
              wanted[prefix + schema.tables()[key.table]][key.key] =
                  n / config.training.batch_size + 1;
            }
          }
        }
      }
      std::size_t tables = 0;
      for (const auto& [name, tensor] : state.tensors) {
        if (!name.starts_with("embedding.") || !name.ends_with(".keys")) continue;
        SCOPED_TRACE(reached.recipe + " " + name);
        ++tables;
        const std::string table = name.substr(10, name.size() - 15);
        const auto keys = *tensor.values<std::uint64_t>();
        const auto last =
            *state.tensors.at("embedding." + table + ".last_batch").values<std::uint64_t>();
        std::map<std::uint64_t, std::uint64_t> rows;
        for (std::size_t k = 0; k < keys.size(); ++k) rows[keys[k]] = last[k];
        EXPECT_EQ(rows, wanted[table]);
        EXPECT_FALSE(rows.empty());
      }
      EXPECT_EQ(tables, reached.sets.size() * schema.tables().size());
    }
  }
}

// One name in two sets: other tensors and other initial values.
TEST(Recipes, SeparateSetsHaveRowsOfTheirOwn) {
  Config config = testing::small_config();
  config.model.recipe = "esmm_ns";
  Schema schema(config.features, config.model);
  Model model(schema, {});
  ASSERT_EQ(model.sets().size(), 2U);
  std::array<std::vector<float>, 2> initial;
  for (std::size_t set = 0; set < 2; ++set) {
    initial[set].resize(schema.dim());
    model.sets()[set].tables[0].initial(5, initial[set]);
  }
  EXPECT_NE(initial[0], initial[1]);
  EXPECT_EQ(model.sets()[0].tables[0].name(), "ctr." + schema.tables()[0]);
  EXPECT_EQ(model.sets()[1].tables[0].name(), "cvr." + schema.tables()[0]);
}

// Dense parameters take a step in every batch: Adam's means of a tower that no term reaches decay.
TEST(Recipes, TowersThatNoTermReachesStepToo) {
  Config config = testing::small_config();
  config.model.recipe = "base";
  Workers workers(1);
  Trainer trainer(config, workers);
  std::vector<Sample> samples = SampleStream(config, 7).take(200);
  offer_all(trainer, samples);
  const auto bias = [&] {
    return trainer.save().tensors.at("tower.cvr.0.bias_adam_m").values<float>()->at(0);
  };
  const float before = bias();
  ASSERT_NE(before, 0);
  for (std::size_t n = 0; n < config.training.batch_size; ++n) {
    Sample sample = samples[0];
    sample.sequence = trainer.next_sequence();
    sample.time = samples.back().time;
    sample.impression_id = "unclicked " + std::to_string(n);
    sample.y = sample.z = false;
    sample.y_final = sample.z_final = true;
    ASSERT_TRUE(trainer.offer(sample).has_value());
  }
  EXPECT_EQ(bias(), static_cast<float>(config.training.dense.beta1) * before);
}

// A ratio above 1 counts as 1; how often is told, and its log loss stays a number.
TEST(Recipes, RatiosAboveOneAreCounted) {
  Config config = testing::small_config();
  config.model.recipe = "division";
  Workers workers(2);
  Trainer trainer(config, workers);
  std::uint64_t above = 0;
  trainer.set_listener([&](const TrainedBatch& batch) {
    for (std::size_t s = 0; s < batch.samples.size(); ++s) {
      const Prediction& prediction = batch.predictions[s];
      EXPECT_LE(prediction.cvr.yes, 1);
      if (!batch.samples[s].y_final) continue;
      above += prediction.ctcvr.yes > prediction.ctr.yes ? 1 : 0;
    }
    return Status();
  });
  offer_all(trainer, SampleStream(config, 7).take(400));
  EXPECT_GT(above, 0U);
  EXPECT_EQ(trainer.cut_ratios(), above);
  EXPECT_TRUE(trainer.metrics()["cvr"]["log_loss"].is_number());
}

}  // namespace
}  // namespace sluice
