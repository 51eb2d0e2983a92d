// The source edge: partitioned logs of records, from files or from Kafka. One thread calls it.
//
// Memory stays bounded whatever the log holds: of a record longer than streams.max_record_bytes
// only that many bytes and one more are kept, enough to refuse it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "config/config.h"
#include "ingest/event.h"

namespace sluice {

// What one read gave.
struct ReadResult {
  std::vector<Record> records;  // ascending positions
  // Nothing was there and the log's present end is reached; the position where a next record would
  // be (past control and aborted records).
  std::optional<Position> at_end;
};

// A live source's statement that a partition has nothing unread.
struct EndConfirmation {
  Position end = 0;              // the broker's high watermark
  TimeMs requested_wall_ms = 0;  // wall time at which the confirming request was sent
  DurationMs answered_steady_ms = 0;
};

class Source {
 public:
  virtual ~Source() = default;

  // The number of partitions, equal for every stream (else an error that names the streams).
  virtual Result<std::uint32_t> partitions() = 0;

  // Where a first start begins (source.start), and the present end, of every stream-partition.
  virtual Result<Position> first_position(StreamPartition where) = 0;
  virtual Result<Position> end_position(StreamPartition where) = 0;
  // The first record that the log still holds: what was before it, retention has removed.
  virtual Result<Position> oldest_position(StreamPartition where) { return first_position(where); }
  // Where the records end that may be read now: before end_position() while a transaction is open.
  // Asked between reads, as record_at() is.
  virtual Result<Position> readable_end(StreamPartition where) { return end_position(where); }

  // The next read of `where` begins at `position`. Called for each stream-partition before its
  // first read, and may be called again at any time: what was read ahead is dropped. An error names
  // the lost range where the log no longer reaches back to it.
  virtual Status seek(StreamPartition where, Position position) = 0;

  // Up to max_records of one stream-partition. Waits at most wait_ms when nothing is there yet.
  // Afterwards the same records are not read again unless sought.
  virtual Result<ReadResult> read(StreamPartition where, std::size_t max_records,
                                  DurationMs wait_ms) = 0;

  // Records that are done with: a later read() may use their memory again.
  virtual void give_back(std::vector<Record>) {}

  // The line at the log's present end that has no line end yet; read() waits before it. Only files
  // have one. When a log is closed it is judged as it stands.
  virtual Result<std::optional<Record>> unfinished(StreamPartition) {
    return std::optional<Record>();
  }

  // The record at `position`, to compare it with what was read there before; none where retention
  // has removed it. Asked between reads too: then a live source does not wait long for an answer.
  virtual Result<std::optional<Record>> record_at(StreamPartition where, Position position) = 0;

  // Grows when the logs may have become others: a connection broke, or a broker did not know a
  // partition for a moment. It has grown before read() gives the first record from after that.
  virtual std::uint64_t connection_epoch() const { return 0; }

  // Live sources: the newest confirmation that the partition's log ends where it says; none where
  // there is none yet.
  virtual std::optional<EndConfirmation> confirmed_end(StreamPartition where) = 0;

  // How much of the logs was read, in [0, 1], about; none where positions tell it.
  virtual std::optional<double> fraction_read() const { return std::nullopt; }

  // For dead letters and logs: "clicks/3@17" in the source's own words ("clicks/00003.jsonl:4711").
  virtual std::string describe(StreamPartition where, Position position) const = 0;
};

Result<std::unique_ptr<Source>> open_source(const Config& config, Clock& clock);
// With a clock the logs are live: a read that finds nothing waits, and a partition that is read to
// the present end of its last file is confirmed to be.
Result<std::unique_ptr<Source>> open_file_source(const Config& config, Clock* clock = nullptr);
Result<std::unique_ptr<Source>> open_kafka_source(const Config& config, Clock& clock);

}  // namespace sluice
