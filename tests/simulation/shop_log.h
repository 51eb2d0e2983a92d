// The logs of a seed: what lies in them, when each record reaches them, and what the oracle is
// told.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ingest/event.h"
#include "tests/joiner/oracle.h"
#include "tests/simulation/plan.h"

namespace sluice::simulation {

inline constexpr TimeMs kLogBegin = 1'712'345'678'000;

struct LogRecord {
  Record record;
  TimeMs arrival = 0;  // true time at which it is there to be read
  Position gap = 0;    // positions of control records after it
};

// One stream-partition's log.
struct PartitionLog {
  Position begin = 0;              // of the first record
  std::vector<LogRecord> records;  // ascending positions and arrivals
  std::string unfinished;          // files: a last line that never ends
  std::size_t first_count = 0;     // growing: so many are there when the replay pins the ends,
  std::size_t first_bytes = 0;     // and so many bytes of the next one (files)
  // Where the log ends when `count` records and `bytes` bytes of the next one are there.
  Position end(std::size_t count, std::size_t bytes) const;
};

struct ShopLog {
  std::map<StreamPartition, PartitionLog> partitions;
  OracleLogs facts;  // of all that belongs to the lineage: growing logs up to their pinned ends
  TimeMs first_arrival = 0;
  TimeMs last_arrival = 0;
  // Of the records that come more than source.max_delay after their event time.
  bool has_too_delayed = false;
};

ShopLog write_shop_log(const Plan& plan);

}  // namespace sluice::simulation
