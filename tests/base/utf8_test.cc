#include "base/utf8.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <unordered_set>

namespace sluice {
namespace {

// RFC 3629, section 3.
std::string encoded(std::uint32_t code) {
  const auto rest = [code](int shift) { return static_cast<char>(0x80 | (code >> shift & 0x3f)); };
  if (code < 0x80) return {static_cast<char>(code)};
  if (code < 0x800) return {static_cast<char>(0xc0 | code >> 6), rest(0)};
  if (code < 0x10000) return {static_cast<char>(0xe0 | code >> 12), rest(6), rest(0)};
  return {static_cast<char>(0xf0 | code >> 18), rest(12), rest(6), rest(0)};
}

bool is_surrogate(std::uint32_t code) {
  return code >= 0xd800 && code <= 0xdfff;
}

// The oracle: a text is UTF-8 where it can be cut into encoded characters.
class Characters {
 public:
  Characters() {
    for (std::uint32_t code = 0; code <= 0x10ffff; ++code) {
      if (!is_surrogate(code)) all_.insert(encoded(code));
    }
  }
  bool make(const std::string& text) const {
    if (text.empty()) return true;
    for (std::size_t bytes = 1; bytes <= 4 && bytes <= text.size(); ++bytes) {
      if (all_.contains(text.substr(0, bytes)) && make(text.substr(bytes))) return true;
    }
    return false;
  }

 private:
  std::unordered_set<std::string> all_;
};

TEST(Utf8, EveryCharacterIsAndNoSurrogate) {
  for (std::uint32_t code = 0; code <= 0x10ffff; ++code) {
    if (is_utf8(encoded(code)) == is_surrogate(code)) FAIL() << code;
  }
  EXPECT_FALSE(is_utf8(encoded(0x110000)));
}

// All texts of up to four bytes whose later bytes are at some bound.
TEST(Utf8, WhatIsCutIntoCharactersIs) {
  const Characters characters;
  const std::string bounds = "\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0";
  std::size_t valid = 0;
  const auto check = [&](const std::string& text) {
    ASSERT_EQ(is_utf8(text), characters.make(text)) << ::testing::PrintToString(text);
    valid += is_utf8(text) ? 1 : 0;
  };
  check("");
  for (int lead = 0; lead < 256; ++lead) {
    const std::string one(1, static_cast<char>(lead));
    check(one);
    for (const char second : bounds) {
      check(one + second);
      for (const char third : bounds) {
        check(one + second + third);
        for (const char fourth : bounds) check(one + second + third + fourth);
      }
    }
  }
  EXPECT_GT(valid, 1'000u);
}

}  // namespace
}  // namespace sluice
