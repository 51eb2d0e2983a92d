#include "base/hash.h"

#include <set>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace sluice {
namespace {

// Of the XXH3 and SplitMix64 publications: files on disk rest on these functions staying as they
// are.
TEST(Hash, KnownValues) {
  EXPECT_EQ(hash64(""), 0x2d06800538d394c2ULL);
  EXPECT_EQ(hash128("").hex(), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(mix64(0), 0xe220a8397b1dcdafULL);
}

TEST(Hash, SeedsGiveOtherHashes) {
  EXPECT_EQ(hash64("table", 0), hash64("table"));
  EXPECT_NE(hash64("table", 1), hash64("table"));
}

TEST(Hash, MixHasNoCollisionsAmongCounters) {
  std::set<std::uint64_t> seen;
  for (std::uint64_t counter = 0; counter < 10'000; ++counter) seen.insert(mix64(counter));
  EXPECT_EQ(seen.size(), 10'000u);
}

TEST(Digest, Hexadecimal) {
  const Digest digest{0x0123456789abcdefULL, 0xfULL};
  EXPECT_EQ(digest.hex(), "000000000000000f0123456789abcdef");
  EXPECT_EQ(Digest::from_hex(digest.hex()).value(), digest);
  for (const char* text :
       {"", "0", "000000000000000f0123456789abcde", "000000000000000f0123456789abcdef0",
        "000000000000000g0123456789abcdef", "-00000000000000f0123456789abcdef"}) {
    EXPECT_FALSE(Digest::from_hex(text)) << text;
  }
}

RC_GTEST_PROP(Digest, HexadecimalReadsBack, (std::uint64_t low, std::uint64_t high)) {
  const Digest digest{low, high};
  RC_ASSERT(digest.hex().size() == 32u);
  RC_ASSERT(Digest::from_hex(digest.hex()).value() == digest);
}

// The definition of the header, spelled out.
Digest chain_by_definition(const Digest& digest, const std::string& bytes) {
  std::string text;
  for (const std::uint64_t word : {digest.low, digest.high}) {
    for (int shift = 0; shift < 64; shift += 8) text.push_back(static_cast<char>(word >> shift));
  }
  return hash128(text + bytes);
}

TEST(Chain, IsTheHashOfTheDigestAndTheBytes) {
  Digest digest;
  // Around the size at which the short path ends (512 with the digest's 16).
  for (const std::size_t size : {0, 1, 100, 495, 496, 497, 5'000}) {
    const std::string bytes(size, 'x');
    const Digest expected = chain_by_definition(digest, bytes);
    digest = chain(digest, bytes);
    EXPECT_EQ(digest, expected) << size;
  }
}

TEST(Chain, DependsOnOrderAndOnEachLink) {
  const Digest ab = chain(chain({}, "a"), "b");
  EXPECT_NE(ab, chain(chain({}, "b"), "a"));
  EXPECT_NE(ab, chain({}, "ab"));
  EXPECT_NE(ab, chain(ab, ""));
}

}  // namespace
}  // namespace sluice
