// A log segment as a stream of uncompressed bytes: plain, zstd or gzip by the file's name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "base/result.h"

namespace sluice {

// Used by one thread. Errors name the file: unreadable, not of its format, or cut short.
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Fills from the front; fewer bytes than asked for only at the present end (0: nothing more now;
  // a plain file may grow and give more later).
  virtual Result<std::size_t> read(std::span<char> buffer) = 0;
  // Passes over `count` bytes; an error where the file is shorter.
  virtual Status skip(std::uint64_t count) = 0;
  // Bytes of the file itself that were consumed so far; for progress.
  virtual std::uint64_t consumed() const = 0;
};

enum class Compression { none, zstd, gzip };

Result<std::unique_ptr<ByteStream>> open_byte_stream(const std::filesystem::path& path,
                                                     Compression compression);

}  // namespace sluice
