// `sluice run` and `sluice replay`: opens the parts, gives each stage its thread, watches them, and
// ends in order.
//
// Threads: one joins (reading, joining, committing), one learns (and calls the workers that
// compute), the caller's watches: signals, progress, log lines. An error of either stage stops
// both; after a failed durable write nothing more is written.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "ingest/log_reader.h"

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
};

// Until the ends of the logs are reached as `end` says, or SIGTERM or SIGINT (then: drain, commit,
// checkpoint). Prints a summary to stdout.
Status run_service(const ServiceOptions& options);

}  // namespace sluice
