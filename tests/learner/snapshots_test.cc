// Snapshots of a trainer that goes on training: what is frozen is what a model that stands still
// would give, however its copying is cut, and digests that follow the changes are those from all
// rows.
#include <map>
#include <memory>
#include <optional>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "base/check.h"
#include "learner/row_digest.h"
#include "learner/trainer.h"
#include "tests/learner/test_data.h"

namespace sluice {
namespace {

using testing::SampleStream;
using testing::small_config;

using Rows = std::map<std::pair<std::string, std::uint64_t>, std::vector<float>>;

// The rows that a trainer in that state has changed after a step.
Rows rows_after(const LearnerState& state, std::uint64_t step) {
  Rows rows;
  for (const auto& [name, tensor] : state.tensors) {
    if (!name.ends_with(".last_batch")) continue;
    const std::string table = name.substr(0, name.size() - std::string(".last_batch").size());
    const auto last_batches = *tensor.values<std::uint64_t>();
    const auto keys = *state.tensors.at(table + ".keys").values<std::uint64_t>();
    const auto values = *state.tensors.at(table + ".rows").values<float>();
    const std::size_t dim = keys.empty() ? 0 : values.size() / keys.size();
    for (std::size_t n = 0; n < keys.size(); ++n) {
      if (last_batches[n] <= step) continue;
      const auto begin = values.begin() + static_cast<std::ptrdiff_t>(n * dim);
      rows[{table, keys[n]}] = {begin, begin + static_cast<std::ptrdiff_t>(dim)};
    }
  }
  return rows;
}

Rows rows_of(const Tensors& tensors) {
  Rows rows;
  for (const auto& [name, tensor] : tensors) {
    if (!name.ends_with(".keys")) continue;
    const std::string table = name.substr(0, name.size() - std::string(".keys").size());
    const auto keys = *tensor.values<std::uint64_t>();
    const auto values = *tensors.at(table + ".rows").values<float>();
    const std::size_t dim = keys.empty() ? 0 : values.size() / keys.size();
    for (std::size_t n = 0; n < keys.size(); ++n) {
      const auto begin = values.begin() + static_cast<std::ptrdiff_t>(n * dim);
      const bool is_new =
          rows.emplace(std::pair(table, keys[n]),
                       std::vector<float>(begin, begin + static_cast<std::ptrdiff_t>(dim)))
              .second;
      SLUICE_CHECK(is_new);
    }
  }
  return rows;
}

// What a snapshot of the trainer as it stands must be.
struct Expected {
  LearnerState state;
  ModelDigests digests;
  std::uint64_t cut_before = 0;
  CutRows rows = CutRows::all;
};

void check(const Expected& expected, FrozenModel frozen) {
  RC_ASSERT(frozen.model_digest == expected.digests.state);
  RC_ASSERT(frozen.weights_digest == expected.digests.weights);
  RC_ASSERT(frozen.json.at("sequence") == expected.state.json.at("sequence"));
  const auto counts = frozen.rows_by_table();
  const Tensors tensors = frozen.take_tensors();
  for (const auto& [table, count] : counts.items()) {
    const auto keys = *tensors.at("embedding." + table + ".keys").values<std::uint64_t>();
    RC_ASSERT(count == keys.size());
    RC_ASSERT(std::is_sorted(keys.begin(), keys.end()));
  }
  for (const auto& [name, tensor] : tensors) {
    if (name.starts_with("tower.")) RC_ASSERT(tensor == expected.state.tensors.at(name));
  }
  const std::uint64_t from = expected.rows == CutRows::all ? 0 : expected.cut_before;
  RC_ASSERT(rows_of(tensors) == rows_after(expected.state, from));
  if (expected.rows == CutRows::all) {
    RC_ASSERT(*weights_digest(tensors) == expected.digests.weights);
  }
}

// Snapshots, saves and restores at random batch ends; the copying is cut anyhow.
RC_GTEST_PROP(SnapshotsProperty, AreOfTheModelAsItWasAndDigestsFollowTheChanges, ()) {
  Config config = small_config();
  config.training.batch_size = *rc::gen::inRange<std::uint64_t>(4, 30);
  const auto samples = SampleStream(config, *rc::gen::arbitrary<std::uint32_t>()).take(150);
  Workers workers(*rc::gen::inRange<std::size_t>(1, 4));
  auto trainer = std::make_unique<Trainer>(config, workers);
  std::optional<Expected> pending;
  std::uint64_t steps = 0;
  std::uint64_t last_cut = 0;
  bool is_saved = false;
  const auto finish = [&] {
    while (!trainer->copy_snapshot()) continue;
    check(*pending, trainer->take_snapshot());
    pending.reset();
  };
  const auto on_batch = [&](const TrainedBatch&) {
    ++steps;
    if (pending && *rc::gen::inRange(0, 4) == 0) finish();
    if (!pending && *rc::gen::inRange(0, 3) == 0) {
      const CutRows rows = *rc::gen::element(CutRows::all, CutRows::changed);
      pending = Expected{trainer->save(), trainer->digests_of_all(), last_cut, rows};
      last_cut = steps;
      trainer->begin_snapshot(rows);
    }
    is_saved = *rc::gen::inRange(0, 5) == 0;
    RC_ASSERT(trainer->model_digest() == trainer->digests_of_all().state);
    return Status();
  };
  trainer->set_listener(on_batch);
  trainer->set_rows_at_once(*rc::gen::element<std::size_t>(1, 10, 100'000));
  while (trainer->next_sequence() <= samples.size()) {
    RC_ASSERT(trainer->offer(samples[trainer->next_sequence() - 1]).has_value());
    if (!std::exchange(is_saved, false)) continue;
    if (pending) finish();
    const LearnerState state = trainer->save();
    const Digest digest = trainer->model_digest();
    trainer = std::make_unique<Trainer>(config, workers);
    trainer->set_listener(on_batch);
    trainer->set_rows_at_once(*rc::gen::element<std::size_t>(1, 10, 100'000));
    RC_ASSERT(trainer->restore(state).has_value());
    RC_ASSERT(trainer->model_digest() == digest);
    RC_ASSERT(trainer->digests_of_all().state == digest);
  }
  if (pending) finish();
}

// More rows than are listed, in segments that split while they are copied.
TEST(Snapshots, SlowOfATableThatGrowsWhileItIsCopied) {
  Config config;
  config.features = {testing::feature("item", FeatureConfig::Type::id, "item")};
  config.model.embedding_dim = 2;
  config.model.hidden = {4};
  config.training.batch_size = 4'096;
  std::uint64_t id = 0;
  const auto offer = [&](Trainer& trainer, std::uint64_t ids) {
    for (std::uint64_t n = 0; n < ids; ++n) {
      Sample sample;
      sample.sequence = trainer.next_sequence();
      sample.time = 1'700'000'000'000;
      sample.impression_id = std::to_string(sample.sequence);
      sample.y_final = sample.z_final = true;
      sample.features =
          testing::encode_features(config.features, nlohmann::json{{"item", (id + n) % 600'000}});
      ASSERT_TRUE(trainer.offer(std::move(sample)).has_value());
    }
    id += ids;
  };
  Workers workers(2);
  Trainer trainer(config, workers);
  trainer.set_rows_at_once(20'000);
  offer(trainer, 73 * 4'096);
  for (const CutRows rows : {CutRows::all, CutRows::changed, CutRows::changed}) {
    const LearnerState state = trainer.save();
    const ModelDigests digests = trainer.digests_of_all();
    EXPECT_EQ(trainer.model_digest(), digests.state);
    const auto cut_before = state.json.at("snapshot_step").get<std::uint64_t>();
    trainer.begin_snapshot(rows);
    // Old rows change and new ones come while it is copied.
    id = rows == CutRows::all ? 250'000 : id;
    offer(trainer, 70 * 4'096);
    while (!trainer.copy_snapshot()) continue;
    FrozenModel frozen = trainer.take_snapshot();
    EXPECT_EQ(frozen.model_digest, digests.state);
    EXPECT_EQ(frozen.weights_digest, digests.weights);
    EXPECT_EQ(trainer.model_digest(), trainer.digests_of_all().state);
    const auto wanted = rows_after(state, rows == CutRows::all ? 0 : cut_before);
    EXPECT_EQ(frozen.rows_by_table().at("item"), wanted.size());
    EXPECT_TRUE(rows_of(frozen.take_tensors()) == wanted);
  }
}

}  // namespace
}  // namespace sluice
