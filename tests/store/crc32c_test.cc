// The checksum that RocksDB's logs get from the executable.
#include "store/crc32c.h"

#include <cstdint>
#include <string>

#include <dlfcn.h>

#include <gtest/gtest.h>

#include "base/hash.h"

namespace rocksdb::crc32c {
std::uint32_t Extend(std::uint32_t init_crc, const char* data, std::size_t n);
}

namespace sluice {
namespace {

// Bit by bit.
std::uint32_t slow_crc32c(std::uint32_t crc, const std::string& bytes) {
  crc = ~crc;
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78U : 0U);
  }
  return ~crc;
}

TEST(Crc32c, EqualsItsDefinition) {
  EXPECT_EQ(extend_crc32c(0, "123456789", 9), 0xE3069283U);
  std::string bytes;
  for (std::uint64_t size = 0; size < 300; ++size) {
    const auto begin = static_cast<std::uint32_t>(mix64(size));
    EXPECT_EQ(extend_crc32c(begin, bytes.data(), bytes.size()), slow_crc32c(begin, bytes));
    bytes += static_cast<char>(mix64(size) >> 7);
  }
}

// The library's calls go to the first definition that the dynamic linker finds.
TEST(Crc32c, IsWhatTheLibraryCalls) {
  void* const found = dlsym(RTLD_DEFAULT, "_ZN7rocksdb6crc32c6ExtendEjPKcm");
  EXPECT_EQ(found, reinterpret_cast<void*>(&rocksdb::crc32c::Extend));
#ifdef __SSE4_2__
  Dl_info where{};
  ASSERT_NE(dladdr(found, &where), 0);
  EXPECT_EQ(std::string(where.dli_fname).find("librocksdb"), std::string::npos) << where.dli_fname;
#endif
}

}  // namespace
}  // namespace sluice
