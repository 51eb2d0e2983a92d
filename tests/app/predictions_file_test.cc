// The predictions as CSV and the scores as records: their form, and how they go on after a restart.
#include "app/predictions_file.h"

#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <string>
#include <vector>

#include "learner/metrics.h"
#include "tests/app/driven_pipeline.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

constexpr const char* kHeader = "sequence,impression_id,y,y_final,z,z_final,pctr,pcvr,pctcvr\n";

class PredictionsFileTest : public ::testing::Test {
 protected:
  // Samples first..last, of one batch.
  template <class Log>
  void add(Log& log, std::uint64_t first, std::uint64_t last) {
    std::vector<Sample> samples;
    std::vector<Prediction> predictions;
    std::vector<float> logits;
    for (std::uint64_t sequence = first; sequence <= last; ++sequence) {
      Sample& sample = samples.emplace_back();
      sample.sequence = sequence;
      sample.impression_id = names_[sequence % names_.size()];
      sample.y = sequence % 2 == 0;
      sample.y_final = true;
      sample.z = sequence % 4 == 0;
      sample.z_final = sequence % 3 != 0;
      if (sample.z) sample.value = 19'990'000;
      sample.action = sample.y;
      sample.action_final = sequence % 3 != 1;
      const float logit = 0.25F * static_cast<float>(sequence % 7) - 1;
      Prediction& prediction = predictions.emplace_back();
      prediction.ctr.yes = 0.125;
      prediction.cvr.yes = 0.5;
      prediction.ctcvr.yes = 0.0625;
      logits.insert(logits.end(), {logit, -logit});
    }
    const Status added = log.add({samples, predictions, logits, last, 0});
    ASSERT_TRUE(added) << added.error().message;
  }
  std::unique_ptr<PredictionsFile> open(std::uint64_t trained) {
    auto file = PredictionsFile::open(files_, path_, trained, columns_);
    EXPECT_TRUE(file) << file.error().message;
    return *std::move(file);
  }

  const std::vector<std::string> names_ = {"plain", "a,b",    "say \"hi\"", "two\nlines",
                                           "cr\r",  "\"\n\"", "7"};
  PredictionColumns columns_;
  TemporaryFolder folder_;
  const fs::path path_ = folder_.path() / "predictions.csv";
  const Objective objective_{recipe_of(ModelConfig()).value(), 0};  // of esmm
  RealFileSystem files_;
};

TEST_F(PredictionsFileTest, HasOneLineASample) {
  {
    const auto file = open(0);
    add(*file, 1, 4);
    ASSERT_TRUE(file->sync());
  }
  EXPECT_EQ(read_bytes(path_), std::string(kHeader) +
                                   "1,\"a,b\",0,1,0,1,0.125,0.5,0.0625\n"
                                   "2,\"say \"\"hi\"\"\",1,1,0,1,0.125,0.5,0.0625\n"
                                   "3,\"two\nlines\",0,1,0,0,0.125,0.5,0.0625\n"
                                   "4,\"cr\r\",1,1,1,1,0.125,0.5,0.0625\n");
}

TEST_F(PredictionsFileTest, HasValuesWhereTheyAreSummed) {
  columns_.value = true;
  for (const std::uint64_t trained : {0, 3}) {
    const auto file = open(trained);
    add(*file, trained + 1, 4);
    ASSERT_TRUE(file->sync());
    EXPECT_EQ(read_bytes(path_),
              "sequence,impression_id,y,y_final,z,z_final,pctr,pcvr,pctcvr,value\n"
              "1,\"a,b\",0,1,0,1,0.125,0.5,0.0625,0\n"
              "2,\"say \"\"hi\"\"\",1,1,0,1,0.125,0.5,0.0625,0\n"
              "3,\"two\nlines\",0,1,0,0,0.125,0.5,0.0625,0\n"
              "4,\"cr\r\",1,1,1,1,0.125,0.5,0.0625,19.99\n");
  }
}

TEST_F(PredictionsFileTest, HasActionsLastWhereThereAre) {
  columns_ = {.value = true, .action = true};
  for (const std::uint64_t trained : {0, 3}) {
    const auto file = open(trained);
    add(*file, trained + 1, 4);
    ASSERT_TRUE(file->sync());
    EXPECT_EQ(
        read_bytes(path_),
        "sequence,impression_id,y,y_final,z,z_final,pctr,pcvr,pctcvr,value,action,action_final\n"
        "1,\"a,b\",0,1,0,1,0.125,0.5,0.0625,0,0,0\n"
        "2,\"say \"\"hi\"\"\",1,1,0,1,0.125,0.5,0.0625,0,1,1\n"
        "3,\"two\nlines\",0,1,0,0,0.125,0.5,0.0625,0,0,1\n"
        "4,\"cr\r\",1,1,1,1,0.125,0.5,0.0625,19.99,1,0\n");
  }
}

TEST_F(PredictionsFileTest, GoesOnFromAnySequence) {
  {
    const auto file = open(0);
    add(*file, 1, 40);
    ASSERT_TRUE(file->sync());
  }
  const std::string whole = read_bytes(path_);
  for (const std::uint64_t trained : {0, 1, 5, 6, 7, 39, 40}) {
    // What lies behind may be cut anywhere, as a crash leaves it.
    for (const char* rest : {"", "41,\"never en", "41,x,0\n42"}) {
      std::ofstream(path_, std::ios::binary) << whole << rest;
      const auto file = open(trained);
      add(*file, trained + 1, 40);
      ASSERT_TRUE(file->sync());
      ASSERT_EQ(read_bytes(path_), whole) << trained;
    }
  }
}

TEST_F(PredictionsFileTest, AFileThatLacksLinesIsRefusedAndStays) {
  {
    const auto file = open(0);
    add(*file, 1, 3);
    ASSERT_TRUE(file->sync());
  }
  const std::string before = read_bytes(path_);
  auto file = PredictionsFile::open(files_, path_, 4, {});
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().kind, ErrorKind::usage);
  EXPECT_EQ(read_bytes(path_), before);
  file = PredictionsFile::open(files_, folder_.path() / "absent.csv", 1, {});
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().kind, ErrorKind::usage);
  EXPECT_FALSE(fs::exists(folder_.path() / "absent.csv"));
}

TEST_F(PredictionsFileTest, ANewFileIsInItsFolderForGood) {
  FailingFileSystem files;
  ASSERT_TRUE(PredictionsFile::open(files, path_, 0, {}));
  EXPECT_TRUE(files.synced_folders.contains(folder_.path().string()));
  files.synced_folders.clear();
  ASSERT_TRUE(ScoreLog::open(files, folder_.path() / "scores.bin", 0, 2));
  EXPECT_TRUE(files.synced_folders.contains(folder_.path().string()));
}

TEST_F(PredictionsFileTest, WhatCannotBeWrittenIsAnError) {
  FailingFileSystem files;
  auto file = PredictionsFile::open(files, path_, 0, {});
  ASSERT_TRUE(file);
  add(**file, 1, 2);
  files.fail_from(0);
  EXPECT_FALSE((*file)->sync());
}

// ---- the scores

TEST_F(PredictionsFileTest, ScoresGiveTheMetricsOfTheSecondHalf) {
  const fs::path path = folder_.path() / "scores.bin";
  for (const std::uint64_t samples : {40U, 41U}) {
    fs::remove(path);
    {
      auto log = ScoreLog::open(files_, path, 0, 2);
      ASSERT_TRUE(log);
      add(**log, 1, 25);
      ASSERT_TRUE((*log)->sync());
    }
    // A restart from a checkpoint at 20: the records behind it are made again.
    auto log = ScoreLog::open(files_, path, 20, 2);
    ASSERT_TRUE(log);
    add(**log, 21, samples);
    ASSERT_TRUE((*log)->sync());
    EXPECT_EQ(fs::file_size(path), 16 * samples);
    ProgressiveMetrics expected;
    for (std::uint64_t sequence = samples / 2 + 1; sequence <= samples; ++sequence) {
      const float logit = 0.25F * static_cast<float>(sequence % 7) - 1;
      expected.add({sequence % 2 == 0, true, sequence % 4 == 0, sequence % 3 != 0},
                   objective_.predict(std::array{logit, -logit}));
    }
    const auto metrics = second_half_metrics(files_, path, samples, objective_);
    ASSERT_TRUE(metrics);
    EXPECT_EQ(*metrics, expected.json());
    EXPECT_TRUE((*metrics)["ctcvr"]["auc"].is_number());
  }
}

TEST_F(PredictionsFileTest, ScoresThatAreNotWholeGiveNull) {
  const fs::path path = folder_.path() / "scores.bin";
  EXPECT_TRUE(second_half_metrics(files_, path, 0, objective_)->is_null());  // absent
  {
    auto log = ScoreLog::open(files_, path, 0, 2);
    ASSERT_TRUE(log);
    add(**log, 1, 5);
    ASSERT_TRUE((*log)->sync());
  }
  EXPECT_TRUE(second_half_metrics(files_, path, 6, objective_)->is_null());
  // Of a checkpoint at 6 a record is missing: nothing that is added later makes it whole again.
  auto log = ScoreLog::open(files_, path, 6, 2);
  ASSERT_TRUE(log);
  add(**log, 7, 9);
  ASSERT_TRUE((*log)->sync());
  EXPECT_EQ(fs::file_size(path), 5 * 16U);
  EXPECT_TRUE(second_half_metrics(files_, path, 9, objective_)->is_null());
}

}  // namespace
}  // namespace sluice
