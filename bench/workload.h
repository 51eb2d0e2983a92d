// The workload that every engine of the bench is given: 20 id fields of 18 columns, hidden layers
// of 200 and 80, ESMM. Ids follow a Zipf law (exponent 1.05) cut off at the number of ids a field
// has; a permutation scatters the ranks, so that likely ids are not neighbours in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bench/serve.h"
#include "config/config.h"
#include "joiner/sample.h"
#include "learner/trainer.h"

namespace sluice::bench {

inline constexpr std::size_t kFields = 20;
inline constexpr std::size_t kLargestBatch = 4096;
inline constexpr std::size_t kPool = 524'288;  // samples before any comes again
inline constexpr double kZipfExponent = 1.05;
inline constexpr double kClickRate = 0.045;
inline constexpr double kPurchaseRate = 0.1;  // of the clicked

// Batches end with their tick (Batches), so that one trainer serves every size up to kLargestBatch.
Config workload_config();

// Samples without an end, in sequence order.
class Workload {
 public:
  explicit Workload(std::size_t ids_a_field);

  std::size_t ids_a_field() const { return scattered_.size(); }
  // Sample number `place` of the pool (taken modulo its size).
  void fill(std::uint64_t place, Sample& sample) const;
  // A sample that names the id in every field.
  void fill_with_id(std::size_t id, Sample& sample) const;

 private:
  std::vector<std::uint32_t> scattered_;  // rank -> id
  std::vector<std::uint32_t> pool_;       // [kPool, kFields]
};

// Feeds a trainer with batches and times it. Samples are made before a timed part begins: it holds
// offer() and what training does there, from reading the feature blob to the samples digest.
class Batches {
 public:
  Batches(Trainer& trainer, const Workload& workload) : trainer_(trainer), workload_(workload) {}

  // Every id of every field once, so that all rows exist.
  Slice name_every_id(std::size_t batch);
  // Whole batches of the pool for at least `seconds` of timed parts.
  Slice train(std::size_t batch, double seconds);
  // So many batches of the pool, added to `slice`.
  void train_some(std::size_t batch, std::size_t batches, Slice& slice);

 private:
  Sample next_sample();
  void run(std::vector<Sample> samples, std::size_t batch, Slice& slice);

  Trainer& trainer_;
  const Workload& workload_;
  std::uint64_t sequence_ = 0;
  std::uint64_t place_ = 0;  // in the pool
  std::int64_t tick_ = 0;    // number of the batch being made: each has a tick of its own
};

}  // namespace sluice::bench
