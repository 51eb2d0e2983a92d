// Training on the samples of real logs whose impressions come in pages that share features, in the
// order in which the join gives them. The logs are joined in memory before anything is timed.
//
//   sharing_bench CONFIG [--grouped PREFIX...] [--batch N] [--threads N] [--precision P]
//                                                          as bench/serve.h says
//
// Features whose path begins with a PREFIX are put into one group. The network is that of
// bench/workload.h whatever the config says, so that only the features and their sharing differ.
// The samples come again and again with new sequence numbers; all rows exist by then.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "app/pipeline.h"
#include "base/time.h"
#include "bench/serve.h"
#include "bench/workload.h"
#include "config/load.h"
#include "joiner/sample_log.h"
#include "learner/trainer.h"

namespace sluice::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;

struct Arguments {
  std::string config;
  std::vector<std::string> grouped;
  std::string precision = "f32";
  std::size_t batch = 1'024;
  std::size_t threads = 1;
};

Config adapt(Config config, const Arguments& arguments) {
  const Config workload = workload_config();
  config.model.embedding_dim = workload.model.embedding_dim;
  config.model.hidden = workload.model.hidden;
  if (arguments.precision == "bf16") config.model.precision = ModelConfig::Precision::bf16;
  config.training = TrainingConfig{};
  config.training.batch_size = arguments.batch;
  config.store.max_learner_lag = std::numeric_limits<std::uint64_t>::max();
  for (FeatureConfig& feature : config.features) {
    const bool is_shared =
        std::any_of(arguments.grouped.begin(), arguments.grouped.end(),
                    [&](const std::string& prefix) { return feature.path.starts_with(prefix); });
    feature.group = is_shared ? "context" : "";
  }
  return config;
}

// All samples of the config's logs.
Result<std::vector<Sample>> join_logs(const Config& config) {
  SystemClock clock;
  Handoff handoff;
  const std::unique_ptr<KeyValueStore> store = make_memory_store();
  SLUICE_ASSIGN(const std::unique_ptr<Source> source, open_source(config, clock));
  SLUICE_ASSIGN(const std::unique_ptr<JoinStage> join,
                JoinStage::open(config, EndPolicy{}, *source, *store, clock, handoff));
  for (bool is_more = true; is_more;) {
    SLUICE_ASSIGN(is_more, join->step());
  }
  return read_samples(*store, 1, std::numeric_limits<std::size_t>::max());
}

// One pass after the other over the samples.
class Passes {
 public:
  Passes(Trainer& trainer, const std::vector<Sample>& samples)
      : trainer_(trainer), samples_(samples) {}

  // Whole passes; a slice of a part of the samples would depend on which part.
  Slice train(double seconds) {
    Slice slice;
    while (slice.seconds < seconds) {
      std::vector<Sample> copy = samples_;
      for (Sample& sample : copy) sample.sequence = ++sequence_;
      const SteadyClock::time_point begin = SteadyClock::now();
      for (Sample& sample : copy) check(trainer_.offer(std::move(sample)));
      check(trainer_.finish());
      slice.seconds += std::chrono::duration<double>(SteadyClock::now() - begin).count();
      slice.samples += copy.size();
    }
    return slice;
  }

 private:
  static void check(const Status& status) {
    if (status) return;
    std::fprintf(stderr, "the trainer refused: %s\n", status.error().message.c_str());
    std::exit(1);
  }

  Trainer& trainer_;
  const std::vector<Sample>& samples_;
  std::uint64_t sequence_ = 0;
};

int run(const Arguments& arguments) {
  const auto loaded = load_config_or_error(arguments.config, {});
  if (!loaded) {
    std::fprintf(stderr, "%s\n", loaded.error().message.c_str());
    return 1;
  }
  const Config config = adapt(*loaded, arguments);
  const auto samples = join_logs(config);
  if (!samples) {
    std::fprintf(stderr, "%s\n", samples.error().message.c_str());
    return 1;
  }
  if (samples->empty()) {
    std::fprintf(stderr, "the logs hold no sample\n");
    return 1;
  }
  const auto shared =
      std::count_if(config.features.begin(), config.features.end(),
                    [](const FeatureConfig& feature) { return !feature.group.empty(); });
  Workers workers(arguments.threads);
  Trainer trainer(config, workers);
  Passes passes(trainer, *samples);
  std::printf("{\"isa\": \"%s\", \"samples\": %zu, \"features\": %zu, \"shared\": %td}\n",
              SLUICE_ISA, samples->size(), config.features.size(), shared);
  std::fflush(stdout);
  return serve([&](std::size_t, double seconds) { return passes.train(seconds); });
}

}  // namespace
}  // namespace sluice::bench

int main(int argc, char** argv) {
  sluice::bench::Arguments arguments;
  CLI::App app("The learner on logs whose impressions share features");
  app.add_option("CONFIG", arguments.config)->required();
  app.add_option("--grouped", arguments.grouped, "prefixes of the paths of shared features");
  app.add_option("--precision", arguments.precision)->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--batch", arguments.batch)->check(CLI::Range(1, 65'536));
  app.add_option("--threads", arguments.threads)->check(CLI::Range(1, 64));
  CLI11_PARSE(app, argc, argv);
  return sluice::bench::run(arguments);
}
