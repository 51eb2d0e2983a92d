// The log of sequenced samples in the store: what the learner reads, also after a restart.
//
// Blocks under the big-endian sequence of their last sample: XXH3-64 of the rest, count, samples
// (docs/formats.md). A block appears with the commit that sequenced it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "joiner/sample.h"
#include "store/key_value.h"

namespace sluice {

// Consecutive samples on their way to a commit, encoded as they come.
class SampleBlocks {
 public:
  // Returns the samples digest after `sample`, `digest` being the one before.
  Digest add(const SampleView& sample, const Digest& digest);
  std::size_t samples() const { return samples_; }
  // Moves all of them into the batch.
  void append_to(WriteBatch& batch);

 private:
  void end_block();

  struct Block {
    std::string key, value;
  };
  std::vector<Block> ended_;
  std::string block_;  // the one that is being filled
  std::uint64_t last_sequence_ = 0;
  std::size_t in_block_ = 0;
  std::size_t samples_ = 0;
};

// Puts consecutive samples into the batch, in blocks.
void append_samples(std::span<const Sample> samples, WriteBatch& batch);

// Removes the blocks whose samples all lie before `first_needed`, among those from `from` on.
void trim_samples(std::uint64_t from, std::uint64_t first_needed, WriteBatch& batch);

// The committed samples from `first` on: about `max_samples` of them (whole blocks), fewer at the
// end. An error where the log is damaged or no longer reaches back to `first`.
Result<std::vector<Sample>> read_samples(KeyValueStore& store, std::uint64_t first,
                                         std::size_t max_samples);

}  // namespace sluice
