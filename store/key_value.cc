#include "store/key_value.h"

#include "base/check.h"

namespace sluice {

void WriteBatch::put(Space space, std::string key, std::string value) {
  bytes_ += key.size() + value.size();
  operations_.emplace_back(Put{space, std::move(key), std::move(value)});
}

void WriteBatch::remove(Space space, std::string key) {
  bytes_ += key.size();
  operations_.emplace_back(Remove{space, std::move(key)});
}

void WriteBatch::remove_range(Space space, std::string begin, std::string end) {
  SLUICE_CHECK(begin <= end);
  if (begin == end) return;
  bytes_ += begin.size() + end.size();
  operations_.emplace_back(RemoveRange{space, std::move(begin), std::move(end)});
}

}  // namespace sluice
