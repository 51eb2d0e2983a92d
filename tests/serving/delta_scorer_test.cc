// Versions made by deltas on one that is in use.
#include <array>
#include <functional>
#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "learner/row_digest.h"
#include "serving/scorer.h"
#include "tests/learner/delta_between.h"
#include "tests/serving/small_snapshot.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::HasSubstr;

// Four states of one model: as full snapshots in one folder, and as a full one with a chain of
// three deltas in another.
class DeltaScorer : public ::testing::Test {
 protected:
  static constexpr std::array<int, 4> kSequences = {16, 32, 48, 64};

  DeltaScorer() {
    for (std::size_t n = 0; n < kSequences.size(); ++n) {
      full_.push_back(publish_small_snapshot(temporary_.path() / "full", kSequences[n]));
      publish(n, [](Json&, Tensors&) {});
    }
  }
  fs::path chain(std::size_t n) const {
    return temporary_.path() / "chain" / full_[n].folder.filename();
  }
  // State n of the chain, as `change` makes it.
  void publish(std::size_t n, const std::function<void(Json&, Tensors&)>& change) {
    fs::remove_all(chain(n));
    Json manifest = *read_manifest(files_, full_[n].folder);
    for (const char* key : {"files", "checksum", "weights_digest"}) manifest.erase(key);
    manifest["weights_digest"] = weights_digest(full_[n].state.tensors)->hex();
    Tensors tensors = full_[n].state.tensors;
    if (n > 0) {
      tensors = testing::delta_between(full_[n - 1].state.tensors, tensors);
      const Json base = *read_manifest(files_, chain(n - 1));
      manifest["kind"] = "delta";
      manifest["base"] = {{"sequence", base["sequence"]}, {"checksum", base["checksum"]}};
    }
    change(manifest, tensors);
    ASSERT_TRUE(publish_folder(files_, chain(n).parent_path(), chain(n).filename().string(),
                               manifest, {{"weights.safetensors", encode_tensors(tensors)}}, {}));
  }
  std::shared_ptr<const Scorer> open(const fs::path& folder,
                                     const std::shared_ptr<const Scorer>& near = {}) {
    auto scorer = open_scorer(files_, folder, near);
    EXPECT_TRUE(scorer) << scorer.error().message;
    return scorer ? *scorer : nullptr;
  }
  std::string problem_of(std::size_t n, const std::shared_ptr<const Scorer>& near) {
    const auto scorer = open_scorer(files_, chain(n), near);
    if (scorer) return "";
    EXPECT_EQ(scorer.error().kind, ErrorKind::stop);
    return scorer.error().message;
  }
  static std::vector<Prediction> scores(const Scorer& scorer) {
    std::vector<std::string> impressions;
    for (int i = 0; i < 80; ++i) impressions.push_back(small_impression(i));
    std::vector<Prediction> predictions;
    for (const auto& score : scorer.score(impressions)) predictions.push_back(score->prediction);
    return predictions;
  }
  static std::size_t changed_rows(const Scorer& scorer) {
    std::size_t rows = 0;
    for (const ServedTable& table : scorer.model().sets()[0].tables) rows += table.changed_rows();
    return rows;
  }

  RealFileSystem files_;
  TemporaryFolder temporary_;
  std::vector<SmallSnapshot> full_;
};

TEST_F(DeltaScorer, GivesTheBitsOfTheFullSnapshotFromWhicheverVersionItIsMade) {
  for (std::size_t to = 0; to < full_.size(); ++to) {
    const std::vector<Prediction> expected = scores(*open(full_[to].folder));
    EXPECT_EQ(scores(*open(chain(to))), expected);
    for (std::size_t from = 0; from <= to; ++from) {
      const auto near = open(chain(from));
      const std::vector<Prediction> before = scores(*near);
      const auto version = open(chain(to), near);
      EXPECT_EQ(scores(*version), expected) << from << " to " << to;
      EXPECT_EQ(version->manifest()["sequence"], kSequences[to]);
      EXPECT_EQ(changed_rows(*version) > 0, from < to) << "rows are shared";
      EXPECT_EQ(scores(*near), before) << "a version in use does not change";
      // One after the other, as a server does it, gives the same.
      if (to == 0) continue;
      const auto step = open(chain(to - 1), near);
      EXPECT_EQ(scores(*open(chain(to), step)), expected);
    }
  }
}

TEST_F(DeltaScorer, IsReadWholeWhereNoDeltaLeadsToTheVersionInUse) {
  const std::vector<Prediction> expected = scores(*open(full_[2].folder));
  for (const fs::path& near : {chain(3), full_[0].folder, full_[3].folder}) {
    const auto version = open(chain(2), open(near));
    EXPECT_EQ(scores(*version), expected) << near;
    EXPECT_EQ(changed_rows(*version), 0U);
  }
  EXPECT_EQ(scores(*open(full_[2].folder, open(chain(1)))), expected);
}

TEST_F(DeltaScorer, OneThatComesOutWrongIsRefused) {
  const auto near = open(chain(1));
  const std::vector<Prediction> before = scores(*near);
  const Json strange_digest = weights_digest(full_[0].state.tensors)->hex();
  publish(2, [&](Json& json, Tensors&) { json["weights_digest"] = strange_digest; });
  EXPECT_THAT(problem_of(2, near), HasSubstr("digest"));
  publish(2, [](Json&, Tensors& tensors) { tensors.at("embedding.user.rows").bytes[2] ^= 1; });
  EXPECT_THAT(problem_of(2, near), HasSubstr("digest"));
  publish(2, [](Json&, Tensors& tensors) { tensors.at("tower.ctr.0.bias").bytes[2] ^= 1; });
  EXPECT_THAT(problem_of(2, near), HasSubstr("digest"));
  publish(2, [](Json& json, Tensors&) { json.erase("weights_digest"); });
  EXPECT_THAT(problem_of(2, near), HasSubstr("weights_digest"));
  publish(2, [](Json& json, Tensors&) { json["model"]["seed"] = 5; });
  EXPECT_THAT(problem_of(2, near), HasSubstr("others than its base's"));
  publish(2, [](Json&, Tensors& tensors) { tensors.erase("embedding.user.keys"); });
  EXPECT_THAT(problem_of(2, near), HasSubstr("embedding.user.keys"));
  publish(2, [](Json&, Tensors&) {});
  EXPECT_EQ(problem_of(2, near), "");
  EXPECT_EQ(scores(*near), before);
}

TEST_F(DeltaScorer, DamageToADeltaIsFound) {
  const auto near = open(chain(1));
  for (const char* name : {"manifest.json", "weights.safetensors"}) {
    const std::string bytes = files_.read(chain(2) / name).value();
    for (std::size_t at = 0; at < bytes.size(); at += bytes.size() / 40) {
      std::string flipped = bytes;
      flipped[at] = static_cast<char>(flipped[at] ^ 4);
      for (const std::string& damaged : {flipped, bytes.substr(0, at)}) {
        ASSERT_TRUE((*files_.create(chain(2) / name))->append(damaged));
        EXPECT_NE(problem_of(2, near), "") << name << " at " << at;
      }
    }
    ASSERT_TRUE((*files_.create(chain(2) / name))->append(bytes));
  }
  EXPECT_EQ(problem_of(2, near), "");
}

// Manifests that name each other, each below a number of its own: no walk goes round between them.
// One of the two checksums is not the other's, as no manifest can hold the checksum of its holder;
// a walk that looked at numbers alone would not end.
TEST_F(DeltaScorer, ManifestsThatNameEachOtherAreRefused) {
  const auto near = open(chain(0));
  const auto name = [&](std::size_t n, std::uint64_t sequence, std::size_t base,
                        const std::string& checksum) {
    fs::remove_all(chain(n));
    Json manifest = *read_manifest(files_, full_[n].folder);
    for (const char* key : {"files", "checksum", "weights_digest"}) manifest.erase(key);
    manifest["weights_digest"] = weights_digest(full_[n].state.tensors)->hex();
    manifest["kind"] = "delta";
    manifest["sequence"] = sequence;
    manifest["base"] = {{"sequence", kSequences[base]}, {"checksum", checksum}};
    ASSERT_TRUE(
        publish_folder(files_, chain(n).parent_path(), chain(n).filename().string(), manifest,
                       {{"weights.safetensors", encode_tensors(full_[n].state.tensors)}}, {}));
  };
  name(1, 100, 2, "0");
  name(2, 1'000, 1, "0");
  EXPECT_THAT(problem_of(1, near), HasSubstr("another sequence number"));
  EXPECT_THAT(problem_of(2, near), HasSubstr("another sequence number"));
  // The same where the one that is asked for is whole.
  name(3, kSequences[3], 2, (*read_manifest(files_, chain(2)))["checksum"]);
  EXPECT_THAT(problem_of(3, near), HasSubstr("another sequence number"));
  EXPECT_THAT(problem_of(3, nullptr), HasSubstr("another sequence number"));
}

}  // namespace
}  // namespace sluice
