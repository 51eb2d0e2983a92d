// The report of a run or replay: one JSON object over the whole lineage (docs/operating.md), and
// the same as a few lines for people.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "app/freshness.h"
#include "app/learning.h"
#include "app/pipeline.h"
#include "base/result.h"

namespace sluice {

// What only this process did; the rest of the report is about the lineage.
struct Throughput {
  std::uint64_t events = 0;                   // records read and decided
  std::uint64_t samples = 0;                  // trained
  double seconds = 0;                         // from the first read to the last batch
  double join_seconds = 0;                    // until the join had read everything
  std::optional<FreshnessFigures> freshness;  // of a live service
};

Result<nlohmann::ordered_json> make_report(const JoinStage& stage, Learning& learning,
                                           const Throughput& throughput, bool with_second_half);

// A table of the metrics and the counts, several lines.
std::string summarize(const nlohmann::ordered_json& report);

}  // namespace sluice
