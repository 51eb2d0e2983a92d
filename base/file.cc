#include "base/file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace sluice {
namespace {

Error io_error(const char* what, const fs::path& path, int code) {
  return stop_error(std::string("cannot ") + what + " " + path.string() + ": " +
                    std::strerror(code));
}

class PosixFile final : public WritableFile {
 public:
  PosixFile(int descriptor, fs::path path) : descriptor_(descriptor), path_(std::move(path)) {}
  ~PosixFile() override {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;

  Status append(std::string_view bytes) override {
    while (!bytes.empty()) {
      const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
      if (written < 0) {
        if (errno == EINTR) continue;
        return io_error("write", path_, errno);
      }
      bytes.remove_prefix(static_cast<std::size_t>(written));
    }
    return {};
  }
  Status sync() override {
    if (::fsync(descriptor_) != 0) return io_error("sync", path_, errno);
    return {};
  }
  Status close() override {
    const int descriptor = descriptor_;
    descriptor_ = -1;
    if (::close(descriptor) != 0) return io_error("close", path_, errno);
    return {};
  }

 private:
  int descriptor_;
  fs::path path_;
};

Result<std::unique_ptr<WritableFile>> open_for_writing(const fs::path& path, int flags) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);
  if (descriptor < 0) return io_error("write", path, errno);
  return std::unique_ptr<WritableFile>(std::make_unique<PosixFile>(descriptor, path));
}

}  // namespace

Result<std::unique_ptr<WritableFile>> RealFileSystem::create(const fs::path& path) {
  return open_for_writing(path, O_TRUNC);
}

Result<std::unique_ptr<WritableFile>> RealFileSystem::append_to(const fs::path& path) {
  return open_for_writing(path, O_APPEND);
}

Result<std::string> RealFileSystem::read(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return io_error("read", path, errno);
  std::string bytes;
  struct stat info {};
  if (::fstat(descriptor, &info) == 0 && info.st_size > 0) {
    bytes.reserve(static_cast<std::size_t>(info.st_size));
  }
  std::string buffer(1 << 16, '\0');
  while (true) {
    const ssize_t count = ::read(descriptor, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int code = errno;
      ::close(descriptor);
      return io_error("read", path, code);
    }
    if (count == 0) break;
    bytes.append(buffer.data(), static_cast<std::size_t>(count));
  }
  ::close(descriptor);
  return bytes;
}

Result<std::string> RealFileSystem::read_range(const fs::path& path, std::uint64_t offset,
                                               std::uint64_t size) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return io_error("read", path, errno);
  std::string bytes(size, '\0');
  std::size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t count = ::pread(descriptor, bytes.data() + filled, bytes.size() - filled,
                                  static_cast<off_t>(offset + filled));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int code = errno;
      ::close(descriptor);
      return io_error("read", path, code);
    }
    if (count == 0) break;
    filled += static_cast<std::size_t>(count);
  }
  ::close(descriptor);
  bytes.resize(filled);
  return bytes;
}

Result<std::uint64_t> RealFileSystem::size(const fs::path& path) {
  std::error_code code;
  const std::uintmax_t size = fs::file_size(path, code);
  if (code) return io_error("read", path, code.value());
  return static_cast<std::uint64_t>(size);
}

Status RealFileSystem::truncate(const fs::path& path, std::uint64_t size) {
  if (::truncate(path.c_str(), static_cast<off_t>(size)) != 0) {
    return io_error("cut", path, errno);
  }
  return {};
}

bool RealFileSystem::exists(const fs::path& path) {
  std::error_code code;
  return fs::exists(path, code);
}

Status RealFileSystem::create_directories(const fs::path& path) {
  std::error_code code;
  fs::create_directories(path, code);
  if (code) return io_error("make folder", path, code.value());
  return {};
}

Status RealFileSystem::rename(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return io_error("rename to", to, errno);
  return {};
}

Status RealFileSystem::remove_all(const fs::path& path) {
  std::error_code code;
  fs::remove_all(path, code);
  if (code) return io_error("remove", path, code.value());
  return {};
}

Result<std::vector<std::string>> RealFileSystem::list(const fs::path& directory) {
  std::error_code code;
  std::vector<std::string> names;
  for (fs::directory_iterator it(directory, code), end; !code && it != end; it.increment(code)) {
    names.push_back(it->path().filename().string());
  }
  if (code) return io_error("list", directory, code.value());
  std::sort(names.begin(), names.end());
  return names;
}

namespace {

class RealFileLock final : public FileLock {
 public:
  explicit RealFileLock(int descriptor) : descriptor_(descriptor) {}
  ~RealFileLock() override { ::close(descriptor_); }

 private:
  const int descriptor_;
};

}  // namespace

Result<std::unique_ptr<FileLock>> FileSystem::lock(const fs::path&) {
  return std::make_unique<FileLock>();
}

Result<std::unique_ptr<FileLock>> RealFileSystem::lock(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) return io_error("lock", path, errno);
  auto held = std::make_unique<RealFileLock>(descriptor);
  while (::flock(descriptor, LOCK_EX) != 0) {
    if (errno != EINTR) return io_error("lock", path, errno);
  }
  return held;
}

Status RealFileSystem::sync_directory(const fs::path& directory) {
  const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return io_error("sync", directory, errno);
  const int outcome = ::fsync(descriptor);
  const int code = errno;
  ::close(descriptor);
  if (outcome != 0) return io_error("sync", directory, code);
  return {};
}

Status write_atomically(FileSystem& files, const fs::path& path, std::string_view bytes) {
  fs::path aside = path;
  aside += ".tmp";
  SLUICE_ASSIGN(auto file, files.create(aside));
  SLUICE_TRY(file->append(bytes));
  SLUICE_TRY(file->sync());
  SLUICE_TRY(file->close());
  SLUICE_TRY(files.rename(aside, path));
  return files.sync_directory(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

}  // namespace sluice
