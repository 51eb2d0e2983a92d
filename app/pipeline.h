// The whole flow, in the order in which data passes it. This is the file to read first.
//
//   source ─► log reader ─► shards ─► commit ─► sample log ─► learner ─► checkpoints,
//   (files,   (judges,      (join,    (one      (the only     (ESMM, in   snapshots
//    Kafka)    watermarks)   labels)   synced    way to the    batches)
//                                      write)    learner)
//
// Two stages, each owned by one thread: JoinStage up to the commit, Learning from the sample log
// on. They share the store and a Handoff. Driven by hand on one thread they do the same: tests do
// that.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>

#include "app/dead_letter_outbox.h"
#include "app/handoff.h"
#include "base/result.h"
#include "config/config.h"
#include "ingest/log_reader.h"
#include "ingest/source.h"
#include "joiner/join.h"
#include "store/key_value.h"

namespace sluice {

// What people want to see of the join while it runs. Copied out under a lock by the service.
struct JoinStatus {
  JoinCounters counters;
  TimeMs frontier = kTimeMin;
  TimeMs watermark = kTimeMin;
  StreamPartition slowest;
  std::uint64_t open_impressions = 0;
  std::uint64_t waiting_records = 0;
  std::uint64_t samples = 0;  // committed
  std::optional<std::uint64_t> lag_records;
  std::size_t quiet_partitions = 0;
  std::uint64_t unsent_dead_letters = 0;  // those that wait for dead_letters.topic
  std::optional<double> fraction_read;  // of the logs, in [0, 1]; about, and only where it is known
  TimeMs last_commit_wall_ms = 0;
};

// Hears of records that are refused when they are read too.
class RecordWatcher : public JoinWatcher {
 public:
  virtual void refused_when_read(const RefusedRecord& record) = 0;
};

// From logs to committed samples. Owned by the joining thread once opened.
class JoinStage {
 public:
  static Result<std::unique_ptr<JoinStage>> open(const Config& config, const EndPolicy& policy,
                                                 Source& source, KeyValueStore& store, Clock& clock,
                                                 Handoff& handoff,
                                                 LostRecords lost = LostRecords::stop);

  // From now on every committed dead letter, also of earlier starts, is sent to `sink` too; never
  // waits for it but at stop(). Called once at most; the references outlive the stage.
  void send_dead_letters(KeyValueStore& store, DeadLetterSink& sink);
  // From now on `watcher` hears of every decision on a record (sluice trace).
  void watch(RecordWatcher& watcher);

  // Reads some records, processes what event time allows, commits when it is time. False when the
  // logs' ends are reached as the policy says and everything is committed. A `retry` error says
  // that the source does not answer; the rest was done, and the next step goes on.
  Result<bool> step();
  // Commits what was processed, before a stop, and waits a little for unsent dead letters.
  Status stop();

  bool is_closed() const { return join_->committed().is_closed; }
  const JoinProgress& committed() const { return join_->committed(); }
  JoinStatus status() const;
  const JoinConfig& join_config() const { return config_.join; }

 private:
  JoinStage(const Config& config, const EndPolicy& policy, Source& source, Clock& clock,
            Handoff& handoff)
      : config_(config), policy_(policy), source_(source), clock_(clock), handoff_(handoff) {}

  // Reads once and takes what is refused. After a `retry` error the next call goes on.
  Status read();
  // Processes what is before the watermark, in steps small enough that memory stays bounded when
  // many windows close at once, until all is processed or something was committed. True when there
  // is more: then the learner may have to catch up first.
  Result<bool> advance();
  Status check_closed();
  void tell_held_back();
  void tell_first_refusals(const std::vector<RefusedRecord>& refused);
  Status commit();
  bool is_commit_large() const;
  bool is_commit_due() const;
  void publish();

  const Config& config_;
  EndPolicy policy_;
  Source& source_;
  Clock& clock_;
  Handoff& handoff_;
  std::unique_ptr<Join> join_;
  std::unique_ptr<LogReader> reader_;
  std::uint64_t records_since_commit_ = 0;
  DurationMs last_commit_steady_ = 0;
  TimeMs last_commit_wall_ = 0;
  std::array<std::uint64_t, kRefusals> told_refusals_{};
  std::map<StreamPartition, DurationMs> told_held_back_;  // when last, steady time
  std::unique_ptr<DeadLetterOutbox> outbox_;              // none: dead letters stay in the store
  RecordWatcher* watcher_ = nullptr;
  std::int64_t stride_ticks_ = 1;  // of event time, for advance()
  bool is_behind_ = false;         // advance() did not come to the watermark
};

}  // namespace sluice
