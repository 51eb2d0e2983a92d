// The Expedia logs through the file source and the join, against the oracle and the counts that
// are known of them.
#include <filesystem>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "ingest/features.h"
#include "oracle.h"
#include "stages.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = fs::path(SLUICE_SOURCE_DIR) / ".." / "shared" / "data" / "expedia";

// The logs' own windows; three features, one of each kind.
Config expedia_config() {
  Config config;
  config.source.root = kRoot.string();
  config.join.click_window = 30 * 60'000;
  config.join.conversion_window = 24 * 3'600'000;
  config.features = {
      {"cheaper_at", "features.cheaper_at", FeatureConfig::Type::ids, "cheaper_at", 0, {}},
      {"price_usd", "features.item.price_usd", FeatureConfig::Type::number, "price_usd", 8, {}},
      {"site", "features.user.site", FeatureConfig::Type::id, "site", 0, {}}};
  return config;
}

// By another JSON parser than the decoder's.
OracleRecord parse(Stream stream, const Record& record) {
  const auto json = nlohmann::json::parse(record.bytes);
  OracleRecord fact;
  fact.position = record.position;
  fact.time = json.at("ts").get<TimeMs>();
  fact.event_id = json.at("event_id").get<std::string>();
  fact.impression_id = json.at("impression_id").get<std::string>();
  fact.user_id = json.at("user_id").get<std::string>();
  fact.item_id = json.at("item_id").get<std::string>();
  if (stream != Stream::impressions) return fact;
  FeatureWriter features(fact.features);
  const auto& values = json.at("features");
  if (values.contains("cheaper_at")) {
    features.list(values["cheaper_at"].size());
    for (const auto& place : values["cheaper_at"]) features.id(place.get<std::int64_t>());
  } else {
    features.absent();
  }
  features.number(values.at("item").at("price_usd").get<double>());
  features.id(values.at("user").at("site").get<std::int64_t>());
  return fact;
}

class Expedia : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(kRoot)) GTEST_SKIP() << "no Expedia logs at " << kRoot;
  }

  // Runs the stages over the logs in the given rhythm.
  void run(const Rhythm& rhythm) {
    auto source = open_file_source(config_);
    ASSERT_TRUE(source.has_value());
    Decoder decoder(config_.streams, config_.join, config_.features);
    Stages stages(config_, **source, decoder, *store_, rhythm);
    samples_ = stages.run([](const Stages&, const std::vector<Sample>&) {});
    counters_ = stages.join().committed().counters;
    digest_ = stages.join().committed().samples_digest;
    EXPECT_EQ(stages.join().open_impressions(), 0u);
  }

  OracleResult expected() {
    auto source = open_file_source(config_);
    EXPECT_TRUE(source.has_value());
    const auto partitions = (*source)->partitions();
    EXPECT_EQ(partitions.value(), 4u);
    return expected_join(read_facts(**source, *partitions, parse), *partitions, config_.streams,
                         config_.join);
  }

  Config config_ = expedia_config();
  std::unique_ptr<KeyValueStore> store_ = make_memory_store();
  std::vector<Sample> samples_;
  JoinCounters counters_;
  Digest digest_;
};

TEST_F(Expedia, EverySampleEqualsTheOracles) {
  run({});
  const OracleResult oracle = expected();
  EXPECT_EQ(difference(samples_, oracle.samples), "");
  EXPECT_EQ(difference(counters_, oracle), "");
  EXPECT_EQ(oracle.refusals.size(), 0u);
  EXPECT_EQ(count_keys(*store_, Space::dead_letters), 0u);
  EXPECT_EQ(counters_.labelled_impressions, 25'149u);
  EXPECT_EQ(counters_.clicked, 1'110u);
  EXPECT_EQ(counters_.converted, 673u);
  EXPECT_EQ(counters_.used, (std::array<std::uint64_t, kStreams>{25'149, 1'110, 673, 0}));
  EXPECT_EQ(count_keys(*store_, Space::state), 0u);
}

TEST_F(Expedia, AnotherRhythmWithCrashesGivesTheSameDigest) {
  run({});
  const Digest straight = digest_;
  const std::size_t count = samples_.size();
  for (const std::uint64_t seed : {1, 2, 3}) {
    store_ = make_memory_store();
    run({seed, 700, 4, 12, true, true, false});
    EXPECT_EQ(digest_.hex(), straight.hex()) << "seed " << seed;
    EXPECT_EQ(samples_.size(), count);
  }
}

}  // namespace
}  // namespace sluice
