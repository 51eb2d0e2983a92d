#include "store/log_check.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

namespace sluice {
namespace {

constexpr std::size_t kBlockBytes = 32'768;
constexpr std::size_t kHeaderBytes = 7;
constexpr std::uint8_t kFirstType = 1;
constexpr std::uint8_t kLastType = 4;

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78U : 0U);
    table[byte] = crc;
  }
  return table;
}
constexpr auto kCrcTable = make_crc_table();

std::uint32_t next_crc(std::uint32_t crc, char byte) {
  return (crc >> 8) ^ kCrcTable[(crc ^ static_cast<std::uint8_t>(byte)) & 0xFFU];
}
// As it is stored.
std::uint32_t masked(std::uint32_t crc) {
  return std::rotr(~crc, 15) + 0xA282EAD8U;
}

struct Header {
  std::uint32_t checksum = 0;
  std::size_t length = 0;
  std::uint8_t type = 0;
};

Header header_at(std::string_view bytes, std::size_t offset) {
  std::array<std::uint8_t, kHeaderBytes> raw{};
  std::memcpy(raw.data(), bytes.data() + offset, kHeaderBytes);
  Header header;
  for (std::size_t index = 4; index-- > 0;) header.checksum = header.checksum << 8 | raw[index];
  header.length = static_cast<std::size_t>(raw[4]) | static_cast<std::size_t>(raw[5]) << 8;
  header.type = raw[6];
  return header;
}

// Whether the bytes from the header on hold a whole record of another length than its header says.
bool is_whole_at_another_length(const Header& header, std::string_view bytes) {
  std::uint32_t crc = next_crc(~0U, static_cast<char>(header.type));
  for (const char byte : bytes.substr(0, kBlockBytes)) {
    if (masked(crc) == header.checksum) return true;
    crc = next_crc(crc, byte);
  }
  return masked(crc) == header.checksum;
}

bool is_log(const std::string& name) {
  return name.ends_with(".log");
}

}  // namespace

std::string damage_of_log(std::string_view bytes) {
  std::size_t offset = 0;
  while (true) {
    const std::size_t left_in_block = kBlockBytes - offset % kBlockBytes;
    if (left_in_block < kHeaderBytes) {
      offset += left_in_block;
      continue;
    }
    if (offset + kHeaderBytes > bytes.size()) return {};
    const std::string where = " at byte " + std::to_string(offset);
    const Header header = header_at(bytes, offset);
    if (header.type == 0 && header.length == 0 && header.checksum == 0) {
      // A crash may leave a file longer than what was written to it.
      const bool is_empty = bytes.find_first_not_of('\0', offset) == std::string_view::npos;
      return is_empty ? "" : "nothing, with more behind it," + where;
    }
    if (header.type < kFirstType || header.type > kLastType) {
      return "a record of an unknown type" + where;
    }
    if (kHeaderBytes + header.length > left_in_block) {
      return "a record that is longer than its block" + where;
    }
    const std::string_view rest = bytes.substr(offset + kHeaderBytes);
    if (header.length > rest.size()) {
      return is_whole_at_another_length(header, rest) ? "a record of a wrong length" + where : "";
    }
    offset += kHeaderBytes + header.length;
  }
}

rocksdb::Status check_logs(rocksdb::Env& env, const std::string& folder) {
  std::vector<std::string> names;
  rocksdb::Status status = env.GetChildren(folder, &names);
  if (status.IsNotFound() || status.IsPathNotFound()) return rocksdb::Status::OK();
  if (!status.ok()) return status;
  std::string current;
  if (std::find(names.begin(), names.end(), "CURRENT") == names.end()) {
    for (const std::string& name : names) {
      if (is_log(name) || name.ends_with(".sst")) {
        return rocksdb::Status::Corruption(folder + " holds " + name + " but no CURRENT");
      }
    }
  } else {
    status = rocksdb::ReadFileToString(&env, folder + "/CURRENT", &current);
    if (!status.ok()) return status;
    current.resize(std::min(current.size(), current.find('\n')));
  }
  for (const std::string& name : names) {
    if (!is_log(name) && name != current) continue;
    std::string bytes;
    status = rocksdb::ReadFileToString(&env, folder + "/" + name, &bytes);
    if (status.IsNotFound() || status.IsPathNotFound()) continue;
    if (!status.ok()) return status;
    const std::string damage = damage_of_log(bytes);
    if (!damage.empty()) return rocksdb::Status::Corruption(folder + "/" + name + ": " + damage);
  }
  return rocksdb::Status::OK();
}

}  // namespace sluice
