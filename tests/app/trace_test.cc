// The counted batches are the learner's. What a trace says of whole replays is tested with them
// (tests/e2e/test_trace.py).
#include "app/trace.h"

#include <gtest/gtest.h>

#include "base/lanes.h"
#include "learner/trainer.h"
#include "tests/joiner/stages.h"

namespace sluice {
namespace {

struct Batch {
  std::uint64_t from, to;
  friend bool operator==(const Batch&, const Batch&) = default;
};

// Random samples: now many in a tick, now long silence.
std::vector<Sample> random_samples(TestRandom& random, std::size_t count) {
  std::vector<Sample> samples;
  TimeMs time = 1'700'000'000'000;
  for (std::size_t n = 1; n <= count; ++n) {
    if (random.one_in(3)) time += static_cast<TimeMs>(random.below(4'000));
    if (random.one_in(50)) time += 60'000;
    Sample& sample = samples.emplace_back();
    sample.sequence = n;
    sample.time = time;
    sample.impression_time = time - 1'000;
    sample.impression_id = std::to_string(n);
    sample.y_final = sample.z_final = true;
    sample.features = std::string(1, '\0');  // the one feature is absent
  }
  return samples;
}

TEST(TraceTest, BatchesAreCutAsTheLearnerCutsThem) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    TestRandom random(seed);
    Config config;
    FeatureConfig feature;
    feature.name = feature.table = "a";
    feature.path = "features.a";
    config.features = {feature};
    config.model.hidden = {2};
    config.model.embedding_dim = 2;
    config.training.batch_size = 1 + random.below(40);
    if (random.one_in(2)) config.training.batch_span = 1'000 * (1 + random.below(20));
    Workers workers(1);
    Trainer trainer(config, workers);
    std::vector<Batch> expected;
    trainer.set_listener([&](const TrainedBatch& batch) -> Status {
      expected.push_back({batch.samples.front().sequence, batch.last_sequence});
      return {};
    });
    BatchCounter counter(config.training, config.join.tick);
    std::vector<Batch> counted;
    const auto note = [&](const TracedBatch& batch) {
      EXPECT_TRUE(batch.is_complete);
      counted.push_back({batch.from, batch.to});
      EXPECT_EQ(batch.number, counted.size());
    };
    const std::vector<Sample> samples = random_samples(random, 300);
    for (const Sample& sample : samples) {
      ASSERT_TRUE(trainer.offer(sample));
      counter.offer(sample, note);
      ASSERT_EQ(counted, expected);
      if (random.one_in(4)) {
        const TimeMs frontier = floor_to(sample.time, config.join.tick);
        ASSERT_TRUE(trainer.pass(frontier));
        counter.pass(frontier, false, note);
        ASSERT_EQ(counted, expected);
      }
    }
    ASSERT_TRUE(trainer.finish());
    counter.pass(kTimeMax, true, note);
    ASSERT_EQ(counted, expected);
    ASSERT_EQ(expected.back().to, 300U);
  }
}

}  // namespace
}  // namespace sluice
