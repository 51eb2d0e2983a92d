// Rows of one embedding table, found by a 64-bit key. No fixed vocabulary and no modulo: a row is
// made, with its initial value, when a sample that trains it names it, and stays.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "learner/initial_values.h"
#include "learner/optimizer.h"

namespace sluice {

// One thread changes a table at a time; const calls may run together. Pointers to rows stay valid
// as long as the table.
class EmbeddingTable {
 public:
  // The slots of `layout` are the optimizer state that follows each row's weights; none to score.
  EmbeddingTable(std::string name, RowLayout layout, std::uint64_t seed);

  const std::string& name() const { return name_; }
  std::size_t dim() const { return layout_.dim; }
  const RowLayout& layout() const { return layout_; }
  std::uint32_t rows() const { return static_cast<std::uint32_t>(info_.size()); }

  // The row's weights, [dim]; null where there is no such row.
  const float* find(std::uint64_t key) const;
  // The number of the row in [0, rows()), made with its initial weights and slots where absent.
  std::uint32_t find_or_create(std::uint64_t key);

  // What a row that does not exist counts as.
  void initial(std::uint64_t key, std::span<float> out) const { initial_.fill(key, out); }

  std::uint64_t key(std::uint32_t row) const { return info_[row].key; }
  // The learner's step that last changed the row; 0: none yet.
  std::uint64_t last_batch(std::uint32_t row) const { return info_[row].last_batch; }
  void set_last_batch(std::uint32_t row, std::uint64_t step) { info_[row].last_batch = step; }
  // Scratch of the batch being trained: the row's place among the batch's distinct rows.
  std::uint32_t& batch_place(std::uint32_t row) { return info_[row].batch_place; }

  // [stride()]: weights, then slots, as layout() says.
  float* values(std::uint32_t row) { return chunk(row) + offset(row); }
  const float* values(std::uint32_t row) const { return chunk(row) + offset(row); }
  std::size_t stride() const { return stride_; }  // layout().floats()

  // The rows' numbers in the order of their keys.
  std::vector<std::uint32_t> by_key() const;

 private:
  struct Info {
    std::uint64_t key;
    std::uint64_t last_batch;
    std::uint32_t batch_place;
  };
  struct Entry {  // of the open-addressing index
    std::uint64_t key;
    std::uint32_t row;  // kNone: free
  };
  static constexpr std::uint32_t kNone = 0xffffffff;
  static constexpr std::uint32_t kChunkRows = 1024;

  float* chunk(std::uint32_t row) const { return chunks_[row / kChunkRows].get(); }
  std::size_t offset(std::uint32_t row) const { return (row % kChunkRows) * stride_; }
  std::size_t place_of(std::uint64_t key) const;  // where the key is, or would go
  void grow_index();

  std::string name_;
  RowLayout layout_;
  std::size_t stride_;
  InitialRows initial_;
  std::vector<Info> info_;
  std::vector<std::unique_ptr<float[]>> chunks_;  // kChunkRows rows each
  std::vector<Entry> index_;                      // a power of two, at most half full
};

}  // namespace sluice
