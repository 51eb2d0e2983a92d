// The real file system, with a look at each call that reads.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"

namespace sluice {

class WatchedFiles final : public FileSystem {
 public:
  // Called before each read or list; what it returns is the call's error, and it may throw.
  std::function<std::optional<Error>(const fs::path&)> before;

  Result<std::string> read(const fs::path& path) override {
    if (auto error = ask(path)) return *std::move(error);
    return real_.read(path);
  }
  Result<std::vector<std::string>> list(const fs::path& path) override {
    if (auto error = ask(path)) return *std::move(error);
    return real_.list(path);
  }
  Result<std::string> read_range(const fs::path& path, std::uint64_t offset,
                                 std::uint64_t size) override {
    return real_.read_range(path, offset, size);
  }
  Result<std::unique_ptr<WritableFile>> create(const fs::path& path) override {
    return real_.create(path);
  }
  Result<std::unique_ptr<WritableFile>> append_to(const fs::path& path) override {
    return real_.append_to(path);
  }
  Result<std::uint64_t> size(const fs::path& path) override { return real_.size(path); }
  Status truncate(const fs::path& path, std::uint64_t size) override {
    return real_.truncate(path, size);
  }
  bool exists(const fs::path& path) override { return real_.exists(path); }
  Status create_directories(const fs::path& path) override {
    return real_.create_directories(path);
  }
  Status rename(const fs::path& from, const fs::path& to) override {
    return real_.rename(from, to);
  }
  Status remove_all(const fs::path& path) override { return real_.remove_all(path); }
  Status sync_directory(const fs::path& path) override { return real_.sync_directory(path); }

 private:
  std::optional<Error> ask(const fs::path& path) {
    return before ? before(path) : std::optional<Error>();
  }

  RealFileSystem real_;
};

}  // namespace sluice
