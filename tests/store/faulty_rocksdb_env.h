// The disk under RocksDB, in memory: it loses in a crash of the machine what was not synced, fails
// at its N-th operation, tears writes and flips bits. One folder, whatever its path is.
//
// Contents and names are kept twice: as they are seen, and as they are on disk. A file's sync makes
// its bytes durable, and the name that it has then, as ext4, XFS and btrfs do (RocksDB relies on it
// for its manifest); the folder's sync all names. Until then each change of a name may have
// happened or not, and of what was appended any part may be there.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

namespace sluice {

enum class DiskFault {
  io_error,  // nothing happens, and it is said
  no_space,  // the same
  torn,      // a write appends half of its bytes before it fails
};

struct FaultPlan {
  DiskFault fault = DiskFault::io_error;
  bool is_of_reads = false;  // which operations are counted: those that read or those that change
  std::uint64_t at = 0;      // the operation that fails, from 1; 0: none does
  bool is_for_ever = false;  // and all after it
};

class FaultyRocksDbFiles;

// RocksDB's environment with that disk. It does not sleep: RocksDB would, a second after each
// error.
std::unique_ptr<rocksdb::Env> make_faulty_env(const std::shared_ptr<FaultyRocksDbFiles>& files);

// Thread-safe.
class FaultyRocksDbFiles final : public rocksdb::FileSystemWrapper {
 public:
  FaultyRocksDbFiles();
  ~FaultyRocksDbFiles() override;
  const char* Name() const override { return "FaultyRocksDbFiles"; }

  // Counts from 1 again.
  void plan(const FaultPlan& plan);
  std::uint64_t operations() const;  // since the plan, of its kind
  bool has_struck() const;

  // The machine stops here: until crash() nothing changes any more and every operation fails.
  void power_off();
  // It starts again, after the store that was open has been destroyed.
  void crash(std::uint64_t seed);

  // Another disk with the same content; nothing is planned for it.
  std::shared_ptr<FaultyRocksDbFiles> copy() const;
  std::vector<std::string> names() const;
  std::string bytes(const std::string& name) const;
  void set_bytes(const std::string& name, std::string bytes);  // durable at once
  void remove(const std::string& name);
  // Table files made, and table files removed, since the beginning: flushes and compactions.
  std::uint64_t tables_made() const;
  std::uint64_t tables_removed() const;

  rocksdb::IOStatus NewSequentialFile(const std::string&, const rocksdb::FileOptions&,
                                      std::unique_ptr<rocksdb::FSSequentialFile>*,
                                      rocksdb::IODebugContext*) override;
  rocksdb::IOStatus NewRandomAccessFile(const std::string&, const rocksdb::FileOptions&,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>*,
                                        rocksdb::IODebugContext*) override;
  rocksdb::IOStatus NewWritableFile(const std::string&, const rocksdb::FileOptions&,
                                    std::unique_ptr<rocksdb::FSWritableFile>*,
                                    rocksdb::IODebugContext*) override;
  rocksdb::IOStatus ReopenWritableFile(const std::string&, const rocksdb::FileOptions&,
                                       std::unique_ptr<rocksdb::FSWritableFile>*,
                                       rocksdb::IODebugContext*) override;
  rocksdb::IOStatus ReuseWritableFile(const std::string&, const std::string&,
                                      const rocksdb::FileOptions&,
                                      std::unique_ptr<rocksdb::FSWritableFile>*,
                                      rocksdb::IODebugContext*) override;
  rocksdb::IOStatus NewRandomRWFile(const std::string&, const rocksdb::FileOptions&,
                                    std::unique_ptr<rocksdb::FSRandomRWFile>*,
                                    rocksdb::IODebugContext*) override;
  rocksdb::IOStatus NewDirectory(const std::string&, const rocksdb::IOOptions&,
                                 std::unique_ptr<rocksdb::FSDirectory>*,
                                 rocksdb::IODebugContext*) override;
  rocksdb::IOStatus FileExists(const std::string&, const rocksdb::IOOptions&,
                               rocksdb::IODebugContext*) override;
  rocksdb::IOStatus GetChildren(const std::string&, const rocksdb::IOOptions&,
                                std::vector<std::string>*, rocksdb::IODebugContext*) override;
  rocksdb::IOStatus GetChildrenFileAttributes(const std::string&, const rocksdb::IOOptions&,
                                              std::vector<rocksdb::FileAttributes>*,
                                              rocksdb::IODebugContext*) override;
  rocksdb::IOStatus DeleteFile(const std::string&, const rocksdb::IOOptions&,
                               rocksdb::IODebugContext*) override;
  rocksdb::IOStatus Truncate(const std::string&, std::size_t, const rocksdb::IOOptions&,
                             rocksdb::IODebugContext*) override;
  rocksdb::IOStatus CreateDir(const std::string&, const rocksdb::IOOptions&,
                              rocksdb::IODebugContext*) override;
  rocksdb::IOStatus CreateDirIfMissing(const std::string&, const rocksdb::IOOptions&,
                                       rocksdb::IODebugContext*) override;
  rocksdb::IOStatus DeleteDir(const std::string&, const rocksdb::IOOptions&,
                              rocksdb::IODebugContext*) override;
  rocksdb::IOStatus GetFileSize(const std::string&, const rocksdb::IOOptions&, std::uint64_t*,
                                rocksdb::IODebugContext*) override;
  rocksdb::IOStatus GetFileModificationTime(const std::string&, const rocksdb::IOOptions&,
                                            std::uint64_t*, rocksdb::IODebugContext*) override;
  rocksdb::IOStatus RenameFile(const std::string&, const std::string&, const rocksdb::IOOptions&,
                               rocksdb::IODebugContext*) override;
  rocksdb::IOStatus LinkFile(const std::string&, const std::string&, const rocksdb::IOOptions&,
                             rocksdb::IODebugContext*) override;
  rocksdb::IOStatus LockFile(const std::string&, const rocksdb::IOOptions&, rocksdb::FileLock**,
                             rocksdb::IODebugContext*) override;
  rocksdb::IOStatus UnlockFile(rocksdb::FileLock*, const rocksdb::IOOptions&,
                               rocksdb::IODebugContext*) override;
  rocksdb::IOStatus IsDirectory(const std::string&, const rocksdb::IOOptions&, bool*,
                                rocksdb::IODebugContext*) override;

 private:
  struct File {
    std::string bytes, synced;
  };
  using Names = std::map<std::string, std::shared_ptr<File>>;
  class Sequential;
  class RandomAccess;
  class Writable;
  class Directory;

  // Counts an operation; the error where it is to fail. `mutex_` is held.
  rocksdb::IOStatus strike(bool is_read, const std::string& name);
  rocksdb::IOStatus read(const File& file, const std::string& name, std::uint64_t offset,
                         std::size_t size, rocksdb::Slice* result, char* scratch);
  std::shared_ptr<File> find(const std::string& path) const;

  mutable std::mutex mutex_;
  Names names_, synced_names_;
  FaultPlan plan_;
  std::uint64_t operations_ = 0;
  bool has_struck_ = false;
  bool is_off_ = false;
  std::uint64_t tables_made_ = 0, tables_removed_ = 0;
};

}  // namespace sluice
