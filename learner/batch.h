// Where batches end, which contexts a batch's samples share, and which rows it touches.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/aligned_array.h"
#include "base/hash.h"
#include "config/config.h"
#include "joiner/sample.h"
#include "learner/embedding_table.h"
#include "learner/kernels.h"
#include "learner/row_changes.h"
#include "learner/schema.h"

namespace sluice {

// The samples of the next batch. A batch ends when it holds batch_size samples, and before the
// first sample whose tick starts batch_span or more after its first sample's. Never by a clock, so
// the cut is a function of the samples.
class PendingBatch {
 public:
  PendingBatch(const TrainingConfig& training, DurationMs tick);

  bool empty() const { return samples_.empty(); }
  std::size_t size() const { return samples_.size(); }
  bool is_full() const { return samples_.size() >= size_; }
  // `sample` belongs to the batch after this one.
  bool ends_before(const Sample& sample) const;
  // No sample of a tick that starts at or after `frontier` can join any more.
  bool is_passed_by(TimeMs frontier) const;

  void add(Sample sample);     // must neither be full nor end before it
  std::vector<Sample> take();  // leaves it empty

 private:
  std::size_t size_;
  std::optional<DurationMs> span_;
  DurationMs tick_;
  std::vector<Sample> samples_;
};

// The distinct contexts of a batch's samples (equal values of all features of the group), numbered
// by first use. One thread at a time; reused from batch to batch.
class BatchContexts {
 public:
  // One digest a sample: of the values (128 bits: equal digests are taken for equal values).
  void assign(std::span<const Digest> contexts);
  void clear() { assign({}); }

  std::size_t size() const { return first_sample_.size(); }
  std::span<const std::uint32_t> of_sample() const { return of_sample_; }
  std::uint32_t first_sample(std::size_t context) const { return first_sample_[context]; }
  // The samples of context c, ascending, are samples()[begins()[c] .. begins()[c + 1]).
  std::span<const std::uint32_t> samples() const { return samples_; }
  std::span<const std::uint32_t> begins() const { return begins_; }

 private:
  std::vector<std::uint32_t> slots_;  // open addressing: a context's number + 1, 0 is free
  std::vector<std::uint32_t> of_sample_;
  std::vector<std::uint32_t> first_sample_;
  std::vector<std::uint32_t> samples_;
  std::vector<std::uint32_t> begins_;
};

// Finds which keys are the same: a table that is small enough for the cache, one a thread, used for
// one part of the rows after the other.
class DistinctKeys {
 public:
  // Forgets all keys; then `keys` calls of number_of() may follow.
  void begin(std::size_t keys);
  // The key's number by first use; `next` where it is new. `hash` is EmbeddingTable::hash_of(key).
  std::uint32_t number_of(const DecodedSamples::Key& key, std::uint64_t hash, std::uint32_t next);

 private:
  // Open addressing; a slot of another stamp is free, so nothing is cleared in between.
  struct Slot {
    std::uint64_t key;
    std::uint32_t number;
    std::uint16_t table;
    std::uint16_t stamp;
  };
  std::vector<Slot> slots_;
  std::size_t mask_ = 0;
  std::uint16_t stamp_ = 0;
};

// What a thread needs to gather one part of the rows after the other: small, so that it stays in
// the cache.
struct GatherScratch {
  struct Distinct {
    std::uint64_t key;
    std::uint64_t hash;
    std::uint32_t table;
  };
  DistinctKeys keys;
  std::vector<Distinct> distinct;     // by first use
  std::vector<std::uint32_t> places;  // of each term, in term order: index into `distinct`
  std::vector<std::uint32_t> next;
};

// The distinct rows that a batch names among those of one part of every table (EmbeddingTable) of
// one embedding set, and where it uses them. One thread at a time; reused from batch to batch.
class BatchRows {
 public:
  // Looks up the row of every term of the part (of all `decoded`, in their order). RowTerm::row is
  // set to a copy of its weights, which stays until the next call. A row that a sample reaches
  // (DecodedSamples::Key) is made where it is not there, and marked as changed by `step`; one that
  // is only looked up has its initial values where it is not there.
  // `tables` are those of the set; `changes`, one a table, are told before a row is marked.
  void gather(std::size_t set, std::span<EmbeddingTable> tables, std::span<TableChanges> changes,
              std::size_t part, std::span<DecodedSamples* const> decoded, std::uint64_t step,
              GatherScratch& scratch);

  std::size_t size() const { return rows_.size(); }
  // Null: it is only looked up.
  EmbeddingRow* row(std::size_t n) const { return rows_[n]; }
  // Where samples that reach it added the n-th distinct row to the batch's inputs, in (sample,
  // field, id) order; nowhere where it is only looked up.
  std::span<const RowUse> uses(std::size_t n) const {
    return std::span(uses_).subspan(begins_[n], begins_[n + 1] - begins_[n]);
  }

 private:
  void find_rows(std::span<EmbeddingTable> tables, std::span<TableChanges> changes,
                 std::span<const GatherScratch::Distinct> distinct, std::uint64_t step);

  std::vector<EmbeddingRow*> rows_;    // by first use
  AlignedArray<float> weights_;        // the rows' weights, one after the other
  std::vector<std::uint32_t> begins_;  // [rows + 1] into uses_
  std::vector<RowUse> uses_;
};

}  // namespace sluice
