// Wrong configs: what is said of them, and that it is all said at once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/load.h"
#include "config/schema.h"
#include "tests/config/sample_configs.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::vector<std::string> problems_of(const std::string& text,
                                     const std::vector<std::string>& overrides = {}) {
  std::vector<std::string> lines;
  for (const ConfigProblem& problem : parse_config(text, "f", "/shop", overrides).problems) {
    lines.push_back(problem.text());
  }
  return lines;
}

std::vector<std::string> problems_with(const std::string& override_text) {
  return problems_of(kSmallToml, {override_text});
}

TEST(Problems, ABatchWhoseInputsCannotBeNumberedIsRefused) {
  std::string text = "source.root = \"logs\"\ntraining.batch_size = 1000000\n";
  text += "model.embedding_dim = 1024\n[features]\n";
  for (const char* name : {"a", "b", "c"}) {
    text += std::string(name) + " = { path = \"features." + name + "\", type = \"id\" }\n";
  }
  EXPECT_THAT(problems_of(text),
              ElementsAre(AllOf(HasSubstr("training.batch_size: 1000000 is too large for 3072 "),
                                HasSubstr("at most 684784 with these features"))));
}

TEST(Problems, TenMistakesGiveTenProblemsInOneGo) {
  const std::string text = R"([source]
type = "file"
root = "logs"
[stream]
max_out_of_orderness = "10 s"
[join]
click_windw = "30 min"
tick = "2 h"
conversion_window = 86400
embedding_dim = 18
[features]
site = { path = "features.user.site", typ = "id" }
price = { path = "features.item.price", type = "number", buckets = [3, 2, 1] }
[model]
hidden = [200, -80]
recipe = "esmmm"
)";
  EXPECT_THAT(
      problems_of(text),
      ElementsAre(
          "f:2:8: source.type: \"file\" is not allowed; must be \"files\" or \"kafka\"; did you "
          "mean \"files\"?",
          "f:4:2: stream: unknown section; did you mean streams?",
          "f:7:1: join.click_windw: unknown key; did you mean join.click_window?",
          "f:8:8: join.tick: \"2 h\" is not allowed; must be a duration from 1 ms to 1 h, as in "
          "\"10 s\"",
          AllOf(HasSubstr("f:9:21: join.conversion_window: 86400 is not allowed"),
                HasSubstr("from 1 ms to 366 d")),
          "f:10:1: join.embedding_dim: unknown key; did you mean model.embedding_dim?",
          "f:12:39: features.site.typ: unknown key; did you mean features.site.type?",
          AllOf(HasSubstr("f:13:"), HasSubstr("features.price.buckets: [3, 2, 1] is not allowed"),
                HasSubstr("ascending")),
          AllOf(HasSubstr("f:15:10: model.hidden: [200, -80] is not allowed"),
                HasSubstr("1 to 16 whole numbers, each from 1 to 65536")),
          AllOf(HasSubstr("f:16:10: model.recipe: \"esmmm\""),
                HasSubstr("did you mean \"esmm\"?"))));
}

TEST(Problems, ASyntaxErrorIsReportedAloneWithItsPlace) {
  EXPECT_THAT(problems_of("[join]\ntick = \nclick = 3\n"),
              ElementsAre(HasSubstr("f:2:8: not valid TOML: ")));
  EXPECT_THAT(problems_of("[join]\ntick = \"1 s\"\ntick = \"2 s\"\n"),
              ElementsAre(AllOf(HasSubstr("f:3:"), HasSubstr("redefine"), HasSubstr("tick"))));
}

TEST(Problems, AFileThatCannotBeReadIsOne) {
  const LoadedConfig loaded = load_config("/nowhere/shop.toml", {});
  ASSERT_EQ(loaded.problems.size(), 1u);
  EXPECT_THAT(loaded.problems[0].text(), HasSubstr("/nowhere/shop.toml: "));
  const Result<Config> result = load_config_or_error("/nowhere/shop.toml", {});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ErrorKind::usage);
}

TEST(Problems, WhatIsMissing) {
  EXPECT_THAT(problems_of(""), ::testing::UnorderedElementsAre(
                                   HasSubstr("f: source.root: is missing"),
                                   HasSubstr("f: features: at least one feature is needed")));
  EXPECT_THAT(problems_of("[source]\nroot = \"x\"\n[features]\n"),
              ElementsAre(HasSubstr("f:3:2: features: at least one feature")));
  EXPECT_THAT(problems_with("source.type=kafka"),
              ElementsAre(HasSubstr("source.brokers: is missing")));
  EXPECT_THAT(problems_of(kSmallToml, {"source.type=kafka", "source.brokers=a:9092,b:9092"}),
              IsEmpty());
  EXPECT_THAT(problems_of(std::string(kSmallToml) + "site = { type = \"id\" }\n"),
              ElementsAre(HasSubstr("f:5:8: features.site.path: is missing")));
}

TEST(Problems, OneMistakeIsNotReportedTwice) {
  EXPECT_THAT(problems_of("source = 3\n[features]\na = { path = \"a\" }\n"),
              ElementsAre(HasSubstr("f:1:10: source: 3 is not allowed; must be a section")));
  EXPECT_THAT(problems_of("features = []\n[source]\nroot = \"x\"\n"),
              ElementsAre(HasSubstr("f:1:12: features: [] is not allowed; must be a section")));
  EXPECT_THAT(problems_with("source.root=[1]"), ElementsAre(HasSubstr("source.root: [1]")));
  EXPECT_THAT(problems_with("features.country.path=.a"),
              ElementsAre(HasSubstr("features.country.path: \".a\" is not allowed")));
}

TEST(Problems, UnknownKeysNameTheNearestKnownOne) {
  const auto nearest = [](const std::string& key) { return problems_with(key + "=1"); };
  EXPECT_THAT(nearest("join.clock_skwe"), ElementsAre(HasSubstr("did you mean join.clock_skew?")));
  EXPECT_THAT(nearest("training.learning_rate"),
              ElementsAre(HasSubstr("did you mean training.dense.learning_rate?")));
  EXPECT_THAT(nearest("training.dens.beta1"),
              ElementsAre(HasSubstr("unknown section; did you mean training.dense?")));
  EXPECT_THAT(nearest("streams.clicks.topics"),
              ElementsAre(HasSubstr("did you mean streams.clicks.topic?")));
  EXPECT_THAT(nearest("features.country.table_name"),
              ElementsAre(HasSubstr("did you mean features.country.table?")));
  EXPECT_THAT(nearest("dead_letter.keep.time"),
              ElementsAre(HasSubstr("unknown section; did you mean dead_letters?")));
  EXPECT_THAT(nearest("zzzzzzzz.y"), ElementsAre(HasSubstr("the nearest known one is ")));
  EXPECT_THAT(nearest("tick"), ElementsAre(HasSubstr("did you mean join.tick?")));
}

TEST(Problems, RulesOverSeveralKeys) {
  EXPECT_THAT(problems_with("streams.clicks.topic=impressions"),
              ElementsAre(HasSubstr("streams.clicks.topic: \"impressions\" is the topic of "
                                    "streams.impressions too")));
  EXPECT_THAT(problems_with("dead_letters.topic=refused"),
              ElementsAre(HasSubstr("dead_letters.topic: needs source.type = \"kafka\"")));
  EXPECT_THAT(
      problems_with("features.country.buckets=log:8"),
      ElementsAre(HasSubstr("features.country.buckets: is for features of type \"number\"")));
  EXPECT_THAT(problems_with("features.country={path=\"a\", type=\"number\", table=\"t\"}"),
              ElementsAre(HasSubstr("features.country.table: a number without buckets")));
  EXPECT_THAT(problems_with("features.country=3"),
              ElementsAre(HasSubstr("features.country: 3 is not allowed; must be a table")));
  EXPECT_THAT(problems_of(std::string(kSmallToml) + "\"a b\" = { path = \"a\" }\n"),
              ElementsAre(HasSubstr("f:5:1: features.a b: the name is not allowed")));
}

TEST(Problems, TlsTakesBothOrNone) {
  const std::vector<std::string> certificate = {"serving.certificate=\"c.pem\""};
  const std::vector<std::string> key = {"serving.key=\"k.pem\""};
  EXPECT_THAT(problems_of(kSmallToml, certificate),
              ElementsAre(HasSubstr("serving.certificate: needs serving.key too")));
  EXPECT_THAT(problems_of(kSmallToml, key),
              ElementsAre(HasSubstr("serving.key: needs serving.certificate too")));
  EXPECT_THAT(problems_of(kSmallToml, {certificate[0], key[0]}), IsEmpty());
}

TEST(Problems, ThereIsOneToken) {
  const std::vector<std::string> both = {"serving.token_env=\"TOKEN\"",
                                         "serving.token_file=\"token\""};
  for (const std::string& one : both) EXPECT_THAT(problems_with(one), IsEmpty());
  EXPECT_THAT(problems_of(kSmallToml, both),
              ElementsAre(HasSubstr("serving.token_file: is not allowed beside")));
}

TEST(Problems, TheGateLeavesSomethingBetweenItsBounds) {
  const auto problems = [](const std::string& min, const std::string& max) {
    return problems_of(kSmallToml, {"snapshots.gate.calibration_min=" + min,
                                    "snapshots.gate.calibration_max=" + max});
  };
  EXPECT_THAT(problems("0.9", "0.5"),
              ElementsAre(AllOf(HasSubstr("snapshots.gate.calibration_min: 0.9 is not allowed"),
                                HasSubstr("at most snapshots.gate.calibration_max, 0.5"))));
  EXPECT_THAT(problems("0.5", "0.5"), IsEmpty());
  EXPECT_THAT(problems("0.9", "1.2"), IsEmpty());
  EXPECT_THAT(problems("0.9", "0.0"), IsEmpty());  // no upper bound
}

TEST(Problems, AllFeaturesWithAGroupNameTheSameOne) {
  const std::string text = std::string(kSmallToml) +
                           "age  = { path = \"age\", group = \"context\" }\n"
                           "site = { path = \"site\", group = \"context\" }\n";
  EXPECT_THAT(problems_of(text), IsEmpty());
  EXPECT_THAT(
      problems_of(text + "zone = { path = \"zone\", group = \"user\" }\n"),
      ElementsAre("f:7:25: features.zone.group: \"user\" is not allowed; must be \"context\" "
                  "as of features.age, or \"\": there is one group in this version"));
}

TEST(Problems, AKeyThatTheOptimizerDoesNotHave) {
  const auto problems = [](const std::string& optimizer, const std::string& key) {
    return problems_of(
        kSmallToml, {"training.embeddings.optimizer=" + optimizer, "training.embeddings." + key});
  };
  EXPECT_THAT(problems("adam", "l1=0.5"),
              ElementsAre("--set: training.embeddings.l1: 0.5 is not allowed with optimizer = "
                          "\"adam\"; must be 0.0, the default, or optimizer be \"ftrl\""));
  EXPECT_THAT(problems("sgd", "epsilon=0.5"),
              ElementsAre(HasSubstr("must be 1e-08, the default, or optimizer be \"adam\" or "
                                    "\"adagrad\" or \"rowwise_adagrad\"")));
  EXPECT_THAT(problems_of(kSmallToml, {"training.dense.optimizer=ftrl",
                                       "training.dense.initial_accumulator=1"}),
              ElementsAre(HasSubstr("or optimizer be \"adagrad\"")));
  // One at its default is no mistake, nor is one of all optimizers.
  EXPECT_THAT(problems("adam", "momentum=0.9"), IsEmpty());
  for (const char* optimizer : {"adam", "adagrad", "ftrl", "sgd", "rowwise_adagrad"}) {
    for (const char* key : {"learning_rate=0.5", "l2=0.5", "warmup_steps=5", "clip_norm=0.5"}) {
      EXPECT_THAT(problems(optimizer, key), IsEmpty()) << optimizer << " " << key;
    }
    for (const char* key :
         {"beta1", "beta2", "epsilon", "momentum", "initial_accumulator", "ftrl_beta", "l1"}) {
      const bool is_own = has_optimizer_key(optimizer, key);
      EXPECT_THAT(problems(optimizer, std::string(key) + "=0.25"),
                  ::testing::SizeIs(is_own ? 0 : 1))
          << optimizer << " " << key;
    }
  }
}

TEST(Problems, PropertiesThatSluiceSetsItselfAreRefusedWithTheReason) {
  for (const char* name :
       {"auto.offset.reset", "enable.auto.commit", "enable.auto.offset.store", "isolation.level",
        "check.crcs", "bootstrap.servers", "metadata.broker.list", "enable.partition.eof"}) {
    EXPECT_THAT(
        problems_with(std::string("source.properties.") + name + "=1"),
        ElementsAre(HasSubstr(std::string("source.properties.") + name + ": may not be set: ")))
        << name;
    const std::string in_file = std::string("[source]\nroot=\"x\"\n[source.properties]\n") + name +
                                " = \"1\"\n[features]\na={path=\"a\"}\n";
    EXPECT_THAT(problems_of(in_file), ElementsAre(HasSubstr("f:4:"))) << name;
  }
  EXPECT_THAT(problems_with("source.properties.group.id=sluice"), IsEmpty());
}

TEST(Problems, NeverShowASecret) {
  const std::string text = R"([source]
root = "x"
[source.properties]
"sasl.password" = ["hunter2"]
sasl.oauthbearer.client.secret = ["hunter2"]
"ssl.key.pem" = 2020-01-01
[features]
a = { path = "a" }
)";
  const std::vector<std::string> problems = problems_of(text);
  EXPECT_EQ(problems.size(), 3u);
  for (const std::string& problem : problems) {
    EXPECT_THAT(problem, AllOf(HasSubstr("*** is not allowed"), Not(HasSubstr("hunter2")),
                               Not(HasSubstr("2020"))));
  }
  EXPECT_THAT(problems_with("source.properties.sasl.password=***"),
              ElementsAre(HasSubstr("the secret is masked")));
}

TEST(Problems, OverridesOfAWrongForm) {
  EXPECT_THAT(problems_with("join.tick"),
              ElementsAre("--set: join.tick: must have the form section.key=value"));
  EXPECT_THAT(problems_with("=3"), ElementsAre(HasSubstr("must have the form")));
  EXPECT_THAT(problems_with("join..tick=3"), ElementsAre(HasSubstr("must have the form")));
  EXPECT_THAT(problems_of(kSmallToml, {"join.tick=1 s", "join.tick.x=3"}),
              ElementsAre(HasSubstr("--set: join.tick.x: unknown key; join.tick is no section")));
}

TEST(Problems, ASumOfValuesNeedsTheLabelAtClose) {
  const std::string expected =
      "--set: join.purchase_value: \"sum\" needs join.purchase_label = \"at_close\"";
  EXPECT_THAT(problems_with("join.purchase_value=sum"), ElementsAre(HasSubstr(expected)));
  EXPECT_THAT(
      problems_of(kSmallToml, {"join.purchase_value=sum", "join.purchase_label=at_purchase"}),
      ElementsAre(HasSubstr(expected)));
  EXPECT_THAT(problems_of(kSmallToml, {"join.purchase_value=sum", "join.purchase_label=at_close"}),
              IsEmpty());
  // A label that is none is one problem, not two.
  EXPECT_THAT(problems_of(kSmallToml, {"join.purchase_value=sum", "join.purchase_label=at_end"}),
              ElementsAre(HasSubstr("join.purchase_label")));
}

TEST(Problems, KeysOfActionsNeedAStreamOfThem) {
  EXPECT_THAT(problems_with("join.action_window=5 min"),
              ElementsAre(HasSubstr("join.action_window: needs streams.actions.topic")));
  EXPECT_THAT(problems_with("join.action_label=at_close"),
              ElementsAre(HasSubstr("join.action_label: needs streams.actions.topic")));
  EXPECT_THAT(problems_of(kSmallToml, {"streams.actions.topic=carts", "join.action_window=366 d",
                                       "join.action_label=at_close"}),
              IsEmpty());
  EXPECT_THAT(problems_with("streams.actions.topic=purchases"),
              ElementsAre(HasSubstr("is the topic of streams.purchases too")));
}

struct RangeCase {
  const char* key;
  std::vector<const char*> allowed;
  std::vector<const char*> refused;
};

// The bounds, written down a second time.
const std::vector<RangeCase> kRanges = {
    {"source.type", {"files"}, {"file", "3", "[]"}},
    {"source.start", {"earliest", "latest", "2013-06-30", "5"}, {"first", "-1", "2013-13-01"}},
    {"source.idle_after", {"1 ms", "1 d", "never"}, {"0 s", "25 h", "none", "10"}},
    {"source.max_delay", {"0 s", "7 d"}, {"8 d", "-1 s"}},
    {"source.max_queued_bytes", {"1 KiB", "64 GiB", "1024"}, {"1023", "65 GiB", "1 kB", "1.5 MiB"}},
    {"source.read_records", {"1", "1000000"}, {"0", "1000001", "1.5", "true"}},
    {"streams.max_out_of_orderness", {"0 s", "30 d"}, {"31 d", "10", "soon"}},
    {"streams.clicks.max_out_of_orderness", {"0 s", "30 d"}, {"31 d", "10"}},
    {"streams.clicks.topic", {"a", "shop.clicks-1_x", "7"}, {"", ".", "..", "a/b", "[]"}},
    {"streams.actions.max_out_of_orderness", {"0 s", "30 d"}, {"31 d", "10"}},
    {"streams.actions.topic", {"\"\"", "a", "shop.actions-1_x"}, {".", "..", "a/b", "[]"}},
    {"streams.max_ahead", {"0 s", "366 d"}, {"367 d"}},
    {"streams.not_before", {"0", "2013-06-30", "2013-06-30T12:00:00Z"}, {"-1", "1969-12-31", "x"}},
    {"streams.max_record_bytes", {"16", "256 MiB"}, {"15", "257 MiB"}},
    {"streams.max_depth", {"1", "1000"}, {"0", "1001"}},
    {"streams.log_time", {"\"\"", "log.time"}, {".a", "a.", "a..b"}},
    {"streams.ts", {"ts", "event.time"}, {"\"\"", ".a", "a.", "a..b"}},
    {"streams.value", {"value", "basket.total"}, {"\"\"", ".a", "a.", "a..b"}},
    {"join.attribution", {"impression_id", "user_item"}, {"user", "0"}},
    {"join.attributed_click", {"first", "last"}, {"latest", "1"}},
    {"join.click_window", {"1 ms", "366 d"}, {"0 s", "367 d"}},
    {"join.conversion_window", {"1 ms", "366 d"}, {"0 s", "367 d"}},
    {"join.tick", {"1 ms", "1 h"}, {"0 s", "61 min"}},
    {"join.clock_skew", {"0 s", "1 d"}, {"25 h"}},
    {"join.purchase_label", {"at_purchase", "at_close"}, {"at_end"}},
    {"join.purchase_value", {"none"}, {"max", "1"}},
    {"join.action_window", {"1 d"}, {"0 s", "367 d"}},
    {"join.action_label", {"at_action"}, {"at_end"}},
    {"features.country.type", {"id", "ids", "weighted_ids", "number"}, {"text", "1"}},
    {"features.country.table", {"a", "_", "A-1"}, {"\"\"", "-a", "a b", "a/b", ".."}},
    {"features.country.group", {"\"\"", "context", "A-1"}, {"-a", "a b", "a/b", "..", "[]"}},
    {"model.name", {"a", "v2"}, {"\"\"", "..", "a/b"}},
    {"model.recipe",
     {"esmm", "base", "aman:rate=0.2"},
     {"bases", "1", "", "aman:", "aman:rate", "toml"}},
    {"model.embedding_dim", {"1", "1024"}, {"0", "1025"}},
    {"model.hidden", {"[1]", "[65536, 1]"}, {"[]", "[0]", "[65537]", "[1.5]", "3"}},
    {"model.seed", {"0", "9223372036854775807"}, {"-1", "9223372036854775808"}},
    {"model.precision", {"f32", "bf16"}, {"f16", "32"}},
    {"model.max_rows", {"0", "1000000000000"}, {"-1", "1000000000001", "none"}},
    {"model.max_memory", {"0", "4 GiB", "1 TiB"}, {"-1", "2 TiB", "none"}},
    {"training.batch_size", {"1", "1048576"}, {"0", "1048577"}},
    {"training.batch_span", {"1 ms", "1 d", "none"}, {"0 s", "25 h", "never"}},
    {"training.skip_samples",
     {"", "7..7", "1..2,5..9", "5..9, 10..20"},
     {"0..3", "3..2", "1..5, 5..6", "5..6, 1..2", "1-2", "1..2,", "1..2 3..4", "..2", "1..", "x"}},
    {"snapshots.gate.max_auc_drop", {"0", "0.02", "1"}, {"-0.1", "1.1", "none"}},
    {"snapshots.gate.calibration_min", {"0", "0.8", "1"}, {"-1", "1.1"}},
    {"snapshots.gate.calibration_max", {"0", "1.25"}, {"-1", "x"}},
    {"snapshots.gate.min_positives", {"1", "100"}, {"0", "-1"}},
    {"training.lane", {"1", "65536"}, {"0", "65537"}},
    {"training.threads", {"0", "1024"}, {"-1", "1025"}},
    {"training.dense.optimizer", {"adam", "adagrad", "ftrl", "sgd"}, {"rowwise_adagrad", "adamw"}},
    {"training.embeddings.optimizer",
     {"adam", "adagrad", "ftrl", "sgd", "rowwise_adagrad"},
     {"adamw", "0", "[]"}},
    {"training.dense.learning_rate", {"1e-9", "10", "0.5"}, {"0", "-1", "10.1", "nan", "inf", "x"}},
    {"training.embeddings.beta1", {"0", "0.99"}, {"1", "-0.1"}},
    {"training.embeddings.beta2", {"0", "0.99"}, {"1", "-0.1"}},
    {"training.dense.epsilon", {"1e-12", "1"}, {"0", "1.5"}},
    {"training.dense.l2", {"0", "1e6"}, {"-1e-9", "1e7"}},
    {"training.embeddings.warmup_steps", {"0", "1000000000"}, {"-1", "1000000001", "1.5"}},
    {"training.embeddings.clip_norm", {"0", "0.5", "1e9"}, {"-1", "1e10", "none"}},
    {"snapshots.every", {"1 ms", "3660 d"}, {"0 s", "3661 d"}},
    {"snapshots.full_every", {"1", "1000"}, {"0", "1001"}},
    {"snapshots.keep", {"1", "1000000"}, {"0", "1000001"}},
    {"checkpoints.every", {"1", "1000000000000"}, {"0", "1000000000001"}},
    {"checkpoints.interval", {"1 ms", "30 d"}, {"0 s", "31 d"}},
    {"checkpoints.keep", {"2", "1000000"}, {"1", "1000001"}},
    {"store.commit_interval", {"1 ms", "1 h"}, {"0 s", "61 min"}},
    {"store.commit_records", {"1", "1000000000"}, {"0", "1000000001"}},
    {"store.memtable_bytes", {"64 KiB", "64 GiB"}, {"63 KiB", "65 GiB"}},
    {"store.block_cache_bytes", {"0", "1 TiB"}, {"-1", "2 TiB", "99999999999 TiB"}},
    {"store.max_learner_lag", {"1", "1000000000000"}, {"0", "1000000000001"}},
    {"dead_letters.keep.time", {"1 ms", "36600 d"}, {"0 s", "36601 d"}},
    {"dead_letters.keep.size", {"0", "1 TiB"}, {"-1", "2 TiB"}},
    {"serving.address", {"0.0.0.0", "::1", "a-host"}, {"\"\"", "a b", "a/b"}},
    {"serving.port", {"0", "65535"}, {"-1", "65536"}},
    {"serving.threads", {"0", "1024"}, {"-1", "1025"}},
    {"serving.max_connections", {"1", "100000"}, {"0", "100001"}},
    {"serving.max_body_bytes", {"1 KiB", "1 GiB"}, {"1023", "2 GiB"}},
    {"serving.max_rows", {"1", "1000000"}, {"0", "1000001"}},
    {"serving.request_timeout", {"1 ms", "1 h"}, {"0 s", "61 min"}},
    {"serving.poll_interval", {"1 ms", "1 h"}, {"0 s", "61 min"}},
    {"serving.versions", {"1", "1000"}, {"0", "1001"}},
    {"serving.alias", {"\"\"", "canary", "A-1_b"}, {"a.b", "a/b", ".."}},
    {"serving.token_env", {"\"\"", "SLUICE_TOKEN"}, {"A=B", "A B"}},
    {"serving.log_size", {"64 KiB", "1 TiB"}, {"63 KiB", "2 TiB"}},
};

TEST(Ranges, EachBoundIsAllowedAndWhatIsBeyondIsRefused) {
  for (const RangeCase& range : kRanges) {
    for (const char* value : range.allowed) {
      EXPECT_THAT(problems_with(std::string(range.key) + "=" + value), IsEmpty());
    }
    for (const char* value : range.refused) {
      EXPECT_THAT(problems_with(std::string(range.key) + "=" + value),
                  ElementsAre(AllOf(HasSubstr(std::string("--set: ") + range.key + ": "),
                                    HasSubstr(" is not allowed; must be "))))
          << range.key << " = " << value;
    }
  }
}

// Those of keys that adam does not have.
TEST(Ranges, KeysOfOtherOptimizers) {
  const std::vector<std::pair<const char*, RangeCase>> cases = {
      {"sgd", {"momentum", {"0", "0.99"}, {"1", "-0.1"}}},
      {"adagrad", {"initial_accumulator", {"0", "0.1", "1e6"}, {"-1", "1e7"}}},
      {"rowwise_adagrad", {"initial_accumulator", {"0", "0.1", "1e6"}, {"-1", "1e7"}}},
      {"rowwise_adagrad", {"epsilon", {"1e-12", "1"}, {"0", "1.5"}}},
      {"ftrl", {"ftrl_beta", {"1e-9", "1e6"}, {"0", "-1", "1e7"}}},
      {"ftrl", {"l1", {"0", "1e6"}, {"-1", "1e7"}}},
  };
  for (const auto& optimizer_and_range : cases) {
    const RangeCase& range = optimizer_and_range.second;
    const std::string section = "training.embeddings.";
    const auto problems = [&](const char* value) {
      return problems_of(kSmallToml, {section + "optimizer=" + optimizer_and_range.first,
                                      section + range.key + "=" + value});
    };
    for (const char* value : range.allowed) EXPECT_THAT(problems(value), IsEmpty()) << value;
    for (const char* value : range.refused) {
      EXPECT_THAT(problems(value), ElementsAre(HasSubstr(" is not allowed; must be "))) << value;
    }
  }
}

TEST(Ranges, Buckets) {
  const auto problems = [](const std::string& buckets) {
    return problems_with("features.country={path=\"a\", type=\"number\", buckets=" + buckets + "}");
  };
  for (const char* value : {"\"log:1\"", "\"log:64\"", "[0]", "[-1, 0.5, 2]", "\"none\""}) {
    EXPECT_THAT(problems(value), IsEmpty()) << value;
  }
  for (const char* value : {"\"log:0\"", "\"log:65\"", "\"log:8x\"", "\"log:\"", "\"lin:8\"", "[]",
                            "[1, 1]", "[2, 1]", "[\"1\"]", "[nan]", "8"}) {
    EXPECT_THAT(problems(value), ElementsAre(HasSubstr("features.country.buckets: "))) << value;
  }
}

// A name without an end would exhaust the parser's stack.
TEST(Problems, ANameOfVeryManyPartsIsRefused) {
  std::string name = "a";
  for (int part = 0; part < 200'000; ++part) name += part % 2 == 0 ? ".a" : " . \"b.\\\"c\"";
  for (const std::string& text :
       {"[" + name + "]\n", name + " = 1\n", "x = { " + name + " = 1 }"}) {
    const LoadedConfig loaded = parse_config("[source]\nroot = \"x\"\n" + text, "c.toml", "/", {});
    ASSERT_EQ(loaded.problems.size(), 1U);
    EXPECT_EQ(loaded.problems[0].line, 3);
    EXPECT_NE(loaded.problems[0].message.find("more than 16 parts"), std::string::npos);
  }
  const LoadedConfig loaded =
      parse_config("[source]\nroot = \"x\"\n", "c.toml", "/", {name + "=1"});
  ASSERT_FALSE(loaded.problems.empty());
}

}  // namespace
}  // namespace sluice
