// The join alone, from logs in files or in Kafka to committed samples: reading, JSON, the join, the
// state and the sample log in RocksDB with synced commits. Nothing learns from the samples.
//
//   joiner_bench (--logs DIR | --brokers HOST:PORT) --data-dir DIR [--click-window S]
//                [--conversion-window S] [--attribution impression_id|user_item] [--threads N]
//                [--memtable-mb N] [--block-cache-mb N] [--commit-ms N] [--features N]
//                [--kept-samples N] [--stop-at F]
//
// The logs are those of joiner_logs (features c0, c1, ...), in files or where
// tests/broker/topic_loader put them. A data folder that is there is gone on with. With --stop-at
// it stops, with all committed, after that share of the logs. As a learner's checkpoints would have
// it, samples leave the log when so many newer ones are there.
//
// Prints one JSON line. CPU seconds are the whole process's, RocksDB's threads included;
// p99_tick_ms is of single steps of the joining thread; restart_s is what opening the state took.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <sys/resource.h>

#include <CLI/CLI.hpp>

#include "app/pipeline.h"
#include "base/time.h"
#include "bench/serve.h"

namespace sluice::bench {
namespace {

struct Arguments {
  std::string logs;
  std::string brokers;  // none: the logs are files
  std::string data_dir;
  std::string attribution = "impression_id";
  std::int64_t click_window_s = 1'800;
  std::int64_t conversion_window_s = 86'400;
  std::size_t threads = 1;
  std::uint64_t memtable_mb = 16;
  std::uint64_t block_cache_mb = 32;
  std::int64_t commit_ms = 100;
  std::size_t features = 20;
  std::uint64_t kept_samples = 500'000;
  double stop_at = 1;
};

Config make_config(const Arguments& arguments) {
  Config config;
  config.source.root = arguments.logs;
  if (!arguments.brokers.empty()) {
    config.source.type = SourceConfig::Type::kafka;
    config.source.brokers = arguments.brokers;
  }
  config.join.click_window = arguments.click_window_s * 1000;
  config.join.conversion_window = arguments.conversion_window_s * 1000;
  if (arguments.attribution == "user_item") {
    config.join.attribution = JoinConfig::Attribution::user_item;
  }
  for (std::size_t number = 0; number < arguments.features; ++number) {
    const std::string name = "c" + std::to_string(number);
    config.features.push_back({name, "features." + name, FeatureConfig::Type::id, name, 0, {}, {}});
  }
  std::sort(config.features.begin(), config.features.end(),
            [](const FeatureConfig& a, const FeatureConfig& b) { return a.name < b.name; });
  config.store.commit_interval = arguments.commit_ms;
  config.store.memtable_bytes = arguments.memtable_mb << 20;
  config.store.block_cache_bytes = arguments.block_cache_mb << 20;
  config.store.max_learner_lag = std::numeric_limits<std::uint64_t>::max();
  return config;
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// A number of the kernel's about this process; 0 where there is none.
std::uint64_t proc_number(const char* file, const std::string& name) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(name)) return std::strtoull(line.c_str() + name.size(), nullptr, 10);
  }
  return 0;
}

struct Measured {
  double restart_s = 0;
  double wall_s = 0;
  double cpu_s = 0;
  std::vector<double> step_s;
  std::uint64_t most_open = 0;
  std::uint64_t events = 0;
  std::uint64_t disk_bytes = 0;  // most
  JoinProgress committed;
};

std::uint64_t events_of(const JoinCounters& counters) {
  std::uint64_t events = 0;
  for (std::size_t stream = 0; stream < kStreams; ++stream) {
    events += counters.read(static_cast<Stream>(stream));
  }
  return events;
}

Status drive(const Arguments& arguments, JoinStage& stage, KeyValueStore& store, Handoff& handoff,
             Measured& out) {
  const double begin = steady_seconds();
  const double cpu_begin = cpu_seconds();
  double before = begin;
  std::uint64_t steps = 0;
  while (true) {
    SLUICE_ASSIGN(const bool goes_on, stage.step());
    const double now = steady_seconds();
    out.step_s.push_back(now - before);
    before = now;
    const std::uint64_t samples = stage.committed().next_sequence - 1;
    handoff.set_trained(
        samples, samples > arguments.kept_samples ? samples - arguments.kept_samples + 1 : 1);
    if (++steps % 64 != 0 && goes_on) continue;
    const JoinStatus status = stage.status();
    out.most_open = std::max(out.most_open, status.open_impressions);
    const bool is_last = !goes_on || (arguments.stop_at < 1 &&
                                      status.fraction_read.value_or(1) >= arguments.stop_at);
    if (steps % 1024 == 0 || is_last) out.disk_bytes = std::max(out.disk_bytes, store.disk_bytes());
    if (is_last) break;
  }
  SLUICE_TRY(stage.stop());
  out.wall_s = steady_seconds() - begin;
  out.cpu_s = cpu_seconds() - cpu_begin;
  return {};
}

// Files without a clock: they are replayed, not watched.
Result<std::unique_ptr<Source>> open_logs(const Config& config, Clock& clock) {
  if (config.source.type == SourceConfig::Type::files) return open_file_source(config);
  return open_kafka_source(config, clock);
}

Result<Measured> measure(const Arguments& arguments) {
  const Config config = make_config(arguments);
  SystemClock clock;
  Handoff handoff;
  Measured out;
  SLUICE_ASSIGN(const std::unique_ptr<Source> source, open_logs(config, clock));
  const double begin = steady_seconds();
  SLUICE_ASSIGN(const auto store, open_rocksdb(arguments.data_dir + "/store", config.store));
  SLUICE_ASSIGN(auto stage, JoinStage::open(config, EndPolicy{}, *source, *store, clock, handoff));
  out.restart_s = steady_seconds() - begin;
  const std::uint64_t events = events_of(stage->committed().counters);
  SLUICE_TRY(drive(arguments, *stage, *store, handoff, out));
  out.committed = stage->committed();
  out.events = events_of(out.committed.counters) - events;
  return out;
}

void print(Measured measured) {
  const auto rate = [&](double seconds) {
    return seconds > 0 ? static_cast<double>(measured.events) / seconds : 0;
  };
  const JoinCounters& counters = measured.committed.counters;
  const double written = static_cast<double>(proc_number("/proc/self/io", "write_bytes:"));
  std::printf(
      "{\"events\": %llu, \"events_per_s\": %.0f, \"events_per_cpu_s\": %.0f, \"wall_s\": %.3f, "
      "\"cpu_s\": %.3f, \"written_bytes_per_event\": %.1f, \"peak_rss_mb\": %.1f, "
      "\"most_open\": %llu, \"restart_s\": %.3f, \"p99_step_ms\": %.2f, \"longest_step_ms\": %.2f, "
      "\"disk_mb\": %.1f, \"impressions\": %llu, \"y\": %llu, \"z\": %llu, \"samples\": %llu, "
      "\"samples_digest\": \"%s\"}\n",
      static_cast<unsigned long long>(measured.events), rate(measured.wall_s), rate(measured.cpu_s),
      measured.wall_s, measured.cpu_s,
      measured.events == 0 ? 0 : written / static_cast<double>(measured.events),
      static_cast<double>(proc_number("/proc/self/status", "VmHWM:")) / 1024,
      static_cast<unsigned long long>(measured.most_open), measured.restart_s,
      quantile(measured.step_s, 0.99) * 1e3, quantile(measured.step_s, 1) * 1e3,
      static_cast<double>(measured.disk_bytes) / 1e6,
      static_cast<unsigned long long>(counters.labelled_impressions),
      static_cast<unsigned long long>(counters.clicked),
      static_cast<unsigned long long>(counters.converted),
      static_cast<unsigned long long>(measured.committed.next_sequence - 1),
      measured.committed.samples_digest.hex().c_str());
}

}  // namespace
}  // namespace sluice::bench

int main(int argc, char** argv) {
  sluice::bench::Arguments arguments;
  CLI::App app("the join alone");
  CLI::App* const source = app.add_option_group("source");
  source->add_option("--logs", arguments.logs, "a folder");
  source->add_option("--brokers", arguments.brokers, "host:port,... of Kafka");
  source->require_option(1);
  app.add_option("--data-dir", arguments.data_dir)->required();
  app.add_option("--attribution", arguments.attribution)
      ->check(CLI::IsMember({"impression_id", "user_item"}));
  app.add_option("--click-window", arguments.click_window_s, "seconds");
  app.add_option("--conversion-window", arguments.conversion_window_s, "seconds");
  app.add_option("--threads", arguments.threads);
  app.add_option("--memtable-mb", arguments.memtable_mb);
  app.add_option("--block-cache-mb", arguments.block_cache_mb);
  app.add_option("--commit-ms", arguments.commit_ms);
  app.add_option("--features", arguments.features, "how many the config names");
  app.add_option("--kept-samples", arguments.kept_samples);
  app.add_option("--stop-at", arguments.stop_at, "share of the logs in (0, 1]");
  CLI11_PARSE(app, argc, argv);
  auto measured = sluice::bench::measure(arguments);
  if (!measured) {
    std::fprintf(stderr, "%s\n", measured.error().message.c_str());
    return EXIT_FAILURE;
  }
  sluice::bench::print(*std::move(measured));
  return EXIT_SUCCESS;
}
