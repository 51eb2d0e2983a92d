#include "base/hash.h"

#include <array>
#include <charconv>
#include <cstdio>
#include <cstring>

#define XXH_INLINE_ALL  // most of what is hashed is a few bytes long
#include <xxhash.h>

namespace sluice {

std::uint64_t hash64(std::string_view bytes, std::uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

Digest hash128(std::string_view bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.low64, hash.high64};
}

Digest chain(const Digest& digest, std::string_view bytes) {
  std::array<char, 512> small;
  const std::size_t size = sizeof(Digest) + bytes.size();
  if (size <= small.size()) {
    std::memcpy(small.data(), &digest.low, 8);
    std::memcpy(small.data() + 8, &digest.high, 8);
    if (!bytes.empty()) std::memcpy(small.data() + 16, bytes.data(), bytes.size());
    return hash128({small.data(), size});
  }
  std::string large(size, '\0');
  std::memcpy(large.data(), &digest.low, 8);
  std::memcpy(large.data() + 8, &digest.high, 8);
  std::memcpy(large.data() + 16, bytes.data(), bytes.size());
  return hash128(large);
}

std::string Digest::hex() const {
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "%016llx%016llx", static_cast<unsigned long long>(high),
                static_cast<unsigned long long>(low));
  return text.data();
}

Result<Digest> Digest::from_hex(std::string_view text) {
  Digest digest;
  const auto read = [](std::string_view part, std::uint64_t& value) {
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value, 16);
    return error == std::errc() && end == part.data() + part.size();
  };
  if (text.size() != 32 || !read(text.substr(0, 16), digest.high) ||
      !read(text.substr(16), digest.low)) {
    return stop_error("'" + std::string(text) + "' is not a digest of 32 hexadecimal digits");
  }
  return digest;
}

}  // namespace sluice
