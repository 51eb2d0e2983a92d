// Records from Apache Kafka, with positions of Sluice's own: no consumer group assigns partitions,
// no offset is committed, no reset skips anything.
//
// Operation. Every stream-partition is assigned explicitly at its sought position and has a queue
// of its own, so that one which is not read costs its queue and holds back no other. Only committed
// records are given (isolation.level = read_committed); a log's end is told by the broker's EOF,
// which comes after control and aborted records too. A second connection, which reads uncommitted,
// asks for high watermarks.
//
// Threads. One thread calls the source; librdkafka's own threads fetch. The first confirmed_end()
// starts one more, which asks for the ends of all logs (KafkaProber) and is joined by the
// destructor; it calls `clock` as well.
//
// Memory. What is fetched and not yet read stays, with librdkafka's own overhead, about within
// source.max_queued_bytes, as long as compressed batches grow by no more than kExpectedExpansion
// and a single batch is no larger than its partition's share.
//
// Errors. An interrupted connection is no error at first: librdkafka reconnects, and meanwhile
// nothing is there to read. After KafkaSourceOptions::unreachable_after without any broker read()
// gives a `retry` error and may be called again. What would lose or damage records is a `stop`
// error, again at every later read: a lost range, a failed checksum, a topic that is gone or has
// other partitions. Whether the log behind a new connection is still the same one is not seen
// here: connection_epoch() says when to look.
#pragma once

#include <memory>

#include "base/result.h"
#include "base/time.h"
#include "config/config.h"
#include "ingest/kafka_client.h"
#include "ingest/source.h"

namespace sluice {

struct KafkaSourceOptions {
  KafkaLog log;                      // default: a line on stderr
  DurationMs reach_within = 10'000;  // for an answer to a question at the start
  DurationMs answer_within = 2'000;  // to one between reads, at most reach_within: others wait
  DurationMs unreachable_after = 60'000;
  bool refuse_compacted = true;  // off for brokers that do not tell a topic's settings
};

Result<std::unique_ptr<Source>> open_kafka_source(const Config& config, Clock& clock,
                                                  const KafkaSourceOptions& options);

// The limits that keep librdkafka within a memory budget.
struct KafkaQueueLimits {
  std::uint64_t queue_kbytes = 0;    // a partition is fetched while its queue holds less
  std::uint64_t queue_messages = 0;  // and fewer than these
  std::uint64_t fetch_bytes = 0;     // of one partition at a time, compressed
};
KafkaQueueLimits queue_limits(std::uint64_t max_queued_bytes, std::uint64_t stream_partitions);

}  // namespace sluice
