// Which version is served as snapshots come, are damaged, mended and removed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <new>

#include "serving/model_catalog.h"
#include "serving/model_versions.h"
#include "serving/prediction_log.h"
#include "tests/serving/small_snapshot.h"
#include "tests/serving/watched_files.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class StillClock final : public Clock {
 public:
  TimeMs wall_ms() override { return 0; }
  DurationMs steady_ms() override { return now; }
  void sleep_ms(DurationMs duration) override { now += duration; }
  DurationMs now = 0;
};

class KeptEvents final : public VersionEvents {
 public:
  void on_current(const std::string&, const ModelVersion& version) override {
    current.push_back(version.sequence);
  }
  void on_look_error(const std::string& why) override { errors.push_back(why); }
  void on_load_error(const std::string&, const std::string& why) override { errors.push_back(why); }
  void on_held(const std::string&, std::size_t snapshots) override { held = snapshots; }
  std::vector<std::uint64_t> current;
  std::vector<std::string> errors;
  std::size_t held = 0;
};

class ModelVersionsTest : public ::testing::Test {
 protected:
  ModelVersions versions(const std::string& alias = {}, std::size_t keep = 2) {
    return {{"m", parent_, alias, keep}, files_, clock_, events_};
  }
  void damage(std::uint64_t sequence) { std::ofstream(weights(sequence), std::ios::app) << "x"; }
  void mend(std::uint64_t sequence) {
    fs::resize_file(weights(sequence), fs::file_size(weights(sequence)) - 1);
  }
  fs::path weights(std::uint64_t sequence) const {
    return parent_ / numbered_folder_name(sequence) / "weights.safetensors";
  }

  TemporaryFolder folder_;
  fs::path parent_ = folder_.path() / "models" / "m" / "snapshots";
  WatchedFiles files_;
  StillClock clock_;
  KeptEvents events_;
};

TEST_F(ModelVersionsTest, FollowsLatest) {
  ModelVersions model = versions();
  EXPECT_FALSE(model.poll());
  EXPECT_EQ(model.current(), nullptr);
  publish_small_snapshot(parent_, 20);
  EXPECT_TRUE(model.poll());
  EXPECT_FALSE(model.poll());
  const ModelVersionPtr first = model.current();
  EXPECT_EQ(first->sequence, 20);
  EXPECT_EQ(first->event_time, parse_time("2023-11-14T22:13:20Z").value());
  publish_small_snapshot(parent_, 40);
  EXPECT_TRUE(model.poll());
  EXPECT_THAT(events_.current, ElementsAre(20, 40));
  // Whoever has the old one keeps it.
  EXPECT_TRUE(first->scorer->score(std::vector{small_impression(1)})[0]);
  EXPECT_THAT(model.available(), ElementsAre(20, 40));
}

TEST_F(ModelVersionsTest, ADamagedOneIsTriedAgainLaterAndLater) {
  publish_small_snapshot(parent_, 20);
  ModelVersions model = versions();
  EXPECT_TRUE(model.poll());
  publish_small_snapshot(parent_, 40);
  damage(40);
  std::vector<DurationMs> tries;
  const fs::path readable = weights(40);
  for (; clock_.now < 20'000; clock_.now += 50) {
    const std::size_t before = events_.errors.size();
    EXPECT_FALSE(model.poll());
    if (events_.errors.size() > before) tries.push_back(clock_.now);
  }
  EXPECT_THAT(tries, ElementsAre(0));  // the same reason is told once
  EXPECT_EQ(model.current()->sequence, 20);
  mend(40);
  clock_.now += ModelVersions::kMaxRetryMs;
  EXPECT_TRUE(model.poll());
  EXPECT_EQ(model.current()->sequence, 40);
}

// Out of memory, for one; the thread that polls goes on.
TEST_F(ModelVersionsTest, AnExceptionIsALoadErrorLikeAnother) {
  publish_small_snapshot(parent_, 20);
  ModelVersions model = versions();
  EXPECT_TRUE(model.poll());
  publish_small_snapshot(parent_, 40);
  int tries = 0;
  files_.before = [&](const fs::path& path) -> std::optional<Error> {
    if (path != weights(40)) return std::nullopt;
    ++tries;
    throw std::bad_alloc();
  };
  EXPECT_FALSE(model.poll());
  EXPECT_FALSE(model.poll());
  EXPECT_EQ(tries, 1);
  ASSERT_EQ(events_.errors.size(), 1);
  EXPECT_THAT(events_.errors[0], HasSubstr(numbered_folder_name(40)));
  EXPECT_EQ(model.find(40).error().status, 503);
  EXPECT_EQ(model.current()->sequence, 20);
  files_.before = nullptr;
  clock_.now += ModelVersions::kMaxRetryMs;
  EXPECT_TRUE(model.poll());
  EXPECT_EQ(model.current()->sequence, 40);
}

TEST_F(ModelVersionsTest, ALaterOneNeedNotWaitForADamagedOne) {
  publish_small_snapshot(parent_, 20);
  ModelVersions model = versions();
  model.poll();
  publish_small_snapshot(parent_, 40);
  damage(40);
  EXPECT_FALSE(model.poll());
  publish_small_snapshot(parent_, 60);
  EXPECT_TRUE(model.poll());
  EXPECT_EQ(model.current()->sequence, 60);
}

TEST_F(ModelVersionsTest, AtAStartTheNewestWholeOneIsServed) {
  for (const int samples : {20, 40, 60}) publish_small_snapshot(parent_, samples);
  damage(60);
  ModelVersions model = versions();
  EXPECT_TRUE(model.poll());
  EXPECT_EQ(model.current()->sequence, 40);
  EXPECT_EQ(events_.errors.size(), 1);
}

TEST_F(ModelVersionsTest, AnAliasIsFollowedBackToo) {
  for (const int samples : {20, 40}) publish_small_snapshot(parent_, samples);
  ASSERT_TRUE(set_alias(files_, parent_, "live", 40));
  ModelVersions model = versions("live");
  EXPECT_TRUE(model.poll());
  EXPECT_EQ(model.current()->sequence, 40);
  ASSERT_TRUE(set_alias(files_, parent_, "live", 20));
  EXPECT_TRUE(model.poll());
  EXPECT_EQ(model.current()->sequence, 20);
}

TEST_F(ModelVersionsTest, OthersAreLoadedWhenTheyAreAskedFor) {
  for (const int samples : {20, 40, 60}) publish_small_snapshot(parent_, samples);
  ModelVersions model = versions({}, 2);
  model.poll();
  const auto old = model.find(20);
  ASSERT_TRUE(old);
  EXPECT_EQ((*old)->sequence, 20);
  // From memory, until there are too many.
  EXPECT_EQ(model.find(20).value(), *old);
  ASSERT_TRUE(model.find(40));
  EXPECT_NE(model.find(20).value(), *old);
  EXPECT_EQ(model.current()->sequence, 60);
  EXPECT_EQ(model.find(60).value(), model.current());
  EXPECT_EQ(model.find(30).error().status, 404);
  damage(40);
  EXPECT_EQ(model.find(40).error().status, 503);
  EXPECT_EQ(model.find_alias("none").error().status, 404);
  EXPECT_EQ(model.find_alias("../x").error().status, 404);
}

TEST_F(ModelVersionsTest, ADamagedOneThatIsAskedForIsNotReadForEachRequest) {
  for (const int samples : {20, 40}) publish_small_snapshot(parent_, samples);
  ModelVersions model = versions();
  model.poll();
  damage(20);
  std::vector<DurationMs> reads;
  files_.before = [&](const fs::path& path) -> std::optional<Error> {
    if (path.parent_path() != parent_ / numbered_folder_name(20)) return std::nullopt;
    if (reads.empty() || reads.back() != clock_.now) reads.push_back(clock_.now);
    return std::nullopt;
  };
  for (; clock_.now < 2'000; clock_.now += 10) EXPECT_EQ(model.find(20).error().status, 503);
  EXPECT_THAT(reads, ElementsAre(0, 200, 600, 1'400));
  EXPECT_EQ(events_.errors.size(), 1);
  mend(20);
  clock_.now += ModelVersions::kMaxRetryMs;
  EXPECT_TRUE(model.find(20));
  EXPECT_EQ(model.current()->sequence, 40);
}

TEST_F(ModelVersionsTest, OneThatIsAskedForHasAPlaceBesideTheCurrentOne) {
  for (const int samples : {20, 40}) publish_small_snapshot(parent_, samples);
  ModelVersions model = versions({}, 1);
  model.poll();
  const ModelVersionPtr old = model.find(20).value();
  EXPECT_EQ(model.find(20).value(), old);
  const std::weak_ptr<const ModelVersion> before = model.current();
  publish_small_snapshot(parent_, 60);
  EXPECT_TRUE(model.poll());
  EXPECT_EQ(model.find(20).value(), old);
  EXPECT_TRUE(before.expired()) << "no place for what was current";
  ASSERT_TRUE(model.find(40));
  EXPECT_NE(model.find(20).value(), old) << "there is one such place";
}

TEST_F(ModelVersionsTest, WhatCannotBeReadIsNotSaidToBeMissing) {
  publish_small_snapshot(parent_, 20);
  ASSERT_TRUE(set_alias(files_, parent_, "live", 20));
  ModelVersions model = versions();
  ModelCatalog catalog({folder_.path(), "", "", 2}, files_, clock_, events_);
  model.poll();
  catalog.poll();
  files_.before = [](const fs::path& path) -> std::optional<Error> {
    return stop_error("cannot read " + path.string() + ": the disk is slow today");
  };
  for (int i = 0; i < 3; ++i) EXPECT_EQ(model.find_alias("live").error().status, 503);
  EXPECT_EQ(model.find_alias("none").error().status, 404);
  ASSERT_EQ(events_.errors.size(), 1);
  EXPECT_THAT(events_.errors[0], HasSubstr("live: the disk is slow"));
  // The folder of models; a model that is known is looked at all the same.
  for (int i = 0; i < 3; ++i) catalog.poll();
  ASSERT_EQ(events_.errors.size(), 3);
  EXPECT_THAT(events_.errors[1], HasSubstr("models: the disk is slow"));
  EXPECT_THAT(events_.errors[2], HasSubstr("LATEST: the disk is slow"));
  EXPECT_TRUE(catalog.is_ready());
  files_.before = nullptr;
  EXPECT_TRUE(model.find_alias("live"));
}

TEST_F(ModelVersionsTest, TheCatalogNamesModelsByTheirFolders) {
  publish_small_snapshot(parent_, 20);
  ModelCatalog data({folder_.path(), "", "", 2}, files_, clock_, events_);
  EXPECT_FALSE(data.is_ready());
  data.poll();
  EXPECT_THAT(data.names(), ElementsAre("m"));
  EXPECT_TRUE(data.is_ready());
  const fs::path other = folder_.path() / "models" / "n" / "snapshots";
  fs::create_directories(other);
  data.poll();
  EXPECT_THAT(data.names(), ElementsAre("m", "n"));
  EXPECT_FALSE(data.is_ready());
  publish_small_snapshot(other, 20);
  data.poll();
  EXPECT_TRUE(data.is_ready());

  for (const fs::path& where : {parent_, parent_.parent_path()}) {
    ModelCatalog one({where, "", "", 2}, files_, clock_, events_);
    one.poll();
    EXPECT_THAT(one.names(), ElementsAre("m")) << where;
  }
  ModelCatalog named({parent_, "shop", "", 2}, files_, clock_, events_);
  named.poll();
  EXPECT_THAT(named.names(), ElementsAre("shop"));
}

TEST_F(ModelVersionsTest, TheLogOfPredictionsTurnsOverAndMendsATornLine) {
  const fs::path path = folder_.path() / "served";
  std::ofstream(path) << R"({"torn)";
  Score score{"i\"1", {}};
  score.prediction.ctr.yes = 0.1;
  {
    auto log = PredictionLog::open(files_, path, 1 << 20);
    ASSERT_TRUE(log);
    EXPECT_TRUE((*log)->add("m", 7, std::vector{score, score}));
  }
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  EXPECT_EQ(line, R"({"torn)");
  std::getline(file, line);
  EXPECT_EQ(line, R"({"id":"i\"1","model":"m","version":7,"pctr":0.1,"pcvr":0,"pctcvr":0})");
  {
    auto log = PredictionLog::open(files_, path, 64);
    ASSERT_TRUE(log);
    EXPECT_TRUE((*log)->add("m", 8, std::vector{score}));
  }
  EXPECT_TRUE(fs::exists(path.string() + ".1"));
  // More than the queue takes is dropped, not waited for.
  auto log = PredictionLog::open(files_, path, 1 << 30);
  ASSERT_TRUE(log);
  const std::vector<Score> many(PredictionLog::kMaxQueuedBytes / 32, score);
  EXPECT_FALSE((*log)->add("m", 9, many));
  EXPECT_FALSE((*log)->error());
}

TEST_F(ModelVersionsTest, ALogThatCannotBeOpenedIsAnError) {
  EXPECT_FALSE(PredictionLog::open(files_, folder_.path() / "none" / "served", 1 << 20));
}

}  // namespace
}  // namespace sluice
