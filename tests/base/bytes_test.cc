#include "base/bytes.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace sluice {
namespace {

template <class Write>
std::string written(Write write) {
  std::string out;
  ByteWriter writer(out);
  write(writer);
  return out;
}

// The formats on disk.
TEST(Bytes, KnownForms) {
  EXPECT_EQ(written([](ByteWriter& w) { w.u8(0xab); }), "\xab");
  EXPECT_EQ(written([](ByteWriter& w) { w.u32(0x01020304); }), "\x04\x03\x02\x01");
  EXPECT_EQ(written([](ByteWriter& w) { w.u64(0x0102030405060708); }),
            "\x08\x07\x06\x05\x04\x03\x02\x01");
  EXPECT_EQ(written([](ByteWriter& w) { w.key_u32(0x01020304); }), "\x01\x02\x03\x04");
  EXPECT_EQ(written([](ByteWriter& w) { w.f64(1.0); }), std::string("\0\0\0\0\0\0\xf0\x3f", 8));
  EXPECT_EQ(written([](ByteWriter& w) { w.varint(127); }), "\x7f");
  EXPECT_EQ(written([](ByteWriter& w) { w.varint(300); }), "\xac\x02");
  EXPECT_EQ(written([](ByteWriter& w) { w.svarint(-1); }), "\x01");
  EXPECT_EQ(written([](ByteWriter& w) { w.svarint(1); }), "\x02");
  EXPECT_EQ(written([](ByteWriter& w) { w.text("ab"); }),
            "\x02"
            "ab");
}

RC_GTEST_PROP(Bytes, WhatIsWrittenReadsBack,
              (std::uint8_t a, std::uint32_t b, std::uint64_t c, double d, std::int64_t e,
               std::string f)) {
  std::string out = "kept";
  ByteWriter writer(out);
  writer.u8(a);
  writer.u32(b);
  writer.u64(c);
  writer.f64(d);
  writer.varint(c);
  writer.svarint(e);
  writer.text(f);
  writer.key_u32(b);
  writer.key_u64(c);
  RC_ASSERT(out.starts_with("kept"));
  ByteReader reader(std::string_view(out).substr(4));
  RC_ASSERT(reader.u8() == a);
  RC_ASSERT(reader.u32() == b);
  RC_ASSERT(reader.u64() == c);
  RC_ASSERT(std::bit_cast<std::uint64_t>(reader.f64()) == std::bit_cast<std::uint64_t>(d));
  RC_ASSERT(reader.varint() == c);
  RC_ASSERT(reader.svarint() == e);
  RC_ASSERT(reader.text() == f);
  RC_ASSERT(reader.key_u32() == b);
  RC_ASSERT(reader.key_u64() == c);
  RC_ASSERT(reader.ok() && reader.at_end());
}

TEST(Bytes, ExtremesOfVarints) {
  for (const std::int64_t value : {std::numeric_limits<std::int64_t>::min(),
                                   std::numeric_limits<std::int64_t>::max(), std::int64_t{0}}) {
    const std::string bytes = written([&](ByteWriter& w) { w.svarint(value); });
    ByteReader reader(bytes);
    EXPECT_EQ(reader.svarint(), value);
    EXPECT_TRUE(reader.ok());
  }
}

TEST(Bytes, AVarintEndsWhereItEndsWhateverFollows) {
  for (int bits = 0; bits < 64; ++bits) {
    for (const std::uint64_t value : {(std::uint64_t{1} << bits) - 1, std::uint64_t{1} << bits}) {
      for (std::size_t more = 0; more < 10; ++more) {
        const std::string bytes =
            written([&](ByteWriter& w) { w.varint(value); }) + std::string(more, '\xff');
        ByteReader reader(bytes);
        EXPECT_EQ(reader.varint(), value);
        EXPECT_EQ(reader.remaining(), more) << value;
        EXPECT_TRUE(reader.ok());
      }
    }
  }
}

RC_GTEST_PROP(Bytes, KeysSortByNumber, (std::uint64_t a, std::uint64_t b)) {
  const std::string a_key = written([&](ByteWriter& w) { w.key_u64(a); });
  const std::string b_key = written([&](ByteWriter& w) { w.key_u64(b); });
  RC_ASSERT((a < b) == (a_key < b_key));
}

TEST(Bytes, PastTheEndIsZeroAndNotOkForEver) {
  const std::string bytes = written([](ByteWriter& w) {
    w.u32(7);
    w.text("abc");
  });
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    ByteReader reader(std::string_view(bytes).substr(0, size));
    reader.u32();
    EXPECT_EQ(reader.text(), "") << size;
    EXPECT_FALSE(reader.ok()) << size;
    EXPECT_EQ(reader.u8(), 0);
    EXPECT_EQ(reader.varint(), 0u);
    EXPECT_FALSE(reader.ok()) << size;
  }
}

TEST(Bytes, AVarintThatDoesNotEndIsNotOk) {
  const std::string bytes(11, '\xff');
  ByteReader reader(bytes);
  EXPECT_EQ(reader.varint(), 0u);
  EXPECT_FALSE(reader.ok());
  EXPECT_EQ(reader.u8(), 0);
  ByteReader cut(std::string_view("\x85"));
  EXPECT_EQ(cut.varint(), 0u);
  EXPECT_FALSE(cut.ok());
}

TEST(Bytes, AVarintBeyond64BitsIsNotOk) {
  const std::string most = std::string(9, '\xff') + '\x01';
  ByteReader reader(most);
  EXPECT_EQ(reader.varint(), std::numeric_limits<std::uint64_t>::max());
  EXPECT_TRUE(reader.ok());
  const std::string more = std::string(9, '\xff') + '\x02';
  ByteReader beyond(more);
  EXPECT_EQ(beyond.varint(), 0u);
  EXPECT_FALSE(beyond.ok());
}

TEST(Bytes, ATextLongerThanWhatIsThereIsNotOk) {
  const std::string bytes = written([](ByteWriter& w) {
    w.varint(std::numeric_limits<std::uint64_t>::max());
    w.u64(0);
  });
  ByteReader reader(bytes);
  EXPECT_EQ(reader.text(), "");
  EXPECT_FALSE(reader.ok());
}

}  // namespace
}  // namespace sluice
