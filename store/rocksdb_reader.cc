// A read-only view of the durable store, also while another process writes it.
//
// RocksDB opens a store for reading in three steps: it reads the manifest, opens the table files
// that the manifest names, and replays the write-ahead logs into memory. It holds no lock, so the
// writer may do anything in between; a log that it flushed and removed just before it would have
// been replayed would leave a gap, without an error. But the writer removes nothing that its last
// manifest needs before it has written to the manifest: where that is the same after the open as
// it was before, all that was read belongs to one moment. Else the open is tried again. Opened
// table files stay readable when they are removed, so that a view stays whole for its life.
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <rocksdb/table.h>

#include "base/check.h"
#include "base/file.h"
#include "store/log_check.h"
#include "store/rocksdb_store.h"

namespace sluice {
namespace {

constexpr int kAttempts = 20;

// Refuses whatever would change the store: reading must not depend on RocksDB's goodwill.
class ReadOnlyFiles final : public rocksdb::FileSystemWrapper {
 public:
  using rocksdb::FileSystemWrapper::FileSystemWrapper;
  using Options = rocksdb::IOOptions;
  using Context = rocksdb::IODebugContext;
  using WritableFile = std::unique_ptr<rocksdb::FSWritableFile>;

  const char* Name() const override { return "SluiceReadOnlyFiles"; }

  rocksdb::IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions&,
                                    WritableFile*, Context*) override {
    return refused(name);
  }
  rocksdb::IOStatus ReopenWritableFile(const std::string& name, const rocksdb::FileOptions&,
                                       WritableFile*, Context*) override {
    return refused(name);
  }
  rocksdb::IOStatus ReuseWritableFile(const std::string& name, const std::string&,
                                      const rocksdb::FileOptions&, WritableFile*,
                                      Context*) override {
    return refused(name);
  }
  rocksdb::IOStatus NewRandomRWFile(const std::string& name, const rocksdb::FileOptions&,
                                    std::unique_ptr<rocksdb::FSRandomRWFile>*, Context*) override {
    return refused(name);
  }
  rocksdb::IOStatus NewLogger(const std::string& name, const Options&,
                              std::shared_ptr<rocksdb::Logger>*, Context*) override {
    return refused(name);
  }
  rocksdb::IOStatus DeleteFile(const std::string& name, const Options&, Context*) override {
    return refused(name);
  }
  rocksdb::IOStatus Truncate(const std::string& name, std::size_t, const Options&,
                             Context*) override {
    return refused(name);
  }
  rocksdb::IOStatus CreateDir(const std::string& name, const Options&, Context*) override {
    return refused(name);
  }
  rocksdb::IOStatus CreateDirIfMissing(const std::string& name, const Options&, Context*) override {
    return refused(name);
  }
  rocksdb::IOStatus DeleteDir(const std::string& name, const Options&, Context*) override {
    return refused(name);
  }
  rocksdb::IOStatus RenameFile(const std::string& name, const std::string&, const Options&,
                               Context*) override {
    return refused(name);
  }
  rocksdb::IOStatus LinkFile(const std::string& name, const std::string&, const Options&,
                             Context*) override {
    return refused(name);
  }
  rocksdb::IOStatus LockFile(const std::string& name, const Options&, rocksdb::FileLock**,
                             Context*) override {
    return refused(name);
  }

 private:
  static rocksdb::IOStatus refused(const std::string& name) {
    return rocksdb::IOStatus::NotSupported("opened for reading only", name);
  }
};

class RocksDbReader final : public RocksDbView {
 public:
  RocksDbReader(fs::path folder, const std::shared_ptr<rocksdb::FileSystem>& files)
      : RocksDbView(std::move(folder)),
        env_(rocksdb::NewCompositeEnv(std::make_shared<ReadOnlyFiles>(files))) {}
  ~RocksDbReader() override { close(); }
  RocksDbReader(const RocksDbReader&) = delete;
  RocksDbReader& operator=(const RocksDbReader&) = delete;

  rocksdb::Status open() {
    rocksdb::DBOptions options;
    options.env = env_.get();
    options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
    options.track_and_verify_wals_in_manifest = true;
    options.paranoid_checks = true;
    options.max_open_files = -1;  // all are opened at once, and stay so
    options.info_log = no_log();
    options.listeners.push_back(read_errors());
    if (rocksdb::Status logs = check_logs(*env_, folder().string()); !logs.ok()) return logs;
    return open_families([](Space) { return rocksdb::ColumnFamilyOptions(); },
                         [&](const auto& descriptors, auto* handles, rocksdb::DB** database) {
                           return rocksdb::DB::OpenForReadOnly(options, folder().string(),
                                                               descriptors, handles, database);
                         });
  }

  Status commit(const WriteBatch& /*batch*/) override {
    SLUICE_CHECK(!"a store that was opened for reading is not written");
    return {};
  }

 private:
  const std::unique_ptr<rocksdb::Env> env_;
};

// What changes with every flush, compaction and removal of a log: the current manifest's name and
// length. Empty where there is none.
std::string manifest_state(RealFileSystem& files, const fs::path& folder) {
  const auto current = files.read(folder / "CURRENT");
  if (!current) return {};
  const auto bytes = files.size(folder / current->substr(0, current->find('\n')));
  return *current + (bytes ? std::to_string(*bytes) : "");
}

}  // namespace

Result<std::unique_ptr<KeyValueStore>> open_rocksdb_to_read(
    const fs::path& folder, const std::shared_ptr<rocksdb::FileSystem>& files) {
  RealFileSystem plain;
  std::string cause;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const std::string before = manifest_state(plain, folder);
    if (before.empty()) {
      return stop_error("there is no store in " + folder.string() +
                        ": take the data folder of a run or a replay that has begun");
    }
    auto reader = std::make_unique<RocksDbReader>(folder, files);
    const rocksdb::Status status = reader->open();
    const bool is_unchanged = manifest_state(plain, folder) == before;
    if (status.ok() && is_unchanged) return std::unique_ptr<KeyValueStore>(std::move(reader));
    if (is_unchanged) {
      // Its first start was cut short, before there was anything in it.
      if (status.IsInvalidArgument() &&
          status.ToString().find("olumn family not found") != std::string::npos) {
        return stop_error("the store in " + folder.string() +
                          " was never used: nothing is in it before the first commit");
      }
      return store_error("read", folder, status);
    }
    cause = status.ok() ? "" : " (" + status.ToString() + ")";
  }
  return retry_error("cannot read the store in " + folder.string() +
                     ": it changed whenever it was opened; try again" + cause);
}

Result<std::unique_ptr<KeyValueStore>> open_rocksdb_to_read(const fs::path& folder) {
  return open_rocksdb_to_read(folder, rocksdb::FileSystem::Default());
}

}  // namespace sluice
