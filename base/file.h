// The file system edge: the durable files that are not RocksDB's (snapshots, checkpoints, digests,
// predictions). Tests replace it to lose, tear or refuse writes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sluice {

namespace fs = std::filesystem;

// Owned by one thread. Destruction closes without sync.
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  virtual Status append(std::string_view bytes) = 0;
  // What was appended before survives a crash of the machine once this has returned.
  virtual Status sync() = 0;
  // Reports errors that a destructor would swallow; nothing may follow it.
  virtual Status close() = 0;
};

// Held by one process at a time, until its destruction or the process's end.
class FileLock {
 public:
  virtual ~FileLock() = default;
};

// Thread-safe. Every error names the path.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual Result<std::unique_ptr<WritableFile>> create(const fs::path& path) = 0;  // truncates
  virtual Result<std::unique_ptr<WritableFile>> append_to(const fs::path& path) = 0;
  virtual Result<std::string> read(const fs::path& path) = 0;  // the whole file
  // The bytes [offset, offset + size), fewer where the file ends before.
  virtual Result<std::string> read_range(const fs::path& path, std::uint64_t offset,
                                         std::uint64_t size) = 0;
  virtual Result<std::uint64_t> size(const fs::path& path) = 0;
  virtual Status truncate(const fs::path& path, std::uint64_t size) = 0;
  virtual bool exists(const fs::path& path) = 0;
  virtual Status create_directories(const fs::path& path) = 0;
  // Atomic within one file system; replaces `to` where it is a file.
  virtual Status rename(const fs::path& from, const fs::path& to) = 0;
  virtual Status remove_all(const fs::path& path) = 0;  // no error where there is nothing
  virtual Result<std::vector<std::string>> list(const fs::path& directory) = 0;  // sorted names
  // Makes creations, renames and removals in the folder itself durable.
  virtual Status sync_directory(const fs::path& directory) = 0;
  // Waits for whoever holds it; makes the file where it is absent. One without other processes has
  // nothing to wait for.
  virtual Result<std::unique_ptr<FileLock>> lock(const fs::path& path);
};

class RealFileSystem final : public FileSystem {
 public:
  Result<std::unique_ptr<WritableFile>> create(const fs::path& path) override;
  Result<std::unique_ptr<WritableFile>> append_to(const fs::path& path) override;
  Result<std::string> read(const fs::path& path) override;
  Result<std::string> read_range(const fs::path& path, std::uint64_t offset,
                                 std::uint64_t size) override;
  Result<std::uint64_t> size(const fs::path& path) override;
  Status truncate(const fs::path& path, std::uint64_t size) override;
  bool exists(const fs::path& path) override;
  Status create_directories(const fs::path& path) override;
  Status rename(const fs::path& from, const fs::path& to) override;
  Status remove_all(const fs::path& path) override;
  Result<std::vector<std::string>> list(const fs::path& directory) override;
  Status sync_directory(const fs::path& directory) override;
  Result<std::unique_ptr<FileLock>> lock(const fs::path& path) override;
};

// Replaces `path` as a whole: afterwards a reader, also after a crash, sees the old bytes or the
// new ones. Written to `path`.tmp, synced, renamed, the folder synced.
Status write_atomically(FileSystem& files, const fs::path& path, std::string_view bytes);

}  // namespace sluice
