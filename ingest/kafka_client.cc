#include "ingest/kafka_client.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include "config/schema.h"

namespace sluice {
namespace {

// What every client has, and no user may change: librdkafka's defaults lose or invent records
// without a word (auto.offset.reset = largest), or hand out damaged ones.
const KafkaProperties& always_fixed() {
  static const KafkaProperties properties = {
      {"allow.auto.create.topics", "false"},
      {"auto.offset.reset", "error"},
      {"check.crcs", "true"},
      {"enable.auto.commit", "false"},
      {"enable.auto.offset.store", "false"},
      {"enable.partition.eof", "true"},
  };
  return properties;
}

// Other names of fixed properties.
constexpr std::array<const char*, 4> kRefusedAliases = {
    "auto.commit.enable", "bootstrap.servers", "enable.auto.offset.store", "metadata.broker.list"};

Status set_property(rd_kafka_conf_t* conf, const std::string& name, const std::string& value) {
  char reason[512] = "";
  if (rd_kafka_conf_set(conf, name.c_str(), value.c_str(), reason, sizeof reason) ==
      RD_KAFKA_CONF_OK) {
    return {};
  }
  // The reason may quote the value.
  std::string shown = reason;
  if (is_secret_property(name) && shown.find(value) != std::string::npos) {
    shown = "its value is not allowed";
  }
  return usage_error("source.properties.\"" + name + "\": librdkafka refuses it: " + shown);
}

// `everywhere`: fixed for every client of the kind.
Status set_properties(rd_kafka_conf_t* conf, const SourceConfig& source,
                      const KafkaProperties& defaults, const KafkaProperties& everywhere,
                      const KafkaProperties& fixed) {
  for (const auto& [name, value] : source.properties) {
    if (always_fixed().contains(name) || fixed.contains(name) ||
        std::ranges::find(kRefusedAliases, name) != kRefusedAliases.end()) {
      return usage_error("source.properties.\"" + name +
                         "\" may not be set: Sluice's positions or its memory rest on it");
    }
  }
  SLUICE_TRY(set_property(conf, "bootstrap.servers", source.brokers));
  for (const KafkaProperties* properties : {&defaults, &source.properties, &everywhere, &fixed}) {
    for (const auto& [name, value] : *properties) {
      SLUICE_TRY(set_property(conf, name, value));
    }
  }
  return {};
}

// Passes when the broker is back or a leader is elected.
bool is_passing(rd_kafka_resp_err_t code) {
  switch (code) {
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
    case RD_KAFKA_RESP_ERR__RESOLVE:
    case RD_KAFKA_RESP_ERR__WAIT_COORD:
    case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
    case RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION:
    case RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION:
    case RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_PREFERRED_LEADER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH:
    case RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH:
    case RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR:
    case RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS:
    case RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE:
      return true;
    default:
      return false;
  }
}

// The value of one setting in the answer to DescribeConfigs for one topic.
Result<std::string> described_setting(const rd_kafka_event_t& event, const std::string& topic,
                                      const std::string& setting) {
  std::size_t topics = 0;
  const rd_kafka_ConfigResource_t** const resources = rd_kafka_DescribeConfigs_result_resources(
      rd_kafka_event_DescribeConfigs_result(const_cast<rd_kafka_event_t*>(&event)), &topics);
  if (topics != 1) return stop_error("topic " + topic + ": the broker does not tell its settings");
  if (const auto code = rd_kafka_ConfigResource_error(resources[0]);
      code != RD_KAFKA_RESP_ERR_NO_ERROR) {
    return stop_error("topic " + topic +
                      ": cannot see whether it is compacted: " + rd_kafka_err2str(code));
  }
  std::size_t count = 0;
  const rd_kafka_ConfigEntry_t** const entries =
      rd_kafka_ConfigResource_configs(resources[0], &count);
  for (std::size_t index = 0; index < count; ++index) {
    if (rd_kafka_ConfigEntry_name(entries[index]) == setting) {
      const char* const value = rd_kafka_ConfigEntry_value(entries[index]);
      return std::string(value != nullptr ? value : "");
    }
  }
  return stop_error("topic " + topic + ": the broker does not tell its " + setting);
}

int milliseconds(DurationMs duration) {
  return static_cast<int>(duration);
}

}  // namespace

void log_kafka_to_stderr(std::string_view line) {
  std::fprintf(stderr, "sluice: kafka: %.*s\n", static_cast<int>(line.size()), line.data());
}

void to_record(const rd_kafka_message_t& message, std::uint64_t max_bytes, Record& record) {
  // The parser reads a little past the end: leave room, or it copies every record.
  constexpr std::size_t kParserPadding = 64;
  record.position = static_cast<Position>(message.offset);
  record.next = record.position + 1;
  record.bytes.clear();
  record.log_time.reset();
  if (message.payload != nullptr) {
    const std::size_t size = std::min<std::uint64_t>(message.len, max_bytes + 1);
    record.bytes.reserve(size + kParserPadding);
    record.bytes.assign(static_cast<const char*>(message.payload), size);
  }
  rd_kafka_timestamp_type_t type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
  const TimeMs time = rd_kafka_message_timestamp(&message, &type);
  if (type == RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME) record.log_time = time;
}

std::string kafka_place(const std::string& topic, std::uint32_t partition) {
  return topic + "/" + std::to_string(partition);
}

KafkaClient::KafkaClient(std::string brokers, KafkaLog log, KafkaDelivery delivery)
    : brokers_(std::move(brokers)), log_(std::move(log)), delivery_(std::move(delivery)) {}

KafkaClient::~KafkaClient() = default;

Result<std::unique_ptr<KafkaClient>> KafkaClient::open(const SourceConfig& source,
                                                       const KafkaProperties& defaults,
                                                       const KafkaProperties& fixed, KafkaLog log) {
  std::unique_ptr<KafkaClient> client(new KafkaClient(source.brokers, std::move(log)));
  kafka::Conf conf(rd_kafka_conf_new());
  SLUICE_TRY(set_properties(conf.get(), source, defaults, always_fixed(), fixed));
  const auto debug = source.properties.find("debug");
  client->tells_debug_ = debug != source.properties.end();
  // The lines of "topic" are few, and one of them is the only sign of what breaks() counts.
  SLUICE_TRY(
      set_property(conf.get(), "debug", client->tells_debug_ ? debug->second + ",topic" : "topic"));
  rd_kafka_conf_set_closesocket_cb(conf.get(), &KafkaClient::on_close);
  SLUICE_TRY(client->create(std::move(conf), RD_KAFKA_CONSUMER));
  rd_kafka_poll_set_consumer(client->handle());
  return client;
}

Result<std::unique_ptr<KafkaClient>> KafkaClient::open_producer(const SourceConfig& source,
                                                                const KafkaProperties& defaults,
                                                                const KafkaProperties& fixed,
                                                                KafkaLog log,
                                                                KafkaDelivery delivery) {
  std::unique_ptr<KafkaClient> client(
      new KafkaClient(source.brokers, std::move(log), std::move(delivery)));
  kafka::Conf conf(rd_kafka_conf_new());
  SLUICE_TRY(set_properties(conf.get(), source, defaults, {}, fixed));
  rd_kafka_conf_set_dr_msg_cb(conf.get(), &KafkaClient::on_delivery);
  SLUICE_TRY(client->create(std::move(conf), RD_KAFKA_PRODUCER));
  return client;
}

Status KafkaClient::create(kafka::Conf conf, rd_kafka_type_t type) {
  rd_kafka_conf_set_opaque(conf.get(), this);
  rd_kafka_conf_set_error_cb(conf.get(), &KafkaClient::on_error);
  rd_kafka_conf_set_log_cb(conf.get(), &KafkaClient::on_log);
  char reason[512] = "";
  handle_.reset(rd_kafka_new(type, conf.get(), reason, sizeof reason));
  if (handle_ == nullptr) {
    return usage_error(std::string("source.properties: librdkafka refuses them: ") + reason);
  }
  (void)conf.release();  // the handle's now
  return {};
}

void KafkaClient::on_delivery(rd_kafka_t*, const rd_kafka_message_t* message, void* self) {
  static_cast<const KafkaClient*>(self)->delivery_(*message);
}

void KafkaClient::on_error(rd_kafka_t*, int code, const char* reason, void* self) {
  auto& client = *static_cast<KafkaClient*>(self);
  if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
    client.all_brokers_down_ = true;
  } else {
    const std::lock_guard lock(client.mutex_);
    // "Connect to ... failed: Connection refused (after 0ms in state CONNECT, 2 identical ...)"
    const std::string_view text(reason);
    client.connection_error_ = text.substr(0, text.find(" (after "));
    client.is_refused_ = code == RD_KAFKA_RESP_ERR__AUTHENTICATION ||
                         code == RD_KAFKA_RESP_ERR__SSL ||
                         code == RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED;
  }
  if (client.was_connected_) client.log_(reason);
}

void KafkaClient::on_log(const rd_kafka_t* handle, int level, const char* facility,
                         const char* line) {
  // on_error() hears of these too.
  if (std::string_view(facility) == "FAIL" || std::string_view(facility) == "ERROR") return;
  const auto& client = *static_cast<const KafkaClient*>(rd_kafka_opaque(handle));
  // "clicks [3]: broker unavailable: fetch: Broker: Unknown topic or partition"
  if (std::string_view(facility) == "BROKERUA") ++client.breaks_;
  if (level >= LOG_DEBUG && !client.delivery_ && !client.tells_debug_) return;
  // source.properties may concern readers only.
  if (client.delivery_ && std::string_view(facility) == "CONFWARN") return;
  client.log_(std::string(facility) + ": " + line);
}

// Librdkafka's thread of the connection calls it, before it connects anew. An attempt that reached
// nobody is no connection that ended.
int KafkaClient::on_close(int socket, void* self) {
  tcp_info info{};
  socklen_t size = sizeof info;
  const bool is_known = getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) == 0;
  if (!is_known || info.tcpi_bytes_received > 0) ++static_cast<const KafkaClient*>(self)->breaks_;
  return close(socket);
}

void KafkaClient::serve() const {
  if (delivery_) {
    rd_kafka_poll(handle(), 0);
    return;
  }
  // No partition's messages come here: each has a queue of its own. What does are errors of the
  // consumer group, which holds nothing that Sluice needs.
  while (const kafka::Message message{rd_kafka_consumer_poll(handle(), 0)}) {
    // Without a group.id there is no queue: the same answer for ever.
    if (message->err == RD_KAFKA_RESP_ERR__UNKNOWN_GROUP) return;
    log_(rd_kafka_message_errstr(message.get()));
  }
}

Error KafkaClient::error(const std::string& what, rd_kafka_resp_err_t code) const {
  serve();
  if (!is_passing(code)) return stop_error(what + ": " + rd_kafka_err2str(code));
  const std::lock_guard lock(mutex_);
  std::string message = what + ": cannot reach Kafka at " + brokers_ + ": " +
                        (connection_error_.empty() ? rd_kafka_err2str(code) : connection_error_);
  return is_refused_ ? stop_error(std::move(message)) : retry_error(std::move(message));
}

Result<std::uint32_t> KafkaClient::partition_count(const std::string& topic,
                                                   DurationMs timeout) const {
  const kafka::Topic handle_of_topic(rd_kafka_topic_new(handle(), topic.c_str(), nullptr));
  const rd_kafka_metadata_t* raw = nullptr;
  const auto code =
      rd_kafka_metadata(handle(), 0, handle_of_topic.get(), &raw, milliseconds(timeout));
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return error("topic " + topic, code);
  heard_from_broker();
  const kafka::Metadata metadata(raw);
  if (metadata->topic_cnt != 1) return stop_error("topic " + topic + ": the broker knows nothing");
  const rd_kafka_metadata_topic& found = metadata->topics[0];
  if (found.err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) {
    return stop_error("topic " + topic + " does not exist at " + brokers_);
  }
  if (found.err != RD_KAFKA_RESP_ERR_NO_ERROR) return error("topic " + topic, found.err);
  return static_cast<std::uint32_t>(found.partition_cnt);
}

Status KafkaClient::refuse_compacted(const std::string& topic, DurationMs timeout) const {
  const kafka::ConfigResource resource(
      rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic.c_str()));
  rd_kafka_ConfigResource_t* resources[] = {resource.get()};
  const kafka::Queue queue(rd_kafka_queue_new(handle()));
  rd_kafka_DescribeConfigs(handle(), resources, 1, nullptr, queue.get());
  const kafka::Event event(rd_kafka_queue_poll(queue.get(), milliseconds(timeout)));
  const auto code =
      event == nullptr ? RD_KAFKA_RESP_ERR__TIMED_OUT : rd_kafka_event_error(event.get());
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return error("settings of topic " + topic, code);
  SLUICE_ASSIGN(const std::string policy, described_setting(*event, topic, "cleanup.policy"));
  if (policy.find("compact") == std::string::npos) return {};
  return stop_error("topic " + topic + " has cleanup.policy = " + policy +
                    ": compaction removes records from the middle of a log; it must be delete");
}

// Not through rd_kafka_query_watermark_offsets(): librdkafka 2.0.2 does not return from it,
// whatever its timeout, when the leader it knows has just died.
Result<KafkaWatermarks> KafkaClient::watermarks(const std::string& topic, std::uint32_t partition,
                                                DurationMs timeout) const {
  KafkaWatermarks marks;
  for (const auto& [asked, answer] :
       {std::pair{RD_KAFKA_OFFSET_BEGINNING, &marks.low}, {RD_KAFKA_OFFSET_END, &marks.high}}) {
    SLUICE_ASSIGN(const auto position, position_at(topic, partition, asked, timeout));
    if (!position) return stop_error(kafka_place(topic, partition) + ": the broker tells no end");
    *answer = *position;
  }
  return marks;
}

Result<std::optional<Position>> KafkaClient::position_at(const std::string& topic,
                                                         std::uint32_t partition, TimeMs time,
                                                         DurationMs timeout) const {
  const kafka::PartitionList list(rd_kafka_topic_partition_list_new(1));
  rd_kafka_topic_partition_t* const wanted = rd_kafka_topic_partition_list_add(
      list.get(), topic.c_str(), static_cast<std::int32_t>(partition));
  wanted->offset = time;
  auto code = rd_kafka_offsets_for_times(handle(), list.get(), milliseconds(timeout));
  // Unknown to librdkafka is also what has no leader for now: the partition's own error tells them
  // apart.
  const bool is_told_apart = code == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION &&
                             wanted->err != RD_KAFKA_RESP_ERR_NO_ERROR;
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR || is_told_apart) code = wanted->err;
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return error(kafka_place(topic, partition), code);
  heard_from_broker();
  if (wanted->offset < 0) return std::optional<Position>();
  return std::optional(static_cast<Position>(wanted->offset));
}

Result<std::optional<Record>> KafkaClient::record_at(const std::string& topic,
                                                     std::uint32_t partition, Position position,
                                                     std::uint64_t max_bytes,
                                                     DurationMs timeout) const {
  const auto number = static_cast<std::int32_t>(partition);
  const kafka::Topic handle_of_topic(rd_kafka_topic_new(handle(), topic.c_str(), nullptr));
  if (rd_kafka_consume_start(handle_of_topic.get(), number, static_cast<std::int64_t>(position)) !=
      0) {
    return error(kafka_place(topic, partition), rd_kafka_last_error());
  }
  const kafka::Message message(
      rd_kafka_consume(handle_of_topic.get(), number, milliseconds(timeout)));
  rd_kafka_consume_stop(handle_of_topic.get(), number);
  if (message == nullptr) {
    return error(kafka_place(topic, partition), RD_KAFKA_RESP_ERR__TIMED_OUT);
  }
  switch (message->err) {
    case RD_KAFKA_RESP_ERR_NO_ERROR: {
      // A later one: retention has removed the record, or there was a control record.
      if (static_cast<Position>(message->offset) != position) return std::optional<Record>();
      std::optional<Record> record(std::in_place);
      to_record(*message, max_bytes, *record);
      return record;
    }
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
      return std::optional<Record>();
    default:
      return error(kafka_place(topic, partition), message->err);
  }
}

}  // namespace sluice
