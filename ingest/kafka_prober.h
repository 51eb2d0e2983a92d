// Asks the brokers, again and again, where the logs end: without an answer of its own, a reader
// cannot tell a quiet partition from one whose records do not reach it.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/result.h"
#include "base/time.h"
#include "config/config.h"
#include "ingest/event.h"
#include "ingest/kafka_client.h"
#include "ingest/source.h"

namespace sluice {

// Has one thread of its own, from construction to destruction; the other methods are thread-safe.
// The thread holds no data of the join: what it leaves are confirmations, each taken or not.
class KafkaProber {
 public:
  // Asks for every stream-partition in turn, one round each `period`. `client` must read
  // uncommitted (else the last stable offset is what it is told), and it and `clock`, which the
  // thread calls, outlive the prober.
  KafkaProber(const KafkaClient& client, const StreamsConfig& streams, std::uint32_t partitions,
              DurationMs period, Clock& clock);
  // Waits for the request under way, at most a second.
  ~KafkaProber();
  KafkaProber(const KafkaProber&) = delete;
  KafkaProber& operator=(const KafkaProber&) = delete;

  // The newest answer; none before the first.
  std::optional<EndConfirmation> newest(StreamPartition where) const;

  // An error once a topic has been seen with another number of partitions: what goes to new ones
  // would never be read.
  Status partitions_unchanged() const;

  // How often, so far, a log ended earlier than before or was not known.
  std::uint64_t doubts() const { return doubts_; }

 private:
  void probe_until_stopped();
  void probe(StreamPartition where);
  void check_partition_count(Stream stream);
  bool is_stopped() const;

  const KafkaClient& client_;
  const StreamsConfig streams_;
  const std::uint32_t partitions_;
  const DurationMs period_;
  Clock& clock_;

  std::atomic<std::uint64_t> doubts_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;                                  // guarded by mutex_
  std::map<StreamPartition, EndConfirmation> newest_;  // guarded by mutex_
  std::optional<Error> changed_;                       // guarded by mutex_
  std::thread thread_;                                 // last: it uses all the others
};

}  // namespace sluice
