#include "learner/schema.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "base/hash.h"
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
  EXPECT_TRUE(schema.decode(testing::encode_features(schema.features(), values), 4, true, decoded));
  return decoded;
}

TEST(Schema, LaysFieldsOutInTheOrderOfTheirNames) {
  const Config config = small_config();
  const Schema schema(config.features, config.model);
  EXPECT_EQ(schema.inputs(), 5 * 5 + 1);
  EXPECT_THAT(schema.tables(), ::testing::ElementsAre("c_weighted", "d_log", "e_edges", "shared"));
  EXPECT_EQ(schema.fields()[1].column, 5U);
  EXPECT_EQ(schema.fields()[0].table, schema.fields()[1].table);
  EXPECT_EQ(schema.fields()[5].column, 25U);
  EXPECT_EQ(schema.fields()[5].width, 1U);
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
  const auto& shared = decoded.terms[3];
  ASSERT_EQ(shared.size(), 4U);
  EXPECT_EQ(shared[0].key, hash64("x", hash64("shared")));
  EXPECT_EQ(shared[0].column, 0U);
  EXPECT_EQ(shared[1].key, shared[2].key);  // 7 and "7" are one id
  EXPECT_EQ(shared[1].key, hash64("7", hash64("shared")));
  EXPECT_EQ(shared[3].key, shared[0].key);  // one table, one row
  EXPECT_EQ(shared[3].column, 5U);
  EXPECT_EQ(shared[3].sample, 4U);
  EXPECT_EQ(decoded.terms[0][0].weight, -0.5F);
  EXPECT_EQ(decoded.terms[0][1].weight, 2.0F);
  EXPECT_EQ(decoded.terms[1][0].key, hash64("-19", hash64("d_log")));
  EXPECT_EQ(decoded.terms[2][0].key, hash64("3", hash64("e_edges")));
  ASSERT_EQ(decoded.dense.size(), 1U);
  EXPECT_EQ(decoded.dense[0].column, 25U);
  EXPECT_EQ(decoded.dense[0].value, std::numeric_limits<float>::max());
}

TEST(Schema, AbsentAndWrongTypesGiveNothing) {
  const Config config = small_config();
  const Schema schema(config.features, config.model);
  const DecodedSamples decoded =
      decode(schema, {{"a_id", nullptr}, {"b_ids", "not a list"}, {"f_dense", "x"}});
  for (const auto& terms : decoded.terms) EXPECT_TRUE(terms.empty());
  EXPECT_TRUE(decoded.dense.empty());
  EXPECT_THAT(decoded.wrong_types, ::testing::ElementsAre(0, 1, 0, 0, 0, 1));
}

TEST(Schema, BlobsOfOtherFeaturesAreRefused) {
  const Config config = small_config();
  const Schema schema(config.features, config.model);
  DecodedSamples decoded = schema.make_decoded();
  const std::string blob = testing::encode_features(config.features, {{"a_id", "x"}, {"d_log", 2}});
  ASSERT_TRUE(schema.decode(blob, 0, true, decoded));
  EXPECT_FALSE(schema.decode(blob + '\0', 0, true, decoded));
  for (std::size_t size = 0; size < blob.size(); ++size) {
    EXPECT_FALSE(schema.decode(std::string_view(blob).substr(0, size), 0, true, decoded)) << size;
  }
  auto others = config.features;
  std::swap(others[0].type, others[5].type);
  const Schema other(others, config.model);
  EXPECT_FALSE(other.decode(blob, 0, true, decoded));
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
  EXPECT_THAT(refused([](auto& j) { j["model"]["precision"] = "f16"; }), HasSubstr("precision"));
  EXPECT_THAT(refused([](auto& j) { j["model"]["hidden"] = {4, 0}; }), HasSubstr("empty"));
  EXPECT_THAT(refused([](auto& j) { j["bucket_edges"].clear(); }), HasSubstr("log:8"));
  EXPECT_THAT(refused([](auto& j) { j["features"].clear(); }), HasSubstr("no feature"));
  EXPECT_THAT(refused([](auto& j) { j["features"][0]["type"] = "x"; }), HasSubstr("type x"));
  EXPECT_THAT(refused([](auto& j) { j["features"][3]["buckets"] = "log:"; }), HasSubstr("log:"));
  EXPECT_THAT(refused([](auto& j) { j["features"][0]["name"] = "z"; }), HasSubstr("order"));
}

}  // namespace
}  // namespace sluice
