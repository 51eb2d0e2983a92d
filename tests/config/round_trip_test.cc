// Overrides, and the effective config that loads to an equal one.
#include <algorithm>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "config/load.h"
#include "config/schema.h"
#include "config/suggest.h"
#include "tests/config/sample_configs.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

LoadedConfig load(const std::vector<std::string>& overrides, const std::string& text = kSmallToml) {
  return parse_config(text, "shop.toml", "/shop", overrides);
}

Config config_with(const std::vector<std::string>& overrides) {
  LoadedConfig loaded = load(overrides);
  for (const ConfigProblem& problem : loaded.problems) ADD_FAILURE() << problem.text();
  return loaded.config;
}

TEST(Overrides, ReplaceWhatTheFileSaysAndTheLastWins) {
  const Config config = config_with(
      {"join.tick=2 s", "join.tick = 500 ms", "training.dense.learning_rate=0.01",
       "streams.clicks.topic=shop_clicks", "model.hidden=[7, 5]", "features.country.type=ids",
       "features.site.path=site.id", "source.start=2013-06-30", "dead_letters.keep.size=1 MiB"});
  EXPECT_EQ(config.join.tick, 500);
  EXPECT_EQ(config.training.dense.learning_rate, 0.01);
  EXPECT_EQ(config.training.embeddings.learning_rate, 1e-3);
  EXPECT_EQ(config.streams.topic[1], "shop_clicks");
  EXPECT_EQ(config.model.hidden, (std::vector<std::uint64_t>{7, 5}));
  ASSERT_EQ(config.features.size(), 2u);
  EXPECT_EQ(config.features[0].type, FeatureConfig::Type::ids);
  EXPECT_EQ(config.features[1].name, "site");
  EXPECT_EQ(config.features[1].path, "site.id");
  EXPECT_EQ(config.source.start, "2013-06-30");
  EXPECT_EQ(config.dead_letters.keep_bytes, 1u << 20);
}

TEST(Overrides, AStreamsOwnDisorderBeatsThatOfAllStreams) {
  const Config config = config_with(
      {"streams.clicks.max_out_of_orderness=1 min", "streams.max_out_of_orderness=2 s"});
  EXPECT_EQ(config.streams.max_out_of_orderness,
            (std::array<DurationMs, 4>{2'000, 60'000, 2'000, 2'000}));
}

TEST(Overrides, RootIsRelativeToTheFileOrToTheWorkingDirectory) {
  EXPECT_EQ(config_with({}).source.root, "/shop/logs");
  EXPECT_EQ(config_with({"source.root=logs"}).source.root,
            std::filesystem::current_path() / "logs");
  EXPECT_EQ(config_with({"source.root=/a/../b"}).source.root, "/b");
}

TEST(Overrides, PropertiesHaveNamesWithDots) {
  const std::string text = R"([source]
root = "x"
[source.properties]
security.protocol = "PLAINTEXT"
"ssl.ca.location" = "/a"
socket.keepalive.enable = true
"fetch.wait.max.ms" = 100
[features]
a = { path = "a" }
)";
  const LoadedConfig loaded =
      load({"source.properties.security.protocol=SSL", "source.properties.ssl.ca.location=/b",
            "source.properties.client.id=007"},
           text);
  ASSERT_THAT(loaded.problems, IsEmpty());
  const std::map<std::string, std::string> expected = {{"security.protocol", "SSL"},
                                                       {"ssl.ca.location", "/b"},
                                                       {"socket.keepalive.enable", "true"},
                                                       {"fetch.wait.max.ms", "100"},
                                                       {"client.id", "007"}};
  EXPECT_EQ(loaded.config.source.properties, expected);
}

TEST(Effective, HasEveryKeyAndNamesItsUnitAndKind) {
  const std::string text = effective_toml(config_with({}));
  const auto document = parse_toml(text, "effective");
  ASSERT_TRUE(document) << text;
  for (const Key<Config>& key : config_keys()) {
    EXPECT_NE(document->find_path(key.name), nullptr) << key.name;
  }
  EXPECT_THAT(text,
              HasSubstr("# Must be a duration from 1 ms to 366 d (event time); semantic, join.\n"
                        "click_window = \"30 min\"\n"));
}

TEST(Effective, MasksSecretsAndSaysSo) {
  const Config config = config_with(
      {"source.properties.sasl.password=hunter2", "source.properties.ssl.key.pem=hunter2",
       "source.properties.sasl.oauthbearer.client.secret=hunter2",
       "source.properties.ssl.key.location=/keys/a", "source.properties.sasl.username=shop"});
  EXPECT_EQ(config.source.properties.at("sasl.password"), "hunter2");
  const std::string text = effective_toml(config);
  EXPECT_THAT(text, Not(HasSubstr("hunter2")));
  EXPECT_THAT(text, HasSubstr("\"sasl.password\" = \"***\"\n"));
  EXPECT_THAT(text, HasSubstr("\"sasl.username\" = \"shop\"\n"));
  EXPECT_THAT(text, HasSubstr("\"ssl.key.location\" = \"/keys/a\"\n"));
  EXPECT_THAT(text, HasSubstr("# *** stands for a secret.\n"));
  EXPECT_THAT(effective_toml(config_with({})), Not(HasSubstr("***")));
}

void expect_round_trip(const Config& config) {
  const std::string text = effective_toml(config);
  const LoadedConfig again = parse_config(text, "effective", "/elsewhere", {});
  for (const ConfigProblem& problem : again.problems) ADD_FAILURE() << problem.text() << text;
  EXPECT_EQ(again.config, config) << text;
  EXPECT_EQ(effective_toml(again.config), text);
}

TEST(Effective, LoadsToAnEqualConfig) {
  expect_round_trip(config_with({}));
  expect_round_trip(load({}, kExpediaToml).config);
  expect_round_trip(config_with(
      {"source.type=kafka", "source.brokers=a:1,b:2", "source.idle_after=never",
       "training.batch_span=1 s", "streams.purchases.max_out_of_orderness=1 h",
       "source.properties.client.id=a\"\\b", "features.a={path=\"x.y\", type=\"number\"}",
       "features.b={path=\"x\", type=\"number\", buckets=[-0.1, 1e300]}",
       "features.c={path=\"x\", type=\"weighted_ids\", table=\"t\", group=\"context\"}",
       "model.precision=bf16", "model.max_rows=5000000", "model.max_memory=4 GiB",
       "training.dense={optimizer=\"sgd\", momentum=0.5, l2=1e-6, clip_norm=10}",
       "training.embeddings={optimizer=\"ftrl\", ftrl_beta=0.5, l1=1e-3, warmup_steps=7}"}));
}

// A whole number in the range, its ends more often than others.
std::uint64_t any_count(const Range& range) {
  const auto min = static_cast<std::uint64_t>(range.min);
  const auto max = static_cast<std::uint64_t>(std::min(range.max, 9e18));
  return *rc::gen::oneOf(rc::gen::just(min), rc::gen::just(max),
                         rc::gen::inRange<std::uint64_t>(min, max),
                         rc::gen::inRange<std::uint64_t>(min, std::min(max, min + 1'000)));
}

// Of letters that make no word by which a property is taken for a secret.
std::string any_name() {
  return *rc::gen::nonEmpty(rc::gen::container<std::string>(rc::gen::inRange<char>('a', 'j')));
}

// A valid value of the key as an override has it.
template <class Owner>
std::string any_value(const Key<Owner>& key) {
  switch (key.type) {
    case ValueType::text:
      return *rc::gen::inRange(0, 2) == 0 ? any_name() : any_name() + "." + any_name();
    case ValueType::choice:
      return *rc::gen::elementOf(key.words);
    case ValueType::duration:
      if (!key.words.empty() && *rc::gen::arbitrary<bool>()) return key.words.front();
      return std::to_string(any_count(key.range)) + " ms";
    case ValueType::size:
    case ValueType::count:
      return std::to_string(any_count(key.range));
    case ValueType::real: {
      const double share = *rc::gen::inRange(1, 1'000'000'007) / 1'000'000'007.0;
      return format_real(key.range.min + share * (key.range.max - key.range.min));
    }
    case ValueType::time:
      return format_time(*rc::gen::inRange<TimeMs>(0, 253'402'300'800'000));
    case ValueType::counts:
      return "[" + std::to_string(any_count(key.range)) + ", 3]";
    case ValueType::buckets:
      return *rc::gen::elementOf(std::vector<std::string>{"log:3", "[-1.5, 2, 1e40]", "none"});
    case ValueType::ranges: {
      const std::uint64_t first = any_count({1, 1e6});
      const std::uint64_t last = first + any_count({0, 1e6});
      return std::to_string(first) + ".." + std::to_string(last) + ", " + std::to_string(last + 1) +
             ".." + std::to_string(last + 2);
    }
    case ValueType::table:
      break;
  }
  return "";
}

RC_GTEST_PROP(Effective, LoadsToAnEqualConfigWhateverIsSet, ()) {
  std::vector<std::string> overrides;
  bool is_kafka = false;
  bool is_at_close = false;
  bool has_actions = false;
  bool has_token = false;
  bool has_certificate = false;
  std::map<std::string, std::string> optimizers;
  for (const Key<Config>& key : config_keys()) {
    // By type = "kafka" the one, by a certificate the other.
    const bool is_needed = key.name == "source.brokers" || key.name == "serving.key";
    if (key.type == ValueType::table) continue;
    if (!is_needed && *rc::gen::inRange(0, 3) == 0) continue;
    if (key.name == "dead_letters.topic" && !is_kafka) continue;  // a rule
    std::string value = any_value(key);
    if (key.name == "join.purchase_label") is_at_close = value == "at_close";
    if (key.name == "join.purchase_value" && !is_at_close) continue;  // a rule
    if (key.name == "streams.actions.topic") has_actions = true;
    if (key.name.starts_with("join.action_") && !has_actions) continue;  // a rule
    const auto [section, name] = split_key(key.name);
    if (name == "token_env") has_token = true;
    if (name == "token_file" && has_token) continue;  // a rule
    if (name == "certificate") has_certificate = true;
    if (key.name == "serving.key" && !has_certificate) continue;  // a rule
    if (name == "calibration_max") {                              // a rule: not below the minimum
      value = *rc::gen::element<std::string>("0", "1", "1.25", "1e6");
    }
    const bool is_optimizers = section == "training.dense" || section == "training.embeddings";
    if (is_optimizers) {  // a rule
      if (name == "optimizer") optimizers[section] = value;
      const auto chosen = optimizers.emplace(section, "adam").first;
      if (!has_optimizer_key(chosen->second, name)) continue;
    }
    if (name == "recipe") {
      value =
          *rc::gen::element<std::string>("esmm", "base", "lr", "aman:rate=0.25", "aman:rate=0.1");
    }
    if (name == "name" || name == "alias") value = any_name().substr(0, 64);
    if (name == "topic") value = any_name().substr(0, 99) + "." + split_key(section).second;
    if (key.name == "training.batch_size") {  // a rule: below its bound for any inputs drawn here
      value = std::to_string(*rc::gen::inRange(1, 100'000));
    }
    if (key.name == "source.type") is_kafka = value == "kafka";
    if (name == "root" || name == "brokers") value = any_name();
    overrides.push_back(key.name + "=" + value);
  }
  const auto properties = *rc::gen::arbitrary<std::map<std::string, std::string>>();
  for (const auto& [name, value] : properties) {
    const bool is_plain = std::all_of(value.begin(), value.end(), [](char c) { return c > 0; });
    if (is_plain) overrides.push_back("source.properties." + any_name() + "=" + toml_text(value));
  }
  for (int i = *rc::gen::inRange(0, 5); i > 0; --i) {
    FeatureConfig feature;
    feature.path = any_name();
    feature.table = any_name().substr(0, 64);
    if (*rc::gen::arbitrary<bool>()) feature.group = "context";
    for (const Key<FeatureConfig>& key : feature_keys()) {
      if (key.type == ValueType::text) continue;
      RC_ASSERT(key.set(feature, parse_override_value(any_value(key))));
    }
    if (feature.type != FeatureConfig::Type::number) {
      feature.log_buckets = 0;
      feature.edges.clear();
    }
    overrides.push_back("features.f" + std::to_string(i) + "=" + feature_toml(feature));
  }
  const LoadedConfig loaded = load(overrides);
  for (const ConfigProblem& problem : loaded.problems) RC_FAIL(problem.text());
  const std::string text = effective_toml(loaded.config);
  const LoadedConfig again = parse_config(text, "effective", "/elsewhere", {});
  for (const ConfigProblem& problem : again.problems) RC_FAIL(problem.text());
  RC_ASSERT(again.config == loaded.config);
}

TEST(Suggest, EditDistanceCountsSwapsAsOne) {
  EXPECT_EQ(edit_distance("", ""), 0u);
  EXPECT_EQ(edit_distance("tick", ""), 4u);
  EXPECT_EQ(edit_distance("tick", "tikc"), 1u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("ca", "abc"), 3u);
}

}  // namespace
}  // namespace sluice
