// Several models over one sample log, each with features of its own: what they become is what each
// becomes alone, also after a process that ended on the way.
#include "app/compare_stage.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "app/shop.h"
#include "config/load.h"
#include "tests/app/driven_pipeline.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

class CompareStageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ShopOptions options;
    options.impressions = 1'500;
    options.users = 100;
    options.items = 50;
    options.partitions = 2;
    options.span = 7'200'000;
    options.click_window = 300'000;
    options.conversion_window = 3'600'000;
    RealFileSystem files;
    ASSERT_TRUE(generate_shop(options, folder_.path() / "shop", false, files, [](auto) {}));
  }

  // Without the features named.
  ComparedModel model(const std::string& name, const std::vector<std::string>& without,
                      const std::string& setting) {
    auto config =
        load_config_or_error(folder_.path() / "shop" / "shop.toml",
                             {"model.embedding_dim=4", "model.hidden=[8]", "training.batch_size=64",
                              "snapshots.every=\"20 min\"", "checkpoints.every=200",
                              "store.commit_records=300", "model.name=" + name, setting});
    EXPECT_TRUE(config) << config.error().message;
    std::erase_if(config->features, [&](const FeatureConfig& feature) {
      return std::find(without.begin(), without.end(), feature.name) != without.end();
    });
    ComparedModel made;
    made.config = *std::move(config);
    made.group = name;
    return made;
  }

  TemporaryFolder folder_;
};

// The bytes of every snapshot's manifest and weights.
std::map<std::string, std::string> snapshots_in(const fs::path& model) {
  std::map<std::string, std::string> bytes;
  for (const auto& entry : fs::directory_iterator(model / "snapshots")) {
    if (!entry.is_directory()) continue;
    bytes[entry.path().filename()] = read_bytes(entry.path() / "manifest.json") +
                                     read_bytes(entry.path() / "weights.safetensors");
  }
  return bytes;
}

// One model after the other, two at a time, and all at once with threads of their own.
class CompareStageThreadsTest : public CompareStageTest,
                                public ::testing::WithParamInterface<std::size_t> {};

TEST_P(CompareStageThreadsTest, EachModelPicksItsFeatures) {
  // None has all, "category" is one's alone, and the last feature by name is another's.
  const std::vector<ComparedModel> models = {
      model("narrow", {"user", "category", "surface", "interests"}, "model.seed=1"),
      model("other", {"age", "brands", "user", "quality"}, "training.batch_size=100"),
      model("wide", {"category", "position"}, "model.recipe=base")};
  Config config = models.front().config;
  config.features = logged_features(models);
  for (const ComparedModel& one : models) {
    ASSERT_LT(one.config.features.size(), config.features.size());
  }
  DrivenPipeline joined(config, folder_.path() / "joined", kClose);
  ASSERT_TRUE(joined.start());
  for (bool more = true; more;) more = *joined.join();
  const JoinProgress& progress = joined.join_stage().committed();
  const Committed committed{
      progress.next_sequence, progress.frontier, progress.samples_digest, progress.is_closed, {}};
  ASSERT_GT(committed.next_sequence, 1'500U);

  const fs::path data = folder_.path() / "compared";
  RealFileSystem files;
  ASSERT_TRUE(files.create_directories(data));
  std::unique_ptr<CompareStage> stage;
  for (const int steps : {4, 1'000}) {  // the first process ends without a word
    stage.reset();
    auto opened =
        CompareStage::open(models, {data, {}, "{}"}, joined.store, files, joined.clock, GetParam());
    ASSERT_TRUE(opened) << opened.error().message;
    stage = *std::move(opened);
    bool more = true;
    for (int step = 0; more && step < steps; ++step) more = *stage->learn(committed, 300);
    EXPECT_EQ(more, steps == 4);
    EXPECT_GT(stage->next_sequence(), 300U);
  }
  const Status finished = stage->finish();
  ASSERT_TRUE(finished) << finished.error().message;

  for (std::size_t n = 0; n < models.size(); ++n) {
    SCOPED_TRACE(models[n].group);
    DrivenPipeline alone(models[n].config, folder_.path() / models[n].group, kClose);
    ASSERT_TRUE(alone.start());
    ASSERT_TRUE(alone.finish());
    const Trainer& wanted = alone.learning().trainer();
    const Trainer& trainer = stage->learning(n).trainer();
    EXPECT_EQ(trainer.model_digest(), wanted.model_digest());
    EXPECT_EQ(trainer.samples_digest(), wanted.samples_digest());
    EXPECT_EQ(trainer.absent(), wanted.absent());
    const fs::path folder = data / "models" / models[n].group;
    const auto snapshots = snapshots_in(folder);
    EXPECT_GT(snapshots.size(), 1U);
    EXPECT_EQ(snapshots, snapshots_in(alone.model_dir()));
    EXPECT_EQ(read_bytes(folder / "scores.bin"), read_bytes(alone.model_dir() / "scores.bin"));
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, CompareStageThreadsTest, ::testing::Values(1, 2, 7));

// A log of other features than these models': no sample of it is learned.
TEST_F(CompareStageTest, SamplesOfOtherFeaturesAreRefused) {
  const std::vector<ComparedModel> models = {model("narrow", {"user"}, "model.seed=1"),
                                             model("wide", {"age"}, "model.seed=2")};
  DrivenPipeline joined(models.front().config, folder_.path() / "joined", kClose);
  ASSERT_TRUE(joined.start());
  for (bool more = true; more;) more = *joined.join();
  RealFileSystem files;
  const fs::path data = folder_.path() / "compared";
  ASSERT_TRUE(files.create_directories(data));
  auto stage = CompareStage::open(models, {data, {}, "{}"}, joined.store, files, joined.clock, 2);
  ASSERT_TRUE(stage) << stage.error().message;
  Committed committed;
  committed.next_sequence = joined.join_stage().committed().next_sequence;
  const auto learned = (*stage)->learn(committed, 100);
  ASSERT_FALSE(learned);
  EXPECT_NE(learned.error().message.find("are not those of the configs"), std::string::npos);
}

}  // namespace
}  // namespace sluice
