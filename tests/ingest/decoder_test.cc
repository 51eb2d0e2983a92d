#include "ingest/decoder.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "ingest/features.h"

namespace sluice {
namespace {

constexpr const char* kImpression = R"({"ts":1700000000000,"event_id":"i1","impression_id":"a",)"
                                    R"("user_id":"u","item_id":"x"})";

Record record_of(std::string bytes) {
  Record record;
  record.position = 17;
  record.next = 18 + bytes.size();
  record.bytes = std::move(bytes);
  return record;
}

class DecoderTest : public ::testing::Test {
 protected:
  tl::expected<Decoded, Rejection> decode(const std::string& bytes,
                                          Stream stream = Stream::impressions) {
    Decoder decoder(streams_, join_, features_);
    return decoder.decode(stream, record_of(bytes));
  }
  bool accepts(const std::string& bytes, Stream stream = Stream::impressions) {
    return decode(bytes, stream).has_value();
  }
  // The reason and the detail, or "accepted".
  std::string verdict(const std::string& bytes, Stream stream = Stream::impressions) {
    const auto decoded = decode(bytes, stream);
    if (decoded) return "accepted";
    return std::string(to_string(decoded.error().reason)) + ": " + decoded.error().detail;
  }
  bool is_malformed(const std::string& bytes, Stream stream = Stream::impressions) {
    const auto decoded = decode(bytes, stream);
    return !decoded && decoded.error().reason == Refusal::malformed;
  }
  // An impression with further fields.
  static std::string impression_with(const std::string& fields) {
    return R"({"ts":1700000000000,"impression_id":"a",)" + fields + "}";
  }

  StreamsConfig streams_;
  JoinConfig join_;
  std::vector<FeatureConfig> features_;
};

TEST_F(DecoderTest, ReadsAnImpression) {
  const auto decoded = decode(kImpression);
  ASSERT_TRUE(decoded.has_value());
  const Event& event = decoded->event;
  EXPECT_EQ(event.stream(), Stream::impressions);
  EXPECT_EQ(event.time(), 1'700'000'000'000);
  EXPECT_EQ(event.position(), 17u);
  EXPECT_EQ(event.id(), "i1");
  EXPECT_EQ(event.impression_id(), "a");
  EXPECT_EQ(event.user_id(), "u");
  EXPECT_EQ(event.item_id(), "x");
  EXPECT_EQ(event.record(), "");
  EXPECT_FALSE(decoded->log_time.has_value());
}

TEST_F(DecoderTest, AClickKeepsItsBytesAndMayLackAnEventId) {
  const std::string bytes = R"( {"ts":1700000000001, "impression_id":"a"} )";
  const auto decoded = decode(bytes, Stream::clicks);
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->event.id(), "");
  EXPECT_EQ(decoded->event.record(), bytes);
}

TEST_F(DecoderTest, AnImpressionWithoutAnEventIdIsKnownByItsImpressionId) {
  EXPECT_EQ(decode(impression_with(R"("user_id":"u")"))->event.id(), "a");
  EXPECT_EQ(decode(impression_with(R"("event_id":"")"))->event.id(), "a");
  EXPECT_EQ(decode(impression_with(R"("event_id":null)"))->event.id(), "a");
}

TEST_F(DecoderTest, AnIntegerIdIsItsDigits) {
  const auto text = decode(R"({"ts":1700000000000,"impression_id":"7","user_id":"-5"})");
  const auto number = decode(R"({"ts":1700000000000,"impression_id":7,"user_id":-5})");
  ASSERT_TRUE(text.has_value());
  ASSERT_TRUE(number.has_value());
  EXPECT_EQ(text->event.impression_id(), number->event.impression_id());
  EXPECT_EQ(text->event.user_id(), number->event.user_id());
  const auto big = decode(R"({"ts":1700000000000,"impression_id":18446744073709551615,)"
                          R"("user_id":-9223372036854775808})");
  ASSERT_TRUE(big.has_value());
  EXPECT_EQ(big->event.impression_id(), "18446744073709551615");
  EXPECT_EQ(big->event.user_id(), "-9223372036854775808");
}

TEST_F(DecoderTest, IntegersBeyond64BitsAreMalformed) {
  EXPECT_TRUE(is_malformed(impression_with(R"("user_id":18446744073709551616)")));
  EXPECT_TRUE(is_malformed(impression_with(R"("unknown":-9223372036854775809)")));
  EXPECT_TRUE(is_malformed(impression_with(R"("unknown":123456789012345678901234567890)")));
}

TEST_F(DecoderTest, IdsOfOtherTypesAreMalformed) {
  for (const char* name : {"impression_id", "user_id", "item_id", "event_id"}) {
    for (const char* value : {"1.5", "true", "[]", "{}", "1e3"}) {
      const std::string others =
          std::string(name) == "impression_id" ? "" : R"("impression_id":"a",)";
      EXPECT_TRUE(
          is_malformed("{\"ts\":1700000000000," + others + "\"" + name + "\":" + value + "}"))
          << name << " " << value;
    }
  }
}

TEST_F(DecoderTest, RequiredIdsFollowTheAttribution) {
  const std::string only_impression_id = R"({"ts":1700000000000,"impression_id":"a"})";
  const std::string only_user_item = R"({"ts":1700000000000,"user_id":"u","item_id":"x"})";
  const std::string only_user = R"({"ts":1700000000000,"impression_id":"a","user_id":"u"})";
  for (const Stream stream :
       {Stream::impressions, Stream::clicks, Stream::actions, Stream::purchases}) {
    EXPECT_TRUE(accepts(only_impression_id, stream));
    EXPECT_TRUE(is_malformed(only_user_item, stream));
  }
  join_.attribution = JoinConfig::Attribution::user_item;
  EXPECT_TRUE(is_malformed(only_user_item, Stream::impressions));  // always needs its own id
  EXPECT_TRUE(accepts(only_user_item, Stream::clicks));
  EXPECT_TRUE(accepts(only_user_item, Stream::actions));
  EXPECT_TRUE(accepts(only_user_item, Stream::purchases));
  for (const Stream stream :
       {Stream::impressions, Stream::clicks, Stream::actions, Stream::purchases}) {
    EXPECT_TRUE(is_malformed(only_impression_id, stream));
    EXPECT_TRUE(is_malformed(only_user, stream));
  }
}

TEST_F(DecoderTest, EmptyAndNullRequiredIdsAreAbsent) {
  EXPECT_EQ(verdict(R"({"ts":1700000000000,"impression_id":""})"),
            "malformed: impression_id: absent");
  EXPECT_EQ(verdict(R"({"ts":1700000000000,"impression_id":null})"),
            "malformed: impression_id: absent");
  EXPECT_EQ(verdict(R"({"ts":1700000000000})"), "malformed: impression_id: absent");
}

TEST_F(DecoderTest, TimesThatMakeNoSenseAreMalformed) {
  const auto with_ts = [](const std::string& ts) {
    return "{\"ts\":" + ts + R"(,"impression_id":"a"})";
  };
  EXPECT_TRUE(accepts(with_ts("1700000000000")));
  EXPECT_TRUE(accepts(with_ts("1000000000000")));    // streams.not_before
  EXPECT_TRUE(accepts(with_ts("253402300799999")));  // the end of the year 9999
  for (const char* ts : {"999999999999", "1700000000", "0", "-1", "null", "1700000000000.0",
                         "1.7e12", "\"1700000000000\"", "253402300800000", "9223372036854775807",
                         "18446744073709551615", "true", "[]", "{}"}) {
    EXPECT_TRUE(is_malformed(with_ts(ts))) << ts;
  }
  EXPECT_TRUE(is_malformed(R"({"impression_id":"a"})"));
  streams_.not_before = 0;
  EXPECT_TRUE(accepts(with_ts("0")));
}

TEST_F(DecoderTest, OnlyOneWholeObjectIsARecord) {
  const std::string good = kImpression;
  ASSERT_TRUE(accepts(good));
  EXPECT_TRUE(accepts(" \t" + good + " \r"));
  for (const std::string& bad : std::vector<std::string>{
           "", " ", "{", "[" + good + "]", "null", "7", "\"text\"", good + good, good + " {}",
           good + ",", good + "x", good + "}", good.substr(0, good.size() - 1), "x" + good,
           good.substr(0, 10) + '\0' + good.substr(10), good + '\0'}) {
    EXPECT_TRUE(is_malformed(bad)) << bad;
  }
}

TEST_F(DecoderTest, WhatIsNotReadMustBeValidToo) {
  EXPECT_TRUE(accepts(impression_with(R"("other":[1,{"a":"\u00e4"}])")));
  for (const char* field : {R"("other":[1,])", R"("other":01)", R"("other":"\x")", R"("other":nul)",
                            R"("other":"\ud800")", R"("other":{"a"})", R"("other":1 2)"}) {
    EXPECT_TRUE(is_malformed(impression_with(field))) << field;
  }
}

TEST_F(DecoderTest, InvalidUtf8IsMalformed) {
  EXPECT_TRUE(accepts(impression_with("\"other\":\"\xc3\xa4\"")));
  EXPECT_TRUE(is_malformed(impression_with("\"other\":\"\xff\"")));
  EXPECT_TRUE(is_malformed(impression_with("\"other\":\"\xc3\"")));
  EXPECT_TRUE(is_malformed(impression_with("\"other\":\"\xc0\x80\"")));      // overlong
  EXPECT_TRUE(is_malformed(impression_with("\"other\":\"\xed\xa0\x80\"")));  // a surrogate
}

TEST_F(DecoderTest, NestingIsBoundedExactly) {
  // The record itself is the first level.
  const auto nested = [](std::size_t depth) {
    return impression_with("\"other\":" + std::string(depth - 1, '[') + "1" +
                           std::string(depth - 1, ']'));
  };
  EXPECT_TRUE(accepts(nested(streams_.max_depth)));
  EXPECT_TRUE(is_malformed(nested(streams_.max_depth + 1)));
  const auto objects = [](std::size_t depth) {
    std::string value = "1";
    for (std::size_t level = 1; level < depth; ++level) value = "{\"o\":" + value + "}";
    return impression_with("\"other\":" + value);
  };
  EXPECT_TRUE(accepts(objects(streams_.max_depth)));
  EXPECT_TRUE(is_malformed(objects(streams_.max_depth + 1)));
  streams_.max_depth = 1;
  EXPECT_TRUE(accepts(kImpression));
  EXPECT_TRUE(is_malformed(impression_with("\"other\":{\"o\":1}")));
  EXPECT_TRUE(accepts(impression_with("\"other\":{}")));  // empty: no level
  streams_.max_depth = 5'000;
  EXPECT_TRUE(accepts(nested(5'000)));
  EXPECT_TRUE(is_malformed(nested(5'001)));
}

TEST_F(DecoderTest, LengthIsBoundedExactly) {
  streams_.max_record_bytes = 200;
  std::string bytes = kImpression;
  bytes.insert(bytes.size() - 1, std::string(200 - bytes.size(), ' '));
  EXPECT_TRUE(accepts(bytes));
  bytes.insert(bytes.size() - 1, " ");
  EXPECT_EQ(verdict(bytes), "oversized: 201 bytes");
  // Before anything else is judged.
  EXPECT_EQ(verdict(std::string(300, 'x')), "oversized: 300 bytes");
}

TEST_F(DecoderTest, OneDecoderTakesRecordsOfAllSizes) {
  Decoder decoder(streams_, join_, features_);
  for (const std::size_t padding : {0u, 5'000u, 10u, 200'000u, 1'000'000u, 0u}) {
    const std::string bytes =
        impression_with("\"other\":\"" + std::string(padding, 'x') + "\",\"user_id\":\"u\"");
    const auto decoded = decoder.decode(Stream::impressions, record_of(bytes));
    ASSERT_TRUE(decoded.has_value()) << padding;
    EXPECT_EQ(decoded->event.user_id(), "u");
    EXPECT_FALSE(decoder.decode(Stream::impressions, record_of("{")).has_value());
  }
}

TEST_F(DecoderTest, AFieldThatStandsTwiceCountsWhereItStandsFirst) {
  const auto decoded =
      decode(R"({"ts":1700000000000,"ts":1700000000005,"impression_id":"a","impression_id":"b",)"
             R"("user_id":null,"user_id":"u"})");
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->event.time(), 1'700'000'000'000);
  EXPECT_EQ(decoded->event.impression_id(), "a");
  EXPECT_EQ(decoded->event.user_id(), "");
  EXPECT_TRUE(is_malformed(R"({"ts":"x","ts":1700000000005,"impression_id":"a"})"));
}

TEST_F(DecoderTest, AnOuterFieldThatStandsTwiceCountsWhereItStandsFirst) {
  features_ = {{"a", "f.a", FeatureConfig::Type::id, "a", 0, {}},
               {"b", "f.b", FeatureConfig::Type::id, "b", 0, {}}};
  std::string expected;
  FeatureWriter writer(expected);
  writer.id(std::int64_t{1});
  writer.absent();
  const auto decoded = decode(impression_with(R"("f":{"a":1},"f":{"a":2,"b":3})"));
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->event.features(), expected);
}

TEST_F(DecoderTest, EscapedNamesAndValuesAreReadAsText) {
  const auto decoded =
      decode(R"({"\u0074s":1700000000000,"impression_id":"a\u0000b\n","user_id":"\u00e4"})");
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->event.impression_id(), std::string_view("a\0b\n", 4));
  EXPECT_EQ(decoded->event.user_id(), "\xc3\xa4");
}

TEST_F(DecoderTest, OtherNamesAndPaths) {
  streams_.ts = "meta.time";
  streams_.impression_id = "meta.id";
  streams_.user_id = "who";
  const auto decoded = decode(
      R"({"ts":5,"meta":{"x":{"id":"no"},"time":1700000000000,"id":"a"},"who":"u","user_id":"no"})");
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->event.impression_id(), "a");
  EXPECT_EQ(decoded->event.user_id(), "u");
  EXPECT_TRUE(is_malformed(R"({"meta":[{"time":1700000000000,"id":"a"}]})"));
}

TEST_F(DecoderTest, LogTimeIsTheRecordsOwnElseTheBrokers) {
  streams_.log_time = "written";
  EXPECT_EQ(decode(impression_with(R"("written":1700000000123)"))->log_time, 1'700'000'000'123);
  EXPECT_FALSE(decode(impression_with(R"("user_id":"u")"))->log_time.has_value());
  EXPECT_FALSE(decode(impression_with(R"("written":null)"))->log_time.has_value());
  EXPECT_TRUE(is_malformed(impression_with(R"("written":"soon")")));
  EXPECT_TRUE(is_malformed(impression_with(R"("written":1.5)")));
  Decoder decoder(streams_, join_, features_);
  Record record = record_of(kImpression);
  record.log_time = 1'700'000'000'456;
  EXPECT_EQ(decoder.decode(Stream::impressions, record)->log_time, 1'700'000'000'456);
  record.bytes = impression_with(R"("written":1700000000123)");
  EXPECT_EQ(decoder.decode(Stream::impressions, record)->log_time, 1'700'000'000'123);
}

// ---- the value of a purchase

class ValueDecoding : public DecoderTest {
 protected:
  ValueDecoding() {
    join_.purchase_value = JoinConfig::PurchaseValue::sum;
    streams_.value = "basket.total";
  }
  // Of a purchase with this basket: decoded twice, so that the second time a template can match.
  std::optional<Micros> value(const std::string& basket, Stream stream = Stream::purchases) {
    Decoder decoder(streams_, join_, features_);
    const Record record =
        record_of(R"({"ts":1700000000000,"impression_id":"a","basket":)" + basket + "}");
    const auto first = decoder.decode(stream, record);
    const auto second = decoder.decode(stream, record);
    EXPECT_TRUE(first.has_value() && second.has_value()) << basket;
    if (!first || !second) return std::nullopt;
    EXPECT_EQ(first->event.value(), second->event.value()) << basket;
    return first->event.value();
  }
};

TEST_F(ValueDecoding, NumbersAreMillionths) {
  EXPECT_EQ(value(R"({"total":7})"), 7'000'000);
  EXPECT_EQ(value(R"({"total":-7})"), -7'000'000);
  EXPECT_EQ(value(R"({"total":0})"), 0);
  EXPECT_EQ(value(R"({"total":19.99})"), 19'990'000);
  EXPECT_EQ(value(R"({"total":1e3})"), 1'000'000'000);
  EXPECT_EQ(value(R"({"total":1e-6,"total":5})"), 1);
  EXPECT_EQ(value(R"({"total":9223372036854775807})"), INT64_MAX);
  EXPECT_EQ(value(R"({"total":18446744073709551615})"), INT64_MAX);
  EXPECT_EQ(value(R"({"total":-9223372036854775808})"), INT64_MIN);
  EXPECT_EQ(value(R"({"total":1e300})"), INT64_MAX);
}

// A purchase is one, whatever is said of its value.
TEST_F(ValueDecoding, WhatIsNoNumberIsNoneAndRefusesNothing) {
  for (const char* basket :
       {R"({})", R"({"total":null})", R"({"total":"5"})", R"({"total":true})", R"({"total":[5]})",
        R"({"total":{"a":5}})", R"(5)", R"([5])", R"(null)"}) {
    EXPECT_EQ(value(basket), std::nullopt) << basket;
  }
  // Beyond what JSON can hold it is malformed, as any other field.
  EXPECT_TRUE(is_malformed(R"({"ts":1700000000000,"impression_id":"a","basket":{"total":1e999}})",
                           Stream::purchases));
}

TEST_F(ValueDecoding, OnlyPurchasesHaveOneAndOnlyWhereItIsAskedFor) {
  EXPECT_EQ(value(R"({"total":7})", Stream::clicks), std::nullopt);
  EXPECT_EQ(value(R"({"total":7})", Stream::actions), std::nullopt);
  EXPECT_EQ(value(R"({"total":7})", Stream::impressions), std::nullopt);
  join_.purchase_value = JoinConfig::PurchaseValue::none;
  EXPECT_EQ(value(R"({"total":7})"), std::nullopt);
}

// ---- features

class FeatureDecoding : public DecoderTest {
 protected:
  // What the decoder writes for feature "f" of `type` when the record's f is `json`.
  std::string encoded(FeatureConfig::Type type, const std::string& json) {
    features_ = {{"f", "f", type, "f", 0, {}}};
    const auto decoded = decode(impression_with("\"f\":" + json));
    EXPECT_TRUE(decoded.has_value()) << json;
    return decoded ? std::string(decoded->event.features()) : "refused";
  }
  template <class Write>
  static std::string written(Write write) {
    std::string bytes;
    FeatureWriter writer(bytes);
    write(writer);
    return bytes;
  }
  const std::string wrong_type_ = written([](FeatureWriter& w) { w.wrong_type(); });
  const std::string absent_ = written([](FeatureWriter& w) { w.absent(); });
};

TEST_F(FeatureDecoding, Ids) {
  using Type = FeatureConfig::Type;
  const std::string five = written([](FeatureWriter& w) { w.id(std::int64_t{5}); });
  EXPECT_EQ(encoded(Type::id, "5"), five);
  EXPECT_EQ(encoded(Type::id, "\"5\""), five);
  EXPECT_EQ(encoded(Type::id, "\"05\""), written([](FeatureWriter& w) { w.id("05"); }));
  EXPECT_EQ(encoded(Type::id, "\"\""), written([](FeatureWriter& w) { w.id(""); }));
  EXPECT_EQ(encoded(Type::id, "18446744073709551615"),
            encoded(Type::id, "\"18446744073709551615\""));
  EXPECT_EQ(encoded(Type::id, "null"), absent_);
  for (const char* json : {"5.0", "true", "[5]", "{}"}) {
    EXPECT_EQ(encoded(Type::id, json), wrong_type_) << json;
  }
}

TEST_F(FeatureDecoding, Lists) {
  using Type = FeatureConfig::Type;
  const std::string list = written([](FeatureWriter& w) {
    w.list(3);
    w.id(std::int64_t{3});
    w.id("a");
    w.id(std::int64_t{3});
  });
  EXPECT_EQ(encoded(Type::ids, R"([3,"a","3"])"), list);
  EXPECT_EQ(encoded(Type::ids, "[]"), written([](FeatureWriter& w) { w.list(0); }));
  EXPECT_EQ(encoded(Type::ids, "null"), absent_);
  for (const char* json : {"3", "\"a\"", "{}", "[1,1.5]", "[null]", "[[1]]", "[1,true]"}) {
    EXPECT_EQ(encoded(Type::ids, json), wrong_type_) << json;
  }
}

TEST_F(FeatureDecoding, WeightedIds) {
  using Type = FeatureConfig::Type;
  const std::string weighted = written([](FeatureWriter& w) {
    w.weighted(2);
    w.id("b");
    w.weight(0.5);
    w.id(std::int64_t{1});
    w.weight(-2);
  });
  EXPECT_EQ(encoded(Type::weighted_ids, R"({"b":0.5,"1":-2})"), weighted);
  EXPECT_EQ(encoded(Type::weighted_ids, R"([["b",0.5],[1,-2]])"), weighted);
  for (const char* json :
       {"1", "\"a\"", R"({"a":"1"})", R"({"a":null})", R"([["a"]])", R"([["a",1,2]])",
        R"([["a","1"]])", R"([[1.5,1]])", R"(["a",1])", "[[]]"}) {
    EXPECT_EQ(encoded(Type::weighted_ids, json), wrong_type_) << json;
  }
}

TEST_F(FeatureDecoding, Numbers) {
  using Type = FeatureConfig::Type;
  const auto number = [](double value) {
    return written([value](FeatureWriter& w) { w.number(value); });
  };
  EXPECT_EQ(encoded(Type::number, "5"), number(5));
  EXPECT_EQ(encoded(Type::number, "-2.5e3"), number(-2500));
  EXPECT_EQ(encoded(Type::number, "18446744073709551615"), number(18446744073709551615.0));
  EXPECT_EQ(encoded(Type::number, "null"), absent_);
  for (const char* json : {"\"5\"", "true", "[5]", "{}"}) {
    EXPECT_EQ(encoded(Type::number, json), wrong_type_) << json;
  }
}

TEST_F(FeatureDecoding, WrongTypesNeverRefuseAndNeverDisturbTheirNeighbours) {
  features_ = {{"a", "f.a", FeatureConfig::Type::ids, "a", 0, {}},
               {"b", "f.a", FeatureConfig::Type::number, "b", 0, {}},  // two of one path
               {"c", "f.c.d", FeatureConfig::Type::id, "c", 0, {}},
               {"u", "user_id", FeatureConfig::Type::id, "u", 0, {}}};  // also the event's own
  const auto decoded = decode(impression_with(R"("f":{"a":[1,{}],"c":{"d":"x"}},"user_id":"u")"));
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->event.user_id(), "u");
  EXPECT_EQ(decoded->event.features(), written([](FeatureWriter& w) {
              w.wrong_type();
              w.wrong_type();
              w.id("x");
              w.id("u");
            }));
  EXPECT_EQ(decode(impression_with(R"("f":7)"))->event.features(),
            absent_ + absent_ + absent_ + absent_);
  // Clicks have none.
  EXPECT_EQ(decode(impression_with(R"("f":{"a":[1]})"), Stream::clicks)->event.features(), "");
}

}  // namespace
}  // namespace sluice
