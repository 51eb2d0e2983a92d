// Which keys are semantic, and that the two hashes follow them and nothing else.
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/load.h"
#include "config/schema.h"
#include "tests/config/sample_configs.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Key;
using ::testing::Not;
using ::testing::Pair;

// The two kinds as docs/design.md has them, said without the list of keys.
KeyGroup expected_group(const std::string& key) {
  const auto begins = [&](const char* prefix) { return key.starts_with(prefix); };
  if (key == "snapshots.every" || key == "snapshots.full_every") return KeyGroup::learner;
  if (key == "training.threads" || key.ends_with(".topic")) return KeyGroup::operational;
  if (key == "training.lane" || begins("model.max_")) return KeyGroup::operational;
  if (begins("streams.") || begins("join.")) return KeyGroup::join;
  if (begins("features") || begins("model.") || begins("training.")) return KeyGroup::learner;
  return KeyGroup::operational;
}

// Another valid value for a key that has one.
std::string other_value(const sluice::Key<Config>& key, const Config& config) {
  const std::string now = key.get(config);
  const auto choose = [&](const char* a, const char* b) { return now == a ? b : a; };
  switch (key.type) {
    case ValueType::text:
      if (!key.words.empty()) return toml_text(key.words.front());
      return choose("\"other\"", "\"another\"");
    case ValueType::choice:
      return toml_text(now == toml_text(key.words.front()) ? key.words.back() : key.words.front());
    case ValueType::duration:
      return choose("\"7 min\"", "\"9 min\"");
    case ValueType::size:
      return choose("\"5 MiB\"", "\"7 MiB\"");
    case ValueType::count:
      return choose("5", "7");
    case ValueType::real:
      return choose("0.25", "0.5");
    case ValueType::time:
      return choose("\"2013-06-30T00:00:00Z\"", "\"2014-06-30T00:00:00Z\"");
    case ValueType::counts:
      return choose("[5]", "[7]");
    case ValueType::ranges:
      return choose("\"1..7\"", "\"2..9\"");
    default:
      return "";
  }
}

void expect_change(const std::string& name, KeyGroup group, const Config& from, const Config& to) {
  EXPECT_FALSE(from == to) << name;
  for (const KeyGroup hashed : {KeyGroup::join, KeyGroup::learner}) {
    EXPECT_EQ(semantic_hash(from, hashed) != semantic_hash(to, hashed), hashed == group) << name;
    EXPECT_EQ(semantic_keys(from, hashed) != semantic_keys(to, hashed), hashed == group) << name;
  }
}

class Semantic : public ::testing::Test {
 protected:
  const Config config_ = parse_config(kExpediaToml, "expedia.toml", "/shop", {}).config;
};

TEST_F(Semantic, AHashChangesWithEachKeyOfItsGroupAndWithNoOther) {
  // Keys of which this version allows one value only.
  const std::map<std::string, std::function<void(Config&)>> single = {
      {"model.recipe", [](Config& c) { c.model.recipe = "base"; }},
      {"snapshots.full_every", [](Config& c) { c.snapshots.full_every = 2; }},
  };
  for (const sluice::Key<Config>& key : config_keys()) {
    EXPECT_EQ(key.group, expected_group(key.name)) << key.name;
    if (key.type == ValueType::table) continue;  // their entries have tests of their own
    Config before = config_;
    if (key.is_of_actions || key.name == "streams.actions.topic") {
      before.streams.topic[3] = "actions";
    }
    Config changed = before;
    if (const auto change = single.find(key.name); change != single.end()) {
      change->second(changed);
    } else {
      const TomlNode value = parse_override_value(other_value(key, before));
      ASSERT_TRUE(key.set(changed, value)) << key.name;
    }
    expect_change(key.name, expected_group(key.name), before, changed);
  }
}

TEST_F(Semantic, EachPartOfAFeatureCounts) {
  const auto change = [&](const std::function<void(FeatureConfig&)>& edit) {
    Config changed = config_;
    for (FeatureConfig& feature : changed.features) {
      if (feature.name == "price_usd") edit(feature);
    }
    expect_change("features.price_usd", KeyGroup::learner, config_, changed);
    const auto keys = semantic_keys(changed, KeyGroup::learner);
    for (const auto& [key, value] : semantic_keys(config_, KeyGroup::learner)) {
      EXPECT_EQ(keys.at(key) != value, key == "features.price_usd") << key;
    }
  };
  change([](FeatureConfig& feature) { feature.path = "features.price"; });
  change([](FeatureConfig& feature) { feature.type = FeatureConfig::Type::id; });
  change([](FeatureConfig& feature) { feature.table = "price"; });
  change([](FeatureConfig& feature) { feature.group = "context"; });
  change([](FeatureConfig& feature) { feature.log_buckets = 9; });
  change([](FeatureConfig& feature) {
    feature.log_buckets = 0;
    feature.edges = {1, 2};
  });
  Config fewer = config_;
  fewer.features.pop_back();
  expect_change("features", KeyGroup::learner, config_, fewer);
}

TEST_F(Semantic, PropertiesAreOperational) {
  Config changed = config_;
  changed.source.properties["client.id"] = "x";
  expect_change("source.properties", KeyGroup::operational, config_, changed);
}

TEST_F(Semantic, HowAValueIsWrittenDoesNotCount) {
  const Config same = parse_config(kExpediaToml, "other.toml", "/elsewhere",
                                   {"join.click_window=1800 s", "join.conversion_window=1 d",
                                    "model.name=model", "training.dense.learning_rate=0.001",
                                    "streams.clicks.max_out_of_orderness=10 s"})
                          .config;
  for (const KeyGroup group : {KeyGroup::join, KeyGroup::learner}) {
    EXPECT_EQ(semantic_keys(same, group), semantic_keys(config_, group));
    EXPECT_EQ(semantic_hash(same, group), semantic_hash(config_, group));
  }
}

TEST_F(Semantic, KeysAreCanonicalToml) {
  const auto join = semantic_keys(config_, KeyGroup::join);
  EXPECT_THAT(join, Contains(Pair("join.click_window", "\"30 min\"")));
  EXPECT_THAT(join, Contains(Pair("streams.purchases.max_out_of_orderness", "\"10 s\"")));
  EXPECT_THAT(join, Not(Contains(Key("streams.max_out_of_orderness"))));
  EXPECT_THAT(join, Not(Contains(Key("streams.purchases.topic"))));
  const auto learner = semantic_keys(config_, KeyGroup::learner);
  EXPECT_THAT(learner, Contains(Pair("features.price_usd",
                                     "{ path = \"features.item.price_usd\", type = \"number\", "
                                     "buckets = \"log:8\", table = \"price_usd\" }")));
  EXPECT_THAT(learner, Contains(Pair("training.embeddings.learning_rate", "0.003")));
  EXPECT_THAT(learner, Contains(Pair("model.hidden", "[360, 200, 80]")));
}

// Data folders were begun before there was such a key, and do what its default says.
TEST_F(Semantic, AYoungerKeyIsKeptOnlyWhereItIsNotAtItsDefault) {
  Config changed = config_;
  EXPECT_THAT(semantic_keys(changed, KeyGroup::join), Not(Contains(Key("join.attributed_click"))));
  changed.join.attributed_click = JoinConfig::AttributedClick::last;
  EXPECT_THAT(semantic_keys(changed, KeyGroup::join),
              Contains(Pair("join.attributed_click", "\"last\"")));
  for (const char* key : {"join.purchase_value", "streams.value"}) {
    EXPECT_THAT(semantic_keys(changed, KeyGroup::join), Not(Contains(Key(key))));
  }
  changed.join.purchase_value = JoinConfig::PurchaseValue::sum;
  changed.streams.value = "basket.total";
  EXPECT_THAT(semantic_keys(changed, KeyGroup::join),
              AllOf(Contains(Pair("join.purchase_value", "\"sum\"")),
                    Contains(Pair("streams.value", "\"basket.total\""))));
}

TEST_F(Semantic, KeysOfActionsAreKeptWhereThereAreActions) {
  Config changed = config_;
  const std::vector<const char*> keys = {"streams.actions.max_out_of_orderness",
                                         "join.action_window", "join.action_label"};
  // As streams.max_out_of_orderness sets it, too.
  changed.streams.max_out_of_orderness[3] = 7;
  for (const char* key : keys) {
    EXPECT_THAT(semantic_keys(changed, KeyGroup::join), Not(Contains(Key(key))));
  }
  EXPECT_EQ(semantic_hash(changed, KeyGroup::join), semantic_hash(config_, KeyGroup::join));
  Config acting = config_;
  acting.streams.topic[3] = "carts";
  for (const char* key : keys) {
    EXPECT_THAT(semantic_keys(acting, KeyGroup::join), Contains(Key(key)));
  }
  expect_change("streams.actions.topic", KeyGroup::join, config_, acting);
}

// Data folders hold these hashes: a change here makes all of them unusable.
TEST_F(Semantic, HashesOfDataFoldersThatExist) {
  EXPECT_EQ(semantic_hash(config_, KeyGroup::join).hex(), "6bf4731d0c207cf2cf4f47368077763c");
  EXPECT_EQ(semantic_hash(config_, KeyGroup::learner).hex(), "78d93748696749e97c94c3c14356ce20");
}

}  // namespace
}  // namespace sluice
