// Reads all stream-partitions of a source, the one whose event time is furthest behind first, and
// knows how far event time has come. A partition that runs ahead is simply not read further, so
// what is buffered stays bounded.
//
// Quiet partitions (live sources only): one that the broker has confirmed to be read to its end,
// with nothing new for source.idle_after, does not hold back the others. Its watermark becomes the
// lowest of those that are not quiet, or, when all are, the highest event time + the time since the
// last record; but never later than source.max_delay before the confirming request was sent.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "config/config.h"
#include "ingest/decoder.h"
#include "ingest/intake.h"
#include "ingest/source.h"

namespace sluice {

// What is done at the ends of the logs.
struct EndPolicy {
  enum class Kind {
    close,    // read to the pinned ends; then event time runs out
    hold,     // every stream-partition stays at its own watermark
    at_time,  // all records before `time` are in; every watermark becomes `time`
  };
  Kind kind = Kind::close;
  TimeMs time = 0;
  bool is_live = false;  // waits at the ends for more, and declares partitions quiet
};

// What a start does where a log no longer holds records that were not processed, or that were read.
enum class LostRecords {
  stop,       // an error that names them
  pass_over,  // goes on at the first record that is left
};

// A live stream-partition whose log goes on, but gives nothing.
struct HeldBack {
  StreamPartition where;
  Position position = 0;  // of the next record to read
  Position end = 0;       // of the log
  DurationMs for_ms = 0;  // so long already
};

// Owned by the joining thread.
class LogReader {
 public:
  // The references outlive the reader. Stream-partitions are ordered stream-major everywhere:
  // index = stream * partitions + partition.
  LogReader(const Config& config, Source& source, Clock& clock, std::uint32_t partitions,
            const EndPolicy& policy);

  // Where a last record is known it is read again and must be the same: a stop error where it is
  // another one now. Nothing else is done; for logs of which no more is read. start() does it too.
  Status check_logs(const std::vector<IntakeState>& states, std::vector<Position> pinned_ends);

  // Positions the source. `states` are the committed ones; for a first start (`is_first`) the
  // source says where to begin. Last records are compared as check_logs() does.
  // `pinned_ends` are the committed ones; with `close` they are pinned here if there are none.
  Status start(std::vector<IntakeState> states, bool is_first, std::vector<Position> pinned_ends,
               LostRecords lost = LostRecords::stop);
  const std::vector<Position>& pinned_ends() const { return pinned_ends_; }
  // What start() passed over, a line a range; no later start can give the same samples again.
  const std::vector<std::string>& passed_over() const { return passed_over_; }

  // Reads once and judges what was read; waits up to wait_ms where nothing is there. Returns how
  // many records were taken. `frontier` is the event time before which all was processed. After a
  // broken connection, or a pause, the last record is compared again before any other is taken;
  // after a `retry` error nothing is lost and the next step goes on. Now and then an earlier record
  // is compared too, where the source answers.
  Result<std::size_t> step(TimeMs frontier, DurationMs wait_ms);

  // The lowest watermark: records before it are all in.
  TimeMs watermark() const;
  // Nothing that could be read would move the watermark any more (never for a live source).
  bool is_exhausted() const;

  // The earliest buffered event's tick; kTimeMax when nothing is buffered.
  TimeMs first_buffered() const;
  // The events before `frontier`, by shard.
  std::vector<std::vector<Event>> release(TimeMs frontier);
  std::vector<RefusedRecord> take_refused();
  std::vector<IntakeState> states() const;

  // For people: who holds event time back, and how many records the broker has beyond what was read
  // (none where the source cannot tell).
  StreamPartition slowest() const;
  std::optional<std::uint64_t> lag_records() const;
  std::size_t quiet_partitions() const;
  // Those that have been held back for at_least_ms: by an open transaction, or by the broker.
  std::vector<HeldBack> held_back(DurationMs at_least_ms) const;
  // How much of the logs up to their pinned ends was read, in [0, 1], about.
  std::optional<double> fraction_read() const;

 private:
  struct Partition {
    explicit Partition(Intake taken) : intake(std::move(taken)) {}

    Intake intake;
    Position position = 0;     // of the next record to read
    bool is_at_end = false;    // the last read found nothing
    bool is_finished = false;  // at its pinned end
    bool is_quiet = false;
    DurationMs last_record_steady = 0;
    std::uint64_t checked_epoch = 0;  // of the source's connection
    ReadResult unchecked;             // read, but a check of the log has not succeeded yet
    DurationMs read_steady = 0;       // when it was last asked for records
    IntakeState anchor;  // as of the last recheck(), or the first read: a record from before
    // Steady times of the first and last read in a row that gave nothing of a log that goes on.
    std::optional<DurationMs> held_since;
    DurationMs held_until = 0;
    Position held_end = 0;
  };

  Status check_last_record(std::size_t index, const IntakeState& state);
  Status check_begins_early_enough(const std::vector<IntakeState>& states) const;
  Status recheck();
  Status pass_over_lost(std::vector<IntakeState>& states, std::vector<Position>& pinned_ends);
  Status check_pinned_end(std::size_t index) const;
  Result<ReadResult> read_checked(std::size_t index, DurationMs wait_ms);
  void note_held(Partition& partition, bool is_at_end);
  bool cut_unfinished(std::size_t index, Record& record) const;
  TimeMs watermark_of(const Partition& partition) const;
  std::vector<std::size_t> reading_order() const;
  Result<std::size_t> read_one(std::size_t index, TimeMs frontier, DurationMs wait_ms);
  Status finish_if_at_end(std::size_t index);
  bool is_confirmed_quiet(const Partition& partition, DurationMs now, TimeMs& bound) const;
  void declare_quiet();

  const Config& config_;
  Source& source_;
  Clock& clock_;
  EndPolicy policy_;
  std::uint32_t partition_count_;
  Decoder decoder_;
  std::vector<Partition> partitions_;
  std::vector<Position> pinned_ends_;
  std::vector<std::string> passed_over_;
  DurationMs rechecked_steady_ = 0;
  std::uint32_t recheck_partition_ = 0;  // whose turn is next
  std::vector<RefusedRecord> refused_;
};

}  // namespace sluice
