#include "tests/store/faulty_rocksdb_env.h"

#include <algorithm>
#include <cstring>

#include <rocksdb/system_clock.h>

namespace sluice {
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;
using Guard = std::lock_guard<std::mutex>;

std::string base_name(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

IOStatus not_found(const std::string& path) {
  return IOStatus::PathNotFound(path, "No such file or directory");
}

bool is_table(const std::string& name) {
  return name.ends_with(".sst");
}

constexpr int kMaxSleepUs = 100;

class ImpatientClock final : public rocksdb::SystemClockWrapper {
 public:
  using rocksdb::SystemClockWrapper::SystemClockWrapper;
  const char* Name() const override { return "ImpatientClock"; }
  void SleepForMicroseconds(int micros) override {
    target_->SleepForMicroseconds(std::min(micros, kMaxSleepUs));
  }
};

class FaultyEnv final : public rocksdb::EnvWrapper {
 public:
  explicit FaultyEnv(const std::shared_ptr<FaultyRocksDbFiles>& files)
      : rocksdb::EnvWrapper(rocksdb::NewCompositeEnv(files)) {
    system_clock_ = std::make_shared<ImpatientClock>(rocksdb::SystemClock::Default());
  }
};

}  // namespace

// ---- open files

class FaultyRocksDbFiles::Sequential final : public rocksdb::FSSequentialFile {
 public:
  Sequential(FaultyRocksDbFiles& owner, std::shared_ptr<File> file, std::string name)
      : owner_(owner), file_(std::move(file)), name_(std::move(name)) {}
  IOStatus Read(std::size_t size, const IOOptions&, Slice* result, char* scratch,
                IODebugContext*) override {
    const IOStatus status = owner_.read(*file_, name_, offset_, size, result, scratch);
    if (status.ok()) offset_ += result->size();
    return status;
  }
  IOStatus Skip(std::uint64_t size) override {
    offset_ += size;
    return IOStatus::OK();
  }

 private:
  FaultyRocksDbFiles& owner_;
  std::shared_ptr<File> file_;
  std::string name_;
  std::uint64_t offset_ = 0;
};

class FaultyRocksDbFiles::RandomAccess final : public rocksdb::FSRandomAccessFile {
 public:
  RandomAccess(FaultyRocksDbFiles& owner, std::shared_ptr<File> file, std::string name)
      : owner_(owner), file_(std::move(file)), name_(std::move(name)) {}
  IOStatus Read(std::uint64_t offset, std::size_t size, const IOOptions&, Slice* result,
                char* scratch, IODebugContext*) const override {
    return owner_.read(*file_, name_, offset, size, result, scratch);
  }

 private:
  FaultyRocksDbFiles& owner_;
  std::shared_ptr<File> file_;
  std::string name_;
};

class FaultyRocksDbFiles::Writable final : public rocksdb::FSWritableFile {
 public:
  Writable(FaultyRocksDbFiles& owner, std::shared_ptr<File> file, std::string name)
      : owner_(owner), file_(std::move(file)), name_(std::move(name)) {}

  using rocksdb::FSWritableFile::Append;
  IOStatus Append(const Slice& data, const IOOptions&, IODebugContext*) override {
    const Guard lock(owner_.mutex_);
    const IOStatus status = owner_.strike(false, name_);
    if (status.ok()) {
      file_->bytes.append(data.data(), data.size());
    } else if (owner_.plan_.fault == DiskFault::torn && !owner_.is_off_) {
      file_->bytes.append(data.data(), data.size() / 2);
    }
    return status;
  }
  IOStatus Truncate(std::uint64_t size, const IOOptions&, IODebugContext*) override {
    const Guard lock(owner_.mutex_);
    const IOStatus status = owner_.strike(false, name_);
    if (status.ok()) file_->bytes.resize(size);
    return status;
  }
  IOStatus Close(const IOOptions&, IODebugContext*) override {
    const Guard lock(owner_.mutex_);
    return owner_.strike(false, name_);
  }
  // Hands the bytes to the system; no durability.
  IOStatus Flush(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Sync(const IOOptions&, IODebugContext*) override {
    const Guard lock(owner_.mutex_);
    const IOStatus status = owner_.strike(false, name_);
    if (!status.ok()) return status;
    file_->synced = file_->bytes;
    for (const auto& [name, file] : owner_.names_) {
      if (file == file_) owner_.synced_names_[name] = file;
    }
    return status;
  }
  bool IsSyncThreadSafe() const override { return true; }
  std::uint64_t GetFileSize(const IOOptions&, IODebugContext*) override {
    const Guard lock(owner_.mutex_);
    return file_->bytes.size();
  }

 private:
  FaultyRocksDbFiles& owner_;
  std::shared_ptr<File> file_;
  std::string name_;
};

class FaultyRocksDbFiles::Directory final : public rocksdb::FSDirectory {
 public:
  explicit Directory(FaultyRocksDbFiles& owner) : owner_(owner) {}
  IOStatus Fsync(const IOOptions&, IODebugContext*) override {
    const Guard lock(owner_.mutex_);
    const IOStatus status = owner_.strike(false, "the folder");
    if (status.ok()) owner_.synced_names_ = owner_.names_;
    return status;
  }
  IOStatus Close(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }

 private:
  FaultyRocksDbFiles& owner_;
};

// ---- what goes wrong

std::unique_ptr<rocksdb::Env> make_faulty_env(const std::shared_ptr<FaultyRocksDbFiles>& files) {
  return std::make_unique<FaultyEnv>(files);
}

FaultyRocksDbFiles::FaultyRocksDbFiles()
    : rocksdb::FileSystemWrapper(rocksdb::FileSystem::Default()) {}
FaultyRocksDbFiles::~FaultyRocksDbFiles() = default;

void FaultyRocksDbFiles::plan(const FaultPlan& plan) {
  const Guard lock(mutex_);
  plan_ = plan;
  operations_ = 0;
  has_struck_ = false;
}

std::uint64_t FaultyRocksDbFiles::operations() const {
  const Guard lock(mutex_);
  return operations_;
}

bool FaultyRocksDbFiles::has_struck() const {
  const Guard lock(mutex_);
  return has_struck_;
}

IOStatus FaultyRocksDbFiles::strike(bool is_read, const std::string& name) {
  if (is_off_) return IOStatus::IOError("the machine is off", name);
  if (is_read != plan_.is_of_reads) return IOStatus::OK();
  ++operations_;
  if (plan_.at == 0 || operations_ < plan_.at) return IOStatus::OK();
  if (operations_ > plan_.at && !plan_.is_for_ever) return IOStatus::OK();
  has_struck_ = true;
  if (plan_.fault == DiskFault::no_space) {
    return IOStatus::NoSpace("No space left on device (injected)", name);
  }
  return IOStatus::IOError("Input/output error (injected)", name);
}

void FaultyRocksDbFiles::power_off() {
  const Guard lock(mutex_);
  is_off_ = true;
}

void FaultyRocksDbFiles::crash(std::uint64_t seed) {
  const Guard lock(mutex_);
  std::mt19937_64 random(seed);
  Names survivors = synced_names_;
  for (const auto& [name, file] : names_) {
    const auto before = synced_names_.find(name);
    const bool is_changed = before == synced_names_.end() || before->second != file;
    if (is_changed && random() % 2 == 0) survivors[name] = file;
  }
  for (const auto& [name, file] : synced_names_) {
    if (!names_.contains(name) && random() % 2 == 0) survivors.erase(name);
  }
  for (const auto& [name, file] : survivors) {
    // Files are only appended to: what was synced is a prefix.
    if (file->bytes.size() > file->synced.size() && file->bytes.starts_with(file->synced)) {
      const std::size_t tail = file->bytes.size() - file->synced.size();
      file->bytes.resize(file->synced.size() + random() % (tail + 1));
    } else {
      file->bytes = file->synced;
    }
    file->synced = file->bytes;
  }
  names_ = synced_names_ = std::move(survivors);
  is_off_ = false;
  plan_ = {};
}

// ---- for tests that look at the disk

std::shared_ptr<FaultyRocksDbFiles> FaultyRocksDbFiles::copy() const {
  const Guard lock(mutex_);
  auto other = std::make_shared<FaultyRocksDbFiles>();
  std::map<const File*, std::shared_ptr<File>> copies;
  for (const auto& [from, to] :
       {std::pair{&names_, &other->names_}, std::pair{&synced_names_, &other->synced_names_}}) {
    for (const auto& [name, file] : *from) {
      auto& made = copies[file.get()];
      if (made == nullptr) made = std::make_shared<File>(*file);
      (*to)[name] = made;
    }
  }
  return other;
}

std::vector<std::string> FaultyRocksDbFiles::names() const {
  const Guard lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, file] : names_) names.push_back(name);
  return names;
}

std::string FaultyRocksDbFiles::bytes(const std::string& name) const {
  const Guard lock(mutex_);
  return names_.at(name)->bytes;
}

void FaultyRocksDbFiles::set_bytes(const std::string& name, std::string bytes) {
  const Guard lock(mutex_);
  auto file = std::make_shared<File>();
  file->bytes = file->synced = std::move(bytes);
  names_[name] = synced_names_[name] = file;
}

void FaultyRocksDbFiles::remove(const std::string& name) {
  const Guard lock(mutex_);
  names_.erase(name);
  synced_names_.erase(name);
}

std::uint64_t FaultyRocksDbFiles::tables_made() const {
  const Guard lock(mutex_);
  return tables_made_;
}

std::uint64_t FaultyRocksDbFiles::tables_removed() const {
  const Guard lock(mutex_);
  return tables_removed_;
}

// ---- the file system

std::shared_ptr<FaultyRocksDbFiles::File> FaultyRocksDbFiles::find(const std::string& path) const {
  const auto found = names_.find(base_name(path));
  return found == names_.end() ? nullptr : found->second;
}

IOStatus FaultyRocksDbFiles::read(const File& file, const std::string& name, std::uint64_t offset,
                                  std::size_t size, Slice* result, char* scratch) {
  const Guard lock(mutex_);
  *result = Slice();
  const IOStatus status = strike(true, name);
  if (!status.ok()) return status;
  const std::size_t begin = std::min<std::size_t>(offset, file.bytes.size());
  const std::size_t count = std::min(size, file.bytes.size() - begin);
  std::memcpy(scratch, file.bytes.data() + begin, count);
  *result = Slice(scratch, count);
  return IOStatus::OK();
}

IOStatus FaultyRocksDbFiles::NewSequentialFile(const std::string& path, const FileOptions&,
                                               std::unique_ptr<rocksdb::FSSequentialFile>* result,
                                               IODebugContext*) {
  const Guard lock(mutex_);
  const IOStatus status = strike(true, path);
  if (!status.ok()) return status;
  const auto file = find(path);
  if (file == nullptr) return not_found(path);
  *result = std::make_unique<Sequential>(*this, file, path);
  return IOStatus::OK();
}

IOStatus FaultyRocksDbFiles::NewRandomAccessFile(
    const std::string& path, const FileOptions&,
    std::unique_ptr<rocksdb::FSRandomAccessFile>* result, IODebugContext*) {
  const Guard lock(mutex_);
  const IOStatus status = strike(true, path);
  if (!status.ok()) return status;
  const auto file = find(path);
  if (file == nullptr) return not_found(path);
  *result = std::make_unique<RandomAccess>(*this, file, path);
  return IOStatus::OK();
}

IOStatus FaultyRocksDbFiles::NewWritableFile(const std::string& path, const FileOptions&,
                                             std::unique_ptr<rocksdb::FSWritableFile>* result,
                                             IODebugContext*) {
  const Guard lock(mutex_);
  const IOStatus status = strike(false, path);
  if (!status.ok()) return status;
  const auto file = std::make_shared<File>();
  names_[base_name(path)] = file;
  if (is_table(path)) ++tables_made_;
  *result = std::make_unique<Writable>(*this, file, path);
  return IOStatus::OK();
}

IOStatus FaultyRocksDbFiles::ReopenWritableFile(const std::string& path, const FileOptions& options,
                                                std::unique_ptr<rocksdb::FSWritableFile>* result,
                                                IODebugContext* context) {
  {
    const Guard lock(mutex_);
    if (const auto file = find(path)) {
      const IOStatus status = strike(false, path);
      if (status.ok()) *result = std::make_unique<Writable>(*this, file, path);
      return status;
    }
  }
  return NewWritableFile(path, options, result, context);
}

// Not used as the store is configured: where that changes, this should be found at once.
IOStatus FaultyRocksDbFiles::ReuseWritableFile(const std::string&, const std::string&,
                                               const FileOptions&,
                                               std::unique_ptr<rocksdb::FSWritableFile>*,
                                               IODebugContext*) {
  std::abort();
}
IOStatus FaultyRocksDbFiles::NewRandomRWFile(const std::string& path, const FileOptions&,
                                             std::unique_ptr<rocksdb::FSRandomRWFile>*,
                                             IODebugContext*) {
  return not_found(path);
}

IOStatus FaultyRocksDbFiles::NewDirectory(const std::string&, const IOOptions&,
                                          std::unique_ptr<rocksdb::FSDirectory>* result,
                                          IODebugContext*) {
  *result = std::make_unique<Directory>(*this);
  return IOStatus::OK();
}

IOStatus FaultyRocksDbFiles::FileExists(const std::string& path, const IOOptions&,
                                        IODebugContext*) {
  const Guard lock(mutex_);
  const IOStatus status = strike(true, path);
  if (!status.ok()) return status;
  return find(path) == nullptr ? IOStatus::NotFound(path) : IOStatus::OK();
}

IOStatus FaultyRocksDbFiles::GetChildren(const std::string& folder, const IOOptions&,
                                         std::vector<std::string>* result, IODebugContext*) {
  const Guard lock(mutex_);
  const IOStatus status = strike(true, folder);
  if (!status.ok()) return status;
  result->clear();
  for (const auto& [name, file] : names_) result->push_back(name);
  return IOStatus::OK();
}

IOStatus FaultyRocksDbFiles::GetChildrenFileAttributes(const std::string& folder, const IOOptions&,
                                                       std::vector<rocksdb::FileAttributes>* result,
                                                       IODebugContext*) {
  const Guard lock(mutex_);
  const IOStatus status = strike(true, folder);
  if (!status.ok()) return status;
  result->clear();
  for (const auto& [name, file] : names_) result->push_back({name, file->bytes.size()});
  return IOStatus::OK();
}

IOStatus FaultyRocksDbFiles::DeleteFile(const std::string& path, const IOOptions&,
                                        IODebugContext*) {
  const Guard lock(mutex_);
  const IOStatus status = strike(false, path);
  if (!status.ok()) return status;
  if (names_.erase(base_name(path)) == 0) return not_found(path);
  if (is_table(path)) ++tables_removed_;
  return IOStatus::OK();
}

IOStatus FaultyRocksDbFiles::Truncate(const std::string& path, std::size_t size, const IOOptions&,
                                      IODebugContext*) {
  const Guard lock(mutex_);
  const IOStatus status = strike(false, path);
  if (!status.ok()) return status;
  const auto file = find(path);
  if (file == nullptr) return not_found(path);
  file->bytes.resize(size);
  return IOStatus::OK();
}

IOStatus FaultyRocksDbFiles::CreateDir(const std::string&, const IOOptions&, IODebugContext*) {
  return IOStatus::OK();
}
IOStatus FaultyRocksDbFiles::CreateDirIfMissing(const std::string&, const IOOptions&,
                                                IODebugContext*) {
  return IOStatus::OK();
}
IOStatus FaultyRocksDbFiles::DeleteDir(const std::string&, const IOOptions&, IODebugContext*) {
  return IOStatus::OK();
}

IOStatus FaultyRocksDbFiles::GetFileSize(const std::string& path, const IOOptions&,
                                         std::uint64_t* size, IODebugContext*) {
  const Guard lock(mutex_);
  const IOStatus status = strike(true, path);
  if (!status.ok()) return status;
  const auto file = find(path);
  if (file == nullptr) return not_found(path);
  *size = file->bytes.size();
  return IOStatus::OK();
}

IOStatus FaultyRocksDbFiles::GetFileModificationTime(const std::string&, const IOOptions&,
                                                     std::uint64_t* time, IODebugContext*) {
  *time = 0;
  return IOStatus::OK();
}

IOStatus FaultyRocksDbFiles::RenameFile(const std::string& from, const std::string& to,
                                        const IOOptions&, IODebugContext*) {
  const Guard lock(mutex_);
  const IOStatus status = strike(false, from);
  if (!status.ok()) return status;
  const auto file = find(from);
  if (file == nullptr) return not_found(from);
  names_.erase(base_name(from));
  names_[base_name(to)] = file;
  return IOStatus::OK();
}

IOStatus FaultyRocksDbFiles::LinkFile(const std::string& from, const std::string& to,
                                      const IOOptions&, IODebugContext*) {
  const Guard lock(mutex_);
  const IOStatus status = strike(false, from);
  if (!status.ok()) return status;
  const auto file = find(from);
  if (file == nullptr) return not_found(from);
  names_[base_name(to)] = file;
  return IOStatus::OK();
}

IOStatus FaultyRocksDbFiles::LockFile(const std::string&, const IOOptions&,
                                      rocksdb::FileLock** lock, IODebugContext*) {
  *lock = new rocksdb::FileLock();
  return IOStatus::OK();
}
IOStatus FaultyRocksDbFiles::UnlockFile(rocksdb::FileLock* lock, const IOOptions&,
                                        IODebugContext*) {
  delete lock;
  return IOStatus::OK();
}

IOStatus FaultyRocksDbFiles::IsDirectory(const std::string& path, const IOOptions&,
                                         bool* is_directory, IODebugContext*) {
  const Guard lock(mutex_);
  *is_directory = find(path) == nullptr;
  return IOStatus::OK();
}

}  // namespace sluice
