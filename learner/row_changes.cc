#include "learner/row_changes.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace sluice {

namespace {

// Of a part. Beyond it a scan of all rows finds them nearly as fast, and the list costs memory.
constexpr std::size_t kMostListed = 16'384;

}  // namespace

RowSums sums_of_rows(const EmbeddingTable& table, std::size_t part) {
  RowHasher hasher(table.name());
  RowSums sums;
  table.for_each_in(part, [&](const EmbeddingRow& row) {
    sums.state.add(hasher.state(row, table.layout().floats()));
    sums.weights.add(hasher.weights(row.key, {row.values(), table.dim()}));
  });
  return sums;
}

TableChanges::TableChanges(const EmbeddingTable& table, std::uint64_t cut) : cut_(cut) {
  parts_.reserve(EmbeddingTable::kParts);
  for (std::size_t part = 0; part < EmbeddingTable::kParts; ++part) {
    parts_.emplace_back(table.name());
  }
}

TableChanges::Hashes TableChanges::hashes_of(Part& part, const EmbeddingTable& table,
                                             const EmbeddingRow& row) {
  return {part.hasher.state(row, table.layout().floats()),
          part.hasher.weights(row.key, {row.values(), table.dim()})};
}

void TableChanges::add(RowSums& sums, const Hashes& hashes) {
  sums.state.add(hashes.state);
  sums.weights.add(hashes.weights);
}

void TableChanges::list(Part& part, EmbeddingRow* row) {
  if (!part.is_listed) return;
  if (part.changed.size() < kMostListed) {
    part.changed.push_back(row);
  } else {
    part.is_listed = false;
    part.changed = {};
  }
}

void TableChanges::restore(const EmbeddingTable& table, std::size_t number) {
  Part& part = parts_[number];
  table.for_each_in(number, [&](EmbeddingRow& row) {
    if (row.last_batch > cut_) {
      list(part, &row);
    } else {
      add(part.unchanged, hashes_of(part, table, row));
    }
  });
}

void TableChanges::first_touch(const EmbeddingTable& table, std::uint64_t hash, EmbeddingRow& row) {
  Part& part = parts_[EmbeddingTable::part_of(hash)];
  list(part, &row);
  if (row.last_batch == 0) return;
  if (!part.is_copied && EmbeddingTable::place_of(hash) >= part.copied_below) {
    copy(part, table, row);
  }
  const Hashes hashes = hashes_of(part, table, row);
  part.unchanged.state.subtract(hashes.state);
  part.unchanged.weights.subtract(hashes.weights);
}

RowSums TableChanges::sums(const EmbeddingTable& table, std::size_t number) {
  Part& part = parts_[number];
  SLUICE_CHECK(part.is_copied);
  RowSums sums = part.unchanged;
  if (part.is_listed) {
    for (const EmbeddingRow* const row : part.changed) add(sums, hashes_of(part, table, *row));
    return sums;
  }
  table.for_each_in(number, [&](const EmbeddingRow& row) {
    if (row.last_batch > cut_) add(sums, hashes_of(part, table, row));
  });
  return sums;
}

void TableChanges::begin_cut(const EmbeddingTable& table, std::uint64_t step, CutRows rows) {
  cut_before_ = std::exchange(cut_, step);
  cut_rows_ = rows;
  for (std::size_t number = 0; number < parts_.size(); ++number) {
    Part& part = parts_[number];
    SLUICE_CHECK(part.is_copied);
    part.is_copied = false;
    part.copied_below = 0;
    part.to_copy = std::exchange(part.changed, {});
    part.are_to_copy_listed = std::exchange(part.is_listed, true);
    part.at_cut = part.unchanged;
    part.rows = {};
    // In one piece, so that no copying of copies halts anything.
    const std::size_t expected = rows == CutRows::all ? table.rows_in(number) : part.to_copy.size();
    part.rows.keys.reserve(expected);
    part.rows.weights.reserve(expected * table.dim());
  }
}

void TableChanges::copy(Part& part, const EmbeddingTable& table, const EmbeddingRow& row) {
  const bool is_changed = row.last_batch > cut_before_;
  if (is_changed) {
    const Hashes hashes = hashes_of(part, table, row);
    add(part.at_cut, hashes);
    add(part.unchanged, hashes);
  }
  if (!is_changed && cut_rows_ == CutRows::changed) return;
  part.rows.keys.push_back(row.key);
  part.rows.weights.insert(part.rows.weights.end(), row.values(), row.values() + table.dim());
}

void TableChanges::copy_listed(const EmbeddingTable& table, std::size_t number) {
  constexpr std::size_t kAhead = 8;
  Part& part = parts_[number];
  SLUICE_CHECK(is_listed(number) && cut_rows_ == CutRows::changed && part.copied_below == 0);
  for (std::size_t n = 0; n < part.to_copy.size(); ++n) {
    if (n + kAhead < part.to_copy.size()) table.prefetch(*part.to_copy[n + kAhead]);
    copy(part, table, *part.to_copy[n]);
  }
  end_copy(part);
}

bool TableChanges::copy_some(const EmbeddingTable& table, std::size_t number) {
  Part& part = parts_[number];
  if (part.is_copied) return true;
  const auto next = table.visit_some(number, part.copied_below, [&](const EmbeddingRow& row) {
    // One that has changed since was copied when it did, or was made since.
    if (row.last_batch <= cut_) copy(part, table, row);
  });
  if (next) {
    part.copied_below = *next;
  } else {
    end_copy(part);
  }
  return part.is_copied;
}

void TableChanges::end_copy(Part& part) {
  part.is_copied = true;
  part.to_copy = {};
}

}  // namespace sluice
