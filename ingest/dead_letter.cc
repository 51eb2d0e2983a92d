#include "ingest/dead_letter.h"

#include <limits>

#include "base/bytes.h"

namespace sluice {

std::string dead_letter_key(std::uint64_t number) {
  std::string key;
  ByteWriter(key).key_u64(number);
  return key;
}

std::string encode_dead_letter(const RefusedRecord& record, TimeMs wall_ms) {
  std::string value;
  ByteWriter bytes(value);
  bytes.svarint(wall_ms);
  bytes.u8(static_cast<std::uint8_t>(record.where.stream));
  bytes.varint(record.where.partition);
  bytes.varint(record.position);
  bytes.u8(static_cast<std::uint8_t>(record.reason));
  bytes.text(record.detail);
  bytes.text(record.bytes);
  return value;
}

Result<DeadLetter> decode_dead_letter(std::string_view key, std::string_view value) {
  DeadLetter letter;
  ByteReader key_bytes(key);
  letter.number = __builtin_bswap64(key_bytes.u64());
  ByteReader in(value);
  letter.wall_ms = in.svarint();
  const std::uint8_t stream = in.u8();
  const std::uint64_t partition = in.varint();
  letter.record.position = in.varint();
  const std::uint8_t reason = in.u8();
  letter.record.detail = in.text();
  letter.record.bytes = in.text();
  const bool is_whole = key_bytes.ok() && key_bytes.at_end() && in.ok() && in.at_end();
  if (!is_whole || stream >= kStreams || reason >= kRefusals ||
      partition > std::numeric_limits<std::uint32_t>::max()) {
    return stop_error("dead letter " + std::to_string(letter.number) +
                      " is damaged; the data folder is damaged: replay into a new one");
  }
  letter.record.where = {static_cast<Stream>(stream), static_cast<std::uint32_t>(partition)};
  letter.record.reason = static_cast<Refusal>(reason);
  return letter;
}

}  // namespace sluice
