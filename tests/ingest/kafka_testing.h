// What a test does to a real broker: topics, messages, transactions, deletions. A failure is a
// fatal failure of the test.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/time.h"
#include "ingest/kafka_handles.h"
#include "ingest/source.h"

namespace sluice::testing {

// The thread sanitizer does not know the threads that librdkafka starts, and crashes in them when
// they look up an address. Tests of connections are skipped there.
#if defined(__SANITIZE_THREAD__)
constexpr bool kCanConnect = false;
#else
constexpr bool kCanConnect = true;
#endif
constexpr const char* kCannotConnect = "the thread sanitizer crashes in librdkafka's own threads";

constexpr StreamPartition kClicks0{Stream::clicks, 0};

// After so long a test has failed.
constexpr DurationMs kPatienceMs = 60'000;

// The broker that ./dev test has started, "host:port" from SLUICE_KAFKA; none without it.
std::optional<std::string> test_broker();

// A name that no other test, in this run or an earlier one, has used.
std::string unique_name(const std::string& stem);

class BrokerClient {
 public:
  explicit BrokerClient(std::string address);

  void create_topic(const std::string& name, int partitions,
                    const std::map<std::string, std::string>& settings = {});
  void add_partitions(const std::string& name, int new_count);
  // Removes the records before `position`, as retention does.
  void delete_before(const std::string& name, int partition, std::int64_t position);

  struct Message {
    std::string topic;
    int partition = 0;
    std::optional<std::string> value;  // none: a null
    TimeMs timestamp = 0;              // 0: now
  };
  // Returns when all are acknowledged; in order.
  void produce(const std::vector<Message>& messages, const std::string& codec = "none");

 private:
  // The controller acknowledges a topic before the broker knows it.
  void wait_for_partitions(const std::string& name, int count);

  std::string address_;
  kafka::Handle admin_;
};

// One producer's transactions.
class TransactionalProducer {
 public:
  TransactionalProducer(const std::string& address, const std::string& id);
  void begin();
  // Acknowledged when it returns, but neither committed nor aborted.
  void produce(const std::string& topic, int partition, const std::vector<std::string>& values);
  void commit();
  void abort();

 private:
  kafka::Handle producer_;
};

// A broker of one test's own, which may be killed and started again. Its folder goes with it.
class OwnBroker {
 public:
  OwnBroker();
  ~OwnBroker();
  OwnBroker(const OwnBroker&) = delete;
  OwnBroker& operator=(const OwnBroker&) = delete;

  std::string start();  // "host:port", the same each time
  void kill();          // SIGKILL, as a crash would

 private:
  std::string run(const std::string& verb);  // what broker.sh prints
  std::string folder_;
};

}  // namespace sluice::testing
