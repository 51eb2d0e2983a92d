// Byte formats: integers little-endian or as varints (LEB128), strings with their length before
// them. Keys that must sort by number are written big-endian.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#ifdef __BMI2__
#include <immintrin.h>
#endif

namespace sluice {

inline constexpr std::size_t kMostVarintBytes = 10;

// Zigzag: small magnitudes of either sign get small numbers.
constexpr std::uint64_t zigzag(std::int64_t value) {
  return (static_cast<std::uint64_t>(value) << 1) ^ static_cast<std::uint64_t>(value >> 63);
}

// Writes a varint, and returns the place after it; up to kMostVarintBytes from `to` on may change.
inline char* put_varint(char* to, std::uint64_t value) {
#ifdef __BMI2__
  // Without a branch for each byte, which no CPU could foresee.
  if (value < std::uint64_t{1} << 56) {
    const auto bytes = static_cast<unsigned>(std::bit_width(value | 1) + 6) / 7;
    const std::uint64_t more = 0x8080808080808080 & ((std::uint64_t{1} << (8 * (bytes - 1))) - 1);
    const std::uint64_t text = _pdep_u64(value, 0x7f7f7f7f7f7f7f7f) | more;
    std::memcpy(to, &text, sizeof text);
    return to + bytes;
  }
#endif
  while (value >= 0x80) {
    *to++ = static_cast<char>(value | 0x80);
    value >>= 7;
  }
  *to++ = static_cast<char>(value);
  return to;
}
inline char* put_svarint(char* to, std::int64_t value) {
  return put_varint(to, zigzag(value));
}

// Appends to a string that the caller owns.
class ByteWriter {
 public:
  explicit ByteWriter(std::string& out) : out_(out) {}

  void u8(std::uint8_t value) { out_.push_back(static_cast<char>(value)); }
  void u32(std::uint32_t value) { raw(&value, sizeof value); }
  void u64(std::uint64_t value) { raw(&value, sizeof value); }
  void f64(double value) { u64(std::bit_cast<std::uint64_t>(value)); }
  void varint(std::uint64_t value) {
    if (value < 0x80) {
      u8(static_cast<std::uint8_t>(value));
      return;
    }
    char text[kMostVarintBytes];
    out_.append(text, static_cast<std::size_t>(put_varint(text, value) - text));
  }
  void svarint(std::int64_t value) { varint(zigzag(value)); }
  void text(std::string_view value) {
    varint(value.size());
    out_.append(value);
  }
  // Big-endian, for keys.
  void key_u32(std::uint32_t value) { u32(__builtin_bswap32(value)); }
  void key_u64(std::uint64_t value) { u64(__builtin_bswap64(value)); }

 private:
  void raw(const void* data, std::size_t size) {
    out_.append(static_cast<const char*>(data), size);
  }
  std::string& out_;
};

// Reads what ByteWriter wrote. Past the end, or on a varint that is too long, every read gives zero
// or an empty text and ok() is false from then on: check it once, after the last read.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}

  bool ok() const { return ok_; }
  bool at_end() const { return rest_.empty(); }
  std::size_t remaining() const { return rest_.size(); }

  std::uint8_t u8() {
    std::uint8_t value = 0;
    raw(&value, sizeof value);
    return value;
  }
  std::uint32_t u32() {
    std::uint32_t value = 0;
    raw(&value, sizeof value);
    return value;
  }
  std::uint64_t u64() {
    std::uint64_t value = 0;
    raw(&value, sizeof value);
    return value;
  }
  double f64() { return std::bit_cast<double>(u64()); }
  std::uint64_t varint() {
    std::uint64_t word = 0;
    if (rest_.size() >= sizeof word) {
      std::memcpy(&word, rest_.data(), sizeof word);
      const std::uint64_t ends = ~word & 0x8080'8080'8080'8080;
      if (ends != 0) return short_varint(word, std::countr_zero(ends) + 1);
    }
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const std::uint8_t byte = u8();
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (shift == 63 && byte > 1) break;
      if ((byte & 0x80) == 0) return ok_ ? value : 0;
    }
    fail();
    return 0;
  }
  std::int64_t svarint() {
    const std::uint64_t value = varint();
    return static_cast<std::int64_t>(value >> 1) ^ -static_cast<std::int64_t>(value & 1);
  }
  // A view into the bytes that are read.
  std::string_view text() {
    const std::uint64_t size = varint();
    if (size > rest_.size()) {
      fail();
      return {};
    }
    const std::string_view value = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return value;
  }
  std::uint32_t key_u32() { return __builtin_bswap32(u32()); }
  std::uint64_t key_u64() { return __builtin_bswap64(u64()); }

 private:
  // The varint of the lowest `bits` bits (8, 16, ..., 64): without branches, for lengths are hard
  // to predict. Its groups of 7 bits move together pair by pair.
  std::uint64_t short_varint(std::uint64_t word, int bits) {
    rest_.remove_prefix(static_cast<std::size_t>(bits / 8));
    word &= ~std::uint64_t{0} >> (64 - bits);
    word = (word & 0x007f'007f'007f'007f) | (word & 0x7f00'7f00'7f00'7f00) >> 1;
    word = (word & 0x0000'3fff'0000'3fff) | (word & 0x3fff'0000'3fff'0000) >> 2;
    return (word & 0x0000'0000'0fff'ffff) | (word & 0x0fff'ffff'0000'0000) >> 4;
  }
  void raw(void* data, std::size_t size) {
    if (size > rest_.size()) {
      fail();
      return;
    }
    std::memcpy(data, rest_.data(), size);
    rest_.remove_prefix(size);
  }
  void fail() {
    ok_ = false;
    rest_ = {};
  }

  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace sluice
