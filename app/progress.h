// What people see while it runs: a progress line on a terminal, log lines elsewhere.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "app/freshness.h"
#include "app/pipeline.h"
#include "base/time.h"

namespace sluice {

// Records read and decided, over all streams.
std::uint64_t events_of(const JoinCounters& counters);

struct ServiceStatus {
  JoinStatus join;
  std::uint64_t trained = 0;
  std::optional<std::uint64_t> last_snapshot;
  TimeMs wall_ms = 0;
  std::optional<FreshnessFigures> freshness;  // since the line before
};

// A replay: on a terminal one line that is drawn anew, with the rate and the time left; elsewhere a
// log line now and then. A live service: one log line every 10 s, with its freshness.
class Progress {
 public:
  // `freshness` outlives it; none: it is not told.
  Progress(bool is_live, DurationMs now_ms, Freshness* freshness = nullptr);
  void show(const ServiceStatus& status, DurationMs now_ms);
  void end();  // leaves the terminal's line

 private:
  std::string bar(const ServiceStatus& status, DurationMs now_ms);
  bool is_live_;
  Freshness* freshness_;
  bool is_terminal_;
  bool has_drawn_ = false;
  DurationMs begin_ms_;
  DurationMs last_ms_;
  std::uint64_t begin_events_ = 0;
  bool has_begun_ = false;
};

// "lag 12 records, event time 2013-...; ..." without a line end.
std::string status_line(const ServiceStatus& status);

}  // namespace sluice
