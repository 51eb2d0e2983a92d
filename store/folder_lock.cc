#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "store/key_value.h"

namespace sluice {
namespace {

// The process id that the owner wrote; empty where it has not come to that yet.
std::string read_owner(int descriptor) {
  std::array<char, 32> text{};
  const ssize_t size = ::pread(descriptor, text.data(), text.size() - 1, 0);
  std::string owner(text.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  owner.erase(owner.find_last_not_of("\n ") + 1);
  return owner;
}

}  // namespace

Result<FolderLock> FolderLock::acquire(const std::filesystem::path& folder) {
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (code) {
    return stop_error("cannot make the data folder " + folder.string() + ": " + code.message());
  }
  const std::filesystem::path path = folder / "LOCK";
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) {
    return stop_error("cannot write " + path.string() + ": " + std::strerror(errno));
  }
  FolderLock lock(descriptor);
  int outcome = 0;
  do {
    outcome = ::flock(descriptor, LOCK_EX | LOCK_NB);
  } while (outcome != 0 && errno == EINTR);
  if (outcome != 0 && errno == EWOULDBLOCK) {
    const std::string owner = read_owner(descriptor);
    return stop_error("the data folder " + folder.string() + " is in use by " +
                      (owner.empty() ? "another process" : "process " + owner) +
                      ": stop it, or take another folder");
  }
  if (outcome != 0) {
    return stop_error("cannot lock " + path.string() + ": " + std::strerror(errno));
  }
  // The id is for the message alone, so that a full disk may lose it: the hold is the flock.
  const std::string owner = std::to_string(::getpid()) + "\n";
  if (::ftruncate(descriptor, 0) != 0 || ::pwrite(descriptor, owner.data(), owner.size(), 0) < 0) {
    return lock;
  }
  return lock;
}

FolderLock::FolderLock(FolderLock&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {}

FolderLock& FolderLock::operator=(FolderLock&& other) noexcept {
  if (this != &other) {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = std::exchange(other.descriptor_, -1);
  }
  return *this;
}

FolderLock::~FolderLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace sluice
