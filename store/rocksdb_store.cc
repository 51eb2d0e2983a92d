// The durable store. One RocksDB with a column family for each Space; every commit is one synced
// write, so that the write-ahead log is the only thing a crash can cut.
#include <algorithm>
#include <array>
#include <cstdarg>
#include <memory>
#include <mutex>

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <rocksdb/write_buffer_manager.h>

#include "base/check.h"
#include "store/key_value.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

// In the order of Space. RocksDB insists on a family "default", which stays empty.
constexpr std::array<const char*, kSpaces> kFamilies = {"meta", "state", "samples", "dead_letters"};

rocksdb::Slice slice(std::string_view text) {
  return {text.data(), text.size()};
}
std::string_view view(const rocksdb::Slice& slice) {
  return {slice.data(), slice.size()};
}

Error store_error(const char* what, const fs::path& folder, const rocksdb::Status& status) {
  std::string cause = status.ToString();
  std::replace(cause.begin(), cause.end(), '\n', ' ');
  const std::string where = "cannot " + std::string(what) + " the store in " + folder.string();
  if (status.IsNoSpace() || cause.find("No space left") != std::string::npos) {
    return stop_error(where +
                      ": the disk is full; what was committed is kept: make room, then start"
                      " again (" +
                      cause + ")");
  }
  if (status.IsCorruption()) {
    return stop_error(where +
                      ": it is damaged; restore the data folder from a copy, or replay into"
                      " a new one (" +
                      cause + ")");
  }
  return stop_error(where + ": " + cause);
}

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

// RocksDB's own log is for its developers; errors reach us as values. Its log file must not be on
// the disk that may be full: appending once more after a failed write of it trips an assertion.
class NoLog final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}
};

class RocksDbStore final : public KeyValueStore {
 public:
  RocksDbStore(fs::path folder, const StoreConfig& config);
  ~RocksDbStore() override;
  RocksDbStore(const RocksDbStore&) = delete;
  RocksDbStore& operator=(const RocksDbStore&) = delete;

  Status open();

  Status commit(const WriteBatch& batch) override;
  Result<std::optional<std::string>> get(Space space, std::string_view key) override;
  Status scan(Space space, std::string_view begin, std::string_view end,
              const std::function<bool(std::string_view, std::string_view)>& visit) override;
  std::uint64_t disk_bytes() override;

 private:
  rocksdb::DBOptions database_options();
  rocksdb::ColumnFamilyOptions family_options(Space space) const;
  rocksdb::ColumnFamilyHandle* family(Space space) const {
    return families_.at(static_cast<std::size_t>(space));
  }

  const fs::path folder_;
  const StoreConfig config_;
  const std::shared_ptr<rocksdb::Cache> cache_;
  Failure failure_;
  std::vector<rocksdb::ColumnFamilyHandle*> families_;  // by Space, then "default"
  std::unique_ptr<rocksdb::DB> database_;
};

RocksDbStore::RocksDbStore(fs::path folder, const StoreConfig& config)
    : folder_(std::move(folder)),
      config_(config),
      cache_(rocksdb::NewLRUCache(config.block_cache_bytes)) {}

RocksDbStore::~RocksDbStore() {
  if (database_ == nullptr) return;
  for (rocksdb::ColumnFamilyHandle* handle : families_) {
    database_->DestroyColumnFamilyHandle(handle);
  }
  // Nothing is lost where closing fails: what was committed is in the write-ahead log.
  database_->Close().PermitUncheckedError();
}

rocksdb::DBOptions RocksDbStore::database_options() {
  rocksdb::DBOptions options;
  options.create_if_missing = true;
  options.create_missing_column_families = true;

  // Durability. Of the recovery modes, kTolerateCorruptedTailRecords alone fits the promise of
  // commit(). A crash can leave the last log cut in the middle of a write that was never reported
  // as done: that tail is dropped. A whole record with a wrong checksum was synced once and then
  // damaged: opening is refused. kPointInTimeRecovery would drop it and all that follows, and the
  // store would silently go back behind its checkpoints and snapshots; kAbsoluteConsistency would
  // refuse the cut tail that every crash may leave.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.track_and_verify_wals_in_manifest = true;
  options.paranoid_checks = true;
  options.max_bgerror_resume_count = 0;
  options.listeners.push_back(std::make_shared<StopOnBackgroundError>(failure_, folder_));

  // Memory, files and threads. All families share one limit of memtables; the log is bounded so
  // that a seldom written family does not make a restart read gigabytes.
  options.write_buffer_manager =
      std::make_shared<rocksdb::WriteBufferManager>(config_.memtable_bytes);
  options.max_total_wal_size = 4 * config_.memtable_bytes;
  options.max_open_files = 256;
  options.max_background_jobs = 2;

  options.info_log = std::make_shared<NoLog>();
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
  options.write_buffer_size = config_.memtable_bytes;
  // State is short-lived and often written: compressing it costs more than its disk. The logs of
  // samples and dead letters are written once, read seldom, and repeat themselves.
  const bool is_log = space == Space::samples || space == Space::dead_letters;
  options.compression = is_log ? rocksdb::kLZ4Compression : rocksdb::kNoCompression;
  return options;
}

Status RocksDbStore::open() {
  std::error_code code;
  fs::create_directories(folder_, code);
  if (code) return stop_error("cannot make the folder " + folder_.string() + ": " + code.message());

  std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
  for (std::size_t space = 0; space < kSpaces; ++space) {
    descriptors.emplace_back(kFamilies[space], family_options(static_cast<Space>(space)));
  }
  descriptors.emplace_back(rocksdb::kDefaultColumnFamilyName, family_options(Space::meta));
  rocksdb::DB* database = nullptr;
  const rocksdb::Status status =
      rocksdb::DB::Open(database_options(), folder_.string(), descriptors, &families_, &database);
  if (!status.ok()) return store_error("open", folder_, status);
  database_.reset(database);
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
  rocksdb::WriteBatch translated(batch.bytes() + 16 * batch.operations().size());
  rocksdb::Status status;
  for (const auto& operation : batch.operations()) {
    status = std::visit(Translate{*this, translated}, operation);
    if (!status.ok()) break;
  }
  if (status.ok()) {
    rocksdb::WriteOptions options;
    options.sync = true;
    status = database_->Write(options, &translated);
  }
  if (status.ok()) return {};
  const Error error = store_error("write", folder_, status);
  failure_.keep(error);
  return error;
}

Result<std::optional<std::string>> RocksDbStore::get(Space space, std::string_view key) {
  std::string value;
  const rocksdb::Status status =
      database_->Get(rocksdb::ReadOptions(), family(space), slice(key), &value);
  if (status.IsNotFound()) return std::optional<std::string>();
  if (!status.ok()) return store_error("read", folder_, status);
  return std::optional(std::move(value));
}

Status RocksDbStore::scan(Space space, std::string_view begin, std::string_view end,
                          const std::function<bool(std::string_view, std::string_view)>& visit) {
  if (!end.empty() && begin >= end) return {};
  rocksdb::ReadOptions options;
  const rocksdb::Slice upper = slice(end);
  if (!end.empty()) options.iterate_upper_bound = &upper;
  const std::unique_ptr<rocksdb::Iterator> it(database_->NewIterator(options, family(space)));
  for (it->Seek(slice(begin)); it->Valid(); it->Next()) {
    if (!visit(view(it->key()), view(it->value()))) return {};
  }
  if (!it->status().ok()) return store_error("read", folder_, it->status());
  return {};
}

std::uint64_t RocksDbStore::disk_bytes() {
  // Files come and go meanwhile: one that is gone counts nothing.
  std::uint64_t bytes = 0;
  std::error_code code;
  for (fs::directory_iterator it(folder_, code), end; !code && it != end; it.increment(code)) {
    std::error_code gone;
    const std::uintmax_t size = it->file_size(gone);
    if (!gone) bytes += size;
  }
  return bytes;
}

}  // namespace

Result<std::unique_ptr<KeyValueStore>> open_rocksdb(const fs::path& folder,
                                                    const StoreConfig& config) {
  auto store = std::make_unique<RocksDbStore>(folder, config);
  SLUICE_TRY(store->open());
  return std::unique_ptr<KeyValueStore>(std::move(store));
}

}  // namespace sluice
