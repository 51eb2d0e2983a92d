// Rows of one embedding table, found by a 64-bit key. No fixed vocabulary and no modulo: a row is
// made, with its initial value, when a sample that trains it names it, and stays.
//
// A row is one piece of memory: 16 bytes of header, its weights and its optimizer's state, padded
// to cache lines (18 dimensions with Adam: 4 lines). The index is 8 bytes an entry and at most
// three quarters full, 11 to 21 bytes a row. It grows segment by segment (extendible hashing, Fagin
// et al. 1979): making a row moves at most one segment's 1,536 entries, however large the table is.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/aligned_array.h"
#include "base/hash.h"
#include "learner/initial_values.h"
#include "learner/optimizer.h"

namespace sluice {

struct EmbeddingRow {
  std::uint64_t key;
  std::uint64_t last_batch;  // the learner's step that last changed it; 0: none yet

  // Weights [dim], then the optimizer's state (RowLayout).
  float* values() { return reinterpret_cast<float*>(this + 1); }
  const float* values() const { return reinterpret_cast<const float*>(this + 1); }
};

// Zeroed memory in pieces that stay where they are until the end. Thread-safe.
class PieceMemory {
 public:
  std::byte* take(std::size_t bytes);  // begins at a cache line
  std::size_t bytes() const;           // asked of the system so far

 private:
  mutable std::mutex mutex_;
  std::vector<AlignedMemory> chunks_;
  std::size_t chunk_bytes_ = 0;  // the last chunk's
  std::size_t left_ = 0;         // of these
  std::size_t next_bytes_ = 16 << 10;
  std::size_t bytes_ = 0;
};

// Const calls may run together. Calls that make rows may too where their keys are of different
// parts. Rows stay where they are as long as the table.
class EmbeddingTable {
 public:
  static constexpr std::size_t kParts = 16;
  static std::uint64_t hash_of(std::uint64_t key) { return mix64(key); }
  static std::size_t part_of(std::uint64_t hash) { return hash >> 60; }
  // Of a row among those of its part, in the order of visit_some().
  static std::uint64_t place_of(std::uint64_t hash) { return hash << 4; }

  // The slots of `layout` are the optimizer's state after each row's weights; none to score.
  EmbeddingTable(std::string name, RowLayout layout, std::uint64_t seed);
  EmbeddingTable(EmbeddingTable&&) = default;
  EmbeddingTable& operator=(EmbeddingTable&&) = default;

  const std::string& name() const { return name_; }
  std::size_t dim() const { return layout_.dim; }
  const RowLayout& layout() const { return layout_; }
  std::size_t rows() const;
  std::size_t rows_in(std::size_t part) const { return parts_[part].rows; }
  std::size_t bytes() const { return memory_->bytes(); }

  // Null where there is no such row.
  const EmbeddingRow* find(std::uint64_t key) const;
  // Made with its initial values where absent. `hash` is hash_of(key).
  EmbeddingRow* find_or_create(std::uint64_t key) { return find_or_create(key, hash_of(key)); }
  EmbeddingRow* find_or_create(std::uint64_t key, std::uint64_t hash);

  // Ask for the memory that a look-up of `hash` will read: first its entry; once that is there, the
  // row that the entry names.
  void prefetch_entry(std::uint64_t hash) const;
  void prefetch_row(std::uint64_t hash) const;
  void prefetch(const EmbeddingRow& row) const;  // header and weights

  // What a row that does not exist counts as.
  void initial(std::uint64_t key, std::span<float> out) const { initial_.fill(key, out); }

  std::vector<const EmbeddingRow*> by_key() const;  // ascending

  // Calls f(row) for the rows of a part from a place on, up to the place that is returned; none at
  // the part's end. `from` is 0 or what an earlier call returned: rows may have been made since.
  // They are rows_ahead() at most, in no particular order.
  template <class F>
  std::optional<std::uint64_t> visit_some(std::size_t part, std::uint64_t from, F&& f) const;
  std::size_t rows_ahead(std::size_t part) const;
  // Every row once, in no particular order: those of a part, and all.
  template <class F>
  void for_each_in(std::size_t part, F&& f) const;
  template <class F>
  void for_each(F&& f) const;

 private:
  // Rows are at multiples of 64 and below 2^48: an entry is the address and 16 bits of the hash.
  // Zero is free.
  using Entry = std::uint64_t;
  struct Segment {
    Entry* entries = nullptr;
    std::uint32_t rows = 0;
    std::uint32_t depth = 0;  // leading bits of the hash (after the part's) that its rows share
  };
  struct Part {
    std::vector<Entry*> directory;          // by the leading bits of the hash: 2^depth
    std::vector<std::uint32_t> segment_of;  // the same, as an index into segments
    std::vector<Segment> segments;
    std::uint32_t depth = 0;
    std::uint32_t mask = 0;  // entries a segment − 1
    std::size_t rows = 0;
    std::byte* free_rows = nullptr;
    std::size_t free_count = 0;
  };

  static std::size_t directory_place(const Part& part, std::uint64_t hash) {
    return part.depth == 0 ? 0 : (hash << 4) >> (64 - part.depth);
  }
  static Entry entry_of(const EmbeddingRow* row, std::uint64_t hash) {
    return reinterpret_cast<std::uint64_t>(row) << 16 | ((hash >> 16) & 0xffff);
  }
  static EmbeddingRow* row_of(Entry entry) { return reinterpret_cast<EmbeddingRow*>(entry >> 16); }
  static const EmbeddingRow* look_up(const Part& part, std::uint64_t key, std::uint64_t hash);
  static void put(Entry* entries, std::uint32_t mask, EmbeddingRow* row, std::uint64_t hash);
  void make_room(Part& part, std::uint64_t hash);
  void grow_segment(Part& part);
  void split_segment(Part& part, std::uint32_t number);
  EmbeddingRow* new_row(Part& part);

  std::string name_;
  RowLayout layout_;
  std::size_t row_bytes_;
  InitialRows initial_;
  std::unique_ptr<PieceMemory> memory_;
  std::array<Part, kParts> parts_;
};

template <class F>
std::optional<std::uint64_t> EmbeddingTable::visit_some(std::size_t number, std::uint64_t from,
                                                        F&& f) const {
  constexpr std::uint32_t kAhead = 16;
  const Part& part = parts_[number];
  const std::size_t first = part.depth == 0 ? 0 : from >> (64 - part.depth);
  const Segment& segment = part.segments[part.segment_of[first]];
  for (std::uint32_t n = 0; n <= part.mask; ++n) {
    if (n + kAhead <= part.mask && segment.entries[n + kAhead] != 0) {
      prefetch(*row_of(segment.entries[n + kAhead]));
    }
    if (segment.entries[n] != 0) f(*row_of(segment.entries[n]));
  }
  const std::size_t next = first + (std::size_t{1} << (part.depth - segment.depth));
  if (next == part.directory.size()) return std::nullopt;
  return static_cast<std::uint64_t>(next) << (64 - part.depth);
}

template <class F>
void EmbeddingTable::for_each_in(std::size_t part, F&& f) const {
  std::optional<std::uint64_t> place = 0;
  while (place) place = visit_some(part, *place, f);
}

template <class F>
void EmbeddingTable::for_each(F&& f) const {
  for (std::size_t part = 0; part < kParts; ++part) for_each_in(part, f);
}

}  // namespace sluice
