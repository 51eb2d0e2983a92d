// The life of one impression, derived anew from the logs and the config: the join runs over the
// logs with its production code and a store in memory, batches are cut as the learner cuts them,
// and whatever concerns the impression is noted. Nothing is trained and no file is written.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "app/pipeline.h"
#include "app/trace_folder.h"
#include "base/result.h"
#include "config/config.h"
#include "ingest/source.h"
#include "joiner/sample.h"
#include "learner/batch.h"

namespace sluice {

// A record that names the impression (by user_item: of its user and item, while it was open).
struct TracedRecord {
  enum class Outcome { undecided, used, refused };
  StreamPartition where;
  Position position = 0;
  std::string place;           // in the source's words
  std::optional<TimeMs> time;  // none where the record cannot be read
  std::string event_id;
  Outcome outcome = Outcome::undecided;  // undecided: event time has not come so far
  Refusal reason = Refusal::malformed;   // of a refused one
  std::string detail;
  std::string used_for;         // user_item: the impression that it counts for, where it is another
  bool is_replaced = false;     // a click that counted until a later one of the impression did
  std::optional<Micros> value;  // of a purchase (join.purchase_value)
};

// Batches are 1, 2, 3, ...; [from, to] are sequence numbers, `to` so far while it is not complete.
struct TracedBatch {
  std::uint64_t number = 0;
  std::uint64_t from = 0;
  std::uint64_t to = 0;
  bool is_complete = false;
};

struct TracedSample {
  Sample sample;  // without features
  TimeMs tick = 0;
  TracedBatch batch;
};

// One opening of the id: a closed impression's id may be used again.
struct TracedImpression {
  std::uint32_t shard = 0;
  TimeMs time = 0;
  std::string event_id, user_id, item_id;
  std::optional<TimeMs> click_time;     // of the click that counts, so far
  std::optional<TimeMs> action_time;    // of the action that counts
  std::optional<TimeMs> purchase_time;  // of the first purchase that counts
  Micros value = 0;                     // of all that count, so far
  std::vector<TracedSample> samples;

  TimeMs click_window_end(const JoinConfig& join) const { return time + join.click_window; }
  std::optional<TimeMs> conversion_window_end(const JoinConfig& join) const;
  // None without actions, either.
  std::optional<TimeMs> action_window_end(const Config& config) const;
  // When nothing about it can change any more.
  TimeMs closes(const Config& config) const;
};

struct Trace {
  std::vector<TracedRecord> records;  // by time, unreadable ones first
  std::vector<TracedImpression> impressions;
  std::uint64_t records_read = 0;     // of all the logs
  std::uint64_t records_decided = 0;  // of these
  TimeMs event_time = kTimeMin;       // all before it is decided
  bool is_settled = false;            // everything about the id is final; the logs may go on
  std::uint64_t compared_up_to = 0;   // the last sequence whose digest the data folder has too
};

struct TraceOptions {
  const TraceFolder* folder = nullptr;  // its ends, and its digests to compare with
  bool to_end = false;                  // goes on when everything is final
  std::size_t commit_records = 20'000;  // how often it looks
  std::function<void(const JoinStatus&)> progress;
};

// The source is at its beginning. A stop error where the logs give other samples than the folder
// holds.
Result<Trace> trace_impression(const Config& config, const std::string& id, Source& source,
                               Clock& clock, const TraceOptions& options);

// Cuts samples into batches as the learner does; only counts them. One thread.
class BatchCounter {
 public:
  BatchCounter(const TrainingConfig& training, DurationMs tick) : pending_(training, tick) {}
  // Samples in sequence order; the batch that is complete now, if one is.
  void offer(const Sample& sample, const std::function<void(const TracedBatch&)>& on_batch);
  // No sample before `frontier` can come; with `is_closed` none at all.
  void pass(TimeMs frontier, bool is_closed,
            const std::function<void(const TracedBatch&)>& on_batch);
  const TracedBatch& current() const { return current_; }

 private:
  void end(const std::function<void(const TracedBatch&)>& on_batch);
  PendingBatch pending_;
  TracedBatch current_{1, 1, 0, false};
};

}  // namespace sluice
