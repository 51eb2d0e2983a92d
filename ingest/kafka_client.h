// A connection to Kafka's brokers, and the questions that need no assignment: partition counts,
// watermarks, the offset at a time, whether a topic is compacted, one record.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/time.h"
#include "config/config.h"
#include "ingest/event.h"
#include "ingest/kafka_handles.h"

namespace sluice {

// Takes one line about the connection. Called from any thread, librdkafka's own too.
using KafkaLog = std::function<void(std::string_view line)>;

// The KafkaLog of who is given none.
void log_kafka_to_stderr(std::string_view line);

// Hears what became of a produced message. Called by serve().
using KafkaDelivery = std::function<void(const rd_kafka_message_t& message)>;

// Properties of librdkafka by name.
using KafkaProperties = std::map<std::string, std::string>;

struct KafkaWatermarks {
  Position low = 0;   // the first record that retention has left
  Position high = 0;  // where the next record will be, of whatever transaction
};

// A topic's message as a Record. Longer ones than `max_bytes` are cut to one byte more, which is
// enough to refuse them; a message without a value is an empty record.
// What was in `record` is overwritten, its memory used again.
void to_record(const rd_kafka_message_t& message, std::uint64_t max_bytes, Record& record);

// "clicks/3", a topic's partition.
std::string kafka_place(const std::string& topic, std::uint32_t partition);

// Thread-safe. Errors of its questions: `retry` when the brokers cannot be reached, `stop` when
// they refuse.
class KafkaClient {
 public:
  // Set in this order, later ones winning: `defaults`, source.properties, `fixed`. A user's
  // property that is fixed, here or for every client, is refused, and so is what librdkafka does
  // not take (usage errors that name the property and no secret's value). Connects in the
  // background.
  static Result<std::unique_ptr<KafkaClient>> open(const SourceConfig& source,
                                                   const KafkaProperties& defaults,
                                                   const KafkaProperties& fixed, KafkaLog log);
  // The same for sending; what is fixed for every client concerns readers and is left out.
  static Result<std::unique_ptr<KafkaClient>> open_producer(const SourceConfig& source,
                                                            const KafkaProperties& defaults,
                                                            const KafkaProperties& fixed,
                                                            KafkaLog log, KafkaDelivery delivery);
  ~KafkaClient();
  KafkaClient(const KafkaClient&) = delete;
  KafkaClient& operator=(const KafkaClient&) = delete;

  rd_kafka_t* handle() const { return handle_.get(); }

  Result<std::uint32_t> partition_count(const std::string& topic, DurationMs timeout) const;
  // An error where the topic's cleanup.policy compacts: a compacted log is no log.
  Status refuse_compacted(const std::string& topic, DurationMs timeout) const;
  Result<KafkaWatermarks> watermarks(const std::string& topic, std::uint32_t partition,
                                     DurationMs timeout) const;
  // Of the first message whose timestamp is `time` or later; none when there is no such message.
  // RD_KAFKA_OFFSET_BEGINNING and _END ask for the watermarks.
  Result<std::optional<Position>> position_at(const std::string& topic, std::uint32_t partition,
                                              TimeMs time, DurationMs timeout) const;
  // The message at exactly `position`; none where there is none any more. Not two at a time.
  Result<std::optional<Record>> record_at(const std::string& topic, std::uint32_t partition,
                                          Position position, std::uint64_t max_bytes,
                                          DurationMs timeout) const;

  // Hands what has been heard of the connection to the log, and what became of messages to
  // KafkaDelivery. To be called now and then; never waits.
  void serve() const;
  // Whether serve() has heard that no broker can be reached; until heard_from_broker().
  bool all_brokers_down() const { return all_brokers_down_; }
  // How often, so far, a connection that had worked ended or a broker gave nothing of a partition
  // because it did not lead or know it. Counted before anything is fetched again.
  std::uint64_t breaks() const { return breaks_; }
  void heard_from_broker() const {
    all_brokers_down_ = false;
    was_connected_ = true;
  }

  // "WHAT: cannot reach Kafka at HOST:PORT: <the last connection error>", or WHAT and the reason.
  Error error(const std::string& what, rd_kafka_resp_err_t code) const;

 private:
  KafkaClient(std::string brokers, KafkaLog log, KafkaDelivery delivery = nullptr);
  Status create(kafka::Conf conf, rd_kafka_type_t type);
  static void on_delivery(rd_kafka_t* handle, const rd_kafka_message_t* message, void* self);
  static void on_error(rd_kafka_t* handle, int code, const char* reason, void* self);
  static void on_log(const rd_kafka_t* handle, int level, const char* facility, const char* line);
  static int on_close(int socket, void* self);

  const std::string brokers_;
  const KafkaLog log_;
  const KafkaDelivery delivery_;  // none: reads
  mutable std::mutex mutex_;
  std::string connection_error_;  // the last one; guarded by mutex_
  bool is_refused_ = false;       // that was authentication or TLS; guarded by mutex_
  bool tells_debug_ = false;      // source.properties ask for debug lines
  mutable std::atomic<std::uint64_t> breaks_ = 0;
  mutable std::atomic<bool> all_brokers_down_ = false;
  // Until then connection errors are told by error() only, not to the log as well.
  mutable std::atomic<bool> was_connected_ = false;
  kafka::Handle handle_;
};

}  // namespace sluice
