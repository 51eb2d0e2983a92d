// The second stage of a service: what learns from the committed samples. One model (Learning), or
// several side by side (CompareStage).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "app/handoff.h"
#include "base/result.h"

namespace sluice {

// Owned by the learning thread once opened. After an error it is good for nothing but destruction.
// Of several models the numbers are those of the one that is furthest behind.
class LearnStage {
 public:
  virtual ~LearnStage() = default;

  // Trains what is committed, at most about `max_samples` of it; true where more is there.
  virtual Result<bool> learn(const Committed& committed, std::size_t max_samples) = 0;
  // After everything of a closed join is learned: the last partial batch, a checkpoint, a snapshot.
  virtual Status finish() = 0;
  // Before a stop: a checkpoint at the last batch end.
  virtual Status stop() = 0;

  virtual std::uint64_t next_sequence() const = 0;     // of the next sample to read
  virtual std::uint64_t trained_sequence() const = 0;  // of the last sample trained; 0: none
  // The log must reach back to this sequence.
  virtual std::uint64_t first_needed() const = 0;
  virtual std::optional<std::uint64_t> last_snapshot() const = 0;
};

}  // namespace sluice
