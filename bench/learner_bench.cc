// Samples per second of training alone: 20 id features of 18 dimensions, hidden layers of 200 and
// 80, batches of 1024.
//
//   learner_bench [threads [samples]]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "base/hash.h"
#include "ingest/features.h"
#include "learner/trainer.h"

namespace {

constexpr std::size_t kFeatures = 20;

sluice::Config bench_config() {
  sluice::Config config;
  for (std::size_t f = 0; f < kFeatures; ++f) {
    sluice::FeatureConfig feature;
    feature.name = "f" + std::to_string(10 + f);  // in the order of their names
    feature.path = "features." + feature.name;
    feature.table = feature.name;
    config.features.push_back(feature);
  }
  config.model.embedding_dim = 18;
  config.model.hidden = {200, 80};
  config.training.batch_size = 1024;
  return config;
}

// Ids of a feature are skewed (the lower the likelier), between 10 and 100,000 of them.
std::vector<sluice::Sample> make_samples(std::size_t count) {
  std::vector<sluice::Sample> samples(count);
  std::uint64_t random = 1;
  const auto uniform = [&] { return static_cast<double>(sluice::mix64(++random) >> 11) * 0x1p-53; };
  for (std::size_t s = 0; s < count; ++s) {
    sluice::Sample& sample = samples[s];
    sample.sequence = s + 1;
    sample.time = 1'700'000'000'000 + static_cast<sluice::TimeMs>(s);
    sample.impression_id = std::to_string(s);
    sample.y_final = sample.z_final = true;
    sample.y = uniform() < 0.04;
    sample.z = sample.y && uniform() < 0.02;
    sluice::FeatureWriter features(sample.features);
    double vocabulary = 10;
    for (std::size_t f = 0; f < kFeatures; ++f) {
      const double u = uniform();
      features.id(static_cast<std::int64_t>(u * u * u * vocabulary));
      vocabulary *= 1.624;
    }
  }
  return samples;
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t threads = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 1;
  const std::size_t count = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 100'000;
  if (threads == 0 || count == 0) {
    std::fprintf(stderr, "usage: learner_bench [threads [samples]]\n");
    return 2;
  }
  const sluice::Config config = bench_config();
  std::vector<sluice::Sample> samples = make_samples(count);
  sluice::Workers workers(threads);
  sluice::Trainer trainer(config, workers);
  const auto begin = std::chrono::steady_clock::now();
  const std::clock_t cpu_begin = std::clock();
  for (sluice::Sample& sample : samples) {
    if (!trainer.offer(std::move(sample))) return 1;
  }
  if (!trainer.finish()) return 1;
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
  const double cpu = static_cast<double>(std::clock() - cpu_begin) / CLOCKS_PER_SEC;
  const auto samples_done = static_cast<double>(count);
  std::printf("%zu samples, %zu threads: %.0f samples/s, %.0f a second of CPU; model %s\n", count,
              threads, samples_done / elapsed.count(), samples_done / cpu,
              trainer.model_digest().hex().c_str());
  return 0;
}
