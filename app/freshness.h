// How far the model of a live service is behind its shop: for each sample, from the wall time at
// which its label could be decided, the end of its tick + max_out_of_orderness, until it was
// learned. The shop's own ways to the broker are a part of it; clocks that differ are, too.
// Operational: for people, and for nothing that is computed.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>

#include "base/time.h"
#include "config/config.h"
#include "joiner/sample.h"

namespace sluice {

// Of some samples; each value at most 1/32 too high.
struct FreshnessFigures {
  DurationMs median = 0;
  DurationMs p99 = 0;
  DurationMs longest = 0;
};

// Counts of durations, in buckets that are a thirty-second of their values wide.
class DurationHistogram {
 public:
  void add(DurationMs duration);  // below 0: as 0
  std::uint64_t count() const { return count_; }
  FreshnessFigures figures() const;  // of at least one

 private:
  static constexpr int kSubBits = 5;
  static constexpr std::size_t kBuckets = (64 - kSubBits) << kSubBits;
  static std::size_t bucket_of(std::uint64_t value);
  static std::uint64_t highest_of(std::size_t bucket);
  DurationMs quantile(double share) const;

  std::array<std::uint64_t, kBuckets> counts_{};
  std::uint64_t count_ = 0;
};

// Thread-safe.
class Freshness {
 public:
  explicit Freshness(const Config& config);

  // These were learned at `wall_ms`.
  void add(std::span<const Sample> samples, TimeMs wall_ms);
  // Over all, and over those since the last take_recent(); none where there are none.
  std::optional<FreshnessFigures> all() const;
  std::optional<FreshnessFigures> take_recent();

 private:
  DurationMs tick_;
  DurationMs max_out_of_orderness_ = 0;  // the largest of the streams
  mutable std::mutex mutex_;
  DurationHistogram all_;
  DurationHistogram recent_;
};

}  // namespace sluice
