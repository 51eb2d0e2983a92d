// Records that a source is done with, kept for their memory (Source::give_back).
#pragma once

#include <utility>
#include <vector>

#include "ingest/source.h"

namespace sluice {

// Of one thread.
class SpareRecords {
 public:
  void give_back(Record record) {
    if (spare_.size() == kMost || record.bytes.capacity() > kMostBytes) return;
    spare_.push_back(std::move(record));
  }
  void give_back(std::vector<Record> records) {
    for (Record& record : records) give_back(std::move(record));
  }

  // What it holds is to be overwritten.
  Record take() {
    if (spare_.empty()) return {};
    Record record = std::move(spare_.back());
    spare_.pop_back();
    return record;
  }

 private:
  static constexpr std::size_t kMost = 1'000;
  static constexpr std::size_t kMostBytes = 4 << 10;  // of one that is kept

  std::vector<Record> spare_;
};

}  // namespace sluice
