#include "ingest/dead_letter_topic.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

namespace sluice {
namespace {

const KafkaProperties kProducerDefaults = {
    {"client.id", "sluice"},
    {"compression.codec", "lz4"},
    {"linger.ms", "20"},
    {"log.connection.close", "false"},
    // What has no room waits in the store.
    {"queue.buffering.max.kbytes", "16384"},
    {"queue.buffering.max.messages", "5000"},
};

const KafkaProperties kProducerFixed = {
    {"acks", "all"},
    {"enable.idempotence", "true"},
    // Never: an unreachable broker is waited for. What the broker refuses comes back at once.
    {"message.timeout.ms", "0"},
};

constexpr std::uint64_t kRoomForHeaders = 65'536;
// A record that no topic takes whole is cut to a half, and again, but not below this.
constexpr std::size_t kShortestCut = 1'024;

// One cut to the shortest and its headers.
constexpr std::uint64_t kSmallestMessageLimit = 8'192;

// Of what source.properties may say to a reader, what would let nothing be sent, ever.
Status refuse_hindering(const KafkaProperties& properties) {
  if (properties.contains("transactional.id")) {
    return usage_error(
        "source.properties.\"transactional.id\" may not be set with dead_letters.topic: dead "
        "letters are sent without transactions; leave one of the two out");
  }
  const auto limit = properties.find("message.max.bytes");
  if (limit == properties.end()) return {};
  const std::string& text = limit->second;
  std::uint64_t bytes = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), bytes);
  // What is no number is refused by librdkafka.
  if (parsed.ec != std::errc() || bytes >= kSmallestMessageLimit) return {};
  return usage_error("source.properties.\"message.max.bytes\" is " + text +
                     ", too little for a dead letter and its headers; with dead_letters.topic it "
                     "must be " +
                     std::to_string(kSmallestMessageLimit) + " or more");
}

class Headers {
 public:
  Headers() : headers_(rd_kafka_headers_new(12)) {}
  ~Headers() {
    if (headers_ != nullptr) rd_kafka_headers_destroy(headers_);
  }
  Headers(const Headers&) = delete;
  Headers& operator=(const Headers&) = delete;

  void add(const char* name, const std::string& value) {
    const std::string full = std::string("sluice.error.") + name;
    rd_kafka_header_add(headers_, full.data(), static_cast<ssize_t>(full.size()), value.data(),
                        static_cast<ssize_t>(value.size()));
  }
  rd_kafka_headers_t* get() const { return headers_; }
  void release() { headers_ = nullptr; }

 private:
  rd_kafka_headers_t* headers_;
};

class DeadLetterTopic final : public DeadLetterSink {
 public:
  DeadLetterTopic(const Config& config, std::string folder, DeadLetterTopicOptions options)
      : source_(config.source),
        topics_(config.streams.topic),
        topic_(config.dead_letters.topic),
        max_record_bytes_(config.streams.max_record_bytes),
        folder_(std::move(folder)),
        options_(std::move(options)) {}

  Status open();

  bool offer(const DeadLetter& letter) override;
  std::vector<Delivery> take_deliveries() override;
  void wait(DurationMs timeout) override;
  std::string target() const override { return "topic " + topic_ + " at " + source_.brokers; }
  std::string problem() const override {
    std::string text = problem_;
    if (text.empty() && producer_ != nullptr && producer_->all_brokers_down()) {
      text = "no broker can be reached";
    }
    if (refused_) text += (text.empty() ? "" : "; ") + refused_->second;
    return text;
  }

 private:
  Status open_producer();
  void on_delivery(const rd_kafka_message_t& message);
  void refuse(std::uint64_t number, rd_kafka_resp_err_t code);
  void reopen_after_fatal_error();

  const SourceConfig source_;
  const std::array<std::string, kStreams> topics_;
  const std::string topic_;
  const std::uint64_t max_record_bytes_;
  const std::string folder_;
  const DeadLetterTopicOptions options_;
  std::map<std::uint64_t, std::size_t> in_flight_;  // number -> bytes of the value that was sent
  std::map<std::uint64_t, std::size_t> cut_to_;     // the letters that were too long for the topic
  std::vector<Delivery> deliveries_;
  std::string problem_;
  // The last letter that did not get there, and why: others that do say nothing of it.
  std::optional<std::pair<std::uint64_t, std::string>> refused_;
  std::unique_ptr<KafkaClient> producer_;  // none after a fatal error that could not be healed yet
};

Status DeadLetterTopic::open_producer() {
  KafkaProperties defaults = kProducerDefaults;
  defaults["message.max.bytes"] = std::to_string(
      std::clamp<std::uint64_t>(max_record_bytes_ + kRoomForHeaders, 1'000'000, 1'000'000'000));
  SLUICE_ASSIGN(
      producer_,
      KafkaClient::open_producer(
          source_, defaults, kProducerFixed, [this](std::string_view line) { options_.log(line); },
          [this](const rd_kafka_message_t& message) { on_delivery(message); }));
  return {};
}

Status DeadLetterTopic::open() {
  // Asked by a reader, which never makes a topic that is not there.
  SLUICE_ASSIGN(const auto asker,
                KafkaClient::open(source_, {{"group.id", "sluice"}}, {}, options_.log));
  const auto count = asker->partition_count(topic_, options_.reach_within);
  if (!count && count.error().kind != ErrorKind::retry) {
    return stop_error("dead_letters.topic: " + count.error().message +
                      "; create it, or leave the key out");
  }
  if (count) {
    const Status policy = asker->refuse_compacted(topic_, options_.reach_within);
    if (!policy && policy.error().kind != ErrorKind::retry) {
      return stop_error("dead_letters.topic: " + policy.error().message);
    }
  } else {
    problem_ = count.error().message;
    options_.log("dead_letters.topic: " + problem_ + "; dead letters wait in the data folder");
  }
  return open_producer();
}

bool DeadLetterTopic::offer(const DeadLetter& letter) {
  if (producer_ == nullptr) return false;
  const RefusedRecord& record = letter.record;
  const auto cut = cut_to_.find(letter.number);
  const std::size_t size =
      cut == cut_to_.end() ? record.bytes.size() : std::min(cut->second, record.bytes.size());
  Headers headers;
  headers.add("topic", topics_[static_cast<std::size_t>(record.where.stream)]);
  headers.add("partition", std::to_string(record.where.partition));
  headers.add("offset", std::to_string(record.position));
  headers.add("reason", to_string(record.reason));
  headers.add("detail", record.detail);
  headers.add("stream", kStreamNames[static_cast<std::size_t>(record.where.stream)]);
  headers.add("wall_time", format_time(letter.wall_ms));
  headers.add("number", std::to_string(letter.number));
  headers.add("folder", folder_);
  if (size < record.bytes.size()) headers.add("bytes", std::to_string(record.bytes.size()));
  const std::string key = to_string(record.where);
  // The macros below do not shield their arguments.
  void* const key_bytes = const_cast<char*>(key.data());
  void* const bytes = const_cast<char*>(record.bytes.data());
  void* const number = reinterpret_cast<void*>(letter.number);  // NOLINT: handed back as it is
  const auto code = rd_kafka_producev(
      producer_->handle(), RD_KAFKA_V_TOPIC(topic_.c_str()), RD_KAFKA_V_KEY(key_bytes, key.size()),
      RD_KAFKA_V_VALUE(bytes, size), RD_KAFKA_V_HEADERS(headers.get()),
      RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_OPAQUE(number), RD_KAFKA_V_END);
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
    headers.release();  // the message's now
    in_flight_[letter.number] = size;
    return true;
  }
  // After a fatal error take_deliveries() makes a new producer.
  if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL || code == RD_KAFKA_RESP_ERR__FATAL) return false;
  if (code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE && size > kShortestCut) {
    cut_to_[letter.number] = size / 2;
    return offer(letter);
  }
  // Taken, and failed at once: said to be no room, it would hold up all that follow.
  refuse(letter.number, code);
  deliveries_.push_back({letter.number, false});
  return true;
}

void DeadLetterTopic::refuse(std::uint64_t number, rd_kafka_resp_err_t code) {
  refused_ = {number, "dead letter " + std::to_string(number) + ": " + rd_kafka_err2str(code)};
}

void DeadLetterTopic::on_delivery(const rd_kafka_message_t& message) {
  const auto number = reinterpret_cast<std::uint64_t>(message._private);
  const auto found = in_flight_.find(number);
  if (found == in_flight_.end()) return;
  const std::size_t size = found->second;
  in_flight_.erase(found);
  const bool is_acknowledged = message.err == RD_KAFKA_RESP_ERR_NO_ERROR;
  deliveries_.push_back({number, is_acknowledged});
  if (is_acknowledged) {
    cut_to_.erase(number);
    problem_.clear();
    if (refused_ && refused_->first == number) refused_.reset();
    producer_->heard_from_broker();
    return;
  }
  refuse(number, message.err);
  const bool is_too_long = message.err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ||
                           message.err == RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE;
  if (is_too_long && size > kShortestCut) cut_to_[number] = size / 2;
}

// An idempotent producer that lost its place among the broker's sequence numbers can do nothing
// more. A new one can; what the old one had not yet sent is offered again.
void DeadLetterTopic::reopen_after_fatal_error() {
  if (producer_ != nullptr) {
    char reason[512] = "";
    if (rd_kafka_fatal_error(producer_->handle(), reason, sizeof reason) ==
        RD_KAFKA_RESP_ERR_NO_ERROR) {
      return;
    }
    problem_ = reason;
    producer_.reset();
    for (const auto& [number, size] : in_flight_) deliveries_.push_back({number, false});
    in_flight_.clear();
  }
  if (const Status opened = open_producer(); !opened) problem_ = opened.error().message;
}

std::vector<DeadLetterSink::Delivery> DeadLetterTopic::take_deliveries() {
  reopen_after_fatal_error();
  if (producer_ != nullptr) producer_->serve();
  return std::exchange(deliveries_, {});
}

void DeadLetterTopic::wait(DurationMs timeout) {
  if (producer_ != nullptr && deliveries_.empty()) {
    rd_kafka_poll(producer_->handle(), static_cast<int>(timeout));
  }
}

}  // namespace

Result<std::unique_ptr<DeadLetterSink>> open_dead_letter_topic(
    const Config& config, std::string folder, const DeadLetterTopicOptions& options) {
  SLUICE_TRY(refuse_hindering(config.source.properties));
  DeadLetterTopicOptions complete = options;
  if (!complete.log) complete.log = log_kafka_to_stderr;
  auto topic = std::make_unique<DeadLetterTopic>(config, std::move(folder), std::move(complete));
  SLUICE_TRY(topic->open());
  return std::unique_ptr<DeadLetterSink>(std::move(topic));
}

}  // namespace sluice
