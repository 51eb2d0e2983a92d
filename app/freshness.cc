#include "app/freshness.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/check.h"

namespace sluice {

// Below 2^(kSubBits + 1) a bucket has one value; above, each doubling has 2^kSubBits of them.
std::size_t DurationHistogram::bucket_of(std::uint64_t value) {
  const int shift = std::max(0, static_cast<int>(std::bit_width(value)) - kSubBits - 1);
  return (static_cast<std::size_t>(shift) << kSubBits) + static_cast<std::size_t>(value >> shift);
}

std::uint64_t DurationHistogram::highest_of(std::size_t bucket) {
  constexpr std::size_t kSubs = std::size_t{1} << kSubBits;
  const std::size_t shift = bucket < 2 * kSubs ? 0 : (bucket >> kSubBits) - 1;
  const std::uint64_t first = bucket - (shift << kSubBits);
  return ((first + 1) << shift) - 1;
}

void DurationHistogram::add(DurationMs duration) {
  ++counts_[bucket_of(static_cast<std::uint64_t>(std::max<DurationMs>(0, duration)))];
  ++count_;
}

DurationMs DurationHistogram::quantile(double share) const {
  const double wanted = std::max(1.0, std::ceil(share * static_cast<double>(count_)));
  double sum = 0;
  for (std::size_t bucket = 0; bucket < kBuckets; ++bucket) {
    sum += static_cast<double>(counts_[bucket]);
    if (sum >= wanted) return static_cast<DurationMs>(highest_of(bucket));
  }
  return 0;
}

FreshnessFigures DurationHistogram::figures() const {
  SLUICE_CHECK(count_ > 0);
  return {quantile(0.5), quantile(0.99), quantile(1)};
}

Freshness::Freshness(const Config& config)
    : tick_(config.join.tick),
      max_out_of_orderness_(*std::ranges::max_element(config.streams.max_out_of_orderness)) {}

void Freshness::add(std::span<const Sample> samples, TimeMs wall_ms) {
  const std::lock_guard lock(mutex_);
  for (const Sample& sample : samples) {
    const TimeMs decidable = floor_to(sample.time, tick_) + tick_ + max_out_of_orderness_;
    all_.add(wall_ms - decidable);
    recent_.add(wall_ms - decidable);
  }
}

std::optional<FreshnessFigures> Freshness::all() const {
  const std::lock_guard lock(mutex_);
  return all_.count() == 0 ? std::nullopt : std::optional(all_.figures());
}

std::optional<FreshnessFigures> Freshness::take_recent() {
  const std::lock_guard lock(mutex_);
  const auto figures = recent_.count() == 0 ? std::nullopt : std::optional(recent_.figures());
  recent_ = {};
  return figures;
}

}  // namespace sluice
