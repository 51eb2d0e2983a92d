// The store of tests: four ordered maps under one mutex. Nothing survives the object.
#include <array>
#include <map>
#include <mutex>

#include "store/key_value.h"

namespace sluice {
namespace {

using Map = std::map<std::string, std::string, std::less<>>;

class MemoryStore final : public KeyValueStore {
 public:
  Status commit(const WriteBatch& batch) override {
    const std::scoped_lock lock(mutex_);
    for (const auto& operation : batch.operations()) {
      std::visit([this](const auto& change) { apply(change); }, operation);
    }
    return {};
  }

  Result<std::optional<std::string>> get(Space space, std::string_view key) override {
    const std::scoped_lock lock(mutex_);
    const auto found = map(space).find(key);
    if (found == map(space).end()) return std::optional<std::string>();
    return std::optional(found->second);
  }

  Status scan(Space space, std::string_view begin, std::string_view end,
              const std::function<bool(std::string_view, std::string_view)>& visit) override {
    // A copy, so that `visit` may call the store.
    std::vector<std::pair<std::string, std::string>> range;
    {
      const std::scoped_lock lock(mutex_);
      for (auto it = map(space).lower_bound(begin); it != map(space).end(); ++it) {
        if (!end.empty() && it->first >= end) break;
        range.emplace_back(*it);
      }
    }
    for (const auto& [key, value] : range) {
      if (!visit(key, value)) break;
    }
    return {};
  }

  std::uint64_t disk_bytes() override {
    const std::scoped_lock lock(mutex_);
    std::uint64_t bytes = 0;
    for (const Map& space : maps_) {
      for (const auto& [key, value] : space) bytes += key.size() + value.size();
    }
    return bytes;
  }

 private:
  Map& map(Space space) { return maps_.at(static_cast<std::size_t>(space)); }

  void apply(const WriteBatch::Put& put) { map(put.space)[put.key] = put.value; }
  void apply(const WriteBatch::Remove& remove) { map(remove.space).erase(remove.key); }
  void apply(const WriteBatch::RemoveRange& range) {
    Map& space = map(range.space);
    space.erase(space.lower_bound(range.begin), space.lower_bound(range.end));
  }

  std::mutex mutex_;
  std::array<Map, kSpaces> maps_;
};

}  // namespace

std::unique_ptr<KeyValueStore> make_memory_store() {
  return std::make_unique<MemoryStore>();
}

}  // namespace sluice
