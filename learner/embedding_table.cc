#include "learner/embedding_table.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"

namespace sluice {

EmbeddingTable::EmbeddingTable(std::string name, RowLayout layout, std::uint64_t seed)
    : name_(std::move(name)),
      layout_(std::move(layout)),
      stride_(layout_.floats()),
      initial_(seed, name_),
      index_(16, Entry{0, kNone}) {
  SLUICE_CHECK(layout_.dim > 0);
}

std::size_t EmbeddingTable::place_of(std::uint64_t key) const {
  const std::size_t mask = index_.size() - 1;
  std::size_t place = key & mask;  // keys are hashes: their low bits are even enough
  while (index_[place].row != kNone && index_[place].key != key) place = (place + 1) & mask;
  return place;
}

const float* EmbeddingTable::find(std::uint64_t key) const {
  const std::uint32_t row = index_[place_of(key)].row;
  return row == kNone ? nullptr : values(row);
}

std::uint32_t EmbeddingTable::find_or_create(std::uint64_t key) {
  std::size_t place = place_of(key);
  if (index_[place].row != kNone) return index_[place].row;
  if (2 * (info_.size() + 1) > index_.size()) {
    grow_index();
    place = place_of(key);
  }
  const std::uint32_t row = rows();
  SLUICE_CHECK(row != kNone);
  index_[place] = {key, row};
  info_.push_back({key, 0, 0});
  if (row % kChunkRows == 0) chunks_.push_back(std::make_unique<float[]>(kChunkRows * stride_));
  initial(key, {values(row), dim()});
  layout_.begin_slots(values(row));
  return row;
}

void EmbeddingTable::grow_index() {
  const std::vector<Entry> old =
      std::exchange(index_, std::vector<Entry>(2 * index_.size(), Entry{0, kNone}));
  for (const Entry& entry : old) {
    if (entry.row != kNone) index_[place_of(entry.key)] = entry;
  }
}

std::vector<std::uint32_t> EmbeddingTable::by_key() const {
  std::vector<std::uint32_t> order(rows());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [this](std::uint32_t a, std::uint32_t b) { return info_[a].key < info_[b].key; });
  return order;
}

}  // namespace sluice
