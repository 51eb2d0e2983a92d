// The join once more, too simple to be wrong: all records are known beforehand, every question is
// answered by looking at all impressions, and nothing is kept in step with anything else. It shares
// no code with joiner/ and none with the intake; only the structs of samples and refusals.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "ingest/event.h"
#include "joiner/sample.h"

namespace sluice {

// A record of a log, by what it says.
struct OracleRecord {
  Position position = 0;
  std::optional<Refusal> unreadable;  // oversized or malformed: the rest does not count
  TimeMs time = 0;
  std::optional<TimeMs> log_time;
  bool came_after_quiet = false;  // what only the run itself can know; else as any other
  std::string event_id;           // empty where absent, as the others
  std::string impression_id;
  std::string user_id;
  std::string item_id;
  std::string features;               // as a sample holds them
  std::optional<std::int64_t> value;  // of a purchase, in millionths
};

// Every stream-partition's records in the order of its log.
using OracleLogs = std::map<StreamPartition, std::vector<OracleRecord>>;

struct OracleRefusal {
  StreamPartition where;
  Position position = 0;
  Refusal reason = Refusal::malformed;
  friend auto operator<=>(const OracleRefusal&, const OracleRefusal&) = default;
};

struct OracleResult {
  std::vector<Sample> samples;          // in the global order, sequence 1, 2, 3, ...
  std::vector<OracleRefusal> refusals;  // sorted
  std::array<std::uint64_t, kStreams> used{};
  std::array<std::array<std::uint64_t, kRefusals>, kStreams> refused{};
  std::uint64_t labelled_impressions = 0;
  std::uint64_t clicked = 0;
  std::uint64_t converted = 0;
  std::uint64_t acted = 0;
  // Where values are summed (join.purchase_value).
  std::uint64_t further_purchases = 0;  // used, of impressions that were purchased already
  std::uint64_t without_value = 0;      // used ones
};

// What the join makes of logs that are read to their ends and closed.
OracleResult expected_join(const OracleLogs& logs, std::uint32_t partitions,
                           const StreamsConfig& streams, const JoinConfig& join);

}  // namespace sluice
