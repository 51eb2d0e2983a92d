#include "ingest/kafka_source.h"

#include <algorithm>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "ingest/kafka_prober.h"
#include "ingest/spare_records.h"

namespace sluice {
namespace {

// What may be set by source.properties too. The waits are short because librdkafka fetches one
// request a broker at a time: a drained queue waits for the poll of the others that are at their
// ends.
const KafkaProperties kDefaults = {
    {"client.id", "sluice"},           {"group.id", "sluice"},
    {"fetch.wait.max.ms", "25"},       {"reconnect.backoff.max.ms", "2000"},
    {"log.connection.close", "false"},
};

// Without source.idle_after the ends are asked for as well: for the lag, and for new partitions.
constexpr DurationMs kProbePeriodMs = 3'000;

// So far ahead a message's text is asked for: another thread has put it into memory.
constexpr std::size_t kAhead = 4;

constexpr const char* kWhatToDo =
    "; replay into a new data folder, or start once with --accept-lost to go on without them";

void prefetch(const rd_kafka_message_t& message) {
  constexpr std::size_t kLine = 64;
  const char* const text = static_cast<const char*>(message.payload);
  for (std::size_t at = 0; at < std::min<std::size_t>(message.len, 8 * kLine); at += kLine) {
    __builtin_prefetch(text + at);
  }
}

class KafkaSource final : public Source {
 public:
  KafkaSource(const Config& config, Clock& clock, KafkaSourceOptions options,
              std::unique_ptr<KafkaClient> asker)
      : source_(config.source),
        streams_(config.streams),
        clock_(clock),
        options_(std::move(options)),
        asker_(std::move(asker)) {}

  Result<std::uint32_t> partitions() override;
  Result<Position> first_position(StreamPartition where) override;
  Result<Position> end_position(StreamPartition where) override;
  Result<Position> oldest_position(StreamPartition where) override;
  Result<Position> readable_end(StreamPartition where) override;
  std::uint64_t connection_epoch() const override;
  Status seek(StreamPartition where, Position position) override;
  Result<ReadResult> read(StreamPartition where, std::size_t max_records,
                          DurationMs wait_ms) override;
  void give_back(std::vector<Record> records) override;
  Result<std::optional<Record>> record_at(StreamPartition where, Position position) override;
  std::optional<EndConfirmation> confirmed_end(StreamPartition where) override;
  std::string describe(StreamPartition where, Position position) const override;

 private:
  struct Partition {
    kafka::Queue queue;
    Position next = 0;            // where the next read begins
    std::optional<Position> end;  // EOF was heard there, and no record since
    bool end_was_told = false;    // by a read()
    // Taken since the queue was last known to be fetched.
    std::uint64_t taken_bytes = 0;
    std::uint64_t taken_messages = 0;
  };

  const std::string& topic(StreamPartition where) const {
    return streams_.topic[static_cast<std::size_t>(where.stream)];
  }
  std::string place(StreamPartition where) const {
    return kafka_place(topic(where), where.partition);
  }
  // How long an answer to a question between reads is waited for.
  DurationMs patience() const {
    if (reader_ == nullptr) return options_.reach_within;
    return std::min(options_.reach_within, options_.answer_within);
  }
  Status check_still_there(StreamPartition where, Position position);
  Error cut_error(StreamPartition where, Position end, Position read_to) const;
  Status open_reader();
  Status assign();
  Status take_batch(StreamPartition where, Partition& partition, std::size_t max_records,
                    DurationMs wait_ms, ReadResult& result);
  Status take_end_or_error(StreamPartition where, Partition& partition,
                           const rd_kafka_message_t& message);
  void wake_fetcher(StreamPartition where, Partition& partition);
  Status check_reachable();

  const SourceConfig source_;
  const StreamsConfig streams_;
  Clock& clock_;
  const KafkaSourceOptions options_;
  std::uint32_t partition_count_ = 0;  // 0: not asked yet
  KafkaQueueLimits limits_;
  const std::unique_ptr<KafkaClient> asker_;
  std::unique_ptr<KafkaClient> reader_;              // opened with the first assignment
  std::map<StreamPartition, Partition> partitions_;  // the sought ones; after reader_: its queues
  bool needs_assignment_ = false;
  std::vector<rd_kafka_message_t*> messages_;  // of the batch that is being taken
  SpareRecords spare_;
  std::optional<Error> failure_;          // given again by every read
  std::optional<DurationMs> down_since_;  // steady time; no broker since
  std::unique_ptr<KafkaProber> prober_;   // last: its thread uses the asker
};

Result<std::uint32_t> KafkaSource::partitions() {
  std::array<std::uint32_t, kStreams> counts{};
  const auto& topics = streams_.topic;
  for (std::size_t stream = 0; stream < streams_.count(); ++stream) {
    auto count = asker_->partition_count(topics[stream], options_.reach_within);
    if (!count && count.error().kind == ErrorKind::retry) {
      return retry_error(count.error().message + " (within " +
                         format_duration(options_.reach_within) + ")");
    }
    SLUICE_ASSIGN(counts[stream], std::move(count));
    if (options_.refuse_compacted) {
      SLUICE_TRY(asker_->refuse_compacted(topics[stream], options_.reach_within));
    }
  }
  for (std::size_t stream = 1; stream < streams_.count(); ++stream) {
    if (counts[stream] != counts[0]) {
      return stop_error("topic " + topics[0] + " has " + std::to_string(counts[0]) +
                        " partitions but " + topics[stream] + " has " +
                        std::to_string(counts[stream]) + ": all streams need the same number");
    }
  }
  partition_count_ = counts[0];
  return partition_count_;
}

Result<Position> KafkaSource::first_position(StreamPartition where) {
  SLUICE_ASSIGN(const KafkaWatermarks marks,
                asker_->watermarks(topic(where), where.partition, options_.reach_within));
  const std::string& start = source_.start;
  if (start == "earliest") return marks.low;
  if (start == "latest") return marks.high;
  const auto time = parse_time(start);
  if (!time) return usage_error("source.start: " + time.error().message);
  SLUICE_ASSIGN(const auto found,
                asker_->position_at(topic(where), where.partition, *time, options_.reach_within));
  return found.value_or(marks.high);
}

Result<Position> KafkaSource::end_position(StreamPartition where) {
  SLUICE_ASSIGN(const KafkaWatermarks marks,
                asker_->watermarks(topic(where), where.partition, options_.reach_within));
  return marks.high;
}

Result<Position> KafkaSource::oldest_position(StreamPartition where) {
  SLUICE_ASSIGN(const KafkaWatermarks marks,
                asker_->watermarks(topic(where), where.partition, options_.reach_within));
  return marks.low;
}

Result<Position> KafkaSource::readable_end(StreamPartition where) {
  // To a reader of committed records the broker names the last stable offset.
  const KafkaClient& client = reader_ != nullptr ? *reader_ : *asker_;
  SLUICE_ASSIGN(const KafkaWatermarks marks,
                client.watermarks(topic(where), where.partition, patience()));
  return marks.high;
}

std::uint64_t KafkaSource::connection_epoch() const {
  return (reader_ != nullptr ? reader_->breaks() : 0) +
         (prober_ != nullptr ? prober_->doubts() : 0);
}

Error KafkaSource::cut_error(StreamPartition where, Position end, Position read_to) const {
  return stop_error(place(where) + ": the records [" + std::to_string(end) + ", " +
                    std::to_string(read_to) + ") that were read before are gone: the log ends at " +
                    std::to_string(end) + ", it was cut or made anew" + kWhatToDo);
}

// Names what is lost when the log does not hold `position` any more.
Status KafkaSource::check_still_there(StreamPartition where, Position position) {
  SLUICE_ASSIGN(const KafkaWatermarks marks,
                asker_->watermarks(topic(where), where.partition, options_.reach_within));
  if (position < marks.low) {
    return stop_error(place(where) + ": the records [" + std::to_string(position) + ", " +
                      std::to_string(marks.low) +
                      ") are lost: retention removed them before they were read" + kWhatToDo);
  }
  if (position > marks.high) return cut_error(where, marks.high, position);
  return {};
}

Status KafkaSource::seek(StreamPartition where, Position position) {
  SLUICE_TRY(check_still_there(where, position));
  Partition& partition = partitions_[where];
  partition.next = position;
  partition.end.reset();
  partition.end_was_told = false;
  needs_assignment_ = true;
  return {};
}

Status KafkaSource::open_reader() {
  SLUICE_CHECK(partition_count_ > 0);  // partitions() comes first
  limits_ = queue_limits(source_.max_queued_bytes, streams_.count() * partition_count_);
  KafkaProperties defaults = kDefaults;
  defaults["fetch.message.max.bytes"] = std::to_string(limits_.fetch_bytes);
  const KafkaProperties fixed = {
      {"isolation.level", "read_committed"},
      {"queued.max.messages.kbytes", std::to_string(limits_.queue_kbytes)},
      {"queued.min.messages", std::to_string(limits_.queue_messages)},
  };
  SLUICE_ASSIGN(reader_, KafkaClient::open(source_, defaults, fixed, options_.log));
  return {};
}

// Assigns every sought partition at its next position; what was fetched before is dropped.
Status KafkaSource::assign() {
  if (reader_ == nullptr) SLUICE_TRY(open_reader());
  const kafka::PartitionList list(
      rd_kafka_topic_partition_list_new(static_cast<int>(partitions_.size())));
  for (auto& [where, partition] : partitions_) {
    const auto number = static_cast<std::int32_t>(where.partition);
    rd_kafka_topic_partition_list_add(list.get(), topic(where).c_str(), number)->offset =
        static_cast<std::int64_t>(partition.next);
    if (partition.queue == nullptr) {
      partition.queue.reset(
          rd_kafka_queue_get_partition(reader_->handle(), topic(where).c_str(), number));
      // Before the assignment, which would else forward it into one queue of all.
      rd_kafka_queue_forward(partition.queue.get(), nullptr);
    }
    partition.taken_bytes = 0;
    partition.taken_messages = 0;
  }
  const auto code = rd_kafka_assign(reader_->handle(), list.get());
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return reader_->error("assignment", code);
  needs_assignment_ = false;
  return {};
}

Result<ReadResult> KafkaSource::read(StreamPartition where, std::size_t max_records,
                                     DurationMs wait_ms) {
  if (failure_) return *failure_;
  const auto found = partitions_.find(where);
  SLUICE_CHECK(found != partitions_.end());  // sought first
  Partition& partition = found->second;
  if (needs_assignment_) SLUICE_TRY(assign());
  reader_->serve();
  if (prober_ != nullptr) SLUICE_TRY(prober_->partitions_unchanged());

  ReadResult result;
  // librdkafka waits for a whole batch: take what is there, and else wait for one message only.
  Status taken = take_batch(where, partition, max_records, 0, result);
  const bool has_news = partition.end && !partition.end_was_told;
  if (taken && result.records.empty() && !has_news && wait_ms > 0) {
    wake_fetcher(where, partition);
    taken = take_batch(where, partition, 1, wait_ms, result);
    if (taken && !result.records.empty() && max_records > 1) {
      taken = take_batch(where, partition, max_records - 1, 0, result);
    }
  }
  if (!taken) {
    if (taken.error().kind == ErrorKind::stop) {
      failure_ = taken.error();
    } else {
      // What the queues held behind the error was given back: it is fetched again.
      needs_assignment_ = true;
    }
    // What was taken before the error is right and counts; the error comes with the next read.
    if (!result.records.empty()) return result;
    return taken.error();
  }
  if (result.records.empty()) {
    result.at_end = partition.end;
    partition.end_was_told = partition.end.has_value();
    SLUICE_TRY(check_reachable());
  }
  return result;
}

void KafkaSource::give_back(std::vector<Record> records) {
  spare_.give_back(std::move(records));
}

// Moves up to max_records messages of the partition's queue to the result.
Status KafkaSource::take_batch(StreamPartition where, Partition& partition, std::size_t max_records,
                               DurationMs wait_ms, ReadResult& result) {
  messages_.resize(std::max(messages_.size(), max_records));
  const ssize_t count = rd_kafka_consume_batch_queue(
      partition.queue.get(), static_cast<int>(wait_ms), messages_.data(), max_records);
  if (count < 0) return reader_->error(place(where), rd_kafka_last_error());
  if (count > 0) reader_->heard_from_broker();
  const std::span messages(messages_.data(), static_cast<std::size_t>(count));
  result.records.reserve(result.records.size() + messages.size());
  Status status;
  for (std::size_t index = 0; index < messages.size(); ++index) {
    if (index + kAhead < messages.size()) prefetch(*messages[index + kAhead]);
    const kafka::Message message(messages[index]);
    if (!status) continue;  // only gives it back
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
      status = take_end_or_error(where, partition, *message);
      continue;
    }
    if (static_cast<Position>(message->offset) < partition.next) {
      status = stop_error(describe(where, static_cast<Position>(message->offset)) +
                          ": given again by the broker, after " + std::to_string(partition.next));
      continue;
    }
    partition.end.reset();
    partition.end_was_told = false;
    partition.taken_bytes += message->len;
    ++partition.taken_messages;
    Record& record = result.records.emplace_back(spare_.take());
    to_record(*message, streams_.max_record_bytes, record);
    partition.next = record.next;
  }
  return status;
}

Status KafkaSource::take_end_or_error(StreamPartition where, Partition& partition,
                                      const rd_kafka_message_t& message) {
  if (message.err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
    // The position may lie behind control and aborted records, which are never given.
    partition.next = std::max(partition.next, static_cast<Position>(message.offset));
    partition.end = partition.next;
    partition.end_was_told = false;
    partition.taken_bytes = 0;
    partition.taken_messages = 0;
    return {};
  }
  if (message.err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET ||
      message.err == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE) {
    SLUICE_TRY(check_still_there(where, partition.next));
  }
  const Error error = reader_->error(describe(where, partition.next) + ": cannot be read (" +
                                         std::string(rd_kafka_message_errstr(&message)) + ")",
                                     message.err);
  if (error.kind != ErrorKind::retry) return error;
  options_.log(error.message);  // librdkafka tries again by itself
  return {};
}

// librdkafka looks at the sizes of its queues only when something happens on the connection: with
// all of them full nothing does, and one that has been drained since would wait for up to a second.
// Any request brings it to look; the answer to this one is not waited for.
void KafkaSource::wake_fetcher(StreamPartition where, Partition& partition) {
  if (partition.taken_bytes < limits_.queue_kbytes * 1'000 &&
      partition.taken_messages < limits_.queue_messages) {
    return;  // it was never full: it is being fetched
  }
  partition.taken_bytes = 0;
  partition.taken_messages = 0;
  const kafka::PartitionList list(rd_kafka_topic_partition_list_new(1));
  rd_kafka_topic_partition_list_add(list.get(), topic(where).c_str(),
                                    static_cast<std::int32_t>(where.partition))
      ->offset = RD_KAFKA_OFFSET_END;
  (void)rd_kafka_offsets_for_times(reader_->handle(), list.get(), 0);
}

// An error once no broker has been heard of for options_.unreachable_after.
Status KafkaSource::check_reachable() {
  if (!reader_->all_brokers_down()) {
    down_since_.reset();
    return {};
  }
  const DurationMs now = clock_.steady_ms();
  if (!down_since_) down_since_ = now;
  if (now - *down_since_ < options_.unreachable_after) return {};
  // That the connection is back is not announced to an idle reader: ask.
  const auto answer = asker_->partition_count(streams_.topic[0], patience());
  if (!answer) return answer.error();
  reader_->heard_from_broker();
  down_since_.reset();
  return {};
}

Result<std::optional<Record>> KafkaSource::record_at(StreamPartition where, Position position) {
  SLUICE_ASSIGN(const KafkaWatermarks marks,
                asker_->watermarks(topic(where), where.partition, patience()));
  if (position < marks.low) return std::optional<Record>();
  if (position >= marks.high) return cut_error(where, marks.high, position + 1);
  return asker_->record_at(topic(where), where.partition, position, streams_.max_record_bytes,
                           patience());
}

std::optional<EndConfirmation> KafkaSource::confirmed_end(StreamPartition where) {
  if (prober_ == nullptr) {
    SLUICE_CHECK(partition_count_ > 0);  // partitions() comes first
    const DurationMs period =
        std::max<DurationMs>(source_.idle_after ? *source_.idle_after / 3 : kProbePeriodMs, 10);
    prober_ = std::make_unique<KafkaProber>(*asker_, streams_, partition_count_, period, clock_);
  }
  return prober_->newest(where);
}

std::string KafkaSource::describe(StreamPartition where, Position position) const {
  return place(where) + "@" + std::to_string(position);
}

}  // namespace

KafkaQueueLimits queue_limits(std::uint64_t max_queued_bytes, std::uint64_t stream_partitions) {
  // A third for queued records, a third for what librdkafka adds to each message, a third for the
  // fetch that goes beyond the queue's limit, which is compressed when it is asked for.
  constexpr std::uint64_t kMessageOverheadBytes = 320;
  constexpr std::uint64_t kExpectedExpansion = 4;
  const std::uint64_t third = max_queued_bytes / stream_partitions / 3;
  KafkaQueueLimits limits;  // within the ranges that librdkafka takes
  limits.queue_kbytes = std::clamp<std::uint64_t>(third / 1'000, 1, 2'097'151);
  limits.queue_messages = std::clamp<std::uint64_t>(third / kMessageOverheadBytes, 1, 10'000'000);
  limits.fetch_bytes = std::clamp<std::uint64_t>(third / kExpectedExpansion, 1'000, 1'000'000'000);
  return limits;
}

Result<std::unique_ptr<Source>> open_kafka_source(const Config& config, Clock& clock,
                                                  const KafkaSourceOptions& options) {
  KafkaSourceOptions complete = options;
  if (!complete.log) complete.log = log_kafka_to_stderr;
  SLUICE_ASSIGN(auto asker, KafkaClient::open(config.source, kDefaults,
                                              {{"isolation.level", "read_uncommitted"},
                                               {"queued.max.messages.kbytes", "1024"},
                                               {"queued.min.messages", "1"}},
                                              complete.log));
  return std::unique_ptr<Source>(
      std::make_unique<KafkaSource>(config, clock, std::move(complete), std::move(asker)));
}

Result<std::unique_ptr<Source>> open_kafka_source(const Config& config, Clock& clock) {
  return open_kafka_source(config, clock, KafkaSourceOptions{});
}

}  // namespace sluice
