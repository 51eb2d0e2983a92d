// The store edge: a durable ordered map with atomic synced commits. RocksDB in production, a
// std::map in tests; RocksDB is included in store/ only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "config/config.h"

namespace sluice {

// Separate key spaces (RocksDB column families).
enum class Space : std::uint8_t { meta, state, samples, dead_letters };
inline constexpr std::size_t kSpaces = 4;

// What one commit changes; applied in the order of the calls.
class WriteBatch {
 public:
  struct Put {
    Space space;
    std::string key, value;
  };
  struct Remove {
    Space space;
    std::string key;
  };
  struct RemoveRange {
    Space space;
    std::string begin, end;
  };  // [begin, end)
  using Operation = std::variant<Put, Remove, RemoveRange>;

  void put(Space space, std::string key, std::string value);
  void remove(Space space, std::string key);
  // [begin, end), begin <= end (checked); unlike in scan(), an empty `end` is not the end of the
  // space.
  void remove_range(Space space, std::string begin, std::string end);
  const std::vector<Operation>& operations() const { return operations_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::vector<Operation> operations_;
  std::size_t bytes_ = 0;
};

// Reads from any thread; commit() from one.
class KeyValueStore {
 public:
  virtual ~KeyValueStore() = default;

  // Once this has returned without an error all of the batch survives a crash; after a crash before
  // that, all of it or nothing is there. After one failure every later commit fails too.
  virtual Status commit(const WriteBatch& batch) = 0;

  virtual Result<std::optional<std::string>> get(Space space, std::string_view key) = 0;

  // Calls visit(key, value) for the keys in [begin, end) in ascending order of their bytes, until
  // it returns false; an empty `end` is the end of the space. Sees one consistent state.
  virtual Status scan(
      Space space, std::string_view begin, std::string_view end,
      const std::function<bool(std::string_view key, std::string_view value)>& visit) = 0;

  // Bytes on disk, about.
  virtual std::uint64_t disk_bytes() = 0;
};

// Opens or creates the RocksDB in `folder`. Write-ahead logs are tracked in its manifest, and a
// background error ends all writing (no automatic resume).
Result<std::unique_ptr<KeyValueStore>> open_rocksdb(const std::filesystem::path& folder,
                                                    const StoreConfig& config);

// A view of the store in `folder` as of its last commit, to read only: commit() on it is a
// programming error. Another process may be writing the store meanwhile; the view stays as it was,
// and nothing in the folder is touched. A stop error where there is no store or where it is
// damaged; a retry error where it changed too fast to be opened.
Result<std::unique_ptr<KeyValueStore>> open_rocksdb_to_read(const std::filesystem::path& folder);

std::unique_ptr<KeyValueStore> make_memory_store();

// An exclusive hold on a data folder for the life of the object (flock on <folder>/LOCK, which also
// holds the owner's process id). A folder in use is a stop error that names that process.
class FolderLock {
 public:
  static Result<FolderLock> acquire(const std::filesystem::path& folder);
  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&& other) noexcept;
  ~FolderLock();

 private:
  explicit FolderLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_ = -1;
};

}  // namespace sluice
