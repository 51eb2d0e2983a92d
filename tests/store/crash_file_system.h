// A file system in memory that loses in a crash what was not synced, and can fail from its N-th
// operation on. Names and contents are kept twice: as they are seen, and as they are on disk.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/file.h"

namespace sluice {

class CrashFileSystem final : public FileSystem {
 public:
  CrashFileSystem() { root_->is_folder = true; }

  // The operation with this number (from 0, reads not counted) and all later ones fail; one that
  // appends writes half of its bytes before, one that removes a folder half of its files.
  void fail_from(std::size_t operation) {
    operations_ = 0;
    fail_from_ = operation;
    is_once_ = false;
  }
  // Only that one fails.
  void fail_once(std::size_t operation) {
    fail_from(operation);
    is_once_ = true;
  }
  void heal() {
    fail_from_ = static_cast<std::size_t>(-1);
    is_once_ = false;
  }
  bool has_failed() const { return operations_ > fail_from_; }
  // How many operations there were in all: nothing has changed while it stands still.
  std::uint64_t changes() const { return changes_; }
  // Called before each operation: what another thread might do then.
  std::function<void()> on_operation;

  // A byte of the file is another one now, on the disk too.
  void damage(const fs::path& path, std::size_t offset) {
    Node* node = find(path);
    node->bytes.at(offset) = static_cast<char>(node->bytes.at(offset) ^ 0x20);
    node->synced_bytes = node->bytes;
    ++changes_;
  }

  // The machine stops and starts again: of every unsynced change to a folder's names, each may be
  // there or not; of every unsynced file the old bytes, or any prefix of the new ones, of which the
  // last may be zeros. What was synced and not written again since is there.
  void crash(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    crash(*root_, random);
    heal();
    ++changes_;
  }

  Result<std::unique_ptr<WritableFile>> create(const fs::path& path) override {
    SLUICE_TRY(operation(path));
    Node* parent = find(path.parent_path());
    if (parent == nullptr || !parent->is_folder) return failure("create", path);
    auto& node = parent->names[path.filename().string()];
    if (node == nullptr) node = std::make_shared<Node>();
    node->bytes.clear();
    node->durable_prefix = 0;
    return std::unique_ptr<WritableFile>(std::make_unique<File>(*this, node, path));
  }
  Result<std::unique_ptr<WritableFile>> append_to(const fs::path& path) override {
    if (!exists(path)) return create(path);
    SLUICE_TRY(operation(path));
    Node* parent = find(path.parent_path());
    return std::unique_ptr<WritableFile>(
        std::make_unique<File>(*this, parent->names[path.filename().string()], path));
  }
  Result<std::string> read(const fs::path& path) override {
    const Node* node = find(path);
    if (node == nullptr || node->is_folder) return failure("read", path);
    return node->bytes;
  }
  Result<std::string> read_range(const fs::path& path, std::uint64_t offset,
                                 std::uint64_t size) override {
    const Node* node = find(path);
    if (node == nullptr || node->is_folder) return failure("read", path);
    return node->bytes.substr(std::min<std::uint64_t>(offset, node->bytes.size()), size);
  }
  Result<std::uint64_t> size(const fs::path& path) override {
    SLUICE_ASSIGN(const std::string bytes, read(path));
    return static_cast<std::uint64_t>(bytes.size());
  }
  Status truncate(const fs::path& path, std::uint64_t size) override {
    SLUICE_TRY(operation(path));
    Node* node = find(path);
    if (node == nullptr || node->is_folder) return failure("cut", path);
    node->bytes.resize(size);
    node->durable_prefix = std::min<std::size_t>(node->durable_prefix, size);
    return {};
  }
  bool exists(const fs::path& path) override { return find(path) != nullptr; }
  Status create_directories(const fs::path& path) override {
    SLUICE_TRY(operation(path));
    Node* node = root_.get();
    for (const auto& part : path.relative_path()) {
      auto& child = node->names[part.string()];
      if (child == nullptr) {
        child = std::make_shared<Node>();
        child->is_folder = true;
      }
      if (!child->is_folder) return failure("make", path);
      node = child.get();
    }
    return {};
  }
  Status rename(const fs::path& from, const fs::path& to) override {
    SLUICE_TRY(operation(from));
    Node* source = find(from.parent_path());
    Node* target = find(to.parent_path());
    const Node* replaced = find(to);
    if (find(from) == nullptr || target == nullptr ||
        (replaced != nullptr && replaced->is_folder && !replaced->names.empty())) {
      return failure("rename", from);
    }
    target->names[to.filename().string()] = source->names[from.filename().string()];
    source->names.erase(from.filename().string());
    return {};
  }
  Status remove_all(const fs::path& path) override {
    if (const Status status = operation(path); !status) {
      Node* node = find(path);
      const std::size_t half = node == nullptr ? 0 : (node->names.size() + 1) / 2;
      for (std::size_t i = 0; i < half; ++i) node->names.erase(node->names.begin());
      return status;
    }
    if (Node* parent = find(path.parent_path())) parent->names.erase(path.filename().string());
    return {};
  }
  Result<std::vector<std::string>> list(const fs::path& directory) override {
    const Node* node = find(directory);
    if (node == nullptr || !node->is_folder) return failure("list", directory);
    std::vector<std::string> names;
    for (const auto& [name, child] : node->names) names.push_back(name);
    return names;
  }
  Status sync_directory(const fs::path& directory) override {
    SLUICE_TRY(operation(directory));
    Node* node = find(directory);
    if (node == nullptr || !node->is_folder) return failure("sync", directory);
    node->synced_names = node->names;
    return {};
  }

 private:
  struct Node {
    bool is_folder = false;
    std::string bytes, synced_bytes;
    std::size_t durable_prefix = 0;  // so many first bytes are as they were synced
    std::map<std::string, std::shared_ptr<Node>> names, synced_names;
  };

  class File final : public WritableFile {
   public:
    File(CrashFileSystem& owner, std::shared_ptr<Node> node, fs::path path)
        : owner_(owner), node_(std::move(node)), path_(std::move(path)) {}
    Status append(std::string_view bytes) override {
      const Status status = owner_.operation(path_);
      node_->bytes += status ? bytes : bytes.substr(0, bytes.size() / 2);
      return status;
    }
    Status sync() override {
      SLUICE_TRY(owner_.operation(path_));
      node_->synced_bytes = node_->bytes;
      node_->durable_prefix = node_->bytes.size();
      return {};
    }
    Status close() override { return owner_.operation(path_); }

   private:
    CrashFileSystem& owner_;
    std::shared_ptr<Node> node_;
    fs::path path_;
  };

  static Error failure(const char* what, const fs::path& path) {
    return stop_error(std::string("cannot ") + what + " " + path.string());
  }
  Status operation(const fs::path& path) {
    ++changes_;
    if (on_operation) on_operation();
    const std::size_t number = operations_++;
    const bool is_failing = is_once_ ? number == fail_from_ : number >= fail_from_;
    return is_failing ? failure("touch (injected)", path) : Status();
  }
  Node* find(const fs::path& path) const {
    Node* node = root_.get();
    for (const auto& part : path.relative_path()) {
      const auto found = node->names.find(part.string());
      if (found == node->names.end()) return nullptr;
      node = found->second.get();
    }
    return node;
  }

  static void crash(Node& node, std::mt19937_64& random) {
    if (!node.is_folder) {
      if (random() % 2 == 0) {
        node.bytes = node.synced_bytes;
      } else if (node.bytes != node.synced_bytes) {
        const std::size_t kept = node.durable_prefix;
        node.bytes.resize(kept + random() % (node.bytes.size() - kept + 1));
        const std::size_t written = kept + random() % (node.bytes.size() - kept + 1);
        if (random() % 4 == 0) {
          std::fill(node.bytes.begin() + static_cast<std::ptrdiff_t>(written), node.bytes.end(),
                    '\0');
        }
      }
      node.synced_bytes = node.bytes;
      node.durable_prefix = node.bytes.size();
      return;
    }
    auto survivors = node.synced_names;
    for (const auto& [name, child] : node.names) {
      if (random() % 2 == 0) survivors[name] = child;
    }
    for (const auto& [name, child] : node.synced_names) {
      if (!node.names.contains(name) && random() % 2 == 0) survivors.erase(name);
    }
    node.names = node.synced_names = std::move(survivors);
    for (const auto& [name, child] : node.names) crash(*child, random);
  }

  std::shared_ptr<Node> root_ = std::make_shared<Node>();
  std::uint64_t changes_ = 0;
  std::size_t operations_ = 0;
  std::size_t fail_from_ = static_cast<std::size_t>(-1);
  bool is_once_ = false;
};

}  // namespace sluice
