// The Kafka source against librdkafka's mock cluster: answers that a real broker does not give when
// a test wants them. Whatever passes by itself costs time only; the rest is a clear error.
#include <algorithm>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#include "ingest/kafka_handles.h"
#include "ingest/kafka_source.h"
#include "tests/ingest/kafka_testing.h"

namespace sluice {
namespace {

using ::sluice::testing::kClicks0;
using ::sluice::testing::kPatienceMs;
using ::testing::HasSubstr;

constexpr const char* kTopics[] = {"impressions", "clicks", "purchases"};
constexpr std::size_t kRecords = 600;
constexpr int kNodes = 3;
// Numbers of the protocol's requests.
constexpr std::int16_t kFetch = 1;
constexpr std::int16_t kListOffsets = 2;
constexpr std::int16_t kMetadata = 3;

using MockCluster = kafka::Owned<rd_kafka_mock_cluster_t, rd_kafka_mock_cluster_destroy>;

class KafkaMockTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!sluice::testing::kCanConnect) GTEST_SKIP() << sluice::testing::kCannotConnect;
    host_ = open_producer("");
    cluster_.reset(rd_kafka_mock_cluster_new(host_.get(), kNodes));
    ASSERT_NE(cluster_, nullptr);
    config_.source.type = SourceConfig::Type::kafka;
    config_.source.brokers = rd_kafka_mock_cluster_bootstraps(cluster_.get());
    config_.source.properties["fetch.error.backoff.ms"] = "50";
    // Many small fetches.
    config_.source.max_queued_bytes = 30'000;
    for (std::size_t stream = 0; stream < kStreamsWithoutActions; ++stream) {
      config_.streams.topic[stream] = kTopics[stream];
      ASSERT_EQ(rd_kafka_mock_topic_create(cluster_.get(), kTopics[stream], 1, kNodes),
                RD_KAFKA_RESP_ERR_NO_ERROR);
    }
    produce();
  }

  static kafka::Handle open_producer(const std::string& brokers) {
    kafka::Conf conf(rd_kafka_conf_new());
    char reason[512] = "";
    for (const auto& [name, value] : {std::pair{"bootstrap.servers", brokers},
                                      {"batch.num.messages", std::string("20")},
                                      {"log_level", std::string("2")}}) {
      if (value.empty()) continue;
      EXPECT_EQ(rd_kafka_conf_set(conf.get(), name, value.c_str(), reason, sizeof reason),
                RD_KAFKA_CONF_OK)
          << reason;
    }
    kafka::Handle producer(rd_kafka_new(RD_KAFKA_PRODUCER, conf.get(), reason, sizeof reason));
    EXPECT_NE(producer, nullptr) << reason;
    (void)conf.release();
    return producer;
  }

  void produce() {
    const kafka::Handle producer = open_producer(config_.source.brokers);
    for (std::size_t number = 0; number < kRecords; ++number) {
      std::string text = "click " + std::to_string(number);
      written_.push_back(text);
      ASSERT_EQ(
          rd_kafka_producev(producer.get(), RD_KAFKA_V_TOPIC("clicks"), RD_KAFKA_V_PARTITION(0),
                            RD_KAFKA_V_VALUE(static_cast<void*>(text.data()), text.size()),
                            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END),
          RD_KAFKA_RESP_ERR_NO_ERROR);
    }
    ASSERT_EQ(rd_kafka_flush(producer.get(), 10'000), RD_KAFKA_RESP_ERR_NO_ERROR);
  }

  std::unique_ptr<Source> open() {
    auto source = open_kafka_source(config_, clock_,
                                    {.log = [](std::string_view) {},
                                     .reach_within = reach_within_,
                                     .unreachable_after = 1'000,
                                     .refuse_compacted = false});  // the mock does not tell
    EXPECT_TRUE(source) << (source ? "" : source.error().message);
    return source ? *std::move(source) : nullptr;
  }

  std::unique_ptr<Source> open_at_start() {
    auto source = open();
    // On a busy machine an answer may not come within the source's patience.
    auto partitions = source->partitions();
    const DurationMs deadline = clock_.steady_ms() + kPatienceMs;
    while (!partitions && partitions.error().kind == ErrorKind::retry &&
           clock_.steady_ms() < deadline) {
      partitions = source->partitions();
    }
    EXPECT_EQ(partitions.value_or(0), 1U);
    for (std::size_t stream = 0; stream < kStreamsWithoutActions; ++stream) {
      const Status sought = source->seek({static_cast<Stream>(stream), 0}, 0);
      EXPECT_TRUE(sought) << sought.error().message;
    }
    return source;
  }

  void push_errors(std::int16_t request, std::size_t count, rd_kafka_resp_err_t error) {
    const std::vector<rd_kafka_resp_err_t> errors(count, error);
    rd_kafka_mock_push_request_errors_array(cluster_.get(), request, count, errors.data());
  }

  void set_all(rd_kafka_resp_err_t (*change)(rd_kafka_mock_cluster_t*, std::int32_t)) {
    for (std::int32_t node = 1; node <= kNodes; ++node) {
      EXPECT_EQ(change(cluster_.get(), node), RD_KAFKA_RESP_ERR_NO_ERROR);
    }
  }

  // One read; what may be retried is no error.
  std::optional<Error> read_some(Source& source) {
    auto read = source.read(kClicks0, 50, 100);
    if (!read && read.error().kind != ErrorKind::retry) return read.error();
    if (!read) ++retries_;
    for (const Record& record : read ? read->records : std::vector<Record>()) {
      EXPECT_EQ(record.position, read_.size());
      read_.push_back(record.bytes);
    }
    return std::nullopt;
  }

  // Reads until all is there or an error says to stop. What may be retried is.
  std::optional<Error> read_on(Source& source, std::size_t until = kRecords) {
    const DurationMs deadline = clock_.steady_ms() + kPatienceMs;
    while (read_.size() < until) {
      if (const auto error = read_some(source)) return error;
      if (clock_.steady_ms() > deadline) {
        return stop_error("only " + std::to_string(read_.size()) + " records in time");
      }
    }
    return std::nullopt;
  }

  void expect_all_read(Source& source) {
    const auto error = read_on(source);
    EXPECT_FALSE(error) << error->message;
    EXPECT_EQ(read_, written_);
  }

  SystemClock clock_;
  Config config_;
  kafka::Handle host_;
  MockCluster cluster_;  // before its host goes
  std::vector<std::string> written_;
  std::vector<std::string> read_;
  int retries_ = 0;
  DurationMs reach_within_ = 1'000;
};

// ---- errors that pass

class PassingFetchErrorTest : public KafkaMockTest,
                              public ::testing::WithParamInterface<rd_kafka_resp_err_t> {};

TEST_P(PassingFetchErrorTest, EveryRecordIsReadOnceAndInOrder) {
  const auto source = open_at_start();
  push_errors(kFetch, 2, GetParam());
  EXPECT_FALSE(read_on(*source, 100));
  push_errors(kFetch, 3, GetParam());
  expect_all_read(*source);
}

INSTANTIATE_TEST_SUITE_P(
    KafkaMock, PassingFetchErrorTest,
    ::testing::Values(RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
                      RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
                      RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE,
                      RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE,
                      RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH, RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH,
                      RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE, RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
                      RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
                      RD_KAFKA_RESP_ERR__TRANSPORT),
    [](const auto& chosen) { return std::string(rd_kafka_err2name(chosen.param)); });

// ---- errors that do not

class LastingFetchErrorTest : public KafkaMockTest,
                              public ::testing::WithParamInterface<rd_kafka_resp_err_t> {};

TEST_P(LastingFetchErrorTest, StopsTheReaderAndSaysWhere) {
  const auto source = open_at_start();
  EXPECT_FALSE(read_on(*source, 100));
  push_errors(kFetch, 50, GetParam());
  const auto error = read_on(*source);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->kind, ErrorKind::stop);
  EXPECT_THAT(error->message,
              HasSubstr("clicks/0@" + std::to_string(read_.size()) + ": cannot be read"));
  EXPECT_THAT(error->message, HasSubstr(rd_kafka_err2str(GetParam())));
  // Again at every later read; what came before was right.
  EXPECT_FALSE(source->read(kClicks0, 10, 0));
  EXPECT_TRUE(std::equal(read_.begin(), read_.end(), written_.begin()));
}

INSTANTIATE_TEST_SUITE_P(KafkaMock, LastingFetchErrorTest,
                         ::testing::Values(RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
                                           RD_KAFKA_RESP_ERR_INVALID_MSG,
                                           RD_KAFKA_RESP_ERR_UNKNOWN),
                         [](const auto& chosen) {
                           return std::string(rd_kafka_err2name(chosen.param));
                         });

// ---- questions

TEST_F(KafkaMockTest, QuestionsThatFailMayBeAskedAgain) {
  const auto source = open();
  ASSERT_TRUE(source->partitions());
  for (const auto error :
       {RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE, RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, RD_KAFKA_RESP_ERR__TRANSPORT}) {
    push_errors(kListOffsets, 2, error);
    for (int attempt = 0;; ++attempt) {
      const auto end = source->end_position(kClicks0);
      if (end) {
        EXPECT_EQ(*end, kRecords) << rd_kafka_err2name(error);
        break;
      }
      EXPECT_EQ(end.error().kind, ErrorKind::retry) << end.error().message;
      ASSERT_LT(attempt, 5) << end.error().message;
    }
    rd_kafka_mock_clear_request_errors(cluster_.get(), kListOffsets);
  }
}

// A broker that stood still is no leader until it has registered anew.
TEST_F(KafkaMockTest, QuestionsWaitForALeader) {
  const auto source = open_at_start();
  EXPECT_FALSE(read_on(*source, 50));
  constexpr int kNobody = -1;
  ASSERT_EQ(rd_kafka_mock_partition_set_leader(cluster_.get(), "clicks", 0, kNobody),
            RD_KAFKA_RESP_ERR_NO_ERROR);
  // What is still known of the leader may be asked first.
  const DurationMs deadline = clock_.steady_ms() + kPatienceMs;
  bool is_told = false;
  while (!is_told && clock_.steady_ms() < deadline) {
    const auto end = source->end_position(kClicks0);
    ASSERT_TRUE(end || end.error().kind == ErrorKind::retry) << end.error().message;
    is_told = !end && end.error().message.find("Leader not available") != std::string::npos;
  }
  EXPECT_TRUE(is_told);
  ASSERT_EQ(rd_kafka_mock_partition_set_leader(cluster_.get(), "clicks", 0, 1),
            RD_KAFKA_RESP_ERR_NO_ERROR);
  auto end = source->end_position(kClicks0);
  while (!end && end.error().kind == ErrorKind::retry && clock_.steady_ms() < deadline) {
    end = source->end_position(kClicks0);
  }
  ASSERT_TRUE(end) << end.error().message;
  EXPECT_EQ(*end, kRecords);
  expect_all_read(*source);
}

TEST_F(KafkaMockTest, MetadataThatFailsIsAskedAgain) {
  const auto source = open_at_start();
  EXPECT_FALSE(read_on(*source, 50));
  push_errors(kMetadata, 3, RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE);
  push_errors(kFetch, 2, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION);
  expect_all_read(*source);
}

// ---- brokers that are slow, away, or not the leader any more

using KafkaMockSlowTest = KafkaMockTest;

TEST_F(KafkaMockSlowTest, ASlowBrokerCostsTimeOnly) {
  const auto source = open_at_start();
  for (std::int32_t node = 1; node <= kNodes; ++node) {
    rd_kafka_mock_broker_set_rtt(cluster_.get(), node, 100);
  }
  expect_all_read(*source);
  EXPECT_EQ(retries_, 0);
}

TEST_F(KafkaMockSlowTest, BrokersThatComeBackAreReadOn) {
  const auto source = open_at_start();
  EXPECT_FALSE(read_on(*source, 100));
  const std::uint64_t epoch = source->connection_epoch();
  set_all(rd_kafka_mock_broker_set_down);
  const DurationMs deadline = clock_.steady_ms() + kPatienceMs;
  std::optional<Error> error;
  while (!error && clock_.steady_ms() < deadline) {
    auto read = source->read(kClicks0, 50, 100);
    if (!read) error = read.error();
    for (const Record& record : read ? read->records : std::vector<Record>()) {
      read_.push_back(record.bytes);  // what was fetched before
    }
  }
  ASSERT_TRUE(error);
  EXPECT_EQ(error->kind, ErrorKind::retry);
  EXPECT_THAT(error->message, HasSubstr("cannot reach Kafka"));
  set_all(rd_kafka_mock_broker_set_up);
  expect_all_read(*source);
  EXPECT_GT(source->connection_epoch(), epoch);
}

// Who reads has other work to do than to wait for a broker.
TEST_F(KafkaMockSlowTest, AQuestionBetweenReadsIsNotWaitedForLong) {
  reach_within_ = 60'000;
  const auto source = open_at_start();
  EXPECT_FALSE(read_on(*source, 100));
  set_all(rd_kafka_mock_broker_set_down);
  const DurationMs begin = clock_.steady_ms();
  const auto record = source->record_at(kClicks0, 50);
  const auto end = source->readable_end(kClicks0);
  EXPECT_LT(clock_.steady_ms() - begin, 10'000);
  ASSERT_FALSE(record);
  EXPECT_EQ(record.error().kind, ErrorKind::retry) << record.error().message;
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().kind, ErrorKind::retry) << end.error().message;
  set_all(rd_kafka_mock_broker_set_up);
  expect_all_read(*source);
}

TEST_F(KafkaMockTest, ALeaderThatMovesIsFollowedAndNoted) {
  const auto source = open_at_start();
  EXPECT_FALSE(read_on(*source, 50));
  for (std::int32_t node = 1; node <= kNodes; ++node) {
    const std::uint64_t epoch = source->connection_epoch();
    ASSERT_EQ(rd_kafka_mock_partition_set_leader(cluster_.get(), "clicks", 0, node),
              RD_KAFKA_RESP_ERR_NO_ERROR);
    push_errors(kFetch, 1, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION);
    EXPECT_FALSE(read_on(*source, read_.size() + 150));
    // These may all have been fetched before the leader moved.
    const DurationMs deadline = clock_.steady_ms() + kPatienceMs;
    while (source->connection_epoch() == epoch && clock_.steady_ms() < deadline) {
      EXPECT_FALSE(read_some(*source));
    }
    EXPECT_GT(source->connection_epoch(), epoch) << "node " << node;
  }
  expect_all_read(*source);
}

// A connection that stays and a broker that is never reached are no reason to look again.
TEST_F(KafkaMockTest, NothingIsNotedWithoutABreak) {
  config_.source.brokers += ",127.0.0.1:1";
  const auto source = open_at_start();
  EXPECT_FALSE(read_on(*source, 50));
  const std::uint64_t epoch = source->connection_epoch();
  expect_all_read(*source);
  clock_.sleep_ms(1'500);
  (void)source->read(kClicks0, 10, 100);
  EXPECT_EQ(source->connection_epoch(), epoch);
}

}  // namespace
}  // namespace sluice
