#include "learner/batch.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "learner/trainer.h"
#include "tests/learner/test_data.h"

namespace sluice {
namespace {

using testing::SampleStream;
using testing::small_config;

// What the rule says, written down as one loop over all samples.
std::vector<std::size_t> expected_sizes(const std::vector<Sample>& samples, const Config& config) {
  std::vector<std::size_t> sizes;
  TimeMs first_tick = 0;
  for (const Sample& sample : samples) {
    const TimeMs tick = floor_to(sample.time, config.join.tick);
    const bool full = !sizes.empty() && sizes.back() == config.training.batch_size;
    const bool spanned =
        config.training.batch_span && tick - first_tick >= *config.training.batch_span;
    if (sizes.empty() || full || spanned) {
      sizes.push_back(0);
      first_tick = tick;
    }
    ++sizes.back();
  }
  return sizes;
}

RC_GTEST_PROP(BatchCutProperty, DependsOnTheSamplesAlone, ()) {
  Config config = small_config();
  config.model.hidden = {2};
  config.training.batch_size = *rc::gen::inRange<std::uint64_t>(1, 12);
  config.join.tick = *rc::gen::element<DurationMs>(1, 250, 1'000, 7'000);
  if (*rc::gen::arbitrary<bool>()) {
    config.training.batch_span = config.join.tick * *rc::gen::inRange(1, 8);
  }
  const auto samples = SampleStream(config, *rc::gen::arbitrary<std::uint32_t>()).take(60);
  Workers workers(1);
  Trainer trainer(config, workers);
  std::vector<std::size_t> sizes;
  trainer.set_listener([&](const TrainedBatch& batch) {
    sizes.push_back(batch.samples.size());
    RC_ASSERT(batch.samples.size() == batch.predictions.size());
    RC_ASSERT(batch.samples.back().sequence == batch.last_sequence);
    RC_ASSERT(batch.last_sequence == trainer.trained_sequence());
    RC_ASSERT(batch.tick == floor_to(batch.samples.back().time, config.join.tick));
    RC_ASSERT(trainer.next_sequence() == batch.last_sequence + 1);
    return Status();
  });
  for (const Sample& sample : samples) {
    // Wherever event time is announced, the cut is the same.
    if (*rc::gen::arbitrary<bool>()) {
      RC_ASSERT(trainer.pass(floor_to(sample.time, config.join.tick)).has_value());
    }
    RC_ASSERT(trainer.offer(sample).has_value());
  }
  RC_ASSERT(trainer.finish().has_value());
  RC_ASSERT(sizes == expected_sizes(samples, config));
}

TEST(Trainer, PassTrainsABatchThatNoSampleCanJoin) {
  Config config = small_config();
  config.join.tick = 1'000;
  config.training.batch_span = 3'000;
  Workers workers(1);
  Trainer trainer(config, workers);
  std::vector<Sample> samples = SampleStream(config, 1).take(2);
  samples[0].time = 10'999;  // tick 10,000
  samples[1].time = 12'500;
  ASSERT_TRUE(trainer.offer(samples[0]).has_value());
  ASSERT_TRUE(trainer.offer(samples[1]).has_value());
  ASSERT_TRUE(trainer.pass(12'999).has_value());
  EXPECT_EQ(trainer.trained_sequence(), 0U);
  ASSERT_TRUE(trainer.pass(13'000).has_value());
  EXPECT_EQ(trainer.trained_sequence(), 2U);
  ASSERT_TRUE(trainer.pass(kTimeMax).has_value());
  EXPECT_EQ(trainer.trained_sequence(), 2U);
}

TEST(Trainer, WithoutASpanOnlyFinishTrainsAPartialBatch) {
  const Config config = small_config();
  Workers workers(1);
  Trainer trainer(config, workers);
  ASSERT_TRUE(trainer.offer(SampleStream(config, 1).next()).has_value());
  ASSERT_TRUE(trainer.pass(kTimeMax).has_value());
  EXPECT_EQ(trainer.trained_sequence(), 0U);
  ASSERT_TRUE(trainer.finish().has_value());
  EXPECT_EQ(trainer.trained_sequence(), 1U);
  ASSERT_TRUE(trainer.finish().has_value());
  EXPECT_EQ(trainer.trained_sequence(), 1U);
}

// Of the second of two sets. Rows that no sample reaches are only looked up.
RC_GTEST_PROP(BatchRowsProperty, UsesAreThoseOfEachRowInTermOrder, ()) {
  using Name = std::pair<std::uint16_t, std::uint64_t>;  // table and key
  std::vector<EmbeddingTable> tables;
  tables.emplace_back("t", RowLayout{2, {{"m"}, {"v"}}}, 1);
  tables.emplace_back("u", RowLayout{2, {{"m"}, {"v"}}}, 1);
  std::vector<TableChanges> changes = {TableChanges(tables[0]), TableChanges(tables[1])};
  std::array<BatchRows, EmbeddingTable::kParts> parts;
  GatherScratch scratch;
  std::uint32_t at = 0;
  std::set<Name> there;
  for (std::uint64_t step = 1; step <= 3; ++step) {
    std::vector<DecodedSamples> lanes(*rc::gen::inRange<std::size_t>(1, 4));
    std::map<Name, std::vector<std::pair<std::uint32_t, float>>> wanted;
    std::vector<DecodedSamples*> decoded;
    for (DecodedSamples& lane : lanes) {
      lane.terms.resize(2);
      decoded.push_back(&lane);
      for (const std::uint64_t key : *rc::gen::container<std::vector<std::uint64_t>>(
               rc::gen::inRange<std::uint64_t>(0, 40))) {
        const std::uint16_t table = *rc::gen::inRange<std::uint16_t>(0, 2);
        ++at;
        const float weight = static_cast<float>(at) / 2;
        lane.reached = *rc::gen::inRange<std::uint16_t>(0, 4);  // a bit for each set
        lane.add(key, table, at, weight);
        if ((lane.reached & 2) != 0) wanted[{table, key}].emplace_back(at, weight);
      }
      lane.copy_terms();
    }
    for (std::size_t p = 0; p < parts.size(); ++p) {
      parts[p].gather(1, tables, changes, p, decoded, step, scratch);
    }
    for (const auto& [name, uses] : wanted) there.insert(name);
    for (const DecodedSamples& lane : lanes) {
      for (const auto& keys : lane.keys) {
        for (const DecodedSamples::Key& key : keys) {
          std::array<float, 2> weights = {};
          tables[key.table].initial(key.key, weights);
          const EmbeddingRow* const row = tables[key.table].find(key.key);
          RC_ASSERT((row != nullptr) == there.contains({key.table, key.key}));
          if (row != nullptr) std::copy_n(row->values(), 2, weights.begin());
          const float* const copy = lane.terms[1][key.term].row;
          RC_ASSERT(std::equal(copy, copy + 2, weights.begin()));
        }
      }
    }
    std::map<Name, std::vector<std::pair<std::uint32_t, float>>> found;
    for (const BatchRows& rows : parts) {
      for (std::size_t n = 0; n < rows.size(); ++n) {
        RC_ASSERT((rows.row(n) == nullptr) == rows.uses(n).empty());
        if (rows.row(n) == nullptr) continue;
        RC_ASSERT(rows.row(n)->last_batch == step);
        rows.row(n)->values()[0] += 1;  // as training changes it
        const auto table =
            static_cast<std::uint16_t>(tables[0].find(rows.row(n)->key) == rows.row(n) ? 0 : 1);
        auto& uses = found[{table, rows.row(n)->key}];
        RC_ASSERT(uses.empty());
        for (const RowUse& use : rows.uses(n)) uses.emplace_back(use.at, use.weight);
      }
    }
    RC_ASSERT(found == wanted);
  }
}

RC_GTEST_PROP(BatchContextsProperty, AreTheDistinctOnesByFirstUse, ()) {
  BatchContexts contexts;
  for (int batch = 0; batch < 3; ++batch) {
    std::vector<Digest> digests;
    std::vector<std::uint32_t> of_sample;
    std::vector<Digest> distinct;
    for (const auto n :
         *rc::gen::container<std::vector<std::uint64_t>>(rc::gen::inRange<std::uint64_t>(0, 12))) {
      digests.push_back({n % 3, n / 3});  // digests that collide in one half
      const auto found = std::find(distinct.begin(), distinct.end(), digests.back());
      of_sample.push_back(static_cast<std::uint32_t>(found - distinct.begin()));
      if (found == distinct.end()) distinct.push_back(digests.back());
    }
    contexts.assign(digests);
    RC_ASSERT(contexts.size() == distinct.size());
    RC_ASSERT(std::equal(of_sample.begin(), of_sample.end(), contexts.of_sample().begin(),
                         contexts.of_sample().end()));
    for (std::uint32_t c = 0; c < contexts.size(); ++c) {
      RC_ASSERT(digests[contexts.first_sample(c)] == distinct[c]);
      std::vector<std::uint32_t> wanted;
      for (std::uint32_t s = 0; s < of_sample.size(); ++s) {
        if (of_sample[s] == c) wanted.push_back(s);
      }
      const auto its = contexts.samples().subspan(contexts.begins()[c],
                                                  contexts.begins()[c + 1] - contexts.begins()[c]);
      RC_ASSERT(std::equal(wanted.begin(), wanted.end(), its.begin(), its.end()));
      RC_ASSERT(contexts.first_sample(c) == wanted.front());
    }
  }
}

}  // namespace
}  // namespace sluice
