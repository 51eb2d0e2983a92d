#include <algorithm>
#include <array>
#include <cstdarg>

#include <rocksdb/env.h>
#include <rocksdb/metadata.h>
#include <rocksdb/sst_file_reader.h>

#include "store/rocksdb_store.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

// In the order of Space. RocksDB insists on a family "default", which stays empty.
constexpr std::array<const char*, kSpaces> kFamilies = {"meta", "state", "samples", "dead_letters"};

// Numbers of tables that are remembered; many more than there are at a time.
constexpr std::size_t kMaxVerified = 10'000;

rocksdb::Slice slice(std::string_view text) {
  return {text.data(), text.size()};
}
std::string_view view(const rocksdb::Slice& slice) {
  return {slice.data(), slice.size()};
}

// RocksDB's own log is for its developers; errors reach us as values. Its log file must not be on
// the disk that may be full: appending once more after a failed write of it trips an assertion.
class NoLog final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}
};

}  // namespace

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
  // A file that it needs and that is gone is damage, too.
  if (status.IsCorruption() || status.IsPathNotFound() || status.IsNotFound()) {
    return stop_error(where +
                      ": it is damaged; restore the data folder from a copy, or replay into"
                      " a new one (" +
                      cause + ")");
  }
  return stop_error(where + ": " + cause);
}

std::shared_ptr<rocksdb::Logger> no_log() {
  return std::make_shared<NoLog>();
}

void ReadErrors::OnIOError(const rocksdb::IOErrorInfo& error) {
  if (error.operation != rocksdb::FileOperationType::kRead) return;
  const std::lock_guard lock(mutex_);
  ++count_;
  last_ = error.io_status;
}

std::uint64_t ReadErrors::count() const {
  const std::lock_guard lock(mutex_);
  return count_;
}

rocksdb::Status ReadErrors::last() const {
  const std::lock_guard lock(mutex_);
  return last_;
}

rocksdb::Status RocksDbView::open_families(
    const std::function<rocksdb::ColumnFamilyOptions(Space)>& options, const Opener& open) {
  std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
  for (std::size_t space = 0; space < kSpaces; ++space) {
    descriptors.emplace_back(kFamilies[space], options(static_cast<Space>(space)));
  }
  descriptors.emplace_back(rocksdb::kDefaultColumnFamilyName, options(Space::meta));
  rocksdb::DB* database = nullptr;
  const rocksdb::Status status = open(descriptors, &families_, &database);
  if (status.ok()) database_.reset(database);
  return status;
}

void RocksDbView::close() {
  if (database_ == nullptr) return;
  for (rocksdb::ColumnFamilyHandle* handle : families_) {
    database_->DestroyColumnFamilyHandle(handle);
  }
  // Nothing is lost where closing fails: what was committed is in the write-ahead log.
  database_->Close().PermitUncheckedError();
  database_.reset();
}

Result<std::optional<std::string>> RocksDbView::get(Space space, std::string_view key) {
  std::string value;
  const rocksdb::Status status =
      database_->Get(rocksdb::ReadOptions(), family(space), slice(key), &value);
  if (status.IsNotFound()) return std::optional<std::string>();
  if (!status.ok()) return store_error("read", folder_, status);
  return std::optional(std::move(value));
}

Status RocksDbView::scan(Space space, std::string_view begin, std::string_view end,
                         const std::function<bool(std::string_view, std::string_view)>& visit) {
  if (!end.empty() && begin >= end) return {};
  SLUICE_TRY(verify_tables(space, begin, end));
  const std::uint64_t errors_before = read_errors_->count();
  rocksdb::ReadOptions options;
  const rocksdb::Slice upper = slice(end);
  if (!end.empty()) options.iterate_upper_bound = &upper;
  const std::unique_ptr<rocksdb::Iterator> it(database_->NewIterator(options, family(space)));
  for (it->Seek(slice(begin)); it->Valid(); it->Next()) {
    if (!visit(view(it->key()), view(it->value()))) break;
  }
  if (!it->status().ok()) return store_error("read", folder_, it->status());
  if (read_errors_->count() != errors_before) {
    return store_error("read", folder_, read_errors_->last());
  }
  return {};
}

// Where there are range deletions, an iterator of RocksDB 7.8 that meets a damaged block may go on
// behind the table that holds it, and forget the error. So no table is scanned before it was read
// once as a whole. Tables never change.
Status RocksDbView::verify_tables(Space space, std::string_view begin, std::string_view end) {
  rocksdb::ColumnFamilyMetaData family_data;
  database_->GetColumnFamilyMetaData(family(space), &family_data);
  for (const rocksdb::LevelMetaData& level : family_data.levels) {
    for (const rocksdb::SstFileMetaData& table : level.files) {
      if (table.largestkey < begin || (!end.empty() && table.smallestkey >= end)) continue;
      const std::lock_guard lock(mutex_);
      if (verified_.contains(table.file_number)) continue;
      rocksdb::Options options;
      options.env = database_->GetEnv();
      rocksdb::SstFileReader reader(options);
      rocksdb::Status status = reader.Open(table.directory + "/" + table.relative_filename);
      if (status.ok()) status = reader.VerifyChecksum();
      // Compacted away meanwhile: what it held was read for that, and lies in another one.
      if (status.IsPathNotFound()) continue;
      if (!status.ok()) return store_error("read", folder_, status);
      if (verified_.size() == kMaxVerified) verified_.clear();
      verified_.insert(table.file_number);
    }
  }
  return {};
}

std::uint64_t RocksDbView::disk_bytes() {
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

}  // namespace sluice
