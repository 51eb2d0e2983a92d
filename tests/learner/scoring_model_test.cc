#include "learner/scoring_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/learner/delta_between.h"
#include "tests/learner/test_data.h"

namespace sluice {
namespace {

using testing::delta_between;
using ::testing::HasSubstr;
using testing::offer_all;
using testing::SampleStream;

std::vector<Config> configs() {
  std::vector<Config> all(3, testing::small_config());
  all[1].model.precision = ModelConfig::Precision::bf16;
  testing::group_features(all[1], {"a_id", "d_log"});
  all[2].model.recipe = "esmm_ns";  // two embedding sets
  return all;
}

struct Chain {
  std::vector<LearnerState> full;  // one after the other
  std::vector<Sample> samples;     // seen and unseen ones
};

Chain train_chain(const Config& config, int length) {
  Workers workers(1);
  Trainer trainer(config, workers);
  SampleStream stream(config, 8);
  Chain chain;
  for (int n = 0; n < length; ++n) {
    offer_all(trainer, stream.take(config.training.batch_size * (n == 0 ? 4 : 1)));
    chain.full.push_back(trainer.snapshot());
  }
  chain.samples = stream.take(200);
  return chain;
}

std::vector<std::string_view> blobs_of(const std::vector<Sample>& samples) {
  std::vector<std::string_view> blobs;
  for (const Sample& sample : samples) blobs.push_back(sample.features);
  return blobs;
}

// However a version came to be, it gives the bits of the full snapshot; the earlier ones still
// give theirs.
TEST(ScoringModel, AVersionMadeByDeltasScoresAsTheFullSnapshotDoes) {
  for (const Config& config : configs()) {
    const Chain chain = train_chain(config, 4);
    const auto blobs = blobs_of(chain.samples);
    std::vector<ScoringModel> versions;
    versions.push_back(
        ScoringModel::from_snapshot(chain.full[0].json, chain.full[0].tensors).value());
    for (std::size_t n = 1; n < chain.full.size(); ++n) {
      const Tensors delta = delta_between(chain.full[n - 1].tensors, chain.full[n].tensors);
      auto next = versions.back().with_delta(chain.full[n].json, delta);
      ASSERT_TRUE(next.has_value()) << next.error().message;
      versions.push_back(*std::move(next));
      std::size_t changed = 0;
      for (const ServedTable& table : versions.back().sets()[0].tables) {
        changed += table.changed_rows();
      }
      EXPECT_GT(changed, 0U);
    }
    std::vector<Prediction> before;
    for (std::size_t n = 0; n < versions.size(); ++n) {
      const auto full = ScoringModel::from_snapshot(chain.full[n].json, chain.full[n].tensors);
      const std::vector<Prediction> scores = versions[n].score(blobs);
      EXPECT_EQ(scores, full->score(blobs)) << n;
      EXPECT_NE(scores, before);
      before = scores;
    }
  }
}

// A scratch that has seen other batches gives the bits of a fresh one.
TEST(ScoringModel, AScratchRemembersNothing) {
  for (const Config& config : configs()) {
    const Chain chain = train_chain(config, 1);
    const auto blobs = blobs_of(chain.samples);
    const auto model = ScoringModel::from_snapshot(chain.full[0].json, chain.full[0].tensors);
    const std::vector<Prediction> expected = model->score(blobs);
    ScoringModel::Scratch scratch(*model);
    for (const std::size_t batch : {200, 1, 7, 33, 129, 2, 0}) {
      for (std::size_t begin = 0; batch > 0 && begin + batch <= blobs.size(); begin += batch) {
        std::vector<Prediction> out(batch);
        model->score(std::span(blobs).subspan(begin, batch), scratch, out);
        for (std::size_t n = 0; n < batch; ++n) ASSERT_EQ(out[n], expected[begin + n]) << batch;
      }
    }
  }
}

TEST(ScoringModel, ADeltaOfAnotherModelIsRefused) {
  const Config config = testing::small_config();
  Config other = config;
  other.model.seed += 1;
  const LearnerState state = train_chain(config, 1).full[0];
  const LearnerState strange = train_chain(other, 1).full[0];
  const auto model = ScoringModel::from_snapshot(state.json, state.tensors);
  const auto next = model->with_delta(strange.json, strange.tensors);
  ASSERT_FALSE(next.has_value());
  EXPECT_THAT(next.error().message, HasSubstr("others than its base's"));
}

// Each way in which a table's tensors may be odd, in a full snapshot and in a delta.
TEST(ScoringModel, OddTensorsAreRefusedByName) {
  const LearnerState state = train_chain(testing::small_config(), 1).full[0];
  const auto model = ScoringModel::from_snapshot(state.json, state.tensors);
  ASSERT_TRUE(model.has_value());
  std::string table;
  for (const auto& [name, tensor] : state.tensors) {
    if (name.ends_with(".keys") && tensor.elements() > 2) table = name.substr(0, name.size() - 5);
  }
  ASSERT_FALSE(table.empty());
  const std::string keys = table + ".keys";
  const std::string rows = table + ".rows";
  const auto expect_refused = [&](const std::string& name, auto change) {
    Tensors tensors = state.tensors;
    change(tensors);
    for (const auto& made : {ScoringModel::from_snapshot(state.json, tensors),
                             model->with_delta(state.json, tensors)}) {
      ASSERT_FALSE(made.has_value()) << name;
      EXPECT_THAT(made.error().message, HasSubstr(name));
    }
  };
  expect_refused(keys, [&](Tensors& tensors) { tensors.erase(keys); });
  expect_refused(rows, [&](Tensors& tensors) { tensors.erase(rows); });
  expect_refused(keys, [&](Tensors& tensors) { tensors.at(keys).type = TensorType::i64; });
  expect_refused(rows, [&](Tensors& tensors) { tensors.at(rows).shape = {1}; });
  expect_refused(rows, [&](Tensors& tensors) {
    std::swap(tensors.at(rows).shape[0], tensors.at(rows).shape[1]);
  });
  expect_refused(keys, [&](Tensors& tensors) { tensors.at(keys).shape.push_back(1); });
  expect_refused(keys, [&](Tensors& tensors) {
    std::string& bytes = tensors.at(keys).bytes;
    bytes = bytes.substr(8, 8) + bytes.substr(0, 8) + bytes.substr(16);
  });
  expect_refused("tower.ctr.0.weight",
                 [](Tensors& tensors) { tensors.erase("tower.ctr.0.weight"); });
}

}  // namespace
}  // namespace sluice
