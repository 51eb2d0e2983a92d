#include "ingest/features.h"

#include <limits>
#include <string>

#include <gtest/gtest.h>

namespace sluice {
namespace {

std::string id_bytes(std::string_view value) {
  std::string bytes;
  FeatureWriter(bytes).id(value);
  return bytes;
}
std::string id_bytes(std::int64_t value) {
  std::string bytes;
  FeatureWriter(bytes).id(value);
  return bytes;
}

TEST(Features, CanonicalIntegerTextIsAnInteger) {
  for (const std::int64_t value :
       {std::int64_t{0}, std::int64_t{5}, std::int64_t{-5}, std::int64_t{1'000'000'007},
        std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min()}) {
    EXPECT_EQ(id_bytes(std::to_string(value)), id_bytes(value)) << value;
  }
}

TEST(Features, OtherTextsStayAsTheyAre) {
  for (const std::string text :
       {"", "-", "00", "05", "-0", "-05", "+5", " 5", "5 ", "5.0", "0x5", "1e3", "abc",
        "9223372036854775808", "-9223372036854775809", "99999999999999999999", "5\n"}) {
    const std::string bytes = id_bytes(text);
    FeatureReader reader(bytes);
    EXPECT_EQ(reader.tag(), FeatureTag::text) << text;
    EXPECT_EQ(reader.text(), text);
    EXPECT_TRUE(reader.at_end());
  }
}

// The bytes are the format that lies in sample logs: they may not change.
TEST(Features, TheBytesOfEveryKind) {
  std::string bytes;
  FeatureWriter writer(bytes);
  writer.absent();
  writer.wrong_type();
  writer.id(std::int64_t{-3});
  writer.id("ab");
  writer.number(1.0);
  writer.list(1);
  writer.id(std::int64_t{300});
  writer.weighted(1);
  writer.id("x");
  writer.weight(-2.0);
  EXPECT_EQ(bytes, std::string("\x00\x01\x02\x05\x03\x02"
                               "ab\x04\x00\x00\x00\x00\x00\x00\xf0\x3f\x05\x01\x02\xd8\x04\x06\x01"
                               "\x03\x01x\x00\x00\x00\x00\x00\x00\x00\xc0",
                               35));
  FeatureReader reader(bytes);
  EXPECT_EQ(reader.tag(), FeatureTag::absent);
  EXPECT_EQ(reader.tag(), FeatureTag::wrong_type);
  EXPECT_EQ(reader.tag(), FeatureTag::integer);
  EXPECT_EQ(reader.integer(), -3);
  EXPECT_EQ(reader.tag(), FeatureTag::text);
  EXPECT_EQ(reader.text(), "ab");
  EXPECT_EQ(reader.tag(), FeatureTag::number);
  EXPECT_EQ(reader.number(), 1.0);
  EXPECT_EQ(reader.tag(), FeatureTag::list);
  EXPECT_EQ(reader.count(), 1u);
  EXPECT_EQ(reader.tag(), FeatureTag::integer);
  EXPECT_EQ(reader.integer(), 300);
  EXPECT_EQ(reader.tag(), FeatureTag::weighted);
  EXPECT_EQ(reader.count(), 1u);
  EXPECT_EQ(reader.tag(), FeatureTag::text);
  EXPECT_EQ(reader.text(), "x");
  EXPECT_EQ(reader.number(), -2.0);
  EXPECT_TRUE(reader.at_end());
  EXPECT_TRUE(reader.ok());
}

}  // namespace
}  // namespace sluice
