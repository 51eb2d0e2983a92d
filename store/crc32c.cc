#include "store/crc32c.h"

#include <cstring>

#ifdef __SSE4_2__
#include <nmmintrin.h>

namespace sluice {

std::uint32_t extend_crc32c(std::uint32_t crc, const char* bytes, std::size_t size) {
  std::uint64_t state = ~crc;
  for (; size >= sizeof(std::uint64_t); size -= sizeof(std::uint64_t)) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes, sizeof word);
    state = _mm_crc32_u64(state, word);
    bytes += sizeof word;
  }
  auto rest = static_cast<std::uint32_t>(state);
  for (; size > 0; --size) rest = _mm_crc32_u8(rest, static_cast<unsigned char>(*bytes++));
  return ~rest;
}

}  // namespace sluice

// As rocksdb/util/crc32c.h declares it, which the package does not install.
namespace rocksdb::crc32c {

std::uint32_t Extend(std::uint32_t init_crc, const char* data, std::size_t n);
std::uint32_t Extend(std::uint32_t init_crc, const char* data, std::size_t n) {
  return sluice::extend_crc32c(init_crc, data, n);
}

}  // namespace rocksdb::crc32c

#else

// The library's own is the one that is used, then.
namespace rocksdb::crc32c {
std::uint32_t Extend(std::uint32_t init_crc, const char* data, std::size_t n);
}

namespace sluice {

std::uint32_t extend_crc32c(std::uint32_t crc, const char* bytes, std::size_t size) {
  return rocksdb::crc32c::Extend(crc, bytes, size);
}

}  // namespace sluice

#endif
