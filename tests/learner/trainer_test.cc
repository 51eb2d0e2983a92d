#include "learner/trainer.h"

#include <array>
#include <cmath>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "learner/metrics.h"
#include "learner/scoring_model.h"
#include "tests/learner/test_data.h"

namespace sluice {
namespace {

using testing::Machine;
using testing::model_digests;
using testing::offer_all;
using testing::SampleStream;
using testing::small_config;

using Precision = ModelConfig::Precision;

// The small config in both precisions; without a group, with one, and with every feature in it.
std::vector<Config> configs_by_products() {
  std::vector<Config> configs;
  for (const Precision precision : {Precision::f32, Precision::bf16}) {
    for (const std::vector<std::string>& grouped : std::vector<std::vector<std::string>>{
             {},
             {"b_ids", "d_log", "f_dense"},
             {"a_id", "b_ids", "c_weighted", "d_log", "e_edges", "f_dense"}}) {
      Config config = small_config();
      config.model.precision = precision;
      testing::group_features(config, grouped);
      configs.push_back(config);
    }
  }
  return configs;
}

// What differs between two runs and must change nothing.
TEST(Trainer, AnyNumberOfThreadsAndAnyLaneGiveTheSameModel) {
  std::set<std::string> distinct;
  for (const Config& config : configs_by_products()) {
    const std::vector<Sample> samples = SampleStream(config, 1).take(777);
    std::set<std::string> digests =
        model_digests(config, samples,
                      std::array{Machine{1, 16}, Machine{2, 1}, Machine{3, 64}, Machine{2, 4096}});
    EXPECT_EQ(digests.size(), 1U);
    distinct.merge(digests);
  }
  EXPECT_EQ(distinct.size(), 6U);  // each of them is another model
}

// What is skipped is in the sample digest, the batches and the metrics, but teaches nothing.
TEST(Trainer, SkippedSamplesAreCountedAndNotLearned) {
  for (const Config& learned : configs_by_products()) {
    const std::vector<Sample> samples = SampleStream(learned, 3).take(500);
    Workers workers(1);
    Trainer untrained(learned, workers);
    Trainer all(learned, workers);
    offer_all(all, samples);
    Config config = learned;
    config.training.skip_samples = {{1, 200}, {201, 500}};
    Trainer none(config, workers);
    offer_all(none, samples);
    EXPECT_EQ(none.samples_digest(), all.samples_digest());
    EXPECT_EQ(none.metrics()["ctcvr"]["samples"], all.metrics()["ctcvr"]["samples"]);
    EXPECT_EQ(none.snapshot().tensors, untrained.snapshot().tensors);

    config.training.skip_samples = {{101, 300}};
    const auto digests = model_digests(config, samples, std::array{Machine{1, 16}, Machine{2, 64}});
    EXPECT_EQ(digests.size(), 1U);
    EXPECT_FALSE(digests.contains(all.model_digest().hex()));
  }
}

// As if they were not there: with plain gradient steps a batch of skipped samples changes nothing,
// so that those before and after it, cut into the same batches, are learned as without it.
TEST(Trainer, ASkippedBatchLeavesTheModelAsItWas) {
  Config config = small_config();
  config.training.dense = config.training.embeddings = {};
  config.training.dense.optimizer = config.training.embeddings.optimizer =
      OptimizerConfig::Rule::sgd;
  config.training.dense.momentum = config.training.embeddings.momentum = 0;
  const std::size_t batch = config.training.batch_size;
  std::vector<Sample> samples = SampleStream(config, 4).take(4 * batch);
  for (Sample& sample : samples) {  // each by itself, whatever is left out
    sample.y_final = sample.z_final = true;
    sample.z = sample.z && sample.y;
  }
  Workers workers(1);
  Config skipping = config;
  skipping.training.skip_samples = {{batch + 1, 2 * batch}};
  Trainer with(skipping, workers);
  offer_all(with, samples);

  samples.erase(samples.begin() + static_cast<std::ptrdiff_t>(batch),
                samples.begin() + static_cast<std::ptrdiff_t>(2 * batch));
  for (std::size_t s = 0; s < samples.size(); ++s) samples[s].sequence = s + 1;
  Trainer without(config, workers);
  offer_all(without, samples);
  EXPECT_EQ(with.snapshot().tensors, without.snapshot().tensors);
}

// One config for each update rule, of the layers and of the rows.
std::vector<Config> configs_by_optimizer() {
  std::vector<Config> configs;
  for (const OptimizerConfig& optimizer : testing::all_optimizers()) {
    Config config = small_config();
    const bool is_for_rows = optimizer.optimizer == OptimizerConfig::Rule::rowwise_adagrad;
    if (!is_for_rows) config.training.dense = optimizer;
    config.training.embeddings = optimizer;
    configs.push_back(config);
  }
  return configs;
}

// A digest that left something out would let two different models pass as equal.
TEST(Trainer, DigestSeesEveryPartOfTheModel) {
  for (const Config& config : configs_by_optimizer()) {
    Workers workers(1);
    Trainer trainer(config, workers);
    offer_all(trainer, SampleStream(config, 2).take(200));
    const LearnerState state = trainer.save();
    const Digest digest = trainer.model_digest();
    for (const auto& [name, tensor] : state.tensors) {
      if (tensor.bytes.empty() || name == "metrics" || name == "window_metrics") continue;
      SCOPED_TRACE(name);
      LearnerState changed = state;
      // The lowest byte of the last element: keys stay ascending.
      std::string& bytes = changed.tensors[name].bytes;
      const bool is_u64 = name.ends_with(".keys") || name.ends_with(".last_batch");
      char& byte = bytes[bytes.size() - (is_u64 ? 8 : 4)];
      // A last batch is one that was trained.
      byte = name.ends_with(".last_batch") ? (byte == 1 ? 2 : 1) : byte ^ 1;
      ASSERT_TRUE(trainer.restore(changed).has_value());
      EXPECT_NE(trainer.model_digest(), digest);
    }
    ASSERT_TRUE(trainer.restore(state).has_value());
    EXPECT_EQ(trainer.model_digest(), digest);
  }
}

std::set<std::string> state_names(const LearnerState& state, const std::string& prefix) {
  std::set<std::string> names;
  for (const auto& [name, tensor] : state.tensors) {
    if (name.starts_with(prefix)) names.insert(name.substr(prefix.size()));
  }
  return names;
}

TEST(Trainer, EveryOptimizersStateIsSavedUnderItsNames) {
  const std::vector<std::set<std::string>> slots = {
      {"adam_m", "adam_v"},   {"adagrad_sum"}, {"ftrl_z", "ftrl_n"}, {"momentum"}, {},
      {"rowwise_adagrad_sum"}};
  const std::vector<Config> configs = configs_by_optimizer();
  ASSERT_EQ(configs.size(), slots.size());
  for (std::size_t n = 0; n < configs.size(); ++n) {
    Workers workers(1);
    Trainer trainer(configs[n], workers);
    offer_all(trainer, SampleStream(configs[n], 2).take(100));
    const LearnerState state = trainer.save();
    std::set<std::string> of_rows = {"keys", "last_batch", "rows"};
    of_rows.insert(slots[n].begin(), slots[n].end());
    EXPECT_EQ(state_names(state, "embedding.shared."), of_rows);
    std::set<std::string> of_layer = {""};
    const bool is_for_rows = slots[n].contains("rowwise_adagrad_sum");
    for (const std::string& slot : slots[is_for_rows ? 0 : n]) of_layer.insert("_" + slot);
    EXPECT_EQ(state_names(state, "tower.cvr.1.bias"), of_layer);
    if (!is_for_rows) continue;
    EXPECT_EQ(state.tensors.at("embedding.shared.rowwise_adagrad_sum").shape,
              state.tensors.at("embedding.shared.keys").shape);
  }
}

TEST(Trainer, RestoredByEveryOptimizerEqualsUninterrupted) {
  for (const Config& config : configs_by_optimizer()) {
    const std::vector<Sample> samples = SampleStream(config, 3).take(400);
    const std::vector<Sample> first(samples.begin(), samples.begin() + 200);
    const std::vector<Sample> second(samples.begin() + 200, samples.end());
    Workers workers(2);
    Trainer uninterrupted(config, workers);
    offer_all(uninterrupted, samples);
    Trainer before(config, workers);
    offer_all(before, first);
    const LearnerState saved = before.save();
    Trainer after(config, workers);
    ASSERT_TRUE(after
                    .restore({nlohmann::ordered_json::parse(saved.json.dump()),
                              *decode_tensors(encode_tensors(saved.tensors))})
                    .has_value());
    EXPECT_EQ(after.model_digest(), before.model_digest());
    offer_all(after, second);
    EXPECT_EQ(after.model_digest(), uninterrupted.model_digest());
    EXPECT_NE(after.model_digest(), before.model_digest());
  }
}

TEST(Trainer, EveryOptimizerGivesTheSameModelOnAnyNumberOfThreads) {
  for (const Config& config : configs_by_optimizer()) {
    const std::vector<Sample> samples = SampleStream(config, 4).take(300);
    std::vector<Digest> digests;
    for (const std::size_t threads : {1, 3}) {
      Workers workers(threads);
      Trainer trainer(config, workers);
      offer_all(trainer, samples);
      digests.push_back(trainer.model_digest());
    }
    EXPECT_EQ(digests[0], digests[1]);
  }
}

TEST(Trainer, AStateOfAnotherOptimizerIsRefused) {
  const std::vector<Config> configs = configs_by_optimizer();
  Workers workers(1);
  Trainer adam(configs[0], workers);
  Trainer adagrad(configs[1], workers);
  offer_all(adam, SampleStream(configs[0], 2).take(100));
  const Status status = adagrad.restore(adam.save());
  ASSERT_FALSE(status.has_value());
  EXPECT_THAT(status.error().message, ::testing::HasSubstr("adagrad_sum is missing"));
}

TEST(Trainer, AnotherOrderOfRowsInMemoryGivesTheSameDigest) {
  const Config config = small_config();
  Workers workers(1);
  Trainer trainer(config, workers);
  offer_all(trainer, SampleStream(config, 2).take(200));
  Trainer restored(config, workers);  // has its rows in the order of their keys
  ASSERT_TRUE(restored.restore(trainer.save()).has_value());
  EXPECT_EQ(restored.model_digest(), trainer.model_digest());
}

// Lanes and threads as another machine would have them.
Machine other_machine() {
  return {*rc::gen::inRange<std::size_t>(1, 4), *rc::gen::inRange<std::uint64_t>(1, 100)};
}

// Saves at random batch ends through the bytes of a file, and goes on in another trainer.
RC_GTEST_PROP(TrainerProperty, RestoredEqualsUninterrupted, ()) {
  Config config = small_config();
  config.model.precision = *rc::gen::element(Precision::f32, Precision::bf16);
  for (FeatureConfig& feature : config.features) {
    if (*rc::gen::arbitrary<bool>()) feature.group = "context";
  }
  config.training.batch_size = *rc::gen::inRange<std::uint64_t>(8, 60);
  if (*rc::gen::arbitrary<bool>()) config.training.batch_span = *rc::gen::inRange(1, 20) * 1000;
  const auto samples = SampleStream(config, *rc::gen::arbitrary<std::uint32_t>()).take(120);
  const std::size_t snapshot_at = *rc::gen::inRange<std::size_t>(0, samples.size());
  // One for each start, in turn.
  const std::vector<Machine> machines = {other_machine(), other_machine()};

  const auto run = [&](std::uint64_t restart_every) {
    std::size_t starts = 0;
    Config its_config = config;
    std::optional<Workers> workers;
    std::unique_ptr<Trainer> trainer;
    std::optional<LearnerState> saved;
    std::uint64_t batches = 0;
    const auto start = [&] {
      const Machine& machine = machines[(restart_every + starts++) % machines.size()];
      trainer.reset();
      workers.emplace(machine.threads);
      its_config.training.lane = machine.lane;
      trainer = std::make_unique<Trainer>(its_config, *workers);
      trainer->set_listener([&](const TrainedBatch& batch) {
        if (batch.samples.front().sequence <= snapshot_at && snapshot_at <= batch.last_sequence) {
          trainer->snapshot();  // starts a new window
        }
        if (restart_every != 0 && ++batches % restart_every == 0) saved = trainer->save();
        return Status();
      });
    };
    start();
    while (trainer->next_sequence() <= samples.size()) {
      RC_ASSERT(trainer->offer(samples[trainer->next_sequence() - 1]).has_value());
      if (!saved) continue;
      const std::string bytes = encode_tensors(saved->tensors);
      const LearnerState loaded{nlohmann::ordered_json::parse(saved->json.dump()),
                                *decode_tensors(bytes)};
      saved.reset();
      start();
      RC_ASSERT(trainer->restore(loaded).has_value());
    }
    RC_ASSERT(trainer->finish().has_value());
    return std::tuple(trainer->model_digest(), trainer->samples_digest(), trainer->metrics().dump(),
                      trainer->window_metrics().dump(), trainer->wrong_types().dump(),
                      trainer->absent().dump(), encode_tensors(trainer->save().tensors));
  };
  RC_ASSERT(run(0) == run(*rc::gen::inRange<std::uint64_t>(1, 5)));
}

std::size_t distinct_contexts(const Config& config, std::span<const Sample> samples) {
  const Schema schema(config.features, config.model);
  std::set<std::string> contexts;
  DecodedSamples decoded = schema.make_decoded();
  for (const Sample& sample : samples) {
    Digest context;
    EXPECT_TRUE(schema.decode(sample.features, 0, false, decoded, context));
    contexts.insert(context.hex());
  }
  return contexts.size();
}

ScoringModel loaded_model(Trainer& trainer) {
  const LearnerState snapshot = trainer.snapshot();
  auto model = ScoringModel::from_snapshot(nlohmann::ordered_json::parse(snapshot.json.dump()),
                                           *decode_tensors(encode_tensors(snapshot.tensors)));
  EXPECT_TRUE(model.has_value()) << model.error().message;
  return *std::move(model);
}

// In a batch impressions share their contexts; alone each has one of its own.
TEST(Trainer, SnapshotScoresTheBitsThatTrainingPredicts) {
  for (const Config& config : configs_by_products()) {
    SampleStream stream(config, 5);
    Workers workers(1);
    Trainer trainer(config, workers);
    offer_all(trainer, stream.take(4 * config.training.batch_size));
    const ScoringModel model = loaded_model(trainer);

    std::vector<Sample> seen;
    std::vector<Prediction> predicted;
    trainer.set_listener([&](const TrainedBatch& batch) {
      seen.assign(batch.samples.begin(), batch.samples.end());
      predicted.assign(batch.predictions.begin(), batch.predictions.end());
      return Status();
    });
    offer_all(trainer, stream.take(config.training.batch_size));  // with ids never seen before
    ASSERT_EQ(seen.size(), config.training.batch_size);
    if (distinct_contexts(config, seen) > 1) {
      EXPECT_LT(distinct_contexts(config, seen), seen.size() * 2 / 3);
    } else {
      EXPECT_TRUE(config.features[1].group.empty());
    }
    std::vector<std::string_view> blobs;
    for (const Sample& sample : seen) blobs.push_back(sample.features);
    const std::vector<Prediction> scored = model.score(blobs);
    std::size_t firsts = 0;
    for (std::size_t s = 0; s < seen.size(); ++s) {
      EXPECT_EQ(model.score({&blobs[s], 1})[0], scored[s]) << s;
      if (!seen[s].y_final) continue;  // those repeat an older prediction
      EXPECT_EQ(scored[s], predicted[s]) << s;
      ++firsts;
    }
    EXPECT_GT(firsts, 20U);
  }
}

// Such a model has no table.
TEST(Trainer, DenseNumbersAloneAreAModel) {
  Config config = small_config();
  std::erase_if(config.features, [](const FeatureConfig& one) { return one.name != "f_dense"; });
  Workers workers(2);
  Trainer trainer(config, workers);
  SampleStream stream(config, 5);
  offer_all(trainer, stream.take(3 * config.training.batch_size));
  EXPECT_EQ(trainer.trained_sequence(), 3 * config.training.batch_size);
  const ScoringModel model = loaded_model(trainer);
  std::vector<Prediction> predictions;
  for (const Sample& sample : stream.take(9)) {
    const std::string_view blob = sample.features;
    predictions.push_back(model.score({&blob, 1})[0]);
  }
  EXPECT_NE(predictions.front(), predictions.back());
}

// Many more than are scored at once.
TEST(Trainer, AScoreIsTheSameHoweverManyAreAskedFor) {
  const Config config = small_config();
  Workers workers(1);
  Trainer trainer(config, workers);
  SampleStream stream(config, 6);
  offer_all(trainer, stream.take(100));
  const ScoringModel model = loaded_model(trainer);
  const std::vector<Sample> samples = stream.take(300);
  std::vector<std::string_view> blobs;
  for (const Sample& sample : samples) blobs.push_back(sample.features);
  const std::vector<Prediction> together = model.score(blobs);
  ASSERT_EQ(together.size(), blobs.size());
  for (std::size_t n = 0; n < blobs.size(); ++n) {
    EXPECT_EQ(model.score({&blobs[n], 1})[0], together[n]) << n;
  }
}

// Whoever is scored beside it: in any order, in any company, twice.
RC_GTEST_PROP(TrainerProperty, AScoreIsTheSameAloneAndInAnyBatch, ()) {
  const std::vector<Config> configs = configs_by_products();
  const Config& config = configs[*rc::gen::inRange<std::size_t>(0, configs.size())];
  Workers workers(1);
  Trainer trainer(config, workers);
  SampleStream stream(config, *rc::gen::arbitrary<std::uint32_t>());
  offer_all(trainer, stream.take(100));
  const ScoringModel model = loaded_model(trainer);
  const std::vector<Sample> samples = stream.take(60);
  const auto chosen = *rc::gen::nonEmpty(
      rc::gen::container<std::vector<std::size_t>>(rc::gen::inRange<std::size_t>(0, 60)));
  std::vector<std::string_view> blobs;
  for (const std::size_t s : chosen) blobs.push_back(samples[s].features);
  const std::vector<Prediction> together = model.score(blobs);
  for (std::size_t n = 0; n < blobs.size(); ++n) {
    RC_ASSERT(model.score({&blobs[n], 1})[0] == together[n]);
  }
}

TEST(Trainer, SecondSampleRepeatsTheFirstPrediction) {
  const Config config = small_config();
  Workers workers(1);
  Trainer trainer(config, workers);
  std::map<std::pair<std::uint32_t, std::string>, Prediction> first;
  ProgressiveMetrics metrics;
  std::size_t seconds = 0;
  trainer.set_listener([&](const TrainedBatch& batch) {
    for (std::size_t s = 0; s < batch.samples.size(); ++s) {
      const Sample& sample = batch.samples[s];
      const auto key = std::pair(sample.shard, sample.impression_id);
      if (sample.y_final) first[key] = batch.predictions[s];
      EXPECT_EQ(batch.predictions[s], first.at(key));
      seconds += sample.y_final ? 0 : 1;
      metrics.add({sample.y, sample.y_final, sample.z, sample.z_final}, first.at(key));
    }
    return Status();
  });
  offer_all(trainer, SampleStream(config, 8).take(600));
  EXPECT_GT(seconds, 30U);
  EXPECT_EQ(trainer.metrics(), metrics.json());
}

// In the batch and in N, but without a term.
TEST(Trainer, ASampleOfAnActionAloneTouchesNoRowAndKeepsThePrediction) {
  for (Config config : configs_by_products()) {
    config.training.batch_size = 5;
    Workers workers(1);
    Trainer trainer(config, workers);
    SampleStream stream(config, 9);
    std::vector<Sample> samples = stream.take(5);
    std::vector<Prediction> first;
    trainer.set_listener([&](const TrainedBatch& batch) {
      if (first.empty()) first.assign(batch.predictions.begin(), batch.predictions.end());
      EXPECT_TRUE(std::equal(first.begin(), first.end(), batch.predictions.begin()));
      return Status();
    });
    const auto train = [&](std::uint64_t from, auto change) {
      for (std::size_t s = 0; s < samples.size(); ++s) {
        Sample& sample = samples[s];
        sample.sequence = from + s;
        sample.impression_id = "i" + std::to_string(s);
        sample.y = true;
        sample.y_final = sample.z = sample.z_final = sample.action_final = false;
        sample.purchase_time.reset();
        change(sample);
      }
      offer_all(trainer, samples);
      EXPECT_EQ(trainer.trained_sequence(), from + 4);
      return trainer.save();
    };
    const LearnerState before = train(1, [](Sample& s) { s.y_final = s.action_later = true; });
    const LearnerState after = train(6, [](Sample& s) {
      s.action = s.action_final = true;
      s.action_later = false;
    });
    ASSERT_FALSE(before.tensors.at("kept_predictions").bytes.empty());
    for (const auto& [name, tensor] : before.tensors) {
      const bool stays =
          name.starts_with("embedding.") || name == "kept_predictions" || name == "metrics";
      if (!stays) continue;
      EXPECT_EQ(after.tensors.at(name).bytes, tensor.bytes) << name;
    }
    EXPECT_NE(after.tensors.at("tower.ctr.0.weight").bytes,
              before.tensors.at("tower.ctr.0.weight").bytes);  // by Adam's mean of gradients
    const LearnerState last = train(11, [](Sample& s) { s.z_final = true; });
    EXPECT_TRUE(last.tensors.at("kept_predictions").bytes.empty());
  }
}

// With z first, then the action.
TEST(Trainer, APredictionIsKeptUntilTheLastSample) {
  Config config = small_config();
  config.training.batch_size = 1;
  Workers workers(1);
  Trainer trainer(config, workers);
  Sample sample = SampleStream(config, 9).next();
  const auto kept_after = [&](auto change) {
    change(sample);
    offer_all(trainer, {sample});
    ++sample.sequence;
    return !trainer.save().tensors.at("kept_predictions").bytes.empty();
  };
  sample.y = true;
  sample.z = false;
  sample.purchase_time.reset();
  EXPECT_TRUE(kept_after([](Sample& s) {
    s.y_final = s.z_final = true;
    s.action_later = true;
  }));
  EXPECT_FALSE(kept_after([](Sample& s) {
    s.y_final = s.z_final = s.action_later = false;
    s.action_final = s.z_earlier = true;
  }));
}

TEST(Trainer, OtherStatesAreRefusedAndLeaveTheTrainerAsItWas) {
  const Config config = small_config();
  Workers workers(1);
  Trainer trainer(config, workers);
  offer_all(trainer, SampleStream(config, 8).take(100));
  const Digest digest = trainer.model_digest();
  const LearnerState state = trainer.save();
  const auto refused = [&](auto change) {
    LearnerState changed = state;
    change(changed);
    const Status status = trainer.restore(changed);
    EXPECT_FALSE(status.has_value());
    EXPECT_EQ(trainer.model_digest(), digest);
    return status ? std::string() : status.error().message;
  };
  EXPECT_THAT(refused([](LearnerState& s) { s.json["isa"] = "x86-64-v4"; }),
              ::testing::HasSubstr("isa \"x86-64-v4\""));
  EXPECT_THAT(refused([](LearnerState& s) { s.json["format_version"] = 99; }),
              ::testing::HasSubstr("format_version 99"));
  EXPECT_THAT(refused([](LearnerState& s) { s.json["schema"]["model"]["seed"] = 99; }),
              ::testing::HasSubstr("another model"));
  EXPECT_THAT(refused([](LearnerState& s) { s.json.erase("steps"); }),
              ::testing::HasSubstr("the JSON is damaged: steps is absent"));
  EXPECT_THAT(refused([](LearnerState& s) { s.tensors.erase("tower.cvr.1.bias"); }),
              ::testing::HasSubstr("tower.cvr.1.bias is missing"));
  EXPECT_THAT(refused([](LearnerState& s) { s.tensors["embedding.shared.rows"].shape[0] += 1; }),
              ::testing::HasSubstr("embedding.shared.rows has another shape"));
  EXPECT_THAT(refused([](LearnerState& s) { s.tensors["metrics"].bytes.pop_back(); }),
              ::testing::HasSubstr("metrics"));
  EXPECT_THAT(refused([](LearnerState& s) { s.tensors["kept_predictions"].bytes.pop_back(); }),
              ::testing::HasSubstr("kept_predictions"));
}

TEST(Trainer, WrongTypesAndAbsentValuesAreCountedOncePerImpression) {
  Config config = small_config();
  Workers workers(1);
  Trainer trainer(config, workers);
  Sample sample;
  sample.sequence = 1;
  sample.impression_id = "i";
  sample.y = sample.y_final = true;
  sample.features = testing::encode_features(config.features, {{"a_id", 1.5}, {"f_dense", "text"}});
  offer_all(trainer, {sample});
  sample.sequence = 2;
  sample.y_final = false;
  sample.z_final = true;
  offer_all(trainer, {sample});
  ASSERT_TRUE(trainer.finish().has_value());
  EXPECT_EQ(trainer.wrong_types(),
            nlohmann::ordered_json::parse(R"({"a_id": 1, "b_ids": 0, "c_weighted": 0, "d_log": 0,
                                              "e_edges": 0, "f_dense": 1})"));
  EXPECT_EQ(trainer.absent(),
            nlohmann::ordered_json::parse(R"({"a_id": 0, "b_ids": 1, "c_weighted": 1, "d_log": 1,
                                              "e_edges": 1, "f_dense": 0})"));
  Trainer other(config, workers);
  ASSERT_TRUE(other.restore(trainer.save()).has_value());
  EXPECT_EQ(other.absent(), trainer.absent());
  EXPECT_EQ(other.wrong_types(), trainer.wrong_types());
}

// Offers them until one is refused; the error's message, and what was told of before.
struct Stopped {
  std::string message;
  std::uint64_t told = 0;  // the last sample that the listener heard of
};

Stopped stopped_by(const Config& config, const std::vector<Sample>& samples) {
  Workers workers(2);
  Trainer trainer(config, workers);
  Stopped stopped;
  trainer.set_listener([&](const TrainedBatch& batch) {
    stopped.told = batch.last_sequence;
    const LearnerState state = trainer.save();
    for (const auto& [name, tensor] : state.tensors) {
      if (tensor.type != TensorType::f32) continue;
      const std::vector<float> values = *tensor.values<float>();
      for (const float value : values) EXPECT_TRUE(std::isfinite(value)) << name;
    }
    return Status();
  });
  for (const Sample& sample : samples) {
    const Status status = trainer.offer(sample);
    if (status) continue;
    stopped.message = status.error().message;
    break;
  }
  return stopped;
}

TEST(Trainer, LogitsThatAreNotFiniteStopItBeforeTheBatchIsTold) {
  Config config = small_config();
  config.training.dense.optimizer = OptimizerConfig::Rule::sgd;
  config.training.dense.learning_rate = 1e30;
  const std::vector<Sample> samples = SampleStream(config, 8).take(150);
  const Stopped stopped = stopped_by(config, samples);
  EXPECT_EQ(stopped.told, config.training.batch_size);  // which set the weights to some 1e28
  const Sample& first = samples[config.training.batch_size];
  EXPECT_THAT(stopped.message, ::testing::StartsWith("sample " + std::to_string(first.sequence) +
                                                     " (impression " + first.impression_id +
                                                     "): the logit of tower ctr is not finite ("));
}

TEST(Trainer, ADenseNumberThatIsTooLargeStopsIt) {
  const Config config = small_config();
  std::vector<Sample> samples = SampleStream(config, 8).take(150);
  samples[70].features = testing::encode_features(config.features, {{"f_dense", 1e300}});
  const Stopped stopped = stopped_by(config, samples);
  EXPECT_EQ(stopped.told, 50U);
  EXPECT_THAT(stopped.message, ::testing::StartsWith("samples 51 to 100: the layers are not "
                                                     "finite after the update by this batch"));
}

TEST(Trainer, ARowThatIsNotFiniteAfterItsUpdateStopsIt) {
  const Config config = small_config();
  std::vector<Sample> samples = SampleStream(config, 8).take(150);
  using nlohmann::json;
  const json values = {{"c_weighted", json::array({json::array({"seldom", 1e30})})}};
  // Of a clicked and of an unclicked impression: whatever the logit, one of them is far off.
  std::array<const Sample*, 2> first = {};
  for (std::size_t s = 60; s < 100; ++s) {
    if (!samples[s].y_final || first[samples[s].y ? 1 : 0] != nullptr) continue;
    samples[s].features = testing::encode_features(config.features, values);
    first[samples[s].y ? 1 : 0] = &samples[s];
  }
  const Sample& named = first[0]->sequence < first[1]->sequence ? *first[0] : *first[1];
  const Stopped stopped = stopped_by(config, samples);
  EXPECT_EQ(stopped.told, 50U);
  EXPECT_THAT(stopped.message,
              ::testing::StartsWith("sample " + std::to_string(named.sequence) + " (impression " +
                                    named.impression_id +
                                    "): a row of table c_weighted that it names is not finite"));
}

std::uint64_t rows_of(const LearnerState& state) {
  std::uint64_t rows = 0;
  for (const auto& [name, tensor] : state.tensors) {
    if (name.ends_with(".keys")) rows += tensor.shape[0];
  }
  return rows;
}

// Nothing of the batch that goes beyond it is told of; with a higher bound the last state goes on.
TEST(Trainer, TablesBeyondTheirBoundsStopIt) {
  Config config = small_config();
  const std::vector<Sample> samples = SampleStream(config, 8).take(400);
  Workers workers(2);
  Trainer free(config, workers);
  offer_all(free, samples);
  const std::uint64_t all = rows_of(free.save());
  struct Bound {
    std::uint64_t ModelConfig::*key;
    const char* says;
    std::uint64_t too_low, enough;
  };
  for (const Bound& bound :
       {Bound{&ModelConfig::max_rows, "rows, more than model.max_rows = ", all / 2, all},
        Bound{&ModelConfig::max_memory, "bytes, more than model.max_memory = ", 200'000,
              64 << 20}}) {
    config.model.*bound.key = bound.too_low;
    Trainer bounded(config, workers);
    LearnerState last = bounded.save();
    bounded.set_listener([&](const TrainedBatch&) {
      last = bounded.save();
      EXPECT_TRUE(bound.key != &ModelConfig::max_rows || rows_of(last) <= bound.too_low);
      return Status();
    });
    Status status;
    for (std::size_t s = 0; status && s < samples.size(); ++s) status = bounded.offer(samples[s]);
    ASSERT_FALSE(status.has_value());
    EXPECT_THAT(status.error().message,
                ::testing::HasSubstr(bound.says + std::to_string(bound.too_low) + ";"));
    EXPECT_GT(rows_of(last), 0U);
    config.model.*bound.key = bound.enough;
    Trainer raised(config, workers);
    ASSERT_TRUE(raised.restore(last).has_value());
    while (raised.next_sequence() <= samples.size()) {
      ASSERT_TRUE(raised.offer(samples[raised.next_sequence() - 1]).has_value());
    }
    EXPECT_EQ(raised.model_digest(), free.model_digest());
    config.model.*bound.key = 0;
  }
}

TEST(Trainer, ListenersErrorReachesTheCaller) {
  const Config config = small_config();
  Workers workers(1);
  Trainer trainer(config, workers);
  trainer.set_listener([](const TrainedBatch&) -> Status { return stop_error("disk full"); });
  offer_all(trainer, SampleStream(config, 8).take(3));
  const Status status = trainer.finish();
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().message, "disk full");
}

// The loss of what repeats itself falls, by every metric.
TEST(Trainer, LearnsRatesThatDependOnAFeature) {
  Config config = small_config();
  Workers workers(1);
  Trainer trainer(config, workers);
  SampleStream stream(config, 12);
  offer_all(trainer, stream.take(8000));
  trainer.snapshot();
  offer_all(trainer, stream.take(4000));
  const auto window = trainer.window_metrics();
  for (const char* rate : {"ctr", "ctcvr"}) {
    EXPECT_GT(window[rate]["auc"].get<double>(), 0.6) << window.dump();
    EXPECT_LT(window[rate]["normalized_entropy"].get<double>(), 1.0) << window.dump();
    EXPECT_NEAR(window[rate]["calibration"].get<double>(), 1.0, 0.15) << window.dump();
  }
}

}  // namespace
}  // namespace sluice
