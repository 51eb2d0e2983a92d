// Puts log files onto Kafka topics: one message a line, without its newline, onto the partition of
// the same number and in the file's order. The topics are created with as many partitions as the
// logs have, and keep everything for ever.
//
//   topic_loader --brokers HOST:PORT --root DIR [--topics impressions,clicks,purchases]
//                [--prefix P] [--segments A..B] [--append] [--compression C]
//                [--slices N] [--seconds S] [--transactions] [--live]
//
// DIR/<topic> goes to the topic P<topic>. Prints one line a topic once every message is
// acknowledged. Exit code 0 only when all of them are; 2 for a wrong command line.
//
// With --slices each log is cut into N equal parts, and one part of every log goes before the next
// of any, spread over S seconds. With --transactions each slice is one transaction, and before
// every third one the same records are sent in one that is aborted. A broker that is away is waited
// for.
//
// With --live each record is sent when the wall clock comes to its event time (field "ts", ms) and
// to those before it in its log, until the last impression is; "ready" is printed before the first.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/result.h"
#include "base/time.h"
#include "config/config.h"
#include "ingest/kafka_handles.h"
#include "ingest/source.h"

namespace sluice {
namespace {

constexpr int kAdminTimeoutMs = 30'000;
constexpr int kFlushTimeoutMs = 120'000;
constexpr std::uint64_t kAbortedOneIn = 3;
// Larger than any record that a test makes; the topics allow as much.
constexpr const char* kMaxMessageBytes = "33554432";
constexpr std::size_t kReadRecords = 1'000;

struct Options {
  std::string brokers;
  std::string root;
  std::vector<std::string> topics = {kStreamNames.begin(),
                                     kStreamNames.begin() + kStreamsWithoutActions};
  std::string prefix;
  std::string segments;
  std::string compression = "lz4";
  bool append = false;
  bool transactions = false;
  bool live = false;
  std::uint64_t slices = 1;
  double seconds = 0;
  // From `segments`; both ends are included.
  std::uint64_t first_segment = 0;
  std::uint64_t last_segment = ~std::uint64_t{0};
};

struct Deliveries {
  std::uint64_t acknowledged = 0;
  std::uint64_t failed = 0;
  std::string first_error;
};

// librdkafka calls this from rd_kafka_poll(), on the loader's only thread.
void on_delivery(rd_kafka_t*, const rd_kafka_message_t* message, void* opaque) {
  auto& deliveries = *static_cast<Deliveries*>(opaque);
  if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
    ++deliveries.acknowledged;
    return;
  }
  if (++deliveries.failed == 1) deliveries.first_error = rd_kafka_err2str(message->err);
}

Result<kafka::Handle> open_producer(const Options& options, Deliveries& deliveries) {
  kafka::Conf conf(rd_kafka_conf_new());
  const std::pair<const char*, const char*> settings[] = {
      {"bootstrap.servers", options.brokers.c_str()},
      {"enable.idempotence", "true"},  // neither lost, doubled nor reordered when a send is retried
      {"compression.codec", options.compression.c_str()},
      {"linger.ms", options.live ? "5" : "20"},
      {"message.max.bytes", kMaxMessageBytes},
      {"log_level", "3"},
  };
  char message[512];
  for (const auto& [name, value] : settings) {
    if (rd_kafka_conf_set(conf.get(), name, value, message, sizeof message) != RD_KAFKA_CONF_OK) {
      return usage_error(message);
    }
  }
  const std::string id = "topic_loader-" + options.prefix;
  if (options.transactions && rd_kafka_conf_set(conf.get(), "transactional.id", id.c_str(), message,
                                                sizeof message) != RD_KAFKA_CONF_OK) {
    return usage_error(message);
  }
  rd_kafka_conf_set_dr_msg_cb(conf.get(), on_delivery);
  rd_kafka_conf_set_opaque(conf.get(), &deliveries);
  kafka::Handle producer(rd_kafka_new(RD_KAFKA_PRODUCER, conf.get(), message, sizeof message));
  if (producer == nullptr) return usage_error(message);
  (void)conf.release();  // the producer's now
  return producer;
}

// The number of partitions of an existing topic.
Result<std::uint32_t> partition_count(rd_kafka_t* client, const std::string& topic) {
  const kafka::Topic handle(rd_kafka_topic_new(client, topic.c_str(), nullptr));
  const rd_kafka_metadata_t* raw = nullptr;
  const auto error = rd_kafka_metadata(client, 0, handle.get(), &raw, kAdminTimeoutMs);
  if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
    return stop_error("cannot ask for topic " + topic + ": " + rd_kafka_err2str(error));
  }
  const kafka::Metadata metadata(raw);
  if (metadata->topic_cnt != 1 || metadata->topics[0].err != RD_KAFKA_RESP_ERR_NO_ERROR) {
    return stop_error("topic " + topic + " cannot be seen");
  }
  return static_cast<std::uint32_t>(metadata->topics[0].partition_cnt);
}

Status create_topic(rd_kafka_t* client, const std::string& name, std::uint32_t partitions,
                    bool may_exist) {
  char message[512];
  // As many replicas as the broker gives by default: one for each node.
  const kafka::NewTopic topic(rd_kafka_NewTopic_new(name.c_str(), static_cast<int>(partitions), -1,
                                                    message, sizeof message));
  if (topic == nullptr) return usage_error("topic " + name + ": " + message);
  rd_kafka_NewTopic_set_config(topic.get(), "retention.ms", "-1");
  rd_kafka_NewTopic_set_config(topic.get(), "message.timestamp.type", "CreateTime");
  rd_kafka_NewTopic_set_config(topic.get(), "max.message.bytes", kMaxMessageBytes);
  const kafka::Queue queue(rd_kafka_queue_new(client));
  rd_kafka_NewTopic_t* topics[] = {topic.get()};
  rd_kafka_CreateTopics(client, topics, 1, nullptr, queue.get());
  const kafka::Event event(rd_kafka_queue_poll(queue.get(), kAdminTimeoutMs));
  if (event == nullptr) return stop_error("topic " + name + ": the broker did not answer");
  if (rd_kafka_event_error(event.get()) != RD_KAFKA_RESP_ERR_NO_ERROR) {
    return stop_error("topic " + name + ": " + rd_kafka_event_error_string(event.get()));
  }
  std::size_t count = 0;
  const auto* const* results =
      rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event.get()), &count);
  if (count != 1) return stop_error("topic " + name + ": the broker gave no result");
  const rd_kafka_resp_err_t error = rd_kafka_topic_result_error(results[0]);
  if (error == RD_KAFKA_RESP_ERR_NO_ERROR) return {};
  if (error != RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS || !may_exist) {
    return stop_error("topic " + name + ": " + rd_kafka_topic_result_error_string(results[0]) +
                      (error == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS
                           ? " (--append adds to it, another --prefix avoids it)"
                           : ""));
  }
  SLUICE_ASSIGN(const std::uint32_t existing, partition_count(client, name));
  if (existing != partitions) {
    return stop_error("topic " + name + " has " + std::to_string(existing) +
                      " partitions, the logs have " + std::to_string(partitions));
  }
  return {};
}

// A broker knows a topic a moment after its controller has made it.
Status wait_until_known(rd_kafka_t* client, const std::string& topic) {
  constexpr DurationMs kStepMs = 100;
  SystemClock clock;
  const DurationMs end = clock.steady_ms() + kAdminTimeoutMs;
  while (true) {
    const auto count = partition_count(client, topic);
    if (count) return {};
    if (clock.steady_ms() > end) return count.error();
    clock.sleep_ms(kStepMs);
  }
}

Status produce(rd_kafka_t* producer, const std::string& topic, std::uint32_t partition,
               const Record& record) {
  constexpr int kMostUnknown = 300;  // times 100 ms
  for (int unknown = 0;;) {
    const rd_kafka_resp_err_t error = rd_kafka_producev(
        producer, RD_KAFKA_V_TOPIC(topic.c_str()),
        RD_KAFKA_V_PARTITION(static_cast<std::int32_t>(partition)),
        RD_KAFKA_V_VALUE(const_cast<char*>(record.bytes.data()), record.bytes.size()),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR) return {};
    // The topic was made: a node that was just started has not heard of it yet.
    const bool is_unknown =
        error == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC || error == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION;
    if (is_unknown && ++unknown <= kMostUnknown) {
      SLUICE_TRY(wait_until_known(producer, topic));
    } else if (error != RD_KAFKA_RESP_ERR__QUEUE_FULL) {
      return stop_error("topic " + topic + " partition " + std::to_string(partition) + ": " +
                        rd_kafka_err2str(error));
    }
    rd_kafka_poll(producer, 100);
  }
}

// One partition's log, whole.
Result<std::vector<Record>> read_partition(const Options& options, Source& source,
                                           StreamPartition where) {
  // Files: the segment's number is the position's upper part (ingest/event.h).
  constexpr int kSegmentShift = 40;
  SLUICE_ASSIGN(const Position first, source.first_position(where));
  SLUICE_TRY(source.seek(where, std::max(first, Position{options.first_segment} << kSegmentShift)));
  std::vector<Record> records;
  while (true) {
    SLUICE_ASSIGN(ReadResult read, source.read(where, kReadRecords, 0));
    if (read.records.empty()) break;
    for (Record& record : read.records) {
      if (record.position >> kSegmentShift > options.last_segment) return records;
      records.push_back(std::move(record));
    }
  }
  SLUICE_ASSIGN(const std::optional<Record> unfinished, source.unfinished(where));
  if (unfinished && unfinished->position >> kSegmentShift <= options.last_segment) {
    return stop_error(source.describe(where, unfinished->position) +
                      ": the last line has no end; a message cannot say so");
  }
  return records;
}

struct Log {
  StreamPartition where;
  std::string topic;
  std::vector<Record> records;
};

// Returns how many messages were handed over.
Result<std::uint64_t> produce_slice(const Options& options, rd_kafka_t* producer,
                                    const std::vector<Log>& logs, std::uint64_t slice) {
  std::uint64_t count = 0;
  for (const Log& log : logs) {
    const std::size_t size = log.records.size();
    for (std::size_t index = size * slice / options.slices;
         index < size * (slice + 1) / options.slices; ++index) {
      SLUICE_TRY(produce(producer, log.topic, log.where.partition, log.records[index]));
      ++count;
    }
    rd_kafka_poll(producer, 0);
  }
  return count;
}

// What became of a request of a transaction.
enum class Outcome { done, again, aborted };

Result<Outcome> outcome_of(rd_kafka_error_t* raw, const std::string& what) {
  if (raw == nullptr) return Outcome::done;
  const std::unique_ptr<rd_kafka_error_t, void (*)(rd_kafka_error_t*)> error(
      raw, rd_kafka_error_destroy);
  if (rd_kafka_error_txn_requires_abort(raw) != 0) return Outcome::aborted;
  if (rd_kafka_error_is_retriable(raw) != 0) return Outcome::again;
  return stop_error(what + ": " + rd_kafka_error_string(raw));
}

Status init_transactions(rd_kafka_t* producer) {
  Outcome outcome = Outcome::again;
  while (outcome == Outcome::again) {
    SLUICE_ASSIGN(outcome, outcome_of(rd_kafka_init_transactions(producer, kAdminTimeoutMs),
                                      "init_transactions"));
  }
  return {};
}

// A broker that was killed before it knew of the transaction calls it invalid, after which its
// producer is lost. A new one of the same transactional.id aborts what is open, if anything is.
Status abort_transaction(const Options& options, kafka::Handle& producer, Deliveries& deliveries) {
  while (true) {
    rd_kafka_error_t* const error = rd_kafka_abort_transaction(producer.get(), kAdminTimeoutMs);
    const bool is_lost = error != nullptr && rd_kafka_error_is_fatal(error) != 0;
    if (is_lost) {
      rd_kafka_error_destroy(error);
      SLUICE_ASSIGN(producer, open_producer(options, deliveries));
      return init_transactions(producer.get());
    }
    SLUICE_ASSIGN(const Outcome outcome, outcome_of(error, "abort_transaction"));
    if (outcome == Outcome::done) return {};
  }
}

// The slice as one transaction; from the start again where the broker's failure aborts it.
Status transact_slice(const Options& options, kafka::Handle& producer, Deliveries& deliveries,
                      const std::vector<Log>& logs, std::uint64_t slice) {
  bool is_aborted_first = slice % kAbortedOneIn == 0;
  while (true) {
    SLUICE_ASSIGN(const Outcome begun,
                  outcome_of(rd_kafka_begin_transaction(producer.get()), "begin_transaction"));
    if (begun != Outcome::done) return stop_error("begin_transaction: not possible now");
    const auto produced = produce_slice(options, producer.get(), logs, slice);
    if (is_aborted_first || !produced) {
      rd_kafka_flush(producer.get(), kAdminTimeoutMs);
      SLUICE_TRY(abort_transaction(options, producer, deliveries));
      is_aborted_first = false;
      continue;
    }
    Outcome outcome = Outcome::again;
    while (outcome == Outcome::again) {
      SLUICE_ASSIGN(outcome,
                    outcome_of(rd_kafka_commit_transaction(producer.get(), kAdminTimeoutMs),
                               "commit_transaction"));
    }
    if (outcome == Outcome::done) return {};
    SLUICE_TRY(abort_transaction(options, producer, deliveries));
  }
}

// Event time; 0, so at once, where there is none.
TimeMs time_of(const Record& record) {
  constexpr std::string_view kField = "\"ts\":";
  const std::size_t at = record.bytes.find(kField);
  if (at == std::string::npos) return 0;
  return std::strtoll(record.bytes.c_str() + at + kField.size(), nullptr, 10);
}

Result<std::uint64_t> produce_live(rd_kafka_t* producer, const std::vector<Log>& logs) {
  constexpr DurationMs kStepMs = 2;
  std::printf("ready\n");
  std::fflush(stdout);
  SystemClock clock;
  std::vector<std::size_t> next(logs.size());
  std::uint64_t produced = 0;
  for (bool is_more = true; is_more;) {
    is_more = false;
    const TimeMs now = clock.wall_ms();
    for (std::size_t index = 0; index < logs.size(); ++index) {
      const Log& log = logs[index];
      for (; next[index] < log.records.size(); ++next[index], ++produced) {
        const Record& record = log.records[next[index]];
        if (time_of(record) > now) break;
        SLUICE_TRY(produce(producer, log.topic, log.where.partition, record));
      }
      if (log.where.stream != Stream::impressions) continue;
      is_more = is_more || next[index] < log.records.size();
    }
    rd_kafka_poll(producer, 0);
    clock.sleep_ms(kStepMs);
  }
  return produced;
}

Status check_delivered(rd_kafka_t* producer, const Deliveries& deliveries, std::uint64_t produced) {
  rd_kafka_flush(producer, kFlushTimeoutMs);
  if (deliveries.failed == 0 && deliveries.acknowledged == produced) return {};
  return stop_error(std::to_string(deliveries.acknowledged) + " of " + std::to_string(produced) +
                    " messages were acknowledged" +
                    (deliveries.failed > 0 ? ": " + deliveries.first_error : ""));
}

Status produce_all(const Options& options, kafka::Handle& producer, const std::vector<Log>& logs,
                   Deliveries& deliveries) {
  if (options.live) {
    SLUICE_ASSIGN(const std::uint64_t produced, produce_live(producer.get(), logs));
    return check_delivered(producer.get(), deliveries, produced);
  }
  if (options.transactions) SLUICE_TRY(init_transactions(producer.get()));
  SystemClock clock;
  const DurationMs begin = clock.steady_ms();
  std::uint64_t produced = 0;
  for (std::uint64_t slice = 0; slice < options.slices; ++slice) {
    if (options.transactions) {
      SLUICE_TRY(transact_slice(options, producer, deliveries, logs, slice));
    } else {
      SLUICE_ASSIGN(const std::uint64_t count, produce_slice(options, producer.get(), logs, slice));
      produced += count;
    }
    const double share = static_cast<double>(slice + 1) / static_cast<double>(options.slices);
    const auto due = begin + static_cast<DurationMs>(options.seconds * 1'000 * share);
    clock.sleep_ms(std::max<DurationMs>(0, due - clock.steady_ms()));
  }
  if (options.transactions) return {};  // a commit acknowledges its messages
  return check_delivered(producer.get(), deliveries, produced);
}

Status load(const Options& options) {
  Config config;
  config.source.root = options.root;
  config.streams.max_record_bytes = 32 << 20;
  for (std::size_t stream = 0; stream < options.topics.size(); ++stream) {
    config.streams.topic[stream] = options.topics[stream];
  }
  SLUICE_ASSIGN(const auto source, open_file_source(config));
  SLUICE_ASSIGN(const std::uint32_t partitions, source->partitions());

  Deliveries deliveries;
  SLUICE_ASSIGN(kafka::Handle producer, open_producer(options, deliveries));
  std::vector<Log> logs;
  for (std::size_t stream = 0; stream < options.topics.size(); ++stream) {
    const std::string topic = options.prefix + options.topics[stream];
    SLUICE_TRY(create_topic(producer.get(), topic, partitions, options.append));
    SLUICE_TRY(wait_until_known(producer.get(), topic));
    for (std::uint32_t partition = 0; partition < partitions; ++partition) {
      const StreamPartition where{static_cast<Stream>(stream), partition};
      SLUICE_ASSIGN(auto records, read_partition(options, *source, where));
      logs.push_back({where, topic, std::move(records)});
    }
  }
  SLUICE_TRY(produce_all(options, producer, logs, deliveries));
  for (std::size_t stream = 0; stream < options.topics.size(); ++stream) {
    std::uint64_t count = 0;
    for (const Log& log : logs) {
      if (log.where.stream == static_cast<Stream>(stream)) count += log.records.size();
    }
    std::printf("%s%s: %llu messages, %u partitions\n", options.prefix.c_str(),
                options.topics[stream].c_str(), static_cast<unsigned long long>(count), partitions);
  }
  return {};
}

// "3..5", "3.." or "3".
bool parse_segments(const std::string& text, Options& options) {
  char* end = nullptr;
  options.first_segment = std::strtoull(text.c_str(), &end, 10);
  if (end == text.c_str()) return false;
  if (*end == '\0') {
    options.last_segment = options.first_segment;
    return true;
  }
  if (end[0] != '.' || end[1] != '.') return false;
  const char* const last = end + 2;
  if (*last == '\0') return true;
  options.last_segment = std::strtoull(last, &end, 10);
  return end != last && *end == '\0' && options.first_segment <= options.last_segment;
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  sluice::Options options;
  CLI::App app{"Puts log files onto Kafka topics, partition by partition, in order."};
  app.add_option("--brokers", options.brokers, "host:port,...")->required();
  app.add_option("--root", options.root, "The folder that holds <topic>/<partition>...")
      ->required()
      ->check(CLI::ExistingDirectory);
  app.add_option("--topics", options.topics,
                 "impressions, clicks, purchases and, where there are, actions, in this order")
      ->delimiter(',')
      ->expected(sluice::kStreamsWithoutActions, sluice::kStreams);
  app.add_option("--prefix", options.prefix, "Before every topic's name on the broker");
  app.add_option("--segments", options.segments, "A..B, A.. or A: only these segments");
  app.add_option("--compression", options.compression, "none, gzip, snappy, lz4 or zstd");
  app.add_flag("--append", options.append, "The topics may exist already");
  app.add_option("--slices", options.slices, "How many parts each log is cut into")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1'000'000}));
  app.add_option("--seconds", options.seconds, "Over which the slices are spread");
  CLI::Option* const transactions =
      app.add_flag("--transactions", options.transactions, "Each slice in one; some aborted first");
  app.add_flag("--live", options.live, "Each record at its event time")->excludes(transactions);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (!options.segments.empty() && !sluice::parse_segments(options.segments, options)) {
    std::fprintf(stderr, "topic_loader: --segments %s: must be A..B, A.. or A\n",
                 options.segments.c_str());
    return 2;
  }
  if (const sluice::Status done = sluice::load(options); !done) {
    std::fprintf(stderr, "topic_loader: %s\n", done.error().message.c_str());
    return done.error().kind == sluice::ErrorKind::usage ? 2 : 1;
  }
  return 0;
}
