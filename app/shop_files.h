// The shop's logs on disk: records leave in the order of their arrivals, are judged by their own
// log alone, and go to <root>/<stream>/<partition>.jsonl or
// <root>/<stream>/<partition>/<segment>.jsonl, with ".zst" behind it where they are compressed. One
// thread; errors name the file.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "app/shop_events.h"
#include "app/shop_expected.h"
#include "app/shop_options.h"
#include "base/file.h"
#include "base/result.h"

namespace sluice {

// Five digits, as files are numbered: 7 -> "00007".
std::string file_number(std::uint64_t number);

// A file with this text alone, not synced.
Status write_text(FileSystem& files, const std::filesystem::path& path, std::string_view text);

// A text file that is written in large pieces, compressed or not.
class TextFile {
 public:
  TextFile() = default;  // nothing can be written to it
  static Result<TextFile> create(FileSystem& files, const std::filesystem::path& path,
                                 ShopOptions::Compression compression);

  Status append(std::string_view text);
  Status close();  // nothing may follow it

 private:
  struct FreeContext {
    void operator()(void* context) const;
  };

  Status write(bool is_end);

  std::unique_ptr<WritableFile> file_;
  std::unique_ptr<void, FreeContext> compressor_;  // a ZSTD_CCtx; none: not compressed
  std::string buffer_;
  std::string compressed_;
};

// All logs of one shop.
class ShopLogs {
 public:
  using OnWritten = std::function<void(const ShopRecord&, ShopVerdict)>;

  // Creates every file of the first segment. `files` and `options` outlive the object.
  static Result<ShopLogs> create(FileSystem& files, const std::filesystem::path& root,
                                 const ShopOptions& options, OnWritten on_written);

  void add(ShopRecord record);
  // Writes what arrives before `time`, in the order of arrival and then of add(): what is added
  // later may arrive no earlier than what this wrote.
  Status write_until(TimeMs time);
  Status finish();

 private:
  struct Log {
    Stream stream = Stream::impressions;
    std::uint32_t partition = 0;
    TextFile file;
    std::uint32_t segment = 0;
    TimeMs highest_time = kTimeMin;      // accepted
    std::vector<std::uint32_t> waiting;  // a heap of slots, next arrival first
  };
  struct Slot {
    ShopRecord record;
    std::uint64_t order = 0;  // of add(): where arrivals are equal
  };

  ShopLogs(FileSystem& files, std::filesystem::path root, const ShopOptions& options,
           OnWritten on_written)
      : files_(&files),
        root_(std::move(root)),
        options_(&options),
        on_written_(std::move(on_written)) {}
  std::filesystem::path path(const Log& log) const;
  TimeMs segment_end(std::uint32_t segment) const;
  bool arrives_later(std::uint32_t a, std::uint32_t b) const;
  Status write_first(Log& log);
  Status next_segment(Log& log);

  FileSystem* files_;
  std::filesystem::path root_;
  const ShopOptions* options_;
  OnWritten on_written_;
  std::vector<Log> logs_;  // stream by stream
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_slots_;
  std::uint64_t added_ = 0;
};

}  // namespace sluice
