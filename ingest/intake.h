// One stream-partition's way from records to ordered events: judges each record by its own log,
// knows the watermark, and holds accepted events until event time has passed them.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/hash.h"
#include "config/config.h"
#include "ingest/decoder.h"
#include "ingest/event.h"

namespace sluice {

// A record that was not used, with what a dead letter keeps of it.
struct RefusedRecord {
  StreamPartition where;
  Position position = 0;
  Refusal reason = Refusal::malformed;
  std::string detail;
  std::string bytes;
};

// What a commit keeps of an intake, so that a restart goes on as if nothing had happened.
struct IntakeState {
  Position resume_position = 0;             // the lowest record that is not yet processed
  TimeMs highest_before_resume = kTimeMin;  // highest accepted event time before it
  Position read_position = 0;               // every record below it was judged
  bool has_last_record = false;             // whether a record was ever read
  Position last_record_position = 0;        // the last record read, to find out whether the log was
  Digest last_record_hash;                  // changed behind our back
  TimeMs quiet_watermark = kTimeMin;        // the furthest advance while the partition was quiet

  void encode(ByteWriter& out) const;
  static IntakeState decode(ByteReader& in);
};

// Owned by the joining thread.
class Intake {
 public:
  // `decoder` outlives the intake. After a restart, `state` is the committed one and reading begins
  // at its resume_position.
  Intake(StreamPartition where, const StreamsConfig& streams, DurationMs tick, Decoder& decoder,
         const IntakeState& state);
  Intake(Intake&&) = default;
  Intake(const Intake&) = delete;

  // Judges the next record of the log. Below the committed read_position it only rebuilds buffers
  // and the highest event time. `frontier` is the event time up to which all was processed.
  // The record's bytes are another's afterwards: its memory is for the next one.
  void take(Record&& record, TimeMs frontier, std::vector<RefusedRecord>& refused);
  // A file's last line that was never ended, in a log that is closed: malformed, or oversized.
  void take_unfinished(const Record& record, std::vector<RefusedRecord>& refused);

  // Its own: highest accepted event time − max_out_of_orderness, or the quiet one if higher. While
  // a restart is reading again what was read before, the quiet one does not count: records before
  // it may not be back in the buffer.
  TimeMs watermark() const;
  TimeMs highest_time() const { return highest_; }
  void advance_quiet(TimeMs watermark);

  // Moves the events before `frontier` (the start of a tick) to the end of `out`, in no order.
  void release(TimeMs frontier, std::vector<Event>& out);

  // The start of the earliest buffered event's tick; kTimeMax when nothing is buffered.
  TimeMs first_buffered() const { return buffer_.empty() ? kTimeMax : buffer_.begin()->first; }
  std::size_t buffered_bytes() const { return buffered_bytes_; }
  const StreamPartition& where() const { return where_; }
  IntakeState state() const;

 private:
  struct Unprocessed {
    Position position;
    TimeMs time;
    TimeMs highest_before;
  };

  using Buffer = std::map<TimeMs, std::vector<Event>>;

  std::vector<Event>& events_of(TimeMs tick);
  bool note_read(const Record& record);
  void keep_last(std::string& bytes);

  StreamPartition where_;
  DurationMs max_out_of_orderness_;
  DurationMs max_ahead_;
  std::uint64_t max_record_bytes_;
  DurationMs tick_;
  Decoder& decoder_;
  // resume_* are computed by state(), and the last record's hash where its bytes are still kept.
  IntakeState state_;
  std::string last_record_;
  bool is_hash_due_ = false;
  Position next_position_;  // after the last record taken; below read_position while re-reading
  bool is_rereading_;       // the last record read before the restart is not taken again yet
  TimeMs highest_;
  Buffer buffer_;                         // by tick start
  std::vector<Buffer::node_type> spare_;  // without events, with the memory of released ticks
  std::size_t buffered_bytes_ = 0;
  std::deque<Unprocessed> unprocessed_;  // accepted, in log order; the first is not yet processed
};

}  // namespace sluice
