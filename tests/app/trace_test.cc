// The counted batches are the learner's, and what is told of several clicks that count. What a
// trace says of whole replays is tested with them (tests/e2e/test_trace.py).
#include "app/trace.h"

#include <gtest/gtest.h>

#include "base/lanes.h"
#include "learner/trainer.h"
#include "tests/ingest/scripted_source.h"
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

// Logs of one partition, from lines by stream.
class ShortLogs {
 public:
  static constexpr TimeMs kStart = 1'700'000'000'000;

  void add(Stream stream, TimeMs time, const std::string& impression,
           const std::string& value = "") {
    std::vector<Record>& log = logs_[{stream, 0}];
    Record& record = log.emplace_back();
    record.position = log.size() - 1;
    record.next = log.size();
    record.bytes = "{\"ts\":" + std::to_string(kStart + time) +
                   ",\"user_id\":\"u\",\"item_id\":\"i\",\"impression_id\":\"" + impression + "\"" +
                   (value.empty() ? "" : ",\"value\":" + value) + "}";
  }
  Result<Trace> trace(const Config& config, const std::string& id) const {
    MemorySource source(1, logs_);
    ManualClock clock;
    return trace_impression(config, id, source, clock, {});
  }

 private:
  std::map<StreamPartition, std::vector<Record>> logs_;
};

std::string outcomes(const Trace& trace) {
  std::string text;
  for (const TracedRecord& record : trace.records) {
    const bool is_used = record.outcome == TracedRecord::Outcome::used;
    text += std::string(text.empty() ? "" : ", ") +
            kStreamNames[static_cast<std::size_t>(record.where.stream)] +
            (is_used ? " used" : " not used") +
            (record.used_for.empty() ? "" : " for " + record.used_for) +
            (record.is_replaced ? " until later" : "");
  }
  return text;
}

TEST(TraceTest, OfSeveralClicksThatCountTheLastIsTold) {
  ShortLogs logs;
  logs.add(Stream::impressions, 0, "a");
  logs.add(Stream::impressions, 30'000, "b");
  for (const TimeMs time : {10'000, 20'000, 40'000, 50'000}) {
    logs.add(Stream::clicks, time, time < 30'000 ? "a" : "b");
  }
  logs.add(Stream::purchases, 90'000, "a");
  logs.add(Stream::clicks, 95'000, "a");
  for (const Stream stream : {Stream::impressions, Stream::clicks, Stream::purchases}) {
    logs.add(stream, 10'000'000, "later");
  }
  Config config;
  config.join.click_window = 100'000;
  config.join.conversion_window = 80'000;
  config.join.attributed_click = JoinConfig::AttributedClick::last;
  const auto named = logs.trace(config, "a");
  ASSERT_TRUE(named.has_value()) << named.error().message;
  EXPECT_EQ(outcomes(*named),
            "impressions used, clicks used until later, clicks used, purchases used, "
            "clicks not used");
  ASSERT_EQ(named->impressions.size(), 1U);
  EXPECT_EQ(named->impressions[0].click_time, ShortLogs::kStart + 20'000);
  EXPECT_EQ(named->impressions[0].closes(config), ShortLogs::kStart + 100'000);

  // Those of another impression of the user and item are told apart.
  config.join.attribution = JoinConfig::Attribution::user_item;
  const auto shared = logs.trace(config, "a");
  ASSERT_TRUE(shared.has_value()) << shared.error().message;
  EXPECT_EQ(outcomes(*shared),
            "impressions used, clicks used until later, clicks used, "
            "clicks used for b until later, clicks used for b, purchases used for b, "
            "clicks not used");

  config.join.attributed_click = JoinConfig::AttributedClick::first;
  EXPECT_EQ(outcomes(*logs.trace(config, "a")),
            "impressions used, clicks used, clicks not used, clicks used for b, clicks not used, "
            "purchases used for b, clicks not used");
}

TEST(TraceTest, OfSeveralPurchasesTheFirstIsToldAndTheSum) {
  ShortLogs logs;
  logs.add(Stream::impressions, 0, "a");
  logs.add(Stream::clicks, 10'000, "a");
  logs.add(Stream::purchases, 20'000, "a", "19.99");
  logs.add(Stream::purchases, 30'000, "a", "5");
  logs.add(Stream::purchases, 40'000, "a", "\"7\"");
  logs.add(Stream::purchases, 90'000, "a", "9");  // the conversion window has closed
  for (const Stream stream : {Stream::impressions, Stream::clicks, Stream::purchases}) {
    logs.add(stream, 10'000'000, "later");
  }
  Config config;
  config.join.click_window = 100'000;
  config.join.conversion_window = 80'000;
  config.join.purchase_label = JoinConfig::PurchaseLabel::at_close;
  config.join.purchase_value = JoinConfig::PurchaseValue::sum;
  const auto trace = logs.trace(config, "a");
  ASSERT_TRUE(trace.has_value()) << trace.error().message;
  EXPECT_EQ(outcomes(*trace),
            "impressions used, clicks used, purchases used, purchases used, purchases used, "
            "purchases not used");
  ASSERT_EQ(trace->impressions.size(), 1U);
  EXPECT_EQ(trace->impressions[0].purchase_time, ShortLogs::kStart + 20'000);
  EXPECT_EQ(trace->impressions[0].value, 24'990'000);
  ASSERT_EQ(trace->impressions[0].samples.size(), 1U);
  EXPECT_EQ(trace->impressions[0].samples[0].sample.value, 24'990'000);
  EXPECT_EQ(trace->records[3].value, 5'000'000);
  EXPECT_EQ(trace->records[4].value, std::nullopt);

  config.join.purchase_value = JoinConfig::PurchaseValue::none;
  const auto without = logs.trace(config, "a");
  EXPECT_EQ(outcomes(*without),
            "impressions used, clicks used, purchases used, purchases not used, "
            "purchases not used, purchases not used");
  EXPECT_EQ(without->impressions[0].samples[0].sample.value, 0);
}

TEST(TraceTest, AnActionIsToldWithItsLabel) {
  ShortLogs logs;
  logs.add(Stream::impressions, 0, "a");
  logs.add(Stream::clicks, 10'000, "a");
  logs.add(Stream::actions, 20'000, "a");
  logs.add(Stream::actions, 30'000, "a");
  logs.add(Stream::purchases, 120'000, "a");
  for (std::size_t stream = 0; stream < kStreams; ++stream) {
    logs.add(static_cast<Stream>(stream), 10'000'000, "later");
  }
  Config config;
  config.join.click_window = 15'000;
  config.join.conversion_window = 150'000;
  config.join.action_window = 500'000;
  config.streams.topic[3] = "actions";
  const auto trace = logs.trace(config, "a");
  ASSERT_TRUE(trace.has_value()) << trace.error().message;
  EXPECT_EQ(outcomes(*trace),
            "impressions used, clicks used, actions used, actions not used, purchases used");
  ASSERT_EQ(trace->impressions.size(), 1U);
  const TracedImpression& impression = trace->impressions[0];
  EXPECT_EQ(impression.action_time, ShortLogs::kStart + 20'000);
  EXPECT_EQ(impression.purchase_time, ShortLogs::kStart + 120'000);
  EXPECT_EQ(impression.action_window_end(config), ShortLogs::kStart + 510'000);
  EXPECT_EQ(impression.closes(config), ShortLogs::kStart + 510'000);
  ASSERT_EQ(impression.samples.size(), 3U);
  EXPECT_TRUE(impression.samples[1].sample.action_final && impression.samples[1].sample.action);
  EXPECT_TRUE(impression.samples[2].sample.z_final && impression.samples[2].sample.z);
}

}  // namespace
}  // namespace sluice
