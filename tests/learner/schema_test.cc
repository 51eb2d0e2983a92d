#include "learner/schema.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "base/hash.h"
#include "config/recipe.h"
#include "learner/model.h"
#include "tests/learner/test_data.h"

namespace sluice {
namespace {

using testing::small_config;

TEST(Buckets, LogBucketsFollowTheFormula) {
  const Buckets buckets(true, Buckets::log_edges(8));
  EXPECT_EQ(buckets.bucket(0.0), 0);
  EXPECT_EQ(buckets.bucket(-0.0), 0);
  for (const double value : {1e-9, 0.1, 0.2, 1.0, 3.5, 100.0, 79.9, 1e6, 1e18}) {
    const auto wanted = static_cast<std::int64_t>(std::floor(8 * std::log1p(value)));
    EXPECT_EQ(buckets.bucket(value), wanted) << value;
    EXPECT_EQ(buckets.bucket(-value), -wanted) << value;
  }
}

TEST(Buckets, LogBucketsSaturate) {
  for (const int per_unit : {1, 8, 100}) {
    const Buckets buckets(true, Buckets::log_edges(per_unit));
    const auto last = static_cast<std::int64_t>(std::floor(per_unit * std::log1p(0x1p63)));
    EXPECT_EQ(buckets.bucket(0x1p63), last);
    EXPECT_EQ(buckets.bucket(std::numeric_limits<double>::max()), last);
    EXPECT_EQ(buckets.bucket(std::numeric_limits<double>::lowest()), -last);
    EXPECT_EQ(buckets.edges().size(), static_cast<std::size_t>(last));
  }
}

RC_GTEST_PROP(BucketsProperty, LogBucketsAreTheFormulaOffTheEdges, ()) {
  const int per_unit = *rc::gen::inRange(1, 30);
  const double value = std::ldexp(*rc::gen::inRange(1, 1 << 20), *rc::gen::inRange(-30, 40));
  const double exact = per_unit * std::log1p(value);
  RC_PRE(std::abs(exact - std::round(exact)) > 1e-9);
  const Buckets buckets(true, Buckets::log_edges(per_unit));
  RC_ASSERT(buckets.bucket(value) == static_cast<std::int64_t>(std::floor(exact)));
}

TEST(Buckets, EdgesCountThoseAtOrBelow) {
  const Buckets buckets(false, {-1.5, 0, 2});
  EXPECT_EQ(buckets.bucket(-2), 0);
  EXPECT_EQ(buckets.bucket(-1.5), 1);
  EXPECT_EQ(buckets.bucket(-0.0), 2);
  EXPECT_EQ(buckets.bucket(1.999), 2);
  EXPECT_EQ(buckets.bucket(2), 3);
}

DecodedSamples decode(const Schema& schema, const nlohmann::json& values) {
  DecodedSamples decoded = schema.make_decoded();
  Digest context;
  EXPECT_TRUE(schema.decode(testing::encode_features(schema.features(), values), 400, true, decoded,
                            context));
  return decoded;
}

TEST(Schema, LaysFieldsOutInTheOrderOfTheirNames) {
  const Config config = small_config();
  const Schema schema(config.features, config.model);
  EXPECT_EQ(schema.inputs().own, 5U * 5 + 1);
  EXPECT_EQ(schema.inputs().context, 0U);
  EXPECT_THAT(schema.tables(), ::testing::ElementsAre("c_weighted", "d_log", "e_edges", "shared"));
  EXPECT_EQ(schema.fields()[1].column, 5U);
  EXPECT_EQ(schema.fields()[0].table, schema.fields()[1].table);
  EXPECT_EQ(schema.fields()[5].column, 25U);
  EXPECT_EQ(schema.fields()[5].width, 1U);
}

TEST(Schema, AnIntegersKeyIsThatOfItsDecimalText) {
  const Config config = small_config();
  const Schema schema(config.features, config.model);
  const auto is_equal = [&](std::int64_t value) {
    return schema.row_key(1, value) == schema.row_key(1, std::to_string(value));
  };
  for (std::int64_t value = 0; value < 300'000; ++value) ASSERT_TRUE(is_equal(value)) << value;
  for (std::int64_t power = 1; power <= 1'000'000'000'000'000'000; power *= 10) {
    for (const std::int64_t value : {power - 1, power, power + 1, 9 * power, -power}) {
      ASSERT_TRUE(is_equal(value)) << value;
    }
    if (power == 1'000'000'000'000'000'000) break;
  }
}

RC_GTEST_PROP(SchemaProperty, AnIntegersKeyIsThatOfItsDecimalText, (std::int64_t any)) {
  const Config config = small_config();
  const Schema schema(config.features, config.model);
  const auto below_10_to_8 = *rc::gen::inRange<std::int64_t>(0, 100'000'000);
  for (const std::int64_t value : {any, below_10_to_8}) {
    RC_ASSERT(schema.row_key(1, value) == schema.row_key(1, std::to_string(value)));
  }
}

TEST(Schema, DecodesEveryKindOfFeature) {
  const Config config = small_config();
  const Schema schema(config.features, config.model);
  const DecodedSamples decoded = decode(schema, {{"a_id", "x"},
                                                 {"b_ids", {7, "7", "x"}},
                                                 {"c_weighted", {{"w", -0.5}, {8, 2}}},
                                                 {"d_log", -10.0},
                                                 {"e_edges", 50},
                                                 {"f_dense", 1e300}});
  const auto& terms = decoded.terms[0];
  ASSERT_EQ(terms.size(), 8U);
  std::vector<DecodedSamples::Key> keys(terms.size(), {0, 99, 0, 0});
  for (std::size_t part = 0; part < decoded.keys.size(); ++part) {
    for (const DecodedSamples::Key& key : decoded.keys[part]) {
      EXPECT_EQ(EmbeddingTable::part_of(EmbeddingTable::hash_of(key.key)), part);
      EXPECT_EQ(keys.at(key.term).term, 99U) << "twice";
      keys[key.term] = key;
    }
    EXPECT_TRUE(std::is_sorted(decoded.keys[part].begin(), decoded.keys[part].end(),
                               [](const auto& a, const auto& b) { return a.term < b.term; }));
  }
  for (std::uint32_t n = 0; n < keys.size(); ++n) EXPECT_EQ(keys[n].term, n);
  EXPECT_EQ(keys[0].key, hash64("x", hash64("shared")));
  EXPECT_EQ(keys[0].table, 3U);
  EXPECT_EQ(terms[0].at, 400U);
  EXPECT_EQ(keys[1].key, keys[2].key);  // 7 and "7" are one id
  EXPECT_EQ(keys[1].key, hash64("7", hash64("shared")));
  EXPECT_EQ(keys[3].key, keys[0].key);  // one table, one row
  EXPECT_EQ(keys[3].table, 3U);
  EXPECT_EQ(terms[3].at, 405U);
  EXPECT_EQ(terms[4].weight, -0.5F);
  EXPECT_EQ(terms[5].weight, 2.0F);
  EXPECT_EQ(keys[6].key, hash64("-19", hash64("d_log")));
  EXPECT_EQ(keys[6].table, 1U);
  EXPECT_EQ(keys[7].key, hash64("3", hash64("e_edges")));
  ASSERT_EQ(decoded.dense.size(), 1U);
  EXPECT_EQ(decoded.dense[0].at, 425U);
  EXPECT_EQ(decoded.dense[0].value, std::numeric_limits<float>::max());
}

TEST(Schema, AGroupsColumnsAreTheContexts) {
  Config config = small_config();
  config.features[1].group = config.features[4].group = config.features[5].group = "context";
  const Schema schema(config.features, config.model);
  EXPECT_EQ(schema.inputs().context, 5U + 5 + 1);
  EXPECT_EQ(schema.inputs().own, 3U * 5);
  const nlohmann::json values = {
      {"a_id", "x"}, {"b_ids", {7, 8}}, {"c_weighted", {{"w", 0.5}, {8, 2}}},
      {"d_log", 3},  {"e_edges", 50},   {"f_dense", 2}};
  const auto decode_both = [&](const nlohmann::json& changes, DecodedSamples& own,
                               DecodedSamples& shared) {
    nlohmann::json changed = values;
    changed.update(changes);
    const std::string blob = testing::encode_features(schema.features(), changed);
    Digest context;
    EXPECT_TRUE(schema.decode(blob, 100, true, own, context));
    schema.decode_context(blob, 200, shared);
    return context;
  };
  DecodedSamples own = schema.make_decoded();
  DecodedSamples shared = schema.make_decoded();
  const Digest digest = decode_both(nlohmann::json::object(), own, shared);
  const auto places = [](const DecodedSamples& decoded) {
    std::vector<std::uint32_t> at;
    for (const RowTerm& term : decoded.terms[0]) at.push_back(term.at);
    return at;
  };
  EXPECT_THAT(places(own), ::testing::ElementsAre(100, 105, 105, 110));
  EXPECT_TRUE(own.dense.empty());
  EXPECT_THAT(places(shared), ::testing::ElementsAre(200, 200, 205));
  ASSERT_EQ(shared.dense.size(), 1U);
  EXPECT_EQ(shared.dense[0].at, 210U);

  const auto digest_of = [&](const nlohmann::json& changes) {
    DecodedSamples a = schema.make_decoded(), b = schema.make_decoded();
    return decode_both(changes, a, b);
  };
  EXPECT_EQ(digest_of({{"a_id", "y"}, {"d_log", 9}, {"c_weighted", nullptr}}), digest);
  EXPECT_NE(digest_of({{"b_ids", {8, 7}}}), digest);
  EXPECT_NE(digest_of({{"e_edges", 51}}), digest);
  EXPECT_NE(digest_of({{"f_dense", nullptr}}), digest);
  EXPECT_NE(digest_of({{"f_dense", "x"}}), digest_of({{"f_dense", nullptr}}));
}

// Without a hidden layer there is nothing to share, but the columns' order is the same.
TEST(Schema, AModelWithoutHiddenLayersHasNoContext) {
  Config config = small_config();
  config.features[5].group = "context";
  config.model.hidden.clear();
  const Schema schema(config.features, config.model);
  EXPECT_EQ(schema.inputs().context, 0U);
  EXPECT_EQ(schema.inputs().own, 5U * 5 + 1);
  EXPECT_EQ(schema.fields()[5].column, 0U);
  EXPECT_EQ(schema.fields()[0].column, 1U);
}

TEST(Schema, AbsentAndWrongTypesGiveNothing) {
  const Config config = small_config();
  const Schema schema(config.features, config.model);
  const DecodedSamples decoded =
      decode(schema, {{"a_id", nullptr}, {"b_ids", "not a list"}, {"f_dense", "x"}});
  EXPECT_TRUE(decoded.terms[0].empty());
  EXPECT_TRUE(decoded.dense.empty());
  EXPECT_THAT(decoded.wrong_types, ::testing::ElementsAre(0, 1, 0, 0, 0, 1));
}

TEST(Schema, BlobsOfOtherFeaturesAreRefused) {
  const Config config = small_config();
  const Schema schema(config.features, config.model);
  DecodedSamples decoded = schema.make_decoded();
  Digest context;
  const std::string blob = testing::encode_features(config.features, {{"a_id", "x"}, {"d_log", 2}});
  ASSERT_TRUE(schema.decode(blob, 0, true, decoded, context));
  EXPECT_FALSE(schema.decode(blob + '\0', 0, true, decoded, context));
  for (std::size_t size = 0; size < blob.size(); ++size) {
    EXPECT_FALSE(schema.decode(std::string_view(blob).substr(0, size), 0, true, decoded, context))
        << size;
  }
  auto others = config.features;
  std::swap(others[0].type, others[5].type);
  const Schema other(others, config.model);
  EXPECT_FALSE(other.decode(blob, 0, true, decoded, context));
}

TEST(Schema, JsonBringsEveryBitBack) {
  Config config = small_config();
  config.features[0].group = "context";
  config.model.precision = ModelConfig::Precision::bf16;
  const Schema schema(config.features, config.model);
  const auto json = nlohmann::ordered_json::parse(schema.json().dump());
  const auto loaded = Schema::from_json(json);
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
  EXPECT_EQ(loaded->json().dump(), schema.json().dump());
  EXPECT_EQ(json["model"]["precision"], "bf16");
  EXPECT_EQ(json["features"][0]["group"], "context");
  EXPECT_FALSE(json["features"][1].contains("group"));
  EXPECT_EQ(loaded->model().precision, ModelConfig::Precision::bf16);
  EXPECT_EQ(loaded->fields()[3].buckets->edges(), Buckets::log_edges(8));
  EXPECT_EQ(loaded->fields()[4].buckets->edges(), config.features[4].edges);
  for (std::size_t f = 0; f < config.features.size(); ++f) {
    EXPECT_EQ(loaded->features()[f].name, config.features[f].name);
    EXPECT_EQ(loaded->features()[f].path, config.features[f].path);
    EXPECT_EQ(loaded->features()[f].type, config.features[f].type);
    EXPECT_EQ(loaded->features()[f].table, config.features[f].table);
    EXPECT_EQ(loaded->features()[f].group, config.features[f].group);
    EXPECT_EQ(loaded->features()[f].log_buckets, config.features[f].log_buckets);
  }
}

// A reader has the recipe without the config, and a file's path is nobody's business.
TEST(Schema, JsonHasTheRecipe) {
  Config config = small_config();
  config.model.recipe = "aman:rate=0.2";
  const auto built_in = Schema(config.features, config.model).json();
  EXPECT_EQ(built_in["model"]["recipe"], "aman:rate=0.2");
  EXPECT_FALSE(built_in["model"].contains("recipe_text"));
  config.model.recipe_text = recipe_of(config.model)->canonical;
  config.model.recipe = "/home/ann/own.toml";
  const Schema own(config.features, config.model);
  EXPECT_EQ(own.json()["model"]["recipe"], "own");
  const auto loaded = Schema::from_json(own.json());
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
  EXPECT_EQ(loaded->model().recipe_text, config.model.recipe_text);
  EXPECT_EQ(loaded->json().dump(), own.json().dump());
}

TEST(Schema, ForeignJsonIsAnError) {
  const Config config = small_config();
  const auto json = Schema(config.features, config.model).json();
  const auto refused = [&](auto change) {
    auto changed = json;
    change(changed);
    const auto loaded = Schema::from_json(changed);
    return loaded ? std::string("loaded") : loaded.error().message;
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(refused([](auto& j) { j.erase("model"); }), HasSubstr("model"));
  EXPECT_THAT(refused([](auto& j) { j["model"]["recipe"] = "x"; }), HasSubstr("recipe"));
  EXPECT_THAT(refused([](auto& j) { j["model"]["recipe_text"] = "x"; }), HasSubstr("recipe"));
  EXPECT_THAT(refused([](auto& j) { j["model"]["precision"] = "f16"; }), HasSubstr("precision"));
  EXPECT_THAT(refused([](auto& j) { j["model"]["hidden"] = {4U, 0U}; }), HasSubstr("hidden"));
  // Numbers that a conversion would make whole ones of.
  for (const nlohmann::ordered_json& number :
       {nlohmann::ordered_json(1e300), nlohmann::ordered_json(8.5), nlohmann::ordered_json(-1)}) {
    for (const char* key : {"embedding_dim", "seed"}) {
      EXPECT_THAT(refused([&](auto& j) { j["model"][key] = number; }),
                  HasSubstr("no whole number"));
    }
    EXPECT_THAT(refused([&](auto& j) { j["model"]["hidden"] = {number}; }),
                HasSubstr("no whole number"));
  }
  EXPECT_THAT(refused([](auto& j) { j["bucket_edges"].clear(); }), HasSubstr("log:8"));
  EXPECT_THAT(refused([](auto& j) { j["features"].clear(); }), HasSubstr("no feature"));
  EXPECT_THAT(refused([](auto& j) { j["features"][0]["type"] = "x"; }), HasSubstr("type x"));
  EXPECT_THAT(refused([](auto& j) { j["features"][3]["buckets"] = "log:"; }), HasSubstr("log:"));
  EXPECT_THAT(refused([](auto& j) { j["features"][0]["name"] = "z"; }), HasSubstr("order"));
}

}  // namespace
}  // namespace sluice
