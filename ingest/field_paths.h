// Which fields of a record are wanted, as a tree of keys. Internal to ingest/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

struct PathNode {
  std::string key;
  std::vector<std::size_t> slots;  // several features may lie at one path
  std::vector<PathNode> children;
  std::uint64_t last_seen = 0;  // number of the last record that had this field

  // The node of a path, keys joined by dots, gets one more slot.
  void add(std::string_view path, std::size_t slot) {
    PathNode* node = this;
    while (!path.empty()) {
      const std::size_t dot = path.find('.');
      const std::string_view name = path.substr(0, dot);
      path = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
      PathNode* next = node->child(name);
      if (next == nullptr) {
        next = &node->children.emplace_back(PathNode{std::string(name), {}, {}, 0});
      }
      node = next;
    }
    node->slots.push_back(slot);
  }
  PathNode* child(std::string_view name) {
    for (PathNode& one : children) {
      if (one.key == name) return &one;
    }
    return nullptr;
  }
};

}  // namespace sluice
