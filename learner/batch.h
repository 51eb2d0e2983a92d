// Where batches end, and which rows a batch touches.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "config/config.h"
#include "joiner/sample.h"
#include "learner/embedding_table.h"
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

// The distinct rows of one table that a batch names, and where. One thread at a time; reused from
// batch to batch.
class BatchRows {
 public:
  // Where a row is used: weight · row was added to column.. of the sample's input.
  struct Use {
    std::uint32_t sample;
    std::uint32_t column;
    float weight;
  };

  // Finds or makes the row of every term (the table's terms of all lanes, in lane order), sets
  // Term::row and marks the row as changed by `step`.
  void gather(EmbeddingTable& table, std::size_t table_number, std::span<DecodedSamples> lanes,
              std::uint64_t step);

  std::size_t size() const { return rows_.size(); }
  std::uint32_t row(std::size_t n) const { return rows_[n]; }
  // The n-th distinct row's uses, in (sample, field, id) order.
  std::span<const Use> uses(std::size_t n) const {
    return std::span(uses_).subspan(begins_[n], begins_[n + 1] - begins_[n]);
  }

 private:
  std::vector<std::uint32_t> rows_;    // numbers in the table, by first use
  std::vector<std::uint32_t> places_;  // of each term, in term order: index into rows_
  std::vector<std::size_t> begins_;    // [rows + 1] into uses_
  std::vector<std::size_t> next_;
  std::vector<Use> uses_;
};

}  // namespace sluice
