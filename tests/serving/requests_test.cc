// From requests to events: both protocols, against the decoder of the logs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include <nlohmann/json.hpp>

#include "learner/schema.h"
#include "serving/infer_v2.h"
#include "serving/predict_v1.h"
#include "tests/serving/small_snapshot.h"

namespace sluice {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// The manifest of the small model of small_snapshot.h, as far as requests need it.
nlohmann::ordered_json small_manifest() {
  const Config config = small_config();
  nlohmann::ordered_json manifest = Schema(config.features, config.model).json();
  manifest["streams"] = {{"ts", "ts"}, {"impression_id", "ids.impression"}, {"not_before", 1000}};
  return manifest;
}

InputForm small_form() {
  auto form = InputForm::from_manifest(small_manifest());
  EXPECT_TRUE(form);
  return *std::move(form);
}

// The events of instances, in JSON.
std::vector<json> predicted(const std::string& instances, std::size_t max_rows = 10) {
  RequestLimits limits;
  limits.max_rows = max_rows;
  const auto events = read_predict(R"({"instances": )" + instances + "}", small_form(), limits);
  if (!events) return {json(events.error().message)};
  std::vector<json> read;
  for (const std::string& event : *events) read.push_back(json::parse(event));
  return read;
}

std::string refusal_of(const std::string& instances) {
  const std::vector<json> read = predicted(instances);
  return read.size() == 1 && read[0].is_string() ? read[0].get<std::string>() : "";
}

HttpRequest infer_request(const std::string& inputs, const std::string& binary = {}) {
  HttpRequest http{"POST", "", "", R"({"inputs": )" + inputs + "}", std::nullopt};
  http.json_bytes = http.body.size();
  http.body += binary;
  return http;
}

std::vector<json> inferred(const std::string& inputs, const std::string& binary = {}) {
  const auto request = read_infer(infer_request(inputs, binary), small_form(), {});
  if (!request) return {json(request.error().message)};
  std::vector<json> read;
  for (const std::string& event : request->events) read.push_back(json::parse(event));
  return read;
}

TEST(PredictV1, NamedFeaturesStandAtTheirPaths) {
  const std::vector<json> events = predicted(
      R"([{"user": 7, "age": 0.5, "friends": [1, "x"], "tags": {"red": 1}, "impression_id": "a"}, {}])");
  ASSERT_EQ(events.size(), 2);
  EXPECT_EQ(events[0], json::parse(R"({"user": {"id": 7, "age": 0.5}, "friends": [1, "x"],
      "tags": {"red": 1}, "ts": 1000, "ids": {"impression": "a"}})"));
  EXPECT_EQ(events[1], json::parse(R"({"ts": 1000, "ids": {"impression": "#1"}})"));
}

TEST(PredictV1, AWholeEventStaysAsItIs) {
  const std::string event = small_impression(3);
  const std::vector<json> events = predicted("[" + event + "]");
  ASSERT_EQ(events.size(), 1);
  EXPECT_EQ(events[0], json::parse(event));
}

TEST(PredictV1, NumbersKeepTheirBitsAndTheirKind) {
  for (const char* text : {"0.1", "1e-300", "-0.0", "5.0", "18446744073709551615",
                           "-9223372036854775808", "123456789.123456789", "1e22"}) {
    const auto events =
        read_predict(R"({"instances": [{"age": )" + std::string(text) + "}]}", small_form(), {});
    ASSERT_TRUE(events);
    const json value = json::parse(events->front()).at("user").at("age");
    const json expected = json::parse(text);
    EXPECT_EQ(value.type(), expected.type()) << text;
    EXPECT_EQ(value.dump(), expected.dump());
  }
}

TEST(PredictV1, TextsOfAnyKindComeThrough) {
  const std::string text = "\"quoted\" \\ \n \x01 \x7f é 日 \U0001F600";
  const std::vector<json> events = predicted("[" + json({{"user", text}}).dump() + "]");
  ASSERT_EQ(events.size(), 1);
  EXPECT_EQ(events[0]["user"]["id"], text);
}

TEST(PredictV1, WhatIsNoInstanceIsRefused) {
  EXPECT_THAT(refusal_of("[{}, 3]"), HasSubstr("instance 1: is no object"));
  EXPECT_THAT(refusal_of(R"([{"usr": 3}])"), HasSubstr("did you mean \"user\""));
  EXPECT_THAT(refusal_of(R"([{"user": 3, "user": 4}])"), HasSubstr("twice"));
  EXPECT_THAT(refusal_of(R"([{"impression_id": ""}])"), HasSubstr("impression_id"));
  EXPECT_THAT(refusal_of("[]"), HasSubstr("no instances"));
  EXPECT_THAT(refusal_of("7"), HasSubstr("instances"));
  // The field of time alone makes no event.
  EXPECT_THAT(refusal_of(R"([{"ts": 1}])"), HasSubstr("whole event"));
}

TEST(PredictV1, RowsAreBounded) {
  EXPECT_EQ(predicted("[{}, {}]", 2).size(), 2);
  const auto refused = read_predict(R"({"instances": [{}, {}, {}]})", small_form(), {2, 10});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().status, 413);
}

TEST(InferV2, TensorsBecomeRows) {
  const std::vector<json> events = inferred(R"([
    {"name": "user", "shape": [2], "datatype": "BYTES", "data": ["a", null]},
    {"name": "age", "shape": [2, 1], "datatype": "FP64", "data": [[0.1], [2]]},
    {"name": "friends", "shape": [2, 2], "datatype": "INT64", "data": [1, 2, 3, 4]},
    {"name": "tags", "shape": [2], "datatype": "BYTES", "data": ["{\"red\": 0.5}", "null"]},
    {"name": "impression_id", "shape": [2], "datatype": "BYTES", "data": ["i1", null]}])");
  ASSERT_EQ(events.size(), 2);
  EXPECT_EQ(events[0], json::parse(R"({"user": {"id": "a", "age": 0.1}, "friends": [1, 2],
      "tags": {"red": 0.5}, "ts": 1000, "ids": {"impression": "i1"}})"));
  EXPECT_EQ(events[1], json::parse(R"({"user": {"id": null, "age": 2}, "friends": [3, 4],
      "tags": null, "ts": 1000, "ids": {"impression": "#1"}})"));
}

template <class T>
std::string bytes_of(std::initializer_list<T> values) {
  return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(T)};
}

TEST(InferV2, BinaryTensorsSayTheSame) {
  const std::string texts = bytes_of<std::uint32_t>({2}) + "ab" + bytes_of<std::uint32_t>({0});
  const std::string numbers = bytes_of<double>({0.1, -1e300});
  const auto input = [](const std::string& name, const std::string& type, std::size_t size) {
    return R"({"name": ")" + name + R"(", "shape": [2], "datatype": ")" + type +
           R"(", "parameters": {"binary_data_size": )" + std::to_string(size) + "}}";
  };
  std::vector<json> events = inferred(
      "[" + input("user", "BYTES", texts.size()) + "," + input("age", "FP64", numbers.size()) + "]",
      texts + numbers);
  ASSERT_EQ(events.size(), 2);
  EXPECT_EQ(events[0]["user"], json::parse(R"({"id": "ab", "age": 0.1})"));
  EXPECT_EQ(events[1]["user"], json::parse(R"({"id": "", "age": -1e300})"));

  const auto one = [&](const std::string& type, const std::string& bytes) {
    const std::vector<json> read = inferred("[" + input("age", type, bytes.size()) + "]", bytes);
    return read.size() == 2 ? read[0]["user"]["age"].dump() + " " + read[1]["user"]["age"].dump()
                            : read[0].get<std::string>();
  };
  EXPECT_EQ(one("INT8", bytes_of<std::int8_t>({-1, 127})), "-1 127");
  EXPECT_EQ(one("INT16", bytes_of<std::int16_t>({-300, 5})), "-300 5");
  EXPECT_EQ(one("INT32", bytes_of<std::int32_t>({INT32_MIN, 5})), "-2147483648 5");
  EXPECT_EQ(one("INT64", bytes_of<std::int64_t>({INT64_MIN, 5})), "-9223372036854775808 5");
  EXPECT_EQ(one("UINT8", bytes_of<std::uint8_t>({255, 0})), "255 0");
  EXPECT_EQ(one("UINT16", bytes_of<std::uint16_t>({65535, 0})), "65535 0");
  EXPECT_EQ(one("UINT32", bytes_of<std::uint32_t>({UINT32_MAX, 0})), "4294967295 0");
  EXPECT_EQ(one("UINT64", bytes_of<std::uint64_t>({UINT64_MAX, 0})), "18446744073709551615 0");
  EXPECT_EQ(one("FP32", bytes_of<float>({0.5F, 3.0F})), "0.5 3");
  EXPECT_EQ(one("FP64", bytes_of<double>({std::numeric_limits<double>::quiet_NaN(), 1})), "null 1");
  EXPECT_THAT(one("FP64", bytes_of<double>({std::numeric_limits<double>::infinity(), 0})),
              HasSubstr("infinite"));
  EXPECT_THAT(one("INT64", bytes_of<std::int64_t>({1})), HasSubstr("shape"));
  EXPECT_THAT(one("INT64", bytes_of<std::int64_t>({1, 2, 3})), HasSubstr("shape"));
  EXPECT_THAT(inferred("[" + input("age", "FP64", 999) + "]", "x")[0].get<std::string>(),
              HasSubstr("less binary data"));
  EXPECT_THAT(
      inferred(R"([{"name": "age", "shape": [1], "datatype": "FP64", "data": [1]}])", "x")[0]
          .get<std::string>(),
      HasSubstr("more binary data"));
}

TEST(InferV2, OutputsAndIdComeBack) {
  HttpRequest http = infer_request(R"([{"name": "age", "shape": [2, 1], "datatype": "FP64",
      "data": [1, 2]}], "id": "x\"y", "outputs": [{"name": "pctcvr"},
      {"name": "pctr", "parameters": {"binary_data": true}}])");
  const auto request = read_infer(http, small_form(), {});
  ASSERT_TRUE(request) << request.error().message;
  std::vector<Prediction> predictions(2);
  predictions[0].ctcvr.yes = 0.1;
  predictions[1].ctcvr.yes = 1e-20;
  predictions[1].ctr.yes = 0.3;
  const HttpReply reply = infer_reply(*request, "m", "12", predictions);
  ASSERT_EQ(reply.headers.size(), 1);
  const std::size_t head = std::stoul(reply.headers[0].second);
  EXPECT_EQ(json::parse(reply.body.substr(0, head)),
            json::parse(R"({"model_name": "m", "model_version": "12", "id": "x\"y", "outputs": [
      {"name": "pctcvr", "datatype": "FP64", "shape": [2, 1], "data": [0.1, 1e-20]},
      {"name": "pctr", "datatype": "FP64", "shape": [2, 1],
       "parameters": {"binary_data_size": 16}}]})"));
  double second = 0;
  std::memcpy(&second, reply.body.data() + head + 8, 8);
  EXPECT_EQ(second, 0.3);
}

TEST(InputForm, ValuesThatLieInEachOtherAreRefused) {
  nlohmann::ordered_json manifest = small_manifest();
  manifest["features"].push_back({{"name", "whole"}, {"path", "user"}, {"type", "weighted_ids"}});
  const auto form = InputForm::from_manifest(manifest);
  ASSERT_TRUE(form);
  const auto both = read_predict(R"({"instances": [{"whole": {"id": 1}, "age": 3}]})", *form, {});
  ASSERT_FALSE(both);
  EXPECT_THAT(both.error().message, HasSubstr("lie in each other"));
  EXPECT_TRUE(read_predict(R"({"instances": [{"whole": {"id": 1}}]})", *form, {}));
}

TEST(InputForm, FeaturesOfOnePathShareTheirValue) {
  nlohmann::ordered_json manifest = small_manifest();
  manifest["features"].push_back({{"name", "years"}, {"path", "user.age"}, {"type", "id"}});
  const auto form = InputForm::from_manifest(manifest);
  ASSERT_TRUE(form);
  EXPECT_TRUE(read_predict(R"({"instances": [{"years": 3, "age": 3}]})", *form, {}));
  EXPECT_FALSE(read_predict(R"({"instances": [{"years": 3, "age": 4}]})", *form, {}));
}

TEST(InputForm, AManifestThatDoesNotSayIsAnError) {
  EXPECT_FALSE(InputForm::from_manifest(nlohmann::ordered_json::object()));
  EXPECT_FALSE(InputForm::from_manifest({{"features", 3}}));
}

}  // namespace
}  // namespace sluice
