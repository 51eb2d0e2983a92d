// The durable store. One RocksDB with a column family for each Space; every commit is one synced
// write, so that the write-ahead log is the only thing a crash can cut.
#include "store/rocksdb_store.h"

#include <algorithm>
#include <memory>
#include <mutex>

#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <rocksdb/write_buffer_manager.h>

#include "base/check.h"
#include "store/crc32c.h"
#include "store/log_check.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

// The first failure of a durable write, by commit() or by RocksDB's own threads; kept for ever.
class Failure {
 public:
  void keep(const Error& error) {
    const std::scoped_lock lock(mutex_);
    if (!error_) error_ = error;
  }
  std::optional<Error> get() const {
    const std::scoped_lock lock(mutex_);
    return error_;
  }

 private:
  mutable std::mutex mutex_;
  std::optional<Error> error_;
};

// RocksDB would go on by itself after some errors, a full disk among them, whatever
// max_bgerror_resume_count says; this refuses it and makes the next commit fail.
class StopOnBackgroundError final : public rocksdb::EventListener {
 public:
  StopOnBackgroundError(Failure& failure, fs::path folder)
      : failure_(failure), folder_(std::move(folder)) {}

  void OnBackgroundError(rocksdb::BackgroundErrorReason /*reason*/,
                         rocksdb::Status* status) override {
    failure_.keep(store_error("write", folder_, *status));
  }
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason /*reason*/, rocksdb::Status /*status*/,
                            bool* auto_recovery) override {
    *auto_recovery = false;
  }

 private:
  Failure& failure_;
  const fs::path folder_;
};

// In what pieces a memtable takes memory: what RocksDB would take for one of this size.
std::size_t arena_block_bytes(std::uint64_t memtable_bytes) {
  constexpr std::uint64_t kPage = 4096;
  const std::uint64_t wanted = std::min<std::uint64_t>(memtable_bytes / 8, 1 << 20);
  return static_cast<std::size_t>((wanted + kPage - 1) / kPage * kPage);
}

class RocksDbStore final : public RocksDbView {
 public:
  RocksDbStore(fs::path folder, const StoreConfig& config, rocksdb::Env& env);
  // While the failure is still there that RocksDB's threads may tell of.
  ~RocksDbStore() override { close(); }
  RocksDbStore(const RocksDbStore&) = delete;
  RocksDbStore& operator=(const RocksDbStore&) = delete;

  Status open();

  Status commit(const WriteBatch& batch) override;

 private:
  rocksdb::DBOptions database_options();
  rocksdb::ColumnFamilyOptions family_options(Space space) const;

  const StoreConfig config_;
  rocksdb::Env& env_;
  const std::shared_ptr<rocksdb::Cache> cache_;
  rocksdb::WriteBatch translated_;  // kept for its memory
  Failure failure_;
};

RocksDbStore::RocksDbStore(fs::path folder, const StoreConfig& config, rocksdb::Env& env)
    : RocksDbView(std::move(folder)),
      config_(config),
      env_(env),
      cache_(rocksdb::NewLRUCache(config.block_cache_bytes)) {}

rocksdb::DBOptions RocksDbStore::database_options() {
  rocksdb::DBOptions options;
  options.env = &env_;
  options.create_if_missing = true;
  options.create_missing_column_families = true;

  // Durability. Of the recovery modes, kTolerateCorruptedTailRecords alone fits the promise of
  // commit(). A crash can leave the last log cut in the middle of a write that was never reported
  // as done: that tail is dropped. A whole record with a wrong checksum was synced once and then
  // damaged: opening is refused, and where RocksDB would not see it check_logs() does.
  // kPointInTimeRecovery would drop it and all that follows, and the
  // store would silently go back behind its checkpoints and snapshots; kAbsoluteConsistency would
  // refuse the cut tail that every crash may leave.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.track_and_verify_wals_in_manifest = true;
  options.paranoid_checks = true;
  options.max_bgerror_resume_count = 0;
  options.listeners.push_back(std::make_shared<StopOnBackgroundError>(failure_, folder()));
  options.listeners.push_back(read_errors());

  // Memory, files and threads. All families share one limit of memtables; the log is bounded so
  // that a seldom written family does not make a restart read gigabytes.
  options.write_buffer_manager =
      std::make_shared<rocksdb::WriteBufferManager>(config_.memtable_bytes);
  options.max_total_wal_size = 4 * config_.memtable_bytes;
  options.max_open_files = 256;
  options.max_background_jobs = 2;

  options.info_log = no_log();
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  return options;
}

rocksdb::ColumnFamilyOptions RocksDbStore::family_options(Space space) const {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache_;
  table.cache_index_and_filter_blocks = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  if (space == Space::state) table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));

  rocksdb::ColumnFamilyOptions options;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  // Only the samples' memtables end by their own size, the others by the limit that all share.
  // Where one write is to end two by their sizes and the disk fails, RocksDB 7.8 forgets to give
  // back the second family (DBImpl::ScheduleFlushes leaves its loop), and closing the store aborts.
  // Samples are written as fast as state: while two of their memtables wait for the disk, so does
  // everything.
  options.write_buffer_size = (space == Space::samples ? 1 : 4) * config_.memtable_bytes;
  options.arena_block_size = arena_block_bytes(config_.memtable_bytes);
  // State and samples are short-lived and written much: compressing them costs more than their
  // disk. Dead letters are seldom, stay long, and repeat themselves.
  options.compression =
      space == Space::dead_letters ? rocksdb::kLZ4Compression : rocksdb::kNoCompression;
  return options;
}

Status RocksDbStore::open() {
  // Referred to here so that it is linked: a wrong sum must never get into a file.
  SLUICE_CHECK(extend_crc32c(0, "123456789", 9) == 0xE3069283U);
  std::error_code code;
  fs::create_directories(folder(), code);
  if (code) {
    return stop_error("cannot make the folder " + folder().string() + ": " + code.message());
  }
  if (const rocksdb::Status logs = check_logs(env_, folder().string()); !logs.ok()) {
    return store_error("open", folder(), logs);
  }
  const auto status =
      open_families([this](Space space) { return family_options(space); },
                    [this](const auto& descriptors, auto* handles, rocksdb::DB** database) {
                      return rocksdb::DB::Open(database_options(), folder().string(), descriptors,
                                               handles, database);
                    });
  if (!status.ok()) return store_error("open", folder(), status);
  return {};
}

Status RocksDbStore::commit(const WriteBatch& batch) {
  if (const auto failure = failure_.get()) {
    return stop_error("nothing is written after a failed write: " + failure->message);
  }
  struct Translate {
    const RocksDbStore& store;
    rocksdb::WriteBatch& out;
    rocksdb::Status operator()(const WriteBatch::Put& put) const {
      return out.Put(store.family(put.space), put.key, put.value);
    }
    rocksdb::Status operator()(const WriteBatch::Remove& remove) const {
      return out.Delete(store.family(remove.space), remove.key);
    }
    rocksdb::Status operator()(const WriteBatch::RemoveRange& range) const {
      return out.DeleteRange(store.family(range.space), range.begin, range.end);
    }
  };
  translated_.Clear();
  rocksdb::Status status;
  for (const auto& operation : batch.operations()) {
    status = std::visit(Translate{*this, translated_}, operation);
    if (!status.ok()) break;
  }
  if (status.ok()) {
    rocksdb::WriteOptions options;
    options.sync = true;
    status = database().Write(options, &translated_);
  }
  if (status.ok()) return {};
  const Error error = store_error("write", folder(), status);
  failure_.keep(error);
  return error;
}

}  // namespace

Result<std::unique_ptr<KeyValueStore>> open_rocksdb(const fs::path& folder,
                                                    const StoreConfig& config, rocksdb::Env& env) {
  auto store = std::make_unique<RocksDbStore>(folder, config, env);
  SLUICE_TRY(store->open());
  return std::unique_ptr<KeyValueStore>(std::move(store));
}

Result<std::unique_ptr<KeyValueStore>> open_rocksdb(const fs::path& folder,
                                                    const StoreConfig& config) {
  return open_rocksdb(folder, config, *rocksdb::Env::Default());
}

}  // namespace sluice
