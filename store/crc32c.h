// The checksum of RocksDB's logs, by the CPU's own instruction. Debian's RocksDB is built without
// it and computes CRC-32C by tables, which costs more than all else that a write does to its bytes.
//
// The executable's definition of RocksDB's function comes before the library's own: it is the same
// function (Castagnoli's polynomial, reflected), so the files are the same. Internal to store/.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice {

// The CRC-32C of `crc`'s bytes followed by these.
std::uint32_t extend_crc32c(std::uint32_t crc, const char* bytes, std::size_t size);

}  // namespace sluice
