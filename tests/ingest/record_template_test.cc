// Records that are read by a template must come out as the full parser has them: the same records
// accepted, with the same texts, and the same refused for the same reason.
#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/hash.h"
#include "ingest/decoder.h"
#include "ingest/record_template.h"

namespace sluice {
namespace {

class TestRandom {
 public:
  explicit TestRandom(std::uint64_t seed) : state_(mix64(seed)) {}
  std::uint64_t below(std::uint64_t bound) { return mix64(state_++) % bound; }
  bool one_in(std::uint64_t count) { return below(count) == 0; }

 private:
  std::uint64_t state_;
};

// What came out, in words.
std::string words(const tl::expected<Decoded, Rejection>& decoded) {
  if (!decoded)
    return std::string(to_string(decoded.error().reason)) + ": " + decoded.error().detail;
  const Event& event = decoded->event;
  std::string text = std::to_string(event.time()) + " " + std::to_string(event.position()) + " " +
                     std::to_string(decoded->log_time.value_or(-1));
  for (const std::string_view part : {event.id(), event.impression_id(), event.user_id(),
                                      event.item_id(), event.features(), event.record()}) {
    text += "|" + std::to_string(part.size()) + ":" + std::string(part);
  }
  return text;
}

// A producer's way of writing records: its fields, their order, and the space between them.
class Producer {
 public:
  explicit Producer(TestRandom& random) : random_(random) {
    const std::array<const char*, 8> own = {"ts",      "impression_id", "event_id", "user_id",
                                            "item_id", "log_time",      "extra",    "features"};
    for (const char* name : own) {
      if (!random_.one_in(6) || std::string(name) == "ts") fields_.emplace_back(name);
    }
    for (std::size_t left = fields_.size(); left > 1; --left) {
      std::swap(fields_[left - 1], fields_[random_.below(left)]);
    }
    if (random_.one_in(8)) fields_.push_back(fields_[random_.below(fields_.size())]);
    space_ = random_.one_in(3) ? " " : "";
    is_odd_ = random_.one_in(3);
  }

  std::string record() {
    std::string text = space_ + "{";
    for (const std::string& name : fields_) {
      if (text.back() != '{') text += "," + space_;
      text += "\"" + name + "\":" + space_;
      text += name == "features" ? features() : name == "ts" ? time() : value();
    }
    return text + "}" + space_;
  }

 private:
  std::string time() { return is_odd_ && random_.one_in(9) ? value() : big_number(); }
  std::string big_number() { return std::to_string(1'700'000'000'000 + random_.below(1'000'000)); }

  std::string features() {
    std::string text = "{";
    for (const char* name : {"id", "list", "number", "weights", "nobody"}) {
      if (text.size() > 1) text += ",";
      text += "\"" + std::string(name) + "\":" + value();
    }
    return text + "}";
  }

  std::string value() {
    if (is_odd_ && random_.one_in(3)) {
      const std::array<const char*, 16> odd = {
          "null",       "true", "-0",   "01",      "1.5",   "[1,\"a\"]", "{\"a\":1}",
          "1e3",        "[]",   "\"\"", "\"\\n\"", "\"é\"", "\"\x01\"",  "18446744073709551615",
          "{\"a\":{}}", "-"};
      return odd[random_.below(odd.size())];
    }
    const std::uint64_t kind = random_.below(4);
    if (kind == 0) return std::to_string(random_.below(10));
    if (kind == 1) return "-" + std::to_string(1 + random_.below(std::uint64_t{1} << 62));
    if (kind == 2) return std::to_string(random_.below(std::uint64_t{1} << random_.below(64)));
    return "\"" + std::string(random_.below(40), static_cast<char>('!' + 2 + random_.below(40))) +
           "\"";
  }

  TestRandom& random_;
  std::vector<std::string> fields_;
  std::string space_;
  bool is_odd_ = false;
};

// A byte changed, lost, doubled or put in.
std::string damage(std::string text, TestRandom& random) {
  const std::size_t at = random.below(text.size());
  switch (random.below(5)) {
    case 0:
      text[at] = static_cast<char>(random.below(256));
      break;
    case 1:
      text.erase(at, 1 + random.below(4));
      break;
    case 2:
      text.insert(at, text, random.below(text.size()), 1 + random.below(20));
      break;
    case 3:
      text.insert(at, 1, "\"\\{}[]:,0-.e 9n\xc3"[random.below(16)]);
      break;
    default:
      text.resize(at);
  }
  return text;
}

TEST(RecordTemplate, RecordsComeOutAsTheParserHasThem) {
  StreamsConfig streams;
  streams.log_time = "log_time";
  streams.value = "extra";
  streams.max_record_bytes = 600;
  streams.max_depth = 3;
  std::vector<FeatureConfig> features;
  const std::array<FeatureConfig::Type, 4> types = {
      FeatureConfig::Type::id, FeatureConfig::Type::ids, FeatureConfig::Type::number,
      FeatureConfig::Type::weighted_ids};
  const std::array<const char*, 4> names = {"id", "list", "number", "weights"};
  for (std::size_t index = 0; index < names.size(); ++index) {
    features.push_back({names[index],
                        std::string("features.") + names[index],
                        types[index],
                        names[index],
                        0,
                        {},
                        {}});
  }
  features.push_back({"user", "user_id", FeatureConfig::Type::id, "user", 0, {}, {}});
  features.push_back({"whole", "extra", FeatureConfig::Type::id, "whole", 0, {}, {}});
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    TestRandom random(seed);
    JoinConfig join;
    if (random.one_in(2)) join.attribution = JoinConfig::Attribution::user_item;
    if (random.one_in(2)) join.purchase_value = JoinConfig::PurchaseValue::sum;
    Decoder decoder(streams, join, features);
    Decoder oracle(streams, join, features);
    std::vector<Producer> producers;
    for (int count = 0; count < 3; ++count) producers.emplace_back(random);
    for (Position step = 0; step < 200; ++step) {
      // Long runs of one producer, then of another; streams by turns.
      Record record;
      record.bytes = producers[(step / 60) % producers.size()].record();
      if (random.one_in(4)) record.bytes = damage(record.bytes, random);
      record.position = step;
      const auto stream = static_cast<Stream>(random.one_in(3) ? random.below(kStreams) : 0);
      ASSERT_EQ(words(decoder.decode(stream, record)),
                words(oracle.decode_by_parser(stream, record)))
          << record.bytes;
    }
  }
}

// Else the test above would compare the parser with itself.
TEST(RecordTemplate, ALearnedRecordMatchesOthersOfItsKind) {
  PathNode wanted;
  wanted.add("ts", 0);
  wanted.add("user", 1);
  wanted.add("features.a", 2);
  wanted.add("features.a", 3);
  RecordTemplate learned;
  std::array<FieldValue, 4> values;
  EXPECT_FALSE(learned.match("{}", values.data()));
  learned.learn(R"({"ts":1, "user":"u", "other":null, "features":{"a":17,"b":"c"}})", wanted);
  const std::string text =
      R"({"ts":1700000000000, "user":"someone with a long name", "other":null, )"
      R"("features":{"a":-123456789,"b":""}})";
  ASSERT_TRUE(learned.match(text, values.data()));
  EXPECT_EQ(values[0].integer, 1'700'000'000'000);
  EXPECT_EQ(values[1].text, "someone with a long name");
  EXPECT_EQ(values[2].integer, -123'456'789);
  EXPECT_EQ(values[3].integer, -123'456'789);
  for (const char* const other :
       {R"({"ts":1, "user":"u", "other":null, "features":{"a":17,"b":"c"}} )",
        R"({"ts":1, "user":"u", "other":null, "features":{"a":17,"b":"c"})",
        R"({"ts":1, "user":"\n", "other":null, "features":{"a":17,"b":"c"}})",
        R"({"ts":1, "user":7, "other":null, "features":{"a":17,"b":"c"}})",
        R"({"ts":1, "user":"u", "other":true, "features":{"a":17,"b":"c"}})",
        R"({"ts":01, "user":"u", "other":null, "features":{"a":17,"b":"c"}})",
        R"({"ts":1.0, "user":"u", "other":null, "features":{"a":17,"b":"c"}})",
        R"({"ts":1234567890123456789, "user":"u", "other":null, "features":{"a":17,"b":"c"}})"}) {
    EXPECT_FALSE(learned.match(other, values.data())) << other;
  }
}

TEST(RecordTemplate, WhatItCannotTellApartItDoesNotLearn) {
  PathNode wanted;
  wanted.add("a", 0);
  wanted.add("b.c", 1);
  std::array<FieldValue, 2> values;
  for (const char* const text :
       {R"({"a":1.5})", R"({"a":[1]})", R"({"a":{"c":1}})", R"({"a":1,"a":2})", R"({"a":true})",
        R"({"a":"\u0041"})", R"({"a":"é"})", R"({"\u0061":1})", R"([1])", R"(1)"}) {
    RecordTemplate learned;
    learned.learn(text, wanted);
    EXPECT_FALSE(learned.match(text, values.data())) << text;
  }
}

}  // namespace
}  // namespace sluice
