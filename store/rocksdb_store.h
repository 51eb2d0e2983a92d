// What the writing and the reading side of the durable store share. Includes RocksDB: for store/
// and its tests only; everyone else sees store/key_value.h.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <rocksdb/db.h>
#include <rocksdb/file_system.h>
#include <rocksdb/listener.h>
#include <rocksdb/options.h>

#include "store/key_value.h"

namespace sluice {

// As the public open_rocksdb(), but all that it does on disk goes through `env`, which outlives the
// store: tests lose, tear and refuse writes there.
Result<std::unique_ptr<KeyValueStore>> open_rocksdb(const std::filesystem::path& folder,
                                                    const StoreConfig& config, rocksdb::Env& env);

// As the public open_rocksdb_to_read(), reading through `files`.
Result<std::unique_ptr<KeyValueStore>> open_rocksdb_to_read(
    const std::filesystem::path& folder, const std::shared_ptr<rocksdb::FileSystem>& files);

// "cannot <what> the store in <folder>: ...", with what to do about a full disk or damage.
Error store_error(const char* what, const std::filesystem::path& folder,
                  const rocksdb::Status& status);

// RocksDB's own log is for its developers and is kept nowhere.
std::shared_ptr<rocksdb::Logger> no_log();

// Every read of a file that failed, by whomever. An iterator of RocksDB 7.8 may forget such an
// error, and with it all that the file holds.
class ReadErrors final : public rocksdb::EventListener {
 public:
  bool ShouldBeNotifiedOnFileIO() override { return true; }
  void OnIOError(const rocksdb::IOErrorInfo& error) override;
  std::uint64_t count() const;
  rocksdb::Status last() const;

 private:
  mutable std::mutex mutex_;
  std::uint64_t count_ = 0;
  rocksdb::Status last_;
};

// The reads of an open RocksDB. commit() is left to those who derive from it.
class RocksDbView : public KeyValueStore {
 public:
  RocksDbView(const RocksDbView&) = delete;
  RocksDbView& operator=(const RocksDbView&) = delete;
  ~RocksDbView() override { close(); }

  Result<std::optional<std::string>> get(Space space, std::string_view key) override;
  Status scan(Space space, std::string_view begin, std::string_view end,
              const std::function<bool(std::string_view, std::string_view)>& visit) override;
  std::uint64_t disk_bytes() override;

 protected:
  using Opener = std::function<rocksdb::Status(
      const std::vector<rocksdb::ColumnFamilyDescriptor>& descriptors,
      std::vector<rocksdb::ColumnFamilyHandle*>* handles, rocksdb::DB** database)>;

  explicit RocksDbView(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // Calls `open` with the families of all spaces, and keeps what it opened.
  rocksdb::Status open_families(const std::function<rocksdb::ColumnFamilyOptions(Space)>& options,
                                const Opener& open);
  // Of what RocksDB's own threads refer to, nothing may be gone before this was called.
  void close();

  const std::filesystem::path& folder() const { return folder_; }
  // To be told of all reads: among the listeners of whatever is opened.
  std::shared_ptr<ReadErrors> read_errors() const { return read_errors_; }
  rocksdb::DB& database() { return *database_; }
  rocksdb::ColumnFamilyHandle* family(Space space) const {
    return families_.at(static_cast<std::size_t>(space));
  }

 private:
  // Reads the tables that hold keys of [begin, end) once, and checks all of their checksums.
  Status verify_tables(Space space, std::string_view begin, std::string_view end);

  const std::filesystem::path folder_;
  const std::shared_ptr<ReadErrors> read_errors_ = std::make_shared<ReadErrors>();
  std::vector<rocksdb::ColumnFamilyHandle*> families_;  // by Space, then "default"
  std::unique_ptr<rocksdb::DB> database_;
  std::mutex mutex_;                  // guards verified_
  std::set<std::uint64_t> verified_;  // the numbers of the tables that were read so
};

}  // namespace sluice
