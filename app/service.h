// What `sluice run`, `replay` and `compare` share: opens the parts, gives each stage its thread,
// watches them, and ends in order.
//
// Threads: one joins (reading, joining, committing), one learns (and calls the workers that
// compute), the caller's watches: signals, progress, log lines. An error of either stage stops
// both; after a failed durable write nothing more is written.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/freshness.h"
#include "app/learn_stage.h"
#include "app/report.h"
#include "base/file.h"
#include "base/lanes.h"
#include "base/result.h"
#include "base/time.h"
#include "config/config.h"
#include "ingest/log_reader.h"
#include "store/key_value.h"

namespace sluice {

struct ServiceOptions {
  std::filesystem::path config;
  std::vector<std::string> overrides;  // section.key=value
  std::filesystem::path data_dir = "sluice-data";
  std::size_t threads = 0;  // 0: training.threads, else one a core
  EndPolicy end;
  LostRecords lost = LostRecords::stop;  // for this start only
  std::optional<std::filesystem::path> report;
  std::optional<std::filesystem::path> predictions;
  bool serves = false;  // also answers over HTTP, from the snapshots that it publishes
};

// What a service has opened when its learner's turn comes; outlives the learner.
struct ServiceParts {
  FileSystem& files;
  KeyValueStore& store;
  Clock& clock;
  Workers& workers;
  std::string provenance;  // LearningOptions, as the next one
  Freshness* freshness = nullptr;
};

// What one service is for: who learns, and what is said at the end.
class ServiceTask {
 public:
  virtual ~ServiceTask() = default;
  // The stage is the service's; it lives until report() has returned.
  virtual Result<std::unique_ptr<LearnStage>> open_learner(const ServiceParts& parts) = 0;
  // Both stages have come to their ends, or were asked to stop; neither has failed.
  virtual Status report(const JoinStage& join, const Throughput& throughput) = 0;
};

// One model: until the ends of the logs are reached as `end` says, or SIGTERM or SIGINT (then:
// drain, commit, checkpoint). Prints a summary to stdout.
Status run_service(const ServiceOptions& options);

// The same for any task. `config` is that of the join, the store and the source; options.config and
// options.overrides were read by the caller.
Status run_service(const ServiceOptions& options, Config config, ServiceTask& task);

}  // namespace sluice
