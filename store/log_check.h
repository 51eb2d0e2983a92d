// Damage that RocksDB would take for the end of a log. Internal to store/; includes RocksDB.
//
// Its write-ahead logs and manifests are made of records, each with the checksum of its type and
// bytes, but not of its length. A crash may cut the last record, so RocksDB stops without an error
// where a record's length leads beyond the end of the file, and where its type says that it is left
// over from a file that was used before. One flipped bit in either of the two fields makes all that
// follows vanish, with later logs still applied. Here the two are told from a cut: a cut record
// has no length at which its checksum holds, and this store uses no file twice.
//
// The record, as RocksDB 7.8 writes it, in blocks of 32 KiB whose last 6 bytes or fewer stay zero:
//   u32 masked CRC-32C of the type and the bytes, u16 length, u8 type (1 whole, 2 first, 3 middle,
//   4 last), the bytes
#pragma once

#include <string>
#include <string_view>

#include <rocksdb/env.h>
#include <rocksdb/status.h>

namespace sluice {

// What is wrong with the records of one log; empty where nothing is, or what RocksDB finds itself.
std::string damage_of_log(std::string_view bytes);

// Corruption, naming the file, where a write-ahead log or the current manifest in `folder` is
// damaged so, or where there are logs and tables but nothing says which of them count. Files that
// vanish meanwhile are passed over.
rocksdb::Status check_logs(rocksdb::Env& env, const std::string& folder);

}  // namespace sluice
