// What a test does to the topics of a broker (broker.sh) beside loading them (topic_loader).
//
//   topic_tool --brokers HOST:PORT VERB ...
//
//   show TOPIC                      a line a partition: number, leader's node, low, high watermark
//   delete TOPIC...                 returns when the broker does not know them any more
//   create TOPIC PARTITIONS
//   add-partitions TOPIC COUNT      to COUNT in all
//   delete-records TOPIC PARTITION OFFSET   those before OFFSET, as retention does
//   transact TOPIC PARTITION FILE   begins a transaction, sends FILE's lines, says "open", and then
//                                   commits or aborts it as a line on stdin says; at the end of
//                                   stdin it leaves, and the transaction hangs
//
// Exit code 0 when the broker has done it; 2 for a wrong command line.
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/result.h"
#include "base/time.h"
#include "ingest/kafka_handles.h"

namespace sluice {
namespace {

constexpr int kTimeoutMs = 30'000;
constexpr int kAnswerMs = 5'000;

Status check(rd_kafka_resp_err_t code, const std::string& what) {
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR) return {};
  return stop_error(what + ": " + rd_kafka_err2str(code));
}

Status check(rd_kafka_error_t* error, const std::string& what) {
  if (error == nullptr) return {};
  const std::string reason = rd_kafka_error_string(error);
  rd_kafka_error_destroy(error);
  return stop_error(what + ": " + reason);
}

Result<kafka::Handle> open_client(const std::string& brokers, const std::string& transaction) {
  kafka::Conf conf(rd_kafka_conf_new());
  char reason[512] = "";
  const auto set = [&](const char* name, const std::string& value) {
    return rd_kafka_conf_set(conf.get(), name, value.c_str(), reason, sizeof reason) ==
           RD_KAFKA_CONF_OK;
  };
  if (!set("bootstrap.servers", brokers) || !set("log_level", "3")) return usage_error(reason);
  if (!transaction.empty() && !set("transactional.id", transaction)) return usage_error(reason);
  // A hanging transaction should hang longer than the test.
  if (!transaction.empty() && !set("transaction.timeout.ms", "600000")) return usage_error(reason);
  kafka::Handle client(rd_kafka_new(RD_KAFKA_PRODUCER, conf.get(), reason, sizeof reason));
  if (client == nullptr) return usage_error(reason);
  (void)conf.release();  // the client's now
  return client;
}

// The answer of the admin request that `ask` sends to the queue it is given.
Result<kafka::Event> ask_admin(rd_kafka_t* client, const std::string& what,
                               const std::function<void(rd_kafka_queue_t*)>& ask) {
  const kafka::Queue queue(rd_kafka_queue_new(client));
  ask(queue.get());
  kafka::Event event(rd_kafka_queue_poll(queue.get(), kTimeoutMs));
  if (event == nullptr) return stop_error(what + ": the broker did not answer");
  SLUICE_TRY(check(rd_kafka_event_error(event.get()), what));
  return event;
}

Status check_topics(const rd_kafka_topic_result_t** results, std::size_t count) {
  for (std::size_t index = 0; index < count; ++index) {
    SLUICE_TRY(check(rd_kafka_topic_result_error(results[index]),
                     rd_kafka_topic_result_name(results[index])));
  }
  return {};
}

Result<kafka::Metadata> describe(rd_kafka_t* client, const std::string& topic) {
  const kafka::Topic handle(rd_kafka_topic_new(client, topic.c_str(), nullptr));
  const rd_kafka_metadata_t* raw = nullptr;
  SLUICE_TRY(check(rd_kafka_metadata(client, 0, handle.get(), &raw, kTimeoutMs), topic));
  return kafka::Metadata(raw);
}

// The controller acknowledges before the brokers know. 0 partitions: until the topic is unknown.
Status wait_for_partitions(rd_kafka_t* client, const std::string& topic, int count) {
  SystemClock clock;
  const DurationMs deadline = clock.steady_ms() + kTimeoutMs;
  while (clock.steady_ms() < deadline) {
    SLUICE_ASSIGN(const kafka::Metadata metadata, describe(client, topic));
    if (metadata->topics[0].partition_cnt == count) return {};
    clock.sleep_ms(20);
  }
  return stop_error(topic + " does not come to " + std::to_string(count) + " partitions");
}

// rd_kafka_query_watermark_offsets() may never return when a leader has just died.
Result<std::int64_t> ask_offset(rd_kafka_t* client, const std::string& topic, int partition,
                                std::int64_t which) {
  const kafka::PartitionList list(rd_kafka_topic_partition_list_new(1));
  rd_kafka_topic_partition_t* const wanted =
      rd_kafka_topic_partition_list_add(list.get(), topic.c_str(), partition);
  wanted->offset = which;
  SLUICE_TRY(check(rd_kafka_offsets_for_times(client, list.get(), kAnswerMs), topic));
  SLUICE_TRY(check(wanted->err, topic));
  return wanted->offset;
}

Status show(rd_kafka_t* client, const std::string& topic) {
  SLUICE_ASSIGN(const kafka::Metadata metadata, describe(client, topic));
  SLUICE_TRY(check(metadata->topics[0].err, topic));
  for (int index = 0; index < metadata->topics[0].partition_cnt; ++index) {
    const rd_kafka_metadata_partition& partition = metadata->topics[0].partitions[index];
    SLUICE_ASSIGN(const std::int64_t low,
                  ask_offset(client, topic, partition.id, RD_KAFKA_OFFSET_BEGINNING));
    SLUICE_ASSIGN(const std::int64_t high,
                  ask_offset(client, topic, partition.id, RD_KAFKA_OFFSET_END));
    std::printf("%d %d %lld %lld\n", partition.id, partition.leader, static_cast<long long>(low),
                static_cast<long long>(high));
  }
  return {};
}

Status delete_topics(rd_kafka_t* client, const std::vector<std::string>& topics) {
  std::vector<rd_kafka_DeleteTopic_t*> all;
  for (const std::string& topic : topics) all.push_back(rd_kafka_DeleteTopic_new(topic.c_str()));
  auto answer = ask_admin(client, "delete", [&](rd_kafka_queue_t* queue) {
    rd_kafka_DeleteTopics(client, all.data(), all.size(), nullptr, queue);
  });
  rd_kafka_DeleteTopic_destroy_array(all.data(), all.size());
  SLUICE_ASSIGN(const kafka::Event event, std::move(answer));
  std::size_t count = 0;
  const auto results =
      rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event.get()), &count);
  SLUICE_TRY(check_topics(results, count));
  for (const std::string& topic : topics) SLUICE_TRY(wait_for_partitions(client, topic, 0));
  return {};
}

Status create(rd_kafka_t* client, const std::string& topic, int partitions) {
  char reason[512] = "";
  const kafka::NewTopic wanted(
      rd_kafka_NewTopic_new(topic.c_str(), partitions, -1, reason, sizeof reason));
  if (wanted == nullptr) return usage_error(reason);
  rd_kafka_NewTopic_set_config(wanted.get(), "retention.ms", "-1");
  rd_kafka_NewTopic_t* all[] = {wanted.get()};
  SLUICE_ASSIGN(const kafka::Event event, ask_admin(client, topic, [&](rd_kafka_queue_t* queue) {
                  rd_kafka_CreateTopics(client, all, 1, nullptr, queue);
                }));
  std::size_t count = 0;
  const auto results =
      rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event.get()), &count);
  SLUICE_TRY(check_topics(results, count));
  return wait_for_partitions(client, topic, partitions);
}

Status add_partitions(rd_kafka_t* client, const std::string& topic, int partitions) {
  char reason[512] = "";
  rd_kafka_NewPartitions_t* const wanted = rd_kafka_NewPartitions_new(
      topic.c_str(), static_cast<std::size_t>(partitions), reason, sizeof reason);
  if (wanted == nullptr) return usage_error(reason);
  rd_kafka_NewPartitions_t* all[] = {wanted};
  auto answer = ask_admin(client, topic, [&](rd_kafka_queue_t* queue) {
    rd_kafka_CreatePartitions(client, all, 1, nullptr, queue);
  });
  rd_kafka_NewPartitions_destroy(wanted);
  SLUICE_ASSIGN(const kafka::Event event, std::move(answer));
  std::size_t count = 0;
  const auto results = rd_kafka_CreatePartitions_result_topics(
      rd_kafka_event_CreatePartitions_result(event.get()), &count);
  SLUICE_TRY(check_topics(results, count));
  return wait_for_partitions(client, topic, partitions);
}

Status delete_records(rd_kafka_t* client, const std::string& topic, int partition,
                      std::int64_t offset) {
  const kafka::PartitionList list(rd_kafka_topic_partition_list_new(1));
  rd_kafka_topic_partition_list_add(list.get(), topic.c_str(), partition)->offset = offset;
  const kafka::DeleteRecords wanted(rd_kafka_DeleteRecords_new(list.get()));
  rd_kafka_DeleteRecords_t* all[] = {wanted.get()};
  SLUICE_ASSIGN(const kafka::Event event, ask_admin(client, topic, [&](rd_kafka_queue_t* queue) {
                  rd_kafka_DeleteRecords(client, all, 1, nullptr, queue);
                }));
  const auto* const results =
      rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event.get()));
  if (results->cnt != 1) return stop_error(topic + ": the broker gave no result");
  return check(results->elems[0].err, topic);
}

Status transact(rd_kafka_t* client, const std::string& topic, int partition,
                const std::string& path) {
  SLUICE_TRY(check(rd_kafka_init_transactions(client, kTimeoutMs), "init_transactions"));
  SLUICE_TRY(check(rd_kafka_begin_transaction(client), "begin_transaction"));
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    SLUICE_TRY(check(
        rd_kafka_producev(client, RD_KAFKA_V_TOPIC(topic.c_str()), RD_KAFKA_V_PARTITION(partition),
                          RD_KAFKA_V_VALUE(static_cast<void*>(line.data()), line.size()),
                          RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END),
        topic));
  }
  SLUICE_TRY(check(rd_kafka_flush(client, kTimeoutMs), "flush"));
  std::printf("open\n");
  std::fflush(stdout);
  std::string word;
  if (!std::getline(std::cin, word)) std::_Exit(0);  // a proper end would abort it
  if (word == "commit") {
    return check(rd_kafka_commit_transaction(client, kTimeoutMs), "commit_transaction");
  }
  return check(rd_kafka_abort_transaction(client, kTimeoutMs), "abort_transaction");
}

struct Arguments {
  std::string brokers;
  std::string topic;
  std::vector<std::string> topics;
  int number = 0;
  std::int64_t offset = 0;
  std::string file;
};

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using sluice::Status;
  sluice::Arguments arguments;
  CLI::App app{"Changes the topics of a test's broker."};
  app.add_option("--brokers", arguments.brokers, "host:port,...")->required();
  app.require_subcommand(1);
  const auto verb = [&](const char* name, const char* what) {
    CLI::App* const added = app.add_subcommand(name, what);
    added->add_option("TOPIC", arguments.topic)->required();
    return added;
  };
  CLI::App* const show = verb("show", "Leaders and watermarks");
  CLI::App* const remove = app.add_subcommand("delete", "Deletes topics");
  remove->add_option("TOPIC", arguments.topics)->required();
  CLI::App* const create = verb("create", "Makes a topic");
  create->add_option("PARTITIONS", arguments.number)->required();
  CLI::App* const add = verb("add-partitions", "To COUNT partitions");
  add->add_option("COUNT", arguments.number)->required();
  CLI::App* const cut = verb("delete-records", "Removes the records before OFFSET");
  cut->add_option("PARTITION", arguments.number)->required();
  cut->add_option("OFFSET", arguments.offset)->required();
  CLI::App* const transact = verb("transact", "A transaction that ends as stdin says");
  transact->add_option("PARTITION", arguments.number)->required();
  transact->add_option("FILE", arguments.file)->required()->check(CLI::ExistingFile);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const auto& [brokers, topic, topics, number, offset, file] = arguments;
  const auto run = [&]() -> Status {
    SLUICE_ASSIGN(const sluice::kafka::Handle client,
                  sluice::open_client(brokers, *transact ? "transact-" + topic : ""));
    rd_kafka_t* const handle = client.get();
    if (*show) return sluice::show(handle, topic);
    if (*remove) return sluice::delete_topics(handle, topics);
    if (*create) return sluice::create(handle, topic, number);
    if (*add) return sluice::add_partitions(handle, topic, number);
    if (*cut) return sluice::delete_records(handle, topic, number, offset);
    return sluice::transact(handle, topic, number, file);
  };
  if (const Status done = run(); !done) {
    std::fprintf(stderr, "topic_tool: %s\n", done.error().message.c_str());
    return done.error().kind == sluice::ErrorKind::usage ? 2 : 1;
  }
  return 0;
}
