#include "app/service.h"

#include <array>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "app/freshness.h"
#include "app/kill_points.h"
#include "app/learning.h"
#include "app/pipeline.h"
#include "app/progress.h"
#include "app/serving.h"
#include "app/stop_signal.h"
#include "base/check.h"
#include "base/lanes.h"
#include "config/load.h"
#include "ingest/dead_letter_topic.h"
#include "ingest/source.h"
#include "store/key_value.h"
#include "store/published_folder.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kLearnSamples = 8'192;
constexpr DurationMs kWatchMs = 100;
constexpr DurationMs kLearnerWaitMs = 200;
// A service may be started before its broker; a replay's user is there to see the error.
constexpr int kConnectAttemptsLive = 10;
constexpr DurationMs kFirstRetryMs = 500;
constexpr DurationMs kMaxBackoffMs = 10'000;

// Exponential, with a jitter of up to a half so that many instances do not knock in step. What it
// decides is only when to try again, never what is computed.
DurationMs backoff_ms(int attempt, TimeMs wall_ms) {
  const DurationMs full =
      std::min<DurationMs>(kMaxBackoffMs, kFirstRetryMs << std::min(attempt, 8));
  return full / 2 + static_cast<DurationMs>(mix64(static_cast<std::uint64_t>(wall_ms)) %
                                            static_cast<std::uint64_t>(full / 2 + 1));
}

std::string provenance(const Config& config, Clock& clock) {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  Json json;
  json["version"] = SLUICE_VERSION;
  json["isa"] = SLUICE_ISA;
  json["compiler"] = __VERSION__;
  json["host"] = host.data();
  json["started"] = format_time(clock.wall_ms());
  json["source"] =
      config.source.type == SourceConfig::Type::files ? config.source.root : config.source.brokers;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// The parts of a running service, in the order in which they are opened.
class Service {
 public:
  Service(const ServiceOptions& options, Config config, ServiceTask& task)
      : options_(options), task_(task), config_(std::move(config)) {}

  Status open();
  Status run();
  Status report();

 private:
  Status check_paths();
  Status install_kill_points();
  Status open_store();
  Status open_source_with_retries();
  Status open_join_with_retries();
  Status open_dead_letter_sink();
  Status start_serving();
  bool may_try_again(const Error& error, int attempt);
  void pause_unless_stopped(DurationMs pause);
  void join_loop();
  void learn_loop();
  void watch();
  void fail(Error error);
  bool is_failed() const {
    const std::lock_guard lock(mutex_);
    return error_.has_value();
  }
  ServiceStatus status() const;

  ServiceOptions options_;
  ServiceTask& task_;
  mutable SystemClock clock_;  // reading it changes nothing
  RealFileSystem real_files_;
  std::unique_ptr<KillPoints> kill_points_;  // none but in a fault drill
  std::unique_ptr<FileSystem> stepping_files_;
  FileSystem* files_ = &real_files_;
  Config config_;
  std::optional<FolderLock> lock_;
  std::unique_ptr<KeyValueStore> store_;
  std::unique_ptr<Source> source_;
  Handoff handoff_;
  std::unique_ptr<DeadLetterSink> dead_letters_;  // none: they stay in the store
  std::unique_ptr<JoinStage> join_;
  std::unique_ptr<Workers> workers_;
  std::optional<Freshness> freshness_;  // none: a replay's events are not of now
  std::unique_ptr<LearnStage> learning_;
  std::unique_ptr<Serving> serving_;  // none: not asked for

  std::atomic<bool> is_learner_done_{false};
  mutable std::mutex mutex_;  // guards what follows
  std::optional<Error> error_;
  JoinStatus join_status_;
  std::optional<std::uint64_t> last_snapshot_;

  DurationMs begin_steady_ = 0;
  std::uint64_t first_events_ = 0;
  std::uint64_t first_trained_ = 0;
  std::atomic<DurationMs> join_end_steady_{0};
  DurationMs end_steady_ = 0;
};

Status Service::open() {
  if (options_.end.is_live) freshness_.emplace(config_);
  SLUICE_TRY(check_paths());
  SLUICE_TRY(install_kill_points());
  SLUICE_TRY(make_durable_folders(*files_, options_.data_dir));
  SLUICE_ASSIGN(lock_, FolderLock::acquire(options_.data_dir));
  SLUICE_TRY(open_store());
  SLUICE_TRY(open_source_with_retries());
  SLUICE_TRY(open_dead_letter_sink());
  // The learner first: a config that it refuses must not have pinned the logs' ends.
  std::size_t threads = options_.threads != 0 ? options_.threads : config_.training.threads;
  if (threads == 0) threads = std::max(1U, std::thread::hardware_concurrency());
  workers_ = std::make_unique<Workers>(threads);
  SLUICE_ASSIGN(learning_, task_.open_learner({*files_, *store_, clock_, *workers_,
                                               provenance(config_, clock_),
                                               freshness_ ? &*freshness_ : nullptr}));
  SLUICE_TRY(open_join_with_retries());
  if (dead_letters_ != nullptr) join_->send_dead_letters(*store_, *dead_letters_);
  handoff_.set_trained(learning_->trained_sequence(), learning_->first_needed());
  const JoinProgress& progress = join_->committed();
  if (progress.next_sequence > 1 || progress.is_closed) {
    spdlog::info("{} {}: {} samples joined, {} of them learned", options_.data_dir.string(),
                 progress.is_closed
                     ? "is closed, nothing more is read (newer logs need a new folder)"
                     : "goes on",
                 progress.next_sequence - 1, learning_->trained_sequence());
  }
  SLUICE_TRY(start_serving());
  join_status_ = join_->status();
  last_snapshot_ = learning_->last_snapshot();
  first_events_ = events_of(progress.counters);
  first_trained_ = learning_->trained_sequence();
  return {};
}

// What would otherwise be found only at the end, or would mix a lineage with other files.
Status Service::check_paths() {
  const fs::path& data_dir = options_.data_dir;
  if (files_->exists(data_dir) && !files_->exists(data_dir / "LOCK")) {
    SLUICE_ASSIGN(const auto names, files_->list(data_dir));
    if (!names.empty()) {
      return usage_error("--data-dir " + data_dir.string() +
                         " holds other files and was not begun by sluice; take a new folder");
    }
  }
  for (const auto& [option, path] :
       {std::pair{"--report", options_.report}, std::pair{"--predictions", options_.predictions}}) {
    if (!path || !path->has_parent_path() || files_->exists(path->parent_path())) continue;
    return usage_error(std::string(option) + " " + path->string() + ": there is no folder " +
                       path->parent_path().string());
  }
  return {};
}

Status Service::install_kill_points() {
  SLUICE_ASSIGN(kill_points_, KillPoints::from_environment(
                                  {options_.data_dir, options_.report, options_.predictions}));
  if (kill_points_ == nullptr) return {};
  stepping_files_ = kill_points_->wrap(real_files_);
  files_ = stepping_files_.get();
  return {};
}

Status Service::open_store() {
  const auto open = [&] { return open_rocksdb(options_.data_dir / "store", config_.store); };
  if (kill_points_ == nullptr) {
    SLUICE_ASSIGN(store_, open());
    return {};
  }
  const std::string step = "store.open";
  SLUICE_ASSIGN(const std::uint64_t passing, kill_points_->enter(step));
  SLUICE_ASSIGN(store_, open());
  kill_points_->leave(step, passing);
  store_ = kill_points_->wrap(std::move(store_));
  return {};
}

Status Service::open_source_with_retries() {
  for (int attempt = 0;; ++attempt) {
    auto opened = open_source(config_, clock_);
    if (opened) {
      source_ = *std::move(opened);
      const auto partitions = source_->partitions();
      if (partitions) return {};
      opened = Result<std::unique_ptr<Source>>(partitions.error());
    }
    if (!may_try_again(opened.error(), attempt)) return opened.error();
  }
}

// The broker that was there a moment ago may be restarting. An attempt that failed leaves nothing.
Status Service::open_join_with_retries() {
  for (int attempt = 0;; ++attempt) {
    auto opened =
        JoinStage::open(config_, options_.end, *source_, *store_, clock_, handoff_, options_.lost);
    if (opened) {
      join_ = *std::move(opened);
      return {};
    }
    if (!may_try_again(opened.error(), attempt)) return opened.error();
  }
}

// After a pause; false where that would not help, or it is enough.
bool Service::may_try_again(const Error& error, int attempt) {
  const bool may_retry = options_.end.is_live && attempt + 1 < kConnectAttemptsLive;
  if (error.kind != ErrorKind::retry || !may_retry || stop_signal() != 0) return false;
  const DurationMs pause = backoff_ms(attempt, clock_.wall_ms());
  spdlog::warn("{}; trying again in {} ms", error.message, pause);
  pause_unless_stopped(pause);
  return true;
}

Status Service::open_dead_letter_sink() {
  if (config_.dead_letters.topic.empty()) return {};
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  std::error_code code;
  const std::string salt =
      std::string(host.data()) + fs::absolute(options_.data_dir, code).string();
  SLUICE_ASSIGN(std::string folder, data_folder_id(*store_, clock_, salt));
  SLUICE_ASSIGN(dead_letters_, open_dead_letter_topic(config_, std::move(folder)));
  return {};
}

// It reads what is published, as another process would: the learner does not know of it.
Status Service::start_serving() {
  if (!options_.serves) return {};
  SLUICE_ASSIGN(serving_, Serving::start(config_.serving, options_.data_dir, "", clock_));
  std::printf("serving %s at %s\n", options_.data_dir.c_str(), serving_->url().c_str());
  std::fflush(stdout);
  return {};
}

void Service::pause_unless_stopped(DurationMs pause) {
  const DurationMs end = clock_.steady_ms() + pause;
  while (stop_signal() == 0 && !handoff_.is_stopping() && clock_.steady_ms() < end) {
    clock_.sleep_ms(std::min<DurationMs>(kWatchMs, pause));
  }
}

// ---- the two stages' threads

void Service::join_loop() {
  int failures = 0;
  while (!handoff_.is_stopping()) {
    const auto more = join_->step();
    if (!more && more.error().kind != ErrorKind::retry) return fail(more.error());
    {
      JoinStatus status = join_->status();
      const std::lock_guard lock(mutex_);
      join_status_ = std::move(status);
    }
    if (!more) {
      const DurationMs pause = backoff_ms(failures++, clock_.wall_ms());
      spdlog::warn("{}; trying again in {} ms", more.error().message, pause);
      pause_unless_stopped(pause);
      continue;
    }
    failures = 0;
    if (!*more) break;
  }
  if (!is_failed()) {
    if (const Status stopped = join_->stop(); !stopped) return fail(stopped.error());
  }
  join_end_steady_ = clock_.steady_ms();
  handoff_.end_join();
}

void Service::learn_loop() {
  while (true) {
    if (is_failed()) return;  // after a failed write of the join none follows
    const bool is_last =
        handoff_.is_join_ended();  // read before the commit: nothing comes after it
    const Committed committed = handoff_.committed();
    const auto more = learning_->learn(committed, kLearnSamples);
    if (!more) return fail(more.error());
    handoff_.set_trained(learning_->trained_sequence(), learning_->first_needed());
    {
      const std::lock_guard lock(mutex_);
      last_snapshot_ = learning_->last_snapshot();
    }
    if (*more && !handoff_.is_stopping()) continue;
    // Asked to stop: what is not learned yet stays in the log.
    if (is_last) break;
    if (handoff_.is_stopping()) {
      clock_.sleep_ms(1);
    } else {
      handoff_.wait_for_commit(committed, kLearnerWaitMs);
    }
  }
  if (is_failed()) return;
  const bool is_everything = handoff_.committed().is_closed &&
                             learning_->next_sequence() == handoff_.committed().next_sequence;
  const Status ended = is_everything ? learning_->finish() : learning_->stop();
  if (!ended) return fail(ended.error());
  handoff_.set_trained(learning_->trained_sequence(), learning_->first_needed());
  is_learner_done_ = true;
}

void Service::fail(Error error) {
  {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
  }
  handoff_.end_join();
  is_learner_done_ = true;
  handoff_.stop();
}

ServiceStatus Service::status() const {
  ServiceStatus status;
  {
    const std::lock_guard lock(mutex_);
    status.join = join_status_;
    status.last_snapshot = last_snapshot_;
  }
  status.trained = handoff_.trained_sequence();
  status.wall_ms = clock_.wall_ms();
  return status;
}

void Service::watch() {
  Progress progress(options_.end.is_live, clock_.steady_ms(), freshness_ ? &*freshness_ : nullptr);
  while (!handoff_.is_join_ended() || !is_learner_done_) {
    if (stop_signal() != 0 && !handoff_.is_stopping()) {
      spdlog::info("{}: drains, commits and stops", strsignal(stop_signal()));
      handoff_.stop();
      if (serving_ != nullptr) serving_->stop();
    }
    progress.show(status(), clock_.steady_ms());
    clock_.sleep_ms(kWatchMs);
  }
  progress.end();
}

Status Service::run() {
  begin_steady_ = clock_.steady_ms();
  std::thread joining([this] { join_loop(); });
  std::thread learning([this] { learn_loop(); });
  watch();
  if (serving_ != nullptr) serving_->stop();
  joining.join();
  learning.join();
  end_steady_ = clock_.steady_ms();
  if (error_) return *error_;
  return {};
}

Status Service::report() {
  Throughput throughput;
  throughput.events = events_of(join_->committed().counters) - first_events_;
  throughput.samples = learning_->trained_sequence() - first_trained_;
  throughput.seconds = static_cast<double>(end_steady_ - begin_steady_) / 1e3;
  throughput.join_seconds = static_cast<double>(join_end_steady_ - begin_steady_) / 1e3;
  if (freshness_) throughput.freshness = freshness_->all();
  return task_.report(*join_, throughput);
}

// Run and replay.
class OneModel final : public ServiceTask {
 public:
  OneModel(const ServiceOptions& options, const Config& config)
      : options_(options), config_(config) {}

  Result<std::unique_ptr<LearnStage>> open_learner(const ServiceParts& parts) override {
    LearningOptions options{options_.data_dir, options_.predictions, parts.provenance,
                            parts.freshness};
    options.make_background = make_background_thread;
    SLUICE_ASSIGN(auto learning, Learning::open(config_, options, parts.store, parts.files,
                                                parts.clock, parts.workers));
    learning_ = learning.get();
    files_ = &parts.files;
    return std::unique_ptr<LearnStage>(std::move(learning));
  }

  Status report(const JoinStage& join, const Throughput& throughput) override {
    SLUICE_ASSIGN(const Json report,
                  make_report(join, *learning_, throughput, !options_.end.is_live));
    std::fputs(summarize(report).c_str(), stdout);
    if (!options_.report) return {};
    return write_atomically(*files_, *options_.report, report.dump(2) + "\n");
  }

 private:
  const ServiceOptions& options_;
  const Config& config_;
  Learning* learning_ = nullptr;
  FileSystem* files_ = nullptr;
};

}  // namespace

Status run_service(const ServiceOptions& options) {
  SLUICE_ASSIGN(const Config config, load_config_or_error(options.config, options.overrides));
  OneModel task(options, config);
  return run_service(options, config, task);
}

Status run_service(const ServiceOptions& options, Config config, ServiceTask& task) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("sluice"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
  watch_stop_signals();
  Service service(options, std::move(config), task);
  if (const Status opened = service.open(); !opened) {
    // Asked to stop while it waited for its broker: nothing was begun, so nothing is left to do.
    const bool was_waiting = opened.error().kind == ErrorKind::retry;
    return stop_signal() != 0 && was_waiting ? Status() : opened;
  }
  SLUICE_TRY(service.run());
  return service.report();
}

}  // namespace sluice
