// Hashes, all of them XXH3 or integer mixes: equal on every machine. None is cryptographic; they
// find accidents, not attacks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace sluice {

// XXH3, 64 bits.
std::uint64_t hash64(std::string_view bytes, std::uint64_t seed = 0);

// A bijective mix of 64 bits (the finalizer of SplitMix64): counter-based random numbers.
constexpr std::uint64_t mix64(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// 128 bits, printed as 32 hexadecimal digits, high word first.
struct Digest {
  std::uint64_t low = 0;
  std::uint64_t high = 0;

  friend bool operator==(const Digest&, const Digest&) = default;
  std::string hex() const;
  static Result<Digest> from_hex(std::string_view text);
};

// XXH3, 128 bits.
Digest hash128(std::string_view bytes);

// The next link of a chain: the hash of the digest so far (16 bytes, low word first, little-endian)
// followed by `bytes`. The empty chain is Digest{}.
Digest chain(const Digest& digest, std::string_view bytes);

}  // namespace sluice
