#include "ingest/dead_letter.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

const RefusedRecord kRecord = {{Stream::purchases, 300},
                               Position{1} << 41,
                               Refusal::no_click,
                               "event time 2024-01-01",
                               std::string("any \0 \xff bytes", 12)};
constexpr TimeMs kWallMs = 1'700'000'000'123;

TEST(DeadLetterTest, IsReadAsItWasWritten) {
  const auto read =
      decode_dead_letter(dead_letter_key(1'234'567), encode_dead_letter(kRecord, kWallMs));
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_EQ(read->number, 1'234'567U);
  EXPECT_EQ(read->wall_ms, kWallMs);
  EXPECT_EQ(read->record.where, kRecord.where);
  EXPECT_EQ(read->record.position, kRecord.position);
  EXPECT_EQ(read->record.reason, kRecord.reason);
  EXPECT_EQ(read->record.detail, kRecord.detail);
  EXPECT_EQ(read->record.bytes, kRecord.bytes);
}

// The bytes of the first version must be read for ever (docs/formats.md, "Dead letters").
TEST(DeadLetterTest, TheFormatStaysAsItIs) {
  const RefusedRecord record = {{Stream::clicks, 2}, 5, Refusal::malformed, "why", "xyz"};
  EXPECT_EQ(encode_dead_letter(record, 3), std::string("\x06\x01\x02\x05\x01\x03why\x03xyz"));
  EXPECT_EQ(dead_letter_key(258), std::string("\0\0\0\0\0\0\1\2", 8));
}

TEST(DeadLetterTest, DamageIsFound) {
  const std::string key = dead_letter_key(1);
  const std::string value = encode_dead_letter(kRecord, kWallMs);
  for (std::size_t size = 0; size < value.size(); ++size) {
    EXPECT_FALSE(decode_dead_letter(key, value.substr(0, size))) << size;
  }
  EXPECT_FALSE(decode_dead_letter(key, value + "x"));
  EXPECT_FALSE(decode_dead_letter(key.substr(1), value));
  std::string other = encode_dead_letter(kRecord, 0);
  other[1] = 4;  // no such stream
  EXPECT_FALSE(decode_dead_letter(key, other));
}

}  // namespace
}  // namespace sluice
