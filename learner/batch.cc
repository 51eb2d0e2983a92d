#include "learner/batch.h"

#include <algorithm>
#include <bit>
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
  std::vector<Sample> taken = std::exchange(samples_, {});
  samples_.reserve(taken.size());  // the next one will be as large
  return taken;
}

void BatchContexts::assign(std::span<const Digest> contexts) {
  const std::size_t samples = contexts.size();
  slots_.assign(std::bit_ceil(2 * samples + 1), 0);
  of_sample_.resize(samples);
  first_sample_.clear();
  begins_.assign(1, 0);  // counts first, one place further up
  for (std::size_t s = 0; s < samples; ++s) {
    std::size_t n = contexts[s].low & (slots_.size() - 1);
    while (slots_[n] != 0 && contexts[first_sample_[slots_[n] - 1]] != contexts[s]) {
      n = (n + 1) & (slots_.size() - 1);
    }
    if (slots_[n] == 0) {
      first_sample_.push_back(static_cast<std::uint32_t>(s));
      begins_.push_back(0);
      slots_[n] = static_cast<std::uint32_t>(first_sample_.size());
    }
    of_sample_[s] = slots_[n] - 1;
    ++begins_[slots_[n]];
  }
  for (std::size_t c = 0; c < size(); ++c) begins_[c + 1] += begins_[c];
  std::vector<std::uint32_t> next(begins_);
  samples_.resize(samples);
  for (std::size_t s = 0; s < samples; ++s) {
    samples_[next[of_sample_[s]]++] = static_cast<std::uint32_t>(s);
  }
}

void DistinctKeys::begin(std::size_t keys) {
  const std::size_t slots = std::bit_ceil(keys + keys / 2 + 16);
  mask_ = slots - 1;  // no more of them than these keys need: they stay in the cache
  if (++stamp_ != 0 && slots_.size() >= slots) return;
  slots_.assign(std::max(slots, slots_.size()), Slot{0, 0, 0, 0});
  stamp_ = 1;
}

std::uint32_t DistinctKeys::number_of(const DecodedSamples::Key& key, std::uint64_t hash,
                                      std::uint32_t next) {
  std::size_t n = hash & mask_;
  for (; slots_[n].stamp == stamp_; n = (n + 1) & mask_) {
    if (slots_[n].key == key.key && slots_[n].table == key.table) return slots_[n].number;
  }
  slots_[n] = {key.key, next, static_cast<std::uint16_t>(key.table), stamp_};
  return next;
}

void BatchRows::gather(std::size_t set, std::span<EmbeddingTable> tables,
                       std::span<TableChanges> changes, std::size_t part,
                       std::span<DecodedSamples* const> decoded, std::uint64_t step,
                       GatherScratch& scratch) {
  const auto is_reached = [set](const DecodedSamples::Key& key) -> std::uint32_t {
    return key.reached >> set & 1;
  };
  std::size_t terms = 0;
  for (const DecodedSamples* const some : decoded) terms += some->keys[part].size();
  scratch.keys.begin(terms);
  scratch.distinct.clear();
  scratch.places.clear();
  begins_.assign(1, 0);  // counts first, one place further up: begins_[n + 1] counts row n
  for (const DecodedSamples* const some : decoded) {
    for (const DecodedSamples::Key& key : some->keys[part]) {
      const std::uint64_t hash = EmbeddingTable::hash_of(key.key);
      const auto next = static_cast<std::uint32_t>(scratch.distinct.size());
      const std::uint32_t place = scratch.keys.number_of(key, hash, next);
      if (place == next) {
        tables[key.table].prefetch_entry(hash);
        scratch.distinct.push_back({key.key, hash, key.table});
        begins_.push_back(0);
      }
      begins_[place + 1] += is_reached(key);
      scratch.places.push_back(place);
    }
  }
  if (scratch.distinct.empty()) {  // there may be no table
    rows_.clear();
    return;
  }
  find_rows(tables, changes, scratch.distinct, step);
  for (std::size_t n = 0; n < rows_.size(); ++n) begins_[n + 1] += begins_[n];
  // A stable counting sort by row keeps (sample, field, id) order inside each row.
  scratch.next.assign(begins_.begin(), begins_.end());
  uses_.resize(begins_.back());
  const std::size_t dim = tables.front().dim();  // of all tables
  std::size_t k = 0;
  for (DecodedSamples* const some : decoded) {
    for (const DecodedSamples::Key& key : some->keys[part]) {
      RowTerm& term = some->terms[set][key.term];
      const std::uint32_t place = scratch.places[k++];
      term.row = weights_.data() + place * dim;
      if (is_reached(key) != 0) uses_[scratch.next[place]++] = {term.at, term.weight};
    }
  }
}

// Most of the rows are in memory that no cache holds: ask for them some look-ups ahead (for their
// entries gather() did), and copy the weights while they are at hand, for they are pooled only when
// all rows are found.
void BatchRows::find_rows(std::span<EmbeddingTable> tables, std::span<TableChanges> changes,
                          std::span<const GatherScratch::Distinct> distinct, std::uint64_t step) {
  constexpr std::size_t kAhead = 12;
  const std::size_t count = distinct.size();
  const std::size_t dim = tables.front().dim();
  rows_.resize(count);
  weights_.reserve(count * dim);
  for (std::size_t n = 0; n < count + kAhead; ++n) {
    if (n < count) tables[distinct[n].table].prefetch_row(distinct[n].hash);
    if (n < kAhead) continue;
    const GatherScratch::Distinct& now = distinct[n - kAhead];
    EmbeddingTable& table = tables[now.table];
    float* const weights = weights_.data() + (n - kAhead) * dim;
    if (begins_[n - kAhead + 1] == 0) {  // no use: no sample reaches it
      rows_[n - kAhead] = nullptr;
      if (const EmbeddingRow* const there = table.find(now.key)) {
        std::copy_n(there->values(), dim, weights);
      } else {
        table.initial(now.key, {weights, dim});
      }
      continue;
    }
    EmbeddingRow* const row = table.find_or_create(now.key, now.hash);
    changes[now.table].touch(table, now.hash, *row);
    row->last_batch = step;
    std::copy_n(row->values(), dim, weights);
    rows_[n - kAhead] = row;
  }
}

}  // namespace sluice
