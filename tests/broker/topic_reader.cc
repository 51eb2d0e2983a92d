// Prints the messages of a topic, all partitions, up to their present ends, each a line of JSON:
// {"partition", "offset", "key", "value", "headers": {...}}. Bytes that are no UTF-8 are replaced.
//
//   topic_reader --brokers HOST:PORT --topic T
#include <cstdio>
#include <string>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/result.h"
#include "ingest/kafka_handles.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kTimeoutMs = 30'000;

Result<kafka::Handle> open_consumer(const std::string& brokers) {
  kafka::Conf conf(rd_kafka_conf_new());
  char reason[512] = "";
  const std::pair<const char*, const char*> settings[] = {
      {"bootstrap.servers", brokers.c_str()},
      {"enable.partition.eof", "true"},
      {"group.id", "topic_reader"},  // it is not joined, but polling asks for one
      {"log_level", "3"},
  };
  for (const auto& [name, value] : settings) {
    if (rd_kafka_conf_set(conf.get(), name, value, reason, sizeof reason) != RD_KAFKA_CONF_OK) {
      return usage_error(reason);
    }
  }
  kafka::Handle consumer(rd_kafka_new(RD_KAFKA_CONSUMER, conf.get(), reason, sizeof reason));
  if (consumer == nullptr) return usage_error(reason);
  (void)conf.release();  // the consumer's now
  return consumer;
}

std::string text(const void* bytes, std::size_t size) {
  return bytes == nullptr ? std::string() : std::string(static_cast<const char*>(bytes), size);
}

void print(const rd_kafka_message_t& message) {
  Json json = {{"partition", message.partition},
               {"offset", message.offset},
               {"key", text(message.key, message.key_len)},
               {"value", text(message.payload, message.len)},
               {"headers", Json::object()}};
  rd_kafka_headers_t* headers = nullptr;
  if (rd_kafka_message_headers(&message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR) {
    const char* name = nullptr;
    const void* value = nullptr;
    std::size_t size = 0;
    for (std::size_t index = 0; rd_kafka_header_get_all(headers, index, &name, &value, &size) == 0;
         ++index) {
      json["headers"][name] = text(value, size);
    }
  }
  std::puts(json.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
}

Status read(const std::string& brokers, const std::string& topic) {
  SLUICE_ASSIGN(const auto consumer, open_consumer(brokers));
  const kafka::Topic handle(rd_kafka_topic_new(consumer.get(), topic.c_str(), nullptr));
  const rd_kafka_metadata_t* raw = nullptr;
  auto code = rd_kafka_metadata(consumer.get(), 0, handle.get(), &raw, kTimeoutMs);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return stop_error(rd_kafka_err2str(code));
  const kafka::Metadata metadata(raw);
  const kafka::PartitionList list(rd_kafka_topic_partition_list_new(1));
  int left = metadata->topics[0].partition_cnt;
  if (left == 0) return stop_error("topic " + topic + " cannot be seen");
  for (int partition = 0; partition < left; ++partition) {
    rd_kafka_topic_partition_list_add(list.get(), topic.c_str(), partition)->offset =
        RD_KAFKA_OFFSET_BEGINNING;
  }
  code = rd_kafka_assign(consumer.get(), list.get());
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return stop_error(rd_kafka_err2str(code));
  while (left > 0) {
    const kafka::Message message(rd_kafka_consumer_poll(consumer.get(), kTimeoutMs));
    if (message == nullptr) return stop_error("topic " + topic + ": no answer");
    if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
      --left;
    } else if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
      return stop_error(rd_kafka_message_errstr(message.get()));
    } else {
      print(*message);
    }
  }
  return {};
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  CLI::App app{"Prints the messages of a topic."};
  std::string brokers, topic;
  app.add_option("--brokers", brokers)->required();
  app.add_option("--topic", topic)->required();
  CLI11_PARSE(app, argc, argv);
  const auto done = sluice::read(brokers, topic);
  if (done) return 0;
  std::fprintf(stderr, "topic_reader: %s\n", done.error().message.c_str());
  return 1;
}
