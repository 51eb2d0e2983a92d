#include "ingest/features.h"

#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "base/hash.h"

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

FeatureConfig feature_named(const std::string& name) {
  FeatureConfig feature;
  feature.name = name;
  feature.path = "features." + name;
  return feature;
}

// A value of any kind, the same for the same number.
void write_value(std::uint64_t number, FeatureWriter& writer) {
  const auto id = [&](std::uint64_t n) {
    const std::uint64_t bits = mix64(number + n);
    if (bits % 2 == 0) writer.id(static_cast<std::int64_t>(bits >> bits % 64));
    if (bits % 2 != 0) writer.id("text " + std::to_string(bits >> bits % 64));
  };
  const std::uint64_t kind = mix64(number) % 7;
  const std::uint64_t ids = mix64(number + 1) % 4;
  if (kind == 0) writer.absent();
  if (kind == 1) writer.wrong_type();
  if (kind == 2) writer.number(static_cast<double>(number));
  if (kind == 3 || kind == 4) id(2);
  if (kind == 5) writer.list(ids);
  if (kind == 6) writer.weighted(ids);
  for (std::uint64_t n = 0; n < ids && kind > 4; ++n) {
    id(3 + n);
    if (kind == 6) writer.weight(0.5);
  }
}

// The oracle writes the wanted values only.
TEST(FeatureColumns, AreTheBlobOfTheseFeaturesAlone) {
  for (std::uint64_t seed = 0; seed < 2'000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::vector<FeatureConfig> kept, wanted;
    std::string blob, alone;
    FeatureWriter writer(blob), alone_writer(alone);
    for (std::uint64_t n = 0; n < mix64(seed) % 8; ++n) {
      const std::uint64_t number = mix64(seed * 100 + n);
      kept.push_back(feature_named(std::string(1, static_cast<char>('a' + n))));
      write_value(number, writer);
      if (mix64(number + 9) % 3 == 0) continue;
      wanted.push_back(kept.back());
      write_value(number, alone_writer);
    }
    const FeatureColumns columns(kept, wanted);
    EXPECT_EQ(columns.are_all(), kept.size() == wanted.size());
    EXPECT_EQ(columns.of(blob), alone);
    // A blob of other features: cut short, too long, of values that there are not.
    EXPECT_EQ(columns.of(blob + '\0'), std::nullopt);
    EXPECT_EQ(columns.of(blob + '\x07'), std::nullopt);
    for (std::size_t size = 0; size < blob.size(); ++size) {
      EXPECT_EQ(columns.of(std::string_view(blob).substr(0, size)), std::nullopt) << size;
    }
    if (blob.empty()) continue;
    blob[0] = '\x07';
    EXPECT_EQ(columns.of(blob), std::nullopt);
  }
}

TEST(FeatureColumnsDeath, WantedFeaturesAreAmongTheKept) {
  const FeatureConfig a = feature_named("a"), b = feature_named("b");
  FeatureConfig moved = a;
  moved.path = "elsewhere";
  EXPECT_DEATH(FeatureColumns({a}, {b}), "");
  EXPECT_DEATH(FeatureColumns({a, b}, {b, a}), "");
  EXPECT_DEATH(FeatureColumns({a, b}, {moved}), "");
}

}  // namespace
}  // namespace sluice
