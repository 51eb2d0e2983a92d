// Embedding rows for scoring: weights only, never changed once made, so that any number of threads
// and of versions share them.
//
// A version's table is a base, as a full snapshot brought it, and beside it the rows that deltas
// have replaced or added since; a row is looked for there first. A version made of an earlier one
// by a delta shares the base and costs the rows changed since then, however large the base is.
//
// A row takes 8 bytes more than its weights (its key, before them), and 12.8 bytes of the index,
// which is open addressing with 5 of 8 entries taken: 93 bytes a row of 18 dimensions.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/aligned_array.h"
#include "base/hash.h"
#include "learner/initial_values.h"

namespace sluice {

// Rows as tensors hold them: keys ascending, values [keys, dim].
struct RowsView {
  std::span<const std::uint64_t> keys;
  const float* values = nullptr;
};

// Some rows of one table, found by their keys; at most 2^31. Const calls may run together.
class RowBlock {
 public:
  RowBlock(std::size_t dim, RowsView rows);
  // What `older` holds and `newer`; of a key that both have, newer's.
  RowBlock(const RowBlock& older, RowsView newer);

  std::size_t rows() const { return rows_; }
  std::size_t bytes() const;

  // A look-up goes in steps, so that memory is asked for some time before it is read: the index's
  // entry, then the row whose entry looks like the key's (null: there is none), then the row.
  void prefetch_entry(std::uint64_t hash) const;
  const std::byte* likely(std::uint64_t hash) const;
  // The weights; null where there is no such row. `hash` is mix64(key).
  const float* find(std::uint64_t key, std::uint64_t hash) const;

  static std::uint64_t key_at(const std::byte* row) {
    return *reinterpret_cast<const std::uint64_t*>(row);
  }
  static const float* values_at(const std::byte* row) {
    return reinterpret_cast<const float*>(row + sizeof(std::uint64_t));
  }

  template <class F>
  void for_each(F&& f) const {  // f(key, values) of every row, in no particular order
    for (std::size_t n = 0; n < rows_; ++n) f(key_at(row(n)), values_at(row(n)));
  }

 private:
  // The row's number + 1 in the upper half, 32 bits of the hash in the lower; 0 is free.
  using Entry = std::uint64_t;

  void reserve(std::size_t rows);
  void add(std::uint64_t key, const float* values);
  void fill_index();
  std::size_t place(std::uint64_t hash) const { return (hash >> 32) * capacity_ >> 32; }
  std::size_t next(std::size_t place) const { return place + 1 == capacity_ ? 0 : place + 1; }
  const std::byte* row(std::size_t n) const { return memory_.data() + n * row_bytes_; }

  std::size_t dim_;
  std::size_t row_bytes_;
  std::size_t rows_ = 0;
  std::size_t capacity_ = 0;  // entries; below 2^32
  AlignedArray<std::byte> memory_;
  AlignedArray<Entry> entries_;
};

// One table of one version.
class ServedTable {
 public:
  ServedTable(std::string name, std::size_t dim, std::uint64_t seed, RowsView rows);
  // The table after these rows were replaced or added.
  ServedTable with(RowsView changed) const;

  const std::string& name() const { return name_; }
  std::size_t dim() const { return dim_; }
  std::size_t rows() const { return rows_; }
  std::size_t changed_rows() const { return changed_ ? changed_->rows() : 0; }  // beside the base
  std::size_t bytes() const { return base_->bytes() + (changed_ ? changed_->bytes() : 0); }

  // As those of RowBlock.
  void prefetch_entry(std::uint64_t hash) const {
    if (changed_) changed_->prefetch_entry(hash);
    base_->prefetch_entry(hash);
  }
  const std::byte* likely(std::uint64_t hash) const {
    const std::byte* const row = changed_ ? changed_->likely(hash) : nullptr;
    return row != nullptr ? row : base_->likely(hash);
  }
  const float* find(std::uint64_t key, std::uint64_t hash) const {
    const float* const row = changed_ ? changed_->find(key, hash) : nullptr;
    return row != nullptr ? row : base_->find(key, hash);
  }
  const float* find(std::uint64_t key) const { return find(key, mix64(key)); }

  // What a row that does not exist counts as.
  void initial(std::uint64_t key, std::span<float> out) const { initial_.fill(key, out); }

  template <class F>
  void for_each(F&& f) const {  // f(key, values) of every row once, in no particular order
    if (changed_) changed_->for_each(f);
    base_->for_each([&](std::uint64_t key, const float* values) {
      if (!changed_ || changed_->find(key, mix64(key)) == nullptr) f(key, values);
    });
  }

 private:
  std::string name_;
  std::size_t dim_;
  InitialRows initial_;
  std::size_t rows_;
  std::shared_ptr<const RowBlock> base_;
  std::shared_ptr<const RowBlock> changed_;  // null: none
};

}  // namespace sluice
