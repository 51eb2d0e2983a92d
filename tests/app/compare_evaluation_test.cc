// What a comparison keeps of the samples, and how it puts users, truth and scores together.
#include "app/compare_evaluation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "app/compare_facts.h"
#include "base/hash.h"
#include "tests/learner/test_data.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

std::vector<Sample> make_samples(std::uint64_t count) {
  std::vector<Sample> samples(count);
  for (std::uint64_t index = 0; index < count; ++index) {
    Sample& sample = samples[index];
    sample.sequence = index + 1;
    sample.time = 1'000 + static_cast<TimeMs>(index) * 7;
    sample.impression_id = "i" + std::to_string(index);
    sample.user_id = index % 11 == 3 ? "" : "u" + std::to_string(mix64(index) % 13);
  }
  return samples;
}

std::vector<SampleFacts> expected_facts(const std::vector<Sample>& samples) {
  std::vector<SampleFacts> facts;
  for (const Sample& sample : samples) facts.push_back(facts_of(sample));
  return facts;
}

class CompareEvaluationTest : public ::testing::Test {
 protected:
  std::unique_ptr<FactsLog> open(std::uint64_t trained) {
    auto log = FactsLog::open(files_, facts_, trained);
    EXPECT_TRUE(log) << log.error().message;
    return *std::move(log);
  }
  void add(FactsLog& log, std::span<const Sample> samples) {
    const Status added = log.add(samples);
    ASSERT_TRUE(added) << added.error().message;
    ASSERT_TRUE(log.sync());
  }
  std::vector<SampleFacts> read(std::uint64_t samples) {
    std::vector<SampleFacts> facts;
    const Status done =
        read_facts(files_, facts_, samples, [&](const SampleFacts& f) { facts.push_back(f); });
    EXPECT_TRUE(done) << done.error().message;
    return facts;
  }
  Result<TruthTable> truth(const std::string& text) {
    fs::create_directories(folder_.path() / "truth");
    std::ofstream(folder_.path() / "truth" / "00000.csv") << text;
    return TruthTable::load(files_, folder_.path() / "truth");
  }

  TemporaryFolder folder_;
  const fs::path facts_ = folder_.path() / "compared.bin";
  RealFileSystem files_;
};

TEST_F(CompareEvaluationTest, FactsAreThoseOfTheSamples) {
  const auto samples = make_samples(100);
  add(*open(0), samples);
  EXPECT_EQ(read(100), expected_facts(samples));
  EXPECT_EQ(facts_of(samples[3]).user, facts_of(samples[3]).impression);  // no user id
}

TEST_F(CompareEvaluationTest, FactsGoOnFromAnySequenceWhateverLiesBehind) {
  const auto samples = make_samples(60);
  const std::span<const Sample> all = samples;
  add(*open(0), samples);
  for (const std::uint64_t trained : {0, 1, 30, 59, 60}) {
    for (const std::size_t torn : {0, 1, 23, 24, 25}) {
      std::ofstream(facts_, std::ios::app | std::ios::binary) << std::string(torn, 'x');
      const auto log = open(trained);
      EXPECT_EQ(log->next_sequence(), trained + 1);
      // What the models read again begins anywhere before it.
      add(*log, all.subspan(trained / 2));
      EXPECT_EQ(read(60), expected_facts(samples)) << trained << " " << torn;
    }
  }
}

TEST_F(CompareEvaluationTest, FactsThatAreMissingAreAskedForOrAnError) {
  const auto samples = make_samples(10);
  add(*open(0), samples);
  EXPECT_EQ(open(50)->next_sequence(), 11U);
  const Status missing = read_facts(files_, facts_, 11, [](const SampleFacts&) {});
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().message, HasSubstr("10 records for 11 samples"));
}

TEST_F(CompareEvaluationTest, TruthIsFoundByImpression) {
  const auto table = truth("impression_id,pctr,pcvr\n7,0.25,0.5\na,b,0.125,1\nlast,0,0.75");
  ASSERT_TRUE(table) << table.error().message;
  EXPECT_EQ(table->size(), 3U);
  ASSERT_NE(table->find(hash64("7")), nullptr);
  EXPECT_EQ(table->find(hash64("7"))->pctr, 0.25F);
  EXPECT_EQ(table->find(hash64("a,b"))->pctr, 0.125F);
  EXPECT_EQ(table->find(hash64("last"))->pcvr, 0.75F);
  EXPECT_EQ(table->find(hash64("8")), nullptr);
}

TEST_F(CompareEvaluationTest, TruthMayHaveFurtherColumns) {
  const auto table = truth("impression_id,pctr,pcvr,paction,more\na,b,0.25,0.5,0.125,x\n");
  ASSERT_TRUE(table) << table.error().message;
  ASSERT_NE(table->find(hash64("a,b")), nullptr);
  EXPECT_EQ(table->find(hash64("a,b"))->pctr, 0.25F);
  EXPECT_EQ(table->find(hash64("a,b"))->pcvr, 0.5F);
  EXPECT_FALSE(truth("impression_id,pctr,pcvr,paction\n0.25,0.5\n"));
  EXPECT_FALSE(truth("impression_id,pctr,pcvrs\n7,0.25,0.5\n"));
}

TEST_F(CompareEvaluationTest, WhatIsNoTruthIsRefusedByLine) {
  const std::string header = "impression_id,pctr,pcvr\n";
  for (const auto& [text, line] :
       std::map<std::string, std::string>{{"id,pctr,pcvr\n", ":1:"},
                                          {header + "7,0.5\n", ":2:"},
                                          {header + "7,0.5,0.5\n8,1.5,0\n", ":3:"},
                                          {header + "7,0.5,x\n", ":2:"},
                                          {header + "7,nan,0.5\n", ":2:"}}) {
    const auto table = truth(text);
    ASSERT_FALSE(table) << text;
    EXPECT_THAT(table.error().message, HasSubstr(line)) << text;
  }
  EXPECT_FALSE(truth(header));
  EXPECT_FALSE(TruthTable::load(files_, folder_.path() / "none"));
}

TEST_F(CompareEvaluationTest, JudgesARangeAndEverySliceAsIfTheyWereAlone) {
  constexpr std::uint64_t kCount = 173;  // not a multiple of the slices
  const auto samples = make_samples(kCount);
  add(*open(0), samples);
  const auto labels = [](std::uint64_t i) {
    const bool y = mix64(i + 900) % 3 == 0;
    return FinalLabels{y, true, y && mix64(i + 5) % 2 == 0, true};
  };
  const auto prediction = [](std::uint64_t i) {
    const auto logit = [](std::uint64_t x) { return static_cast<float>(mix64(x) % 9) / 2 - 2; };
    return testing::esmm_prediction(logit(i), logit(i + 77));
  };
  const ReadScores read_scores = [&](const ScoreVisitor& visit) -> Result<bool> {
    for (std::uint64_t i = 0; i < kCount; ++i) visit(labels(i), prediction(i));
    return true;
  };
  const auto compared = ComparedSamples::load(files_, facts_, kCount, 0.4, nullptr);
  ASSERT_TRUE(compared);
  EXPECT_EQ(compared->begin(), 69U);
  EXPECT_EQ(compared->begin_time(), samples[69].time);
  EXPECT_EQ(compared->end_time(), samples.back().time);
  Workers one(1);
  Workers three(3);
  const auto verdict = judge_model(*compared, read_scores, 20, one);
  ASSERT_TRUE(verdict);
  const auto again = judge_model(*compared, read_scores, 20, three);
  ASSERT_TRUE(again);

  const auto same = [](const Metrics& a, const Metrics& b) {
    for (std::size_t i = 0; i < kMetrics; ++i) {
      if (!(a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i])))) return false;
    }
    return true;
  };
  const auto alone = [&](std::uint64_t begin, std::uint64_t end, bool with_users) {
    std::map<std::uint64_t, std::uint32_t> numbers;
    ModelJudge judge(with_users ? kCount : 0);
    for (std::uint64_t i = begin; i < end; ++i) {
      const auto next = static_cast<std::uint32_t>(numbers.size());
      const std::uint32_t user = numbers.emplace(facts_of(samples[i]).user, next).first->second;
      judge.add(user, labels(i), prediction(i), nullptr);
    }
    judge.end();
    return judge.metrics();
  };
  EXPECT_TRUE(same(verdict->metrics, alone(69, kCount, true)));
  ASSERT_EQ(verdict->slices.size(), kSlices);
  std::uint64_t begin = 0;
  for (std::size_t slice = 0; slice < kSlices; ++slice) {
    const std::uint64_t end = compared->slices()[slice].end;
    EXPECT_TRUE(end - begin == 3 || end - begin == 4);
    EXPECT_EQ(compared->slices()[slice].time, samples[end - 1].time);
    EXPECT_TRUE(same(verdict->slices[slice], alone(begin, end, false))) << slice;
    begin = end;
  }
  EXPECT_EQ(begin, kCount);
  ASSERT_EQ(verdict->replicas.size(), 20U);
  for (std::size_t r = 0; r < 20; ++r) {
    EXPECT_TRUE(same(verdict->replicas[r], again->replicas[r])) << r;
  }
  EXPECT_FALSE(same(verdict->replicas[0], verdict->replicas[1]));
}

TEST_F(CompareEvaluationTest, ScoresThatAreNotAllThereAreAnError) {
  add(*open(0), make_samples(3));
  const auto compared = ComparedSamples::load(files_, facts_, 3, 0, nullptr);
  ASSERT_TRUE(compared);
  Workers workers(1);
  const auto verdict = judge_model(
      *compared, [](const ScoreVisitor&) -> Result<bool> { return false; }, 8, workers);
  ASSERT_FALSE(verdict);
  EXPECT_THAT(verdict.error().message, HasSubstr("scores.bin"));
}

TEST_F(CompareEvaluationTest, NothingAtAllIsUndefinedEverywhere) {
  add(*open(0), {});
  const auto compared = ComparedSamples::load(files_, facts_, 0, 0.5, nullptr);
  ASSERT_TRUE(compared);
  Workers workers(1);
  const auto verdict = judge_model(
      *compared, [](const ScoreVisitor&) -> Result<bool> { return true; }, 8, workers);
  ASSERT_TRUE(verdict);
  for (const double value : verdict->metrics) EXPECT_TRUE(std::isnan(value));
}

}  // namespace
}  // namespace sluice
