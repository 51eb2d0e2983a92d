#include "learner/embedding_table.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace sluice {

namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kMostSmallChunk = 128 << 10;
constexpr std::size_t kLargeChunk = 2 << 20;     // what the system gives as one page
constexpr std::size_t kRowsAtOnce = 16;          // taken from memory by a part
constexpr std::uint32_t kFirstEntries = 16;      // of a part's first segment
constexpr std::uint32_t kSegmentEntries = 2048;  // of every segment once there are two

constexpr std::size_t rounded_to_lines(std::size_t bytes) {
  return (bytes + kLine - 1) / kLine * kLine;
}

constexpr bool is_full(std::uint32_t rows, std::uint32_t mask) {
  return 4 * (rows + 1) > 3 * (mask + 1);
}

}  // namespace

std::byte* PieceMemory::take(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  const std::size_t rounded = rounded_to_lines(bytes);
  if (left_ < rounded) {
    // What is left of the chunk is smaller than one piece. Chunks begin small, for small tables.
    left_ = std::max(next_bytes_, rounded);
    chunks_.push_back(allocate_aligned(left_));
    bytes_ += left_;
    next_bytes_ = next_bytes_ < kMostSmallChunk ? 2 * next_bytes_ : kLargeChunk;
    chunk_bytes_ = left_;
  }
  std::byte* const piece = chunks_.back().get() + (chunk_bytes_ - left_);
  left_ -= rounded;
  return piece;
}

std::size_t PieceMemory::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

EmbeddingTable::EmbeddingTable(std::string name, RowLayout layout, std::uint64_t seed)
    : name_(std::move(name)),
      layout_(std::move(layout)),
      row_bytes_(rounded_to_lines(sizeof(EmbeddingRow) + layout_.floats() * sizeof(float))),
      initial_(seed, name_),
      memory_(std::make_unique<PieceMemory>()) {
  SLUICE_CHECK(layout_.dim > 0);
  for (Part& part : parts_) {
    auto* const entries = reinterpret_cast<Entry*>(memory_->take(kFirstEntries * sizeof(Entry)));
    part.segments.push_back({entries, 0, 0});
    part.directory.push_back(entries);
    part.segment_of.push_back(0);
    part.mask = kFirstEntries - 1;
  }
}

std::size_t EmbeddingTable::rows() const {
  std::size_t rows = 0;
  for (const Part& part : parts_) rows += part.rows;
  return rows;
}

const EmbeddingRow* EmbeddingTable::look_up(const Part& part, std::uint64_t key,
                                            std::uint64_t hash) {
  const Entry* const entries = part.directory[directory_place(part, hash)];
  for (std::uint64_t place = hash & part.mask;; place = (place + 1) & part.mask) {
    const Entry entry = entries[place];
    if (entry == 0) return nullptr;
    if ((entry & 0xffff) == ((hash >> 16) & 0xffff) && row_of(entry)->key == key) {
      return row_of(entry);
    }
  }
}

const EmbeddingRow* EmbeddingTable::find(std::uint64_t key) const {
  const std::uint64_t hash = hash_of(key);
  return look_up(parts_[part_of(hash)], key, hash);
}

EmbeddingRow* EmbeddingTable::find_or_create(std::uint64_t key, std::uint64_t hash) {
  Part& part = parts_[part_of(hash)];
  if (const EmbeddingRow* const found = look_up(part, key, hash)) {
    return const_cast<EmbeddingRow*>(found);
  }
  make_room(part, hash);
  EmbeddingRow* const row = new_row(part);
  row->key = key;
  initial(key, {row->values(), dim()});
  layout_.begin_slots(row->values());
  const std::size_t place = directory_place(part, hash);
  put(part.directory[place], part.mask, row, hash);
  ++part.segments[part.segment_of[place]].rows;
  ++part.rows;
  return row;
}

void EmbeddingTable::put(Entry* entries, std::uint32_t mask, EmbeddingRow* row,
                         std::uint64_t hash) {
  std::uint64_t place = hash & mask;
  while (entries[place] != 0) place = (place + 1) & mask;
  entries[place] = entry_of(row, hash);
}

EmbeddingRow* EmbeddingTable::new_row(Part& part) {
  if (part.free_count == 0) {
    part.free_rows = memory_->take(kRowsAtOnce * row_bytes_);
    part.free_count = kRowsAtOnce;
  }
  auto* const row = reinterpret_cast<EmbeddingRow*>(part.free_rows);
  part.free_rows += row_bytes_;
  --part.free_count;
  return row;
}

void EmbeddingTable::make_room(Part& part, std::uint64_t hash) {
  while (true) {
    const std::uint32_t number = part.segment_of[directory_place(part, hash)];
    if (!is_full(part.segments[number].rows, part.mask)) return;
    if (part.mask + 1 < kSegmentEntries) {
      grow_segment(part);
    } else {
      split_segment(part, number);
    }
  }
}

// The only segment of a part doubles.
void EmbeddingTable::grow_segment(Part& part) {
  Segment& segment = part.segments[0];
  const std::uint32_t mask = 2 * part.mask + 1;
  auto* const entries = reinterpret_cast<Entry*>(memory_->take((mask + 1) * sizeof(Entry)));
  for (std::uint32_t n = 0; n <= part.mask; ++n) {
    if (segment.entries[n] == 0) continue;
    EmbeddingRow* const row = row_of(segment.entries[n]);
    put(entries, mask, row, hash_of(row->key));
  }
  segment.entries = part.directory[0] = entries;
  part.mask = mask;
}

// One more bit of the hash tells its rows apart: those with a 1 go to a new segment.
void EmbeddingTable::split_segment(Part& part, std::uint32_t number) {
  if (part.segments[number].depth == part.depth) {
    SLUICE_CHECK(part.depth < 40);
    std::vector<Entry*> directory(2 * part.directory.size());
    std::vector<std::uint32_t> segment_of(directory.size());
    for (std::size_t n = 0; n < directory.size(); ++n) {
      directory[n] = part.directory[n / 2];
      segment_of[n] = part.segment_of[n / 2];
    }
    part.directory = std::move(directory);
    part.segment_of = std::move(segment_of);
    ++part.depth;
  }
  const auto added = static_cast<std::uint32_t>(part.segments.size());
  part.segments.push_back(
      {reinterpret_cast<Entry*>(memory_->take(kSegmentEntries * sizeof(Entry))), 0, 0});
  Segment& one = part.segments[added];
  Segment& zero = part.segments[number];
  const std::vector<Entry> old(zero.entries, zero.entries + kSegmentEntries);
  std::fill_n(zero.entries, kSegmentEntries, Entry{0});
  const std::uint32_t bit = zero.depth;
  zero.depth = one.depth = bit + 1;
  zero.rows = 0;
  for (const Entry entry : old) __builtin_prefetch(row_of(entry));
  for (const Entry entry : old) {
    if (entry == 0) continue;
    const std::uint64_t hash = hash_of(row_of(entry)->key);
    Segment& segment = ((hash << 4) >> (63 - bit) & 1) != 0 ? one : zero;
    put(segment.entries, part.mask, row_of(entry), hash);
    ++segment.rows;
  }
  const std::uint32_t directory_bit = part.depth - 1 - bit;
  for (std::size_t n = 0; n < part.directory.size(); ++n) {
    if (part.segment_of[n] != number || (n >> directory_bit & 1) == 0) continue;
    part.segment_of[n] = added;
    part.directory[n] = one.entries;
  }
}

void EmbeddingTable::prefetch_entry(std::uint64_t hash) const {
  const Part& part = parts_[part_of(hash)];
  __builtin_prefetch(part.directory[directory_place(part, hash)] + (hash & part.mask));
}

void EmbeddingTable::prefetch_row(std::uint64_t hash) const {
  const Part& part = parts_[part_of(hash)];
  const Entry entry = part.directory[directory_place(part, hash)][hash & part.mask];
  if (entry == 0) return;
  const EmbeddingRow* const row = row_of(entry);
  __builtin_prefetch(row);
  __builtin_prefetch(row->values() + dim() - 1);
}

void EmbeddingTable::prefetch(const EmbeddingRow& row) const {
  __builtin_prefetch(&row);
  __builtin_prefetch(row.values() + dim() - 1);
}

std::size_t EmbeddingTable::rows_ahead(std::size_t part) const {
  return std::min<std::size_t>(parts_[part].rows, kSegmentEntries / 4 * 3);
}

std::vector<const EmbeddingRow*> EmbeddingTable::by_key() const {
  std::vector<const EmbeddingRow*> rows;
  for_each([&](const EmbeddingRow& row) { rows.push_back(&row); });
  std::sort(rows.begin(), rows.end(),
            [](const EmbeddingRow* a, const EmbeddingRow* b) { return a->key < b->key; });
  return rows;
}

}  // namespace sluice
