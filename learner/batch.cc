#include "learner/batch.h"

#include <utility>

#include "base/check.h"

namespace sluice {

PendingBatch::PendingBatch(const TrainingConfig& training, DurationMs tick)
    : size_(training.batch_size), span_(training.batch_span), tick_(tick) {
  SLUICE_CHECK(size_ > 0 && tick_ > 0 && (!span_ || *span_ > 0));
}

bool PendingBatch::ends_before(const Sample& sample) const {
  return is_full() || is_passed_by(floor_to(sample.time, tick_));
}

bool PendingBatch::is_passed_by(TimeMs frontier) const {
  return span_ && !empty() && frontier >= floor_to(samples_.front().time, tick_) + *span_;
}

void PendingBatch::add(Sample sample) {
  SLUICE_CHECK(!ends_before(sample));
  samples_.push_back(std::move(sample));
}

std::vector<Sample> PendingBatch::take() {
  return std::exchange(samples_, {});
}

void BatchRows::gather(EmbeddingTable& table, std::size_t table_number,
                       std::span<DecodedSamples> lanes, std::uint64_t step) {
  rows_.clear();
  places_.clear();
  begins_.assign(1, 0);  // counts first, one place further up: begins_[n + 1] counts row n
  for (DecodedSamples& lane : lanes) {
    for (Term& term : lane.terms[table_number]) {
      const std::uint32_t row = table.find_or_create(term.key);
      if (table.last_batch(row) != step) {
        table.set_last_batch(row, step);
        table.batch_place(row) = static_cast<std::uint32_t>(rows_.size());
        rows_.push_back(row);
        begins_.push_back(0);
      }
      const std::uint32_t place = table.batch_place(row);
      ++begins_[place + 1];
      places_.push_back(place);
      term.row = table.values(row);
    }
  }
  for (std::size_t n = 0; n < rows_.size(); ++n) begins_[n + 1] += begins_[n];
  // A stable counting sort by row keeps (sample, field, id) order inside each row.
  next_.assign(begins_.begin(), begins_.end());
  uses_.resize(places_.size());
  std::size_t n = 0;
  for (const DecodedSamples& lane : lanes) {
    for (const Term& term : lane.terms[table_number]) {
      uses_[next_[places_[n++]]++] = {term.sample, term.column, term.weight};
    }
  }
}

}  // namespace sluice
