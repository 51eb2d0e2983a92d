#include "serving/scorer.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "serving/model_catalog.h"
#include "serving/scoring_api.h"
#include "serving/serving_metrics.h"
#include "tests/serving/no_events.h"
#include "tests/serving/small_snapshot.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

Scorer open(const fs::path& folder) {
  RealFileSystem files;
  auto snapshot = read_snapshot(files, folder);
  SLUICE_CHECK(snapshot.has_value());
  return Scorer(*std::move(snapshot));
}

// The published bytes give the same bits as the weights they were made from.
TEST(Scorer, ScoresAsTheModelThatWasPublished) {
  const TemporaryFolder temporary;
  const SmallSnapshot published = publish_small_snapshot(temporary.path(), 40);
  const auto model = ScoringModel::from_snapshot(published.state.json, published.state.tensors);
  ASSERT_TRUE(model) << model.error().message;

  const Config config = small_config();
  Decoder decoder(config.streams, config.join, config.features);
  std::vector<std::string> impressions;
  std::vector<std::string> blobs;
  for (int i = 0; i < 100; ++i) {
    impressions.push_back(small_impression(i));
    Record record;
    record.bytes = impressions.back();
    blobs.emplace_back(decoder.decode(Stream::impressions, record)->event.features());
  }
  const std::vector<std::string_view> views(blobs.begin(), blobs.end());
  const std::vector<Prediction> expected = model->score(views);

  const auto scores = open(published.folder).score(impressions);
  ASSERT_EQ(scores.size(), 100u);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    ASSERT_TRUE(scores[i]) << scores[i].error();
    EXPECT_EQ(scores[i]->impression_id, "i" + std::to_string(i));
    EXPECT_EQ(scores[i]->prediction, expected[i]);
    EXPECT_GT(scores[i]->prediction.ctcvr.yes, 0);
    EXPECT_LT(scores[i]->prediction.ctr.yes, 1);
  }
  EXPECT_NE(scores[1]->prediction.ctr.yes, scores[2]->prediction.ctr.yes) << "features count";
}

TEST(Scorer, BadImpressionsKeepTheirPlace) {
  const TemporaryFolder temporary;
  Scorer scorer = open(publish_small_snapshot(temporary.path(), 16).folder);
  const std::vector<std::string> impressions = {
      small_impression(1),
      "{\"ts\": 17",
      "",
      "[]",
      small_impression(2),
      R"({"ts": 1700000000000, "ids": {}})",
      R"({"ts": 5, "ids": {"impression": 7}})",
      R"({"ids": {"impression": 7}})",
      std::string(3000, ' ') + small_impression(3),
      R"({"ts": 1700000000000, "ids": {"impression": 7}})"};
  const auto scores = scorer.score(impressions);
  ASSERT_EQ(scores.size(), impressions.size());
  const std::vector<const char*> expected = {nullptr,
                                             "malformed: JSON",
                                             "malformed: JSON",
                                             "malformed: no JSON object",
                                             nullptr,
                                             "malformed: ids.impression: absent",
                                             "malformed: ts: 5",
                                             "malformed: ts: absent",
                                             "oversized",
                                             nullptr};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(scores[i].has_value(), expected[i] == nullptr) << i;
    if (expected[i] != nullptr && !scores[i]) {
      EXPECT_THAT(scores[i].error(), HasSubstr(expected[i]));
    }
  }
  EXPECT_EQ(scores[4]->prediction,
            scorer.score(std::span(impressions).subspan(4, 1))[0]->prediction);
  EXPECT_EQ(scores[9]->impression_id, "7");
}

// A tower that has come to give no number spoils the rates that rest on it and no others: of a
// recipe whose pCTCVR has its own tower, that rate stays finite.
TEST(Scorer, ARateThatIsNoNumberIsNotAnAnswer) {
  const TemporaryFolder temporary;
  const fs::path parent = temporary.path() / "m" / "snapshots";
  SmallSnapshot small = publish_small_snapshot(parent, 20, {"model.recipe=division"});
  RealFileSystem files;
  nlohmann::ordered_json manifest = *read_manifest(files, small.folder);
  for (const char* key : {"files", "checksum", "weights_digest"}) manifest.erase(key);
  Tensors& tensors = small.state.tensors;
  for (auto& [name, tensor] : tensors) {
    if (!name.starts_with("tower.ctr.") || !name.ends_with(".bias")) continue;
    tensor = Tensor::of<float>(
        tensor.shape,
        std::vector<float>(tensor.elements(), std::numeric_limits<float>::quiet_NaN()));
  }
  fs::remove_all(small.folder);
  ASSERT_TRUE(publish_folder(files, parent, small.folder.filename().string(), manifest,
                             {{"weights.safetensors", encode_tensors(tensors)}}, {}));
  const auto scores = open(small.folder).score(std::vector{small_impression(1)});
  EXPECT_TRUE(std::isfinite(scores[0]->prediction.ctcvr.yes));
  EXPECT_FALSE(is_finite(scores[0]->prediction));

  SystemClock clock;
  NoEvents events;
  ServingMetrics metrics;
  ModelCatalog catalog({parent, "", "", 2}, files, clock, events);
  catalog.poll();
  const ScoringApi api(catalog, metrics, nullptr, clock, {}, "1");
  const HttpReply reply = api.answer(
      {"POST", "/v1/models/m:predict", "application/json", R"({"instances": [{}]})", std::nullopt});
  EXPECT_EQ(reply.status, 500);
  EXPECT_THAT(reply.body, HasSubstr("instance 0: the model gives no number for it"));
}

TEST(Scorer, EachOfTheThreeRatesMustBeANumber) {
  Prediction prediction;
  EXPECT_TRUE(is_finite(prediction));
  for (double* const rate : {&prediction.ctr.yes, &prediction.cvr.yes, &prediction.ctcvr.yes}) {
    for (const double no_number :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      *rate = no_number;
      EXPECT_FALSE(is_finite(prediction));
    }
    *rate = 0.5;
  }
  EXPECT_TRUE(is_finite(prediction));
}

RC_GTEST_PROP(Scorer, BitsDoNotDependOnTheOthers, ()) {
  static const TemporaryFolder temporary;
  static Scorer scorer = open(publish_small_snapshot(temporary.path(), 30).folder);
  const auto numbers = *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 50));
  std::vector<std::string> impressions;
  for (const int number : numbers) impressions.push_back(small_impression(number));
  const auto together = scorer.score(impressions);
  for (std::size_t i = 0; i < impressions.size(); ++i) {
    const auto alone = scorer.score(std::span(impressions).subspan(i, 1));
    RC_ASSERT(alone[0]->prediction == together[i]->prediction);
  }
}

}  // namespace
}  // namespace sluice
