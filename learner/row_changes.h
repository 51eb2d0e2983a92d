// Which rows of a table have changed since the last cut (a snapshot), and a copy of the table as of
// a cut that is made piece by piece while training goes on.
//
// A row's first change after a cut is the one moment at which its old values are at hand: then its
// hash is taken out of the sum over unchanged rows, the row is noted as changed, and where a copy
// is under way that has not come to it, its old values are copied first. So a digest or a delta
// costs what has changed, and a copy of everything needs no halt.
//
// A copy goes through the rows in the order of their hashes. A table's index is cut by the leading
// bits of the hash, and is only ever cut finer, so one number says which rows were copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "learner/embedding_table.h"
#include "learner/row_digest.h"

namespace sluice {

// Sums over rows of the hashes of all that training keeps of them, and of their weights.
struct RowSums {
  DigestSum state;
  DigestSum weights;

  void add(const RowSums& other) {
    state.add(other.state.value());
    weights.add(other.weights.value());
  }
};

// Of a part's rows, one by one.
RowSums sums_of_rows(const EmbeddingTable& table, std::size_t part);

// Copies of rows, in no particular order.
struct FrozenRows {
  std::vector<std::uint64_t> keys;
  std::vector<float> weights;  // [keys, dim]
};

// Which rows a cut copies.
enum class CutRows : std::uint8_t {
  all,
  changed,  // since the cut before
};

// Of one table, which is given to each call and stays the same. Calls of different parts
// (EmbeddingTable::part_of) may run together.
class TableChanges {
 public:
  // The last cut was made after batch `cut`; 0: none was.
  explicit TableChanges(const EmbeddingTable& table, std::uint64_t cut = 0);

  // Takes over a part's rows as they are, once, before anything else.
  void restore(const EmbeddingTable& table, std::size_t part);

  // Before a batch changes the row, found or made by `hash`: its last_batch is that of the change
  // before, 0 of a row just made.
  void touch(const EmbeddingTable& table, std::uint64_t hash, EmbeddingRow& row) {
    if (row.last_batch <= cut_) first_touch(table, hash, row);
  }

  // Of the rows as they are. No cut may be under way.
  RowSums sums(const EmbeddingTable& table, std::size_t part);

  // Begins a cut after batch `step`: the last one must be copied. Then every part has to be copied.
  void begin_cut(const EmbeddingTable& table, std::uint64_t step, CutRows rows);
  // After begin_cut(): how many changed rows copy_listed() will copy, where it can.
  std::size_t listed(std::size_t part) const { return parts_[part].to_copy.size(); }
  bool is_listed(std::size_t part) const { return parts_[part].are_to_copy_listed; }
  // All at once, of a cut of changed rows that are listed.
  void copy_listed(const EmbeddingTable& table, std::size_t part);
  // A stretch, EmbeddingTable::rows_ahead() at most. True where the part has been copied.
  bool copy_some(const EmbeddingTable& table, std::size_t part);
  bool is_copied(std::size_t part) const { return parts_[part].is_copied; }

  // Once a part was copied: its rows as of the cut, and the sums over all of the part's.
  FrozenRows take_rows(std::size_t part) { return std::move(parts_[part].rows); }
  const RowSums& sums_at_cut(std::size_t part) const { return parts_[part].at_cut; }

 private:
  struct Hashes {
    Digest state, weights;
  };
  // Each is one thread's at a time: a cache line of its own.
  struct alignas(64) Part {
    explicit Part(std::string_view table) : hasher(table) {}
    RowHasher hasher;
    RowSums unchanged;  // since the last cut; while it is copied: those that were copied
    std::vector<EmbeddingRow*> changed;  // since the last cut
    bool is_listed = true;               // `changed` has all of them
    // Of the cut that is being copied.
    bool is_copied = true;
    std::uint64_t copied_below = 0;      // places (EmbeddingTable::place_of)
    std::vector<EmbeddingRow*> to_copy;  // changed before the cut
    bool are_to_copy_listed = true;      // `to_copy` has all of them
    RowSums at_cut;
    FrozenRows rows;
  };

  void first_touch(const EmbeddingTable& table, std::uint64_t hash, EmbeddingRow& row);
  static Hashes hashes_of(Part& part, const EmbeddingTable& table, const EmbeddingRow& row);
  static void list(Part& part, EmbeddingRow* row);
  static void end_copy(Part& part);
  // A row that has not changed since the cut: what the cut wants of it.
  void copy(Part& part, const EmbeddingTable& table, const EmbeddingRow& row);
  static void add(RowSums& sums, const Hashes& hashes);

  std::vector<Part> parts_;
  std::uint64_t cut_;             // the batch after which the last cut was made
  std::uint64_t cut_before_ = 0;  // and the one before it
  CutRows cut_rows_ = CutRows::all;
};

}  // namespace sluice
