#include "learner/served_rows.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace sluice {

RowBlock::RowBlock(std::size_t dim, RowsView rows)
    : dim_(dim), row_bytes_((sizeof(std::uint64_t) + dim * sizeof(float) + 7) / 8 * 8) {
  reserve(rows.keys.size());
  for (std::size_t n = 0; n < rows.keys.size(); ++n) add(rows.keys[n], rows.values + n * dim);
  fill_index();
}

RowBlock::RowBlock(const RowBlock& older, RowsView newer)
    : dim_(older.dim_), row_bytes_(older.row_bytes_) {
  const auto is_replaced = [&](std::uint64_t key) {
    return std::binary_search(newer.keys.begin(), newer.keys.end(), key);
  };
  reserve(older.rows() + newer.keys.size());
  older.for_each([&](std::uint64_t key, const float* values) {
    if (!is_replaced(key)) add(key, values);
  });
  for (std::size_t n = 0; n < newer.keys.size(); ++n) add(newer.keys[n], newer.values + n * dim_);
  fill_index();
}

void RowBlock::reserve(std::size_t rows) {
  SLUICE_CHECK(rows <= std::size_t{1} << 31);
  memory_.reserve(rows * row_bytes_);
}

void RowBlock::add(std::uint64_t key, const float* values) {
  std::byte* const row = memory_.data() + rows_++ * row_bytes_;
  std::memcpy(row, &key, sizeof key);
  std::memcpy(row + sizeof key, values, dim_ * sizeof(float));
}

// Entries are met at random: they are asked for some rows ahead.
void RowBlock::fill_index() {
  constexpr std::size_t kAhead = 16;
  capacity_ = rows_ + rows_ * 3 / 5 + 8;
  entries_.reserve(capacity_);
  for (std::size_t n = 0; n < rows_; ++n) {
    if (n + kAhead < rows_) prefetch_entry(mix64(key_at(row(n + kAhead))));
    const std::uint64_t hash = mix64(key_at(row(n)));
    std::size_t at = place(hash);
    while (entries_.data()[at] != 0) at = next(at);
    entries_.data()[at] = (n + 1) << 32 | (hash & 0xffff'ffff);
  }
}

std::size_t RowBlock::bytes() const {
  return memory_.size() + entries_.size() * sizeof(Entry);
}

void RowBlock::prefetch_entry(std::uint64_t hash) const {
  __builtin_prefetch(entries_.data() + place(hash));
}

const std::byte* RowBlock::likely(std::uint64_t hash) const {
  for (std::size_t at = place(hash);; at = next(at)) {
    const Entry entry = entries_.data()[at];
    if (entry == 0) return nullptr;
    if ((entry & 0xffff'ffff) == (hash & 0xffff'ffff)) return row((entry >> 32) - 1);
  }
}

const float* RowBlock::find(std::uint64_t key, std::uint64_t hash) const {
  for (std::size_t at = place(hash);; at = next(at)) {
    const Entry entry = entries_.data()[at];
    if (entry == 0) return nullptr;
    if ((entry & 0xffff'ffff) != (hash & 0xffff'ffff)) continue;
    const std::byte* const found = row((entry >> 32) - 1);
    if (key_at(found) == key) return values_at(found);
  }
}

ServedTable::ServedTable(std::string name, std::size_t dim, std::uint64_t seed, RowsView rows)
    : name_(std::move(name)),
      dim_(dim),
      initial_(seed, name_),
      rows_(rows.keys.size()),
      base_(std::make_shared<const RowBlock>(dim, rows)) {}

ServedTable ServedTable::with(RowsView changed) const {
  ServedTable next = *this;
  for (const std::uint64_t key : changed.keys) next.rows_ += find(key) == nullptr ? 1 : 0;
  if (changed.keys.empty()) return next;
  next.changed_ = changed_ ? std::make_shared<const RowBlock>(*changed_, changed)
                           : std::make_shared<const RowBlock>(dim_, changed);
  return next;
}

}  // namespace sluice
