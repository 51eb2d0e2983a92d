#include "bench/workload.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <utility>

#include "base/hash.h"
#include "ingest/features.h"

namespace sluice::bench {

namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr TimeMs kBegin = 1'700'000'000'000;
constexpr DurationMs kTick = 1'000;
constexpr std::size_t kPart = 65'536;  // samples made at once: some 20 MB; whole batches

double seconds_since(SteadyClock::time_point begin) {
  return std::chrono::duration<double>(SteadyClock::now() - begin).count();
}

// In [0, 1), a function of `n`.
double uniform(std::uint64_t n) {
  return static_cast<double>(mix64(n) >> 11) * 0x1p-53;
}

}  // namespace

Config workload_config() {
  Config config;
  for (std::size_t f = 0; f < kFields; ++f) {
    FeatureConfig feature;
    feature.name = "f" + std::to_string(10 + f);  // in the order of their names
    feature.path = "features." + feature.name;
    feature.table = feature.name;
    config.features.push_back(feature);
  }
  config.model.embedding_dim = 18;
  config.model.hidden = {200, 80};
  config.join.tick = kTick;
  config.training.batch_size = kLargestBatch;
  config.training.batch_span = kTick;
  return config;
}

Workload::Workload(std::size_t ids_a_field) : scattered_(ids_a_field), pool_(kPool * kFields) {
  std::iota(scattered_.begin(), scattered_.end(), 0U);
  for (std::size_t n = ids_a_field; n > 1; --n) {
    std::swap(scattered_[n - 1], scattered_[mix64(n) % n]);
  }
  std::vector<double> upto(ids_a_field);  // probability of this rank and those before it
  double total = 0;
  for (std::size_t rank = 0; rank < ids_a_field; ++rank) {
    total += std::pow(static_cast<double>(rank + 1), -kZipfExponent);
    upto[rank] = total;
  }
  for (std::size_t n = 0; n < pool_.size(); ++n) {
    const double u = uniform(n + (1ULL << 40)) * total;
    const auto found = std::upper_bound(upto.begin(), upto.end(), u);
    const auto rank = static_cast<std::size_t>(found - upto.begin());
    pool_[n] = scattered_[std::min(rank, ids_a_field - 1)];
  }
}

void Workload::fill(std::uint64_t place, Sample& sample) const {
  place %= kPool;
  sample.y = uniform(2 * place) < kClickRate;
  sample.z = sample.y && uniform(2 * place + 1) < kPurchaseRate;
  FeatureWriter features(sample.features);
  for (std::size_t f = 0; f < kFields; ++f) {
    features.id(static_cast<std::int64_t>(pool_[place * kFields + f]));
  }
}

void Workload::fill_with_id(std::size_t id, Sample& sample) const {
  FeatureWriter features(sample.features);
  for (std::size_t f = 0; f < kFields; ++f) features.id(static_cast<std::int64_t>(id));
}

Sample Batches::next_sample() {
  Sample sample;
  sample.sequence = ++sequence_;
  sample.time = kBegin + tick_ * kTick;
  sample.impression_time = sample.time;
  sample.impression_id = std::to_string(sequence_);
  sample.y_final = sample.z_final = true;
  return sample;
}

void Batches::run(std::vector<Sample> samples, std::size_t batch, Slice& slice) {
  const auto check = [](const Status& status) {
    if (status) return;
    std::fprintf(stderr, "the trainer refused: %s\n", status.error().message.c_str());
    std::exit(1);
  };
  for (std::size_t begin = 0; begin < samples.size(); begin += batch) {
    const std::size_t end = std::min(begin + batch, samples.size());
    const TimeMs frontier = samples[begin].time + kTick;
    const SteadyClock::time_point start = SteadyClock::now();
    for (std::size_t s = begin; s < end; ++s) check(trainer_.offer(std::move(samples[s])));
    check(trainer_.pass(frontier));
    slice.batch_seconds.push_back(seconds_since(start));
    slice.seconds += slice.batch_seconds.back();
  }
  slice.samples += samples.size();
}

Slice Batches::name_every_id(std::size_t batch) {
  Slice slice;
  std::vector<Sample> samples;
  for (std::size_t id = 0; id < workload_.ids_a_field(); ++id) {
    samples.push_back(next_sample());
    workload_.fill_with_id(id, samples.back());
    if (samples.size() % batch == 0) ++tick_;
    if (samples.size() >= kPart / batch * batch) run(std::exchange(samples, {}), batch, slice);
  }
  if (!samples.empty()) run(std::move(samples), batch, slice);
  ++tick_;
  return slice;
}

Slice Batches::train(std::size_t batch, double seconds) {
  Slice slice;
  while (slice.seconds < seconds) train_some(batch, kPart / batch, slice);
  return slice;
}

void Batches::train_some(std::size_t batch, std::size_t batches, Slice& slice) {
  std::vector<Sample> samples;
  for (std::size_t n = 0; n < batches * batch; ++n) {
    samples.push_back(next_sample());
    workload_.fill(place_++, samples.back());
    if (samples.size() % batch == 0) ++tick_;
  }
  run(std::move(samples), batch, slice);
}

}  // namespace sluice::bench
