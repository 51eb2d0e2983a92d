#include "tests/ingest/kafka_testing.h"

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include <gtest/gtest.h>

#include "base/check.h"

namespace sluice::testing {
namespace {

constexpr int kTimeoutMs = 30'000;

// Ends the test program where going on would only hide the cause.
void require(bool ok, const std::string& what) {
  if (ok) return;
  ADD_FAILURE() << what;
  SLUICE_CHECK(ok);
}

void require(rd_kafka_resp_err_t code, const std::string& what) {
  require(code == RD_KAFKA_RESP_ERR_NO_ERROR, what + ": " + rd_kafka_err2str(code));
}

void require(rd_kafka_error_t* error, const std::string& what) {
  require(error == nullptr, what + ": " + (error == nullptr ? "" : rd_kafka_error_string(error)));
}

kafka::Handle open_producer(const std::string& address,
                            const std::map<std::string, std::string>& settings) {
  kafka::Conf conf(rd_kafka_conf_new());
  char reason[512] = "";
  // One request at a time keeps the order, and unlike idempotence needs no coordinator, which a
  // broker that has just started does not have yet.
  std::map<std::string, std::string> all = {{"bootstrap.servers", address},
                                            {"linger.ms", "5"},
                                            {"log_level", "2"},
                                            {"max.in.flight.requests.per.connection", "1"}};
  for (const auto& [name, value] : settings) all[name] = value;
  for (const auto& [name, value] : all) {
    require(rd_kafka_conf_set(conf.get(), name.c_str(), value.c_str(), reason, sizeof reason) ==
                RD_KAFKA_CONF_OK,
            reason);
  }
  kafka::Handle handle(rd_kafka_new(RD_KAFKA_PRODUCER, conf.get(), reason, sizeof reason));
  require(handle != nullptr, reason);
  (void)conf.release();
  return handle;
}

void produce_one(rd_kafka_t* producer, const BrokerClient::Message& message) {
  // The macros below do not shield their arguments.
  void* const bytes = message.value ? const_cast<char*>(message.value->data()) : nullptr;
  const std::size_t size = message.value ? message.value->size() : 0;
  while (true) {
    const auto code = rd_kafka_producev(
        producer, RD_KAFKA_V_TOPIC(message.topic.c_str()), RD_KAFKA_V_PARTITION(message.partition),
        RD_KAFKA_V_VALUE(bytes, size), RD_KAFKA_V_TIMESTAMP(message.timestamp),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
    if (code != RD_KAFKA_RESP_ERR__QUEUE_FULL) return require(code, "produce");
    rd_kafka_poll(producer, 100);
  }
}

// The admin result that `queue` gets, checked as a whole.
kafka::Event take_result(rd_kafka_queue_t* queue, const std::string& what) {
  kafka::Event event(rd_kafka_queue_poll(queue, kTimeoutMs));
  require(event != nullptr, what + ": no answer");
  require(rd_kafka_event_error(event.get()), what);
  return event;
}

void require_topic_result(const rd_kafka_topic_result_t** results, std::size_t count,
                          const std::string& what) {
  require(count == 1, what + ": no result");
  require(rd_kafka_topic_result_error(results[0]), what);
}

}  // namespace

std::optional<std::string> test_broker() {
  const char* const address = std::getenv("SLUICE_KAFKA");
  if (address == nullptr || *address == '\0') return std::nullopt;
  return address;
}

std::string unique_name(const std::string& stem) {
  static const std::uint64_t run = std::random_device{}();
  static std::atomic<int> next = 0;
  return stem + "-" + std::to_string(run) + "-" + std::to_string(next++);
}

BrokerClient::BrokerClient(std::string address)
    : address_(std::move(address)), admin_(open_producer(address_, {})) {}

void BrokerClient::create_topic(const std::string& name, int partitions,
                                const std::map<std::string, std::string>& settings) {
  char reason[512] = "";
  const kafka::NewTopic topic(
      rd_kafka_NewTopic_new(name.c_str(), partitions, 1, reason, sizeof reason));
  require(topic != nullptr, reason);
  std::map<std::string, std::string> all = {{"retention.ms", "-1"}};
  for (const auto& [key, value] : settings) all[key] = value;
  for (const auto& [key, value] : all) {
    require(rd_kafka_NewTopic_set_config(topic.get(), key.c_str(), value.c_str()), key);
  }
  const kafka::Queue queue(rd_kafka_queue_new(admin_.get()));
  rd_kafka_NewTopic_t* topics[] = {topic.get()};
  rd_kafka_CreateTopics(admin_.get(), topics, 1, nullptr, queue.get());
  const kafka::Event event = take_result(queue.get(), name);
  std::size_t count = 0;
  const auto results =
      rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event.get()), &count);
  require_topic_result(results, count, name);
  wait_for_partitions(name, partitions);
}

void BrokerClient::wait_for_partitions(const std::string& name, int count) {
  const kafka::Topic topic(rd_kafka_topic_new(admin_.get(), name.c_str(), nullptr));
  SystemClock clock;
  const DurationMs deadline = clock.steady_ms() + kTimeoutMs;
  while (clock.steady_ms() < deadline) {
    const rd_kafka_metadata_t* raw = nullptr;
    require(rd_kafka_metadata(admin_.get(), 0, topic.get(), &raw, kTimeoutMs), name);
    const kafka::Metadata metadata(raw);
    if (metadata->topics[0].partition_cnt == count) return;
    clock.sleep_ms(5);
  }
  require(false, name + " does not appear");
}

void BrokerClient::add_partitions(const std::string& name, int new_count) {
  char reason[512] = "";
  rd_kafka_NewPartitions_t* const wanted = rd_kafka_NewPartitions_new(
      name.c_str(), static_cast<std::size_t>(new_count), reason, sizeof reason);
  require(wanted != nullptr, reason);
  const kafka::Queue queue(rd_kafka_queue_new(admin_.get()));
  rd_kafka_NewPartitions_t* all[] = {wanted};
  rd_kafka_CreatePartitions(admin_.get(), all, 1, nullptr, queue.get());
  const kafka::Event event = take_result(queue.get(), name);
  rd_kafka_NewPartitions_destroy(wanted);
  std::size_t count = 0;
  const auto results = rd_kafka_CreatePartitions_result_topics(
      rd_kafka_event_CreatePartitions_result(event.get()), &count);
  require_topic_result(results, count, name);
}

void BrokerClient::delete_before(const std::string& name, int partition, std::int64_t position) {
  const kafka::PartitionList list(rd_kafka_topic_partition_list_new(1));
  rd_kafka_topic_partition_list_add(list.get(), name.c_str(), partition)->offset = position;
  const kafka::DeleteRecords wanted(rd_kafka_DeleteRecords_new(list.get()));
  const kafka::Queue queue(rd_kafka_queue_new(admin_.get()));
  rd_kafka_DeleteRecords_t* all[] = {wanted.get()};
  rd_kafka_DeleteRecords(admin_.get(), all, 1, nullptr, queue.get());
  const kafka::Event event = take_result(queue.get(), name);
  const auto* const results =
      rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event.get()));
  require(results->cnt == 1, name + ": no result");
  require(results->elems[0].err, name);
}

void BrokerClient::produce(const std::vector<Message>& messages, const std::string& codec) {
  const kafka::Handle producer = open_producer(address_, {{"compression.codec", codec}});
  for (const Message& message : messages) produce_one(producer.get(), message);
  require(rd_kafka_flush(producer.get(), kTimeoutMs), "flush");
}

TransactionalProducer::TransactionalProducer(const std::string& address, const std::string& id)
    : producer_(open_producer(address, {{"transactional.id", id}})) {
  require(rd_kafka_init_transactions(producer_.get(), kTimeoutMs), "init_transactions");
}

void TransactionalProducer::begin() {
  require(rd_kafka_begin_transaction(producer_.get()), "begin_transaction");
}

void TransactionalProducer::produce(const std::string& topic, int partition,
                                    const std::vector<std::string>& values) {
  for (const std::string& value : values) {
    produce_one(producer_.get(), {topic, partition, value, 0});
  }
  require(rd_kafka_flush(producer_.get(), kTimeoutMs), "flush");
}

void TransactionalProducer::commit() {
  require(rd_kafka_commit_transaction(producer_.get(), kTimeoutMs), "commit_transaction");
}

void TransactionalProducer::abort() {
  require(rd_kafka_abort_transaction(producer_.get(), kTimeoutMs), "abort_transaction");
}

OwnBroker::OwnBroker()
    : folder_(std::filesystem::temp_directory_path() / unique_name("sluice-broker")) {}

OwnBroker::~OwnBroker() {
  run("stop");
  std::filesystem::remove_all(folder_);
}

std::string OwnBroker::run(const std::string& verb) {
  const std::string command = "SLUICE_BROKER_PORT=free SLUICE_BROKER_DIR='" + folder_ + "' '" +
                              SLUICE_SOURCE_DIR "/tests/broker/broker.sh' " + verb;
  FILE* const pipe = popen(command.c_str(), "r");
  require(pipe != nullptr, command);
  std::string printed;
  for (int next = std::fgetc(pipe); next != EOF; next = std::fgetc(pipe)) {
    if (next != '\n') printed.push_back(static_cast<char>(next));
  }
  require(pclose(pipe) == 0, command);
  return printed;
}

std::string OwnBroker::start() {
  return run("start");
}

void OwnBroker::kill() {
  pid_t pid = 0;
  std::ifstream(folder_ + "/pid") >> pid;
  require(pid > 0 && ::kill(pid, SIGKILL) == 0, "kill the broker");
}

}  // namespace sluice::testing
