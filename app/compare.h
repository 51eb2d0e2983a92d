// `sluice compare`: the same samples into several models, side by side: one join feeds them all,
// then each is judged by what it predicted before it learned.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "app/compare_models.h"
#include "base/result.h"

namespace sluice {

struct CompareOptions {
  ComparedConfigs models;
  std::filesystem::path data_dir = "sluice-data";
  std::size_t threads = 0;                     // 0: training.threads, else one a core
  std::optional<std::filesystem::path> out;    // the page, the table and the numbers go there
  std::optional<std::filesystem::path> truth;  // none: <source.root>/truth where that is there
  double from = 0.5;              // judged are the samples from this share of them on, in [0, 1)
  std::string baseline;           // a model's name or group; empty: the first one's
  std::uint64_t bootstrap = 500;  // resamplings; 0: no intervals
};

// Learns to the ends of the logs, which are closed, then prints the tables and writes `out`. Where
// all was learned before, only that. SIGTERM and SIGINT stop it as they do a replay; the same
// command goes on.
Status run_compare(const CompareOptions& options);

}  // namespace sluice
