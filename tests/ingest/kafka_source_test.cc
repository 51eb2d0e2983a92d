// The Kafka source against a real broker. Tests that need one are skipped where SLUICE_KAFKA does
// not name it; ./dev test starts one.
#include "ingest/kafka_source.h"

#include <unistd.h>
#include <fstream>
#include <mutex>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/ingest/kafka_testing.h"

namespace sluice {
namespace {

using ::sluice::testing::BrokerClient;
using ::sluice::testing::kClicks0;
using ::sluice::testing::kPatienceMs;
using ::sluice::testing::TransactionalProducer;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr StreamPartition kImpressions0{Stream::impressions, 0};

Config config_of(const std::string& brokers, const std::array<std::string, kStreams>& topics) {
  Config config;
  config.source.type = SourceConfig::Type::kafka;
  config.source.brokers = brokers;
  config.streams.topic = topics;
  return config;
}

std::vector<std::string> texts_of(const std::vector<Record>& records) {
  std::vector<std::string> texts;
  for (const Record& record : records) texts.push_back(record.bytes);
  return texts;
}

// Reads until the log's end is told at `end` or later.
std::vector<Record> read_to(Source& source, StreamPartition where, Position end,
                            std::size_t max_records = 1'000) {
  SystemClock clock;
  const DurationMs deadline = clock.steady_ms() + kPatienceMs;
  std::vector<Record> records;
  while (clock.steady_ms() < deadline) {
    auto read = source.read(where, max_records, 200);
    if (!read) {
      ADD_FAILURE() << read.error().message;
      return records;
    }
    EXPECT_LE(read->records.size(), max_records);
    EXPECT_TRUE(read->records.empty() || !read->at_end);
    for (Record& record : read->records) records.push_back(std::move(record));
    if (read->at_end && *read->at_end >= end) return records;
  }
  ADD_FAILURE() << "no end at " << end << " within " << kPatienceMs << " ms";
  return records;
}

// Reads until there is an error, which it returns.
Error read_error(Source& source, StreamPartition where) {
  SystemClock clock;
  const DurationMs deadline = clock.steady_ms() + kPatienceMs;
  while (clock.steady_ms() < deadline) {
    if (auto read = source.read(where, 100, 200); !read) return read.error();
  }
  ADD_FAILURE() << "no error within " << kPatienceMs << " ms";
  return {};
}

class KafkaSourceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!sluice::testing::kCanConnect) GTEST_SKIP() << sluice::testing::kCannotConnect;
    const auto address = sluice::testing::test_broker();
    if (!address) GTEST_SKIP() << "SLUICE_KAFKA names no broker; ./dev test starts one";
    address_ = *address;
    broker_ = std::make_unique<BrokerClient>(address_);
    for (std::size_t stream = 0; stream < kStreamsWithoutActions; ++stream) {
      topics_[stream] = sluice::testing::unique_name(kStreamNames[stream]);
    }
    config_ = config_of(address_, topics_);
  }

  void create_topics(int partitions, const std::map<std::string, std::string>& settings = {}) {
    for (const std::string& topic : topics_) {
      if (!topic.empty()) broker_->create_topic(topic, partitions, settings);
    }
  }

  void produce(StreamPartition where, const std::vector<std::string>& values,
               const std::string& codec = "none") {
    std::vector<BrokerClient::Message> messages;
    for (const std::string& value : values) {
      messages.push_back({topics_[static_cast<std::size_t>(where.stream)],
                          static_cast<int>(where.partition), value, 0});
    }
    broker_->produce(messages, codec);
  }

  std::unique_ptr<Source> open() {
    auto source = open_kafka_source(config_, clock_, {.log = [](std::string_view) {}});
    EXPECT_TRUE(source) << (source ? "" : source.error().message);
    return source ? *std::move(source) : nullptr;
  }

  // Opened, its partitions counted, every stream-partition sought at its first position.
  std::unique_ptr<Source> open_at_start() {
    auto source = open();
    const auto partitions = source->partitions();
    EXPECT_TRUE(partitions) << (partitions ? "" : partitions.error().message);
    for (std::uint32_t partition = 0; partition < partitions.value_or(0); ++partition) {
      for (std::size_t stream = 0; stream < kStreamsWithoutActions; ++stream) {
        const StreamPartition where{static_cast<Stream>(stream), partition};
        const auto first = source->first_position(where);
        EXPECT_TRUE(first && source->seek(where, *first));
      }
    }
    return source;
  }

  SystemClock clock_;
  std::string address_;
  std::unique_ptr<BrokerClient> broker_;
  std::array<std::string, kStreams> topics_;
  Config config_;
};

std::vector<std::string> numbered(int count, const std::string& stem) {
  std::vector<std::string> values;
  for (int index = 0; index < count; ++index) values.push_back(stem + std::to_string(index));
  return values;
}

TEST_F(KafkaSourceTest, ReadsEveryPartitionWholeAndInOrder) {
  create_topics(2);
  std::map<StreamPartition, std::vector<std::string>> written;
  written[{Stream::impressions, 0}] = numbered(5'000, "impression ");
  written[{Stream::impressions, 1}] = numbered(70, "other ");
  written[{Stream::clicks, 1}] = numbered(300, "click ");
  for (const auto& [where, values] : written) produce(where, values);

  const auto source = open_at_start();
  EXPECT_EQ(source->partitions().value_or(0), 2u);
  for (std::size_t stream = 0; stream < kStreamsWithoutActions; ++stream) {
    for (std::uint32_t partition = 0; partition < 2; ++partition) {
      const StreamPartition where{static_cast<Stream>(stream), partition};
      const auto end = source->end_position(where);
      ASSERT_TRUE(end);
      EXPECT_EQ(*end, written[where].size());
      const auto records = read_to(*source, where, *end, 64);
      EXPECT_EQ(texts_of(records), written[where]) << to_string(where);
      for (std::size_t index = 0; index < records.size(); ++index) {
        EXPECT_EQ(records[index].position, index);
        EXPECT_EQ(records[index].next, index + 1);
        EXPECT_EQ(records[index].log_time, std::nullopt);
      }
    }
  }
  EXPECT_EQ(source->describe(kClicks0, 17), topics_[1] + "/0@17");
}

TEST_F(KafkaSourceTest, GoesOnWithWhatComesAfterTheEnd) {
  create_topics(1);
  produce(kClicks0, {"a"});
  const auto source = open_at_start();
  EXPECT_THAT(texts_of(read_to(*source, kClicks0, 1)), ElementsAre("a"));
  produce(kClicks0, {"b", "c"});
  EXPECT_THAT(texts_of(read_to(*source, kClicks0, 3)), ElementsAre("b", "c"));
}

TEST_F(KafkaSourceTest, DecompressesEveryCodec) {
  create_topics(1);
  std::vector<std::string> written;
  for (const char* codec : {"none", "gzip", "snappy", "lz4", "zstd"}) {
    const auto values = numbered(200, std::string(codec) + " ");
    produce(kImpressions0, values, codec);
    written.insert(written.end(), values.begin(), values.end());
  }
  const auto source = open_at_start();
  EXPECT_EQ(texts_of(read_to(*source, kImpressions0, written.size())), written);
}

TEST_F(KafkaSourceTest, SeeksIntoTheMiddleAndBack) {
  create_topics(1);
  const auto written = numbered(1'000, "r");
  produce(kImpressions0, written);
  const auto source = open_at_start();
  ASSERT_TRUE(source->seek(kImpressions0, 700));
  auto records = read_to(*source, kImpressions0, 1'000);
  ASSERT_EQ(records.size(), 300u);
  EXPECT_EQ(records.front().bytes, "r700");
  // Back, while later records wait in the queue.
  ASSERT_TRUE(source->seek(kImpressions0, 100));
  const auto part = source->read(kImpressions0, 10, kPatienceMs);
  ASSERT_TRUE(part);
  EXPECT_EQ(part->records.front().bytes, "r100");
  ASSERT_TRUE(source->seek(kImpressions0, 0));
  EXPECT_EQ(texts_of(read_to(*source, kImpressions0, 1'000)), written);
}

TEST_F(KafkaSourceTest, HidesAbortedRecordsAndPassesControlRecords) {
  create_topics(1);
  produce(kClicks0, {"p0", "p1"});  // 0, 1
  TransactionalProducer transactions(address_, topics_[0]);
  transactions.begin();
  transactions.produce(topics_[1], 0, {"x0", "x1", "x2"});  // 2..4
  transactions.abort();                                     // 5: control
  transactions.begin();
  transactions.produce(topics_[1], 0, {"c0", "c1"});  // 6, 7
  transactions.commit();                              // 8: control
  transactions.begin();
  transactions.produce(topics_[1], 0, {"x3"});  // 9
  transactions.abort();                         // 10: control

  const auto source = open_at_start();
  ASSERT_EQ(source->end_position(kClicks0).value_or(0), 11u);
  const auto records = read_to(*source, kClicks0, 11);
  EXPECT_THAT(texts_of(records), ElementsAre("p0", "p1", "c0", "c1"));
  EXPECT_EQ(records.at(2).position, 6u);
  // Into the middle of an aborted transaction.
  ASSERT_TRUE(source->seek(kClicks0, 3));
  EXPECT_THAT(texts_of(read_to(*source, kClicks0, 11)), ElementsAre("c0", "c1"));
  // A control record is none; a committed one is found again.
  const auto control = source->record_at(kClicks0, 8);
  ASSERT_TRUE(control) << control.error().message;
  EXPECT_FALSE(control->has_value());
  const auto found = source->record_at(kClicks0, 7);
  ASSERT_TRUE(found && *found);
  EXPECT_EQ((*found)->bytes, "c1");
  EXPECT_EQ((*found)->next, 8u);
}

TEST_F(KafkaSourceTest, AnOpenTransactionIsNotTheEndThatIsConfirmed) {
  create_topics(1);
  config_.source.idle_after = 300;
  produce(kClicks0, {"p0"});
  TransactionalProducer transactions(address_, topics_[0]);
  transactions.begin();
  transactions.produce(topics_[1], 0, {"t0", "t1"});

  const auto source = open_at_start();
  EXPECT_THAT(texts_of(read_to(*source, kClicks0, 1)), ElementsAre("p0"));
  const auto read = source->read(kClicks0, 10, 100);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->at_end, Position{1});  // the last stable offset
  const DurationMs deadline = clock_.steady_ms() + kPatienceMs;
  std::optional<EndConfirmation> confirmed;
  while (!confirmed && clock_.steady_ms() < deadline) {
    confirmed = source->confirmed_end(kClicks0);
    clock_.sleep_ms(10);
  }
  ASSERT_TRUE(confirmed);
  EXPECT_EQ(confirmed->end, 3u);  // the high watermark
  transactions.commit();
  EXPECT_THAT(texts_of(read_to(*source, kClicks0, 4)), ElementsAre("t0", "t1"));
}

TEST_F(KafkaSourceTest, ConfirmsEndsAgainAndAgain) {
  create_topics(1);
  config_.source.idle_after = 150;
  const auto source = open_at_start();
  const TimeMs before = clock_.wall_ms();
  const DurationMs deadline = clock_.steady_ms() + kPatienceMs;
  std::optional<EndConfirmation> first;
  std::optional<EndConfirmation> later;
  while (clock_.steady_ms() < deadline && !(first && later && later->end == 1)) {
    later = source->confirmed_end(kClicks0);
    if (later && !first) {
      first = later;
      produce(kClicks0, {"a"});
    }
    clock_.sleep_ms(10);
  }
  ASSERT_TRUE(first && later);
  EXPECT_EQ(first->end, 0u);
  EXPECT_EQ(later->end, 1u);
  EXPECT_GE(first->requested_wall_ms, before);
  EXPECT_GE(later->requested_wall_ms, first->requested_wall_ms);
  EXPECT_GT(later->answered_steady_ms, first->answered_steady_ms);
  EXPECT_LE(later->answered_steady_ms, clock_.steady_ms());
}

// Nothing is declared quiet then (LogReader), but the lag is told and new partitions are seen.
TEST_F(KafkaSourceTest, ConfirmsEndsAlsoWhenIdleAfterIsNever) {
  create_topics(1);
  produce(kClicks0, {"a"});
  config_.source.idle_after.reset();
  const auto source = open_at_start();
  const DurationMs deadline = clock_.steady_ms() + kPatienceMs;
  while (!source->confirmed_end(kClicks0) && clock_.steady_ms() < deadline) clock_.sleep_ms(10);
  const auto confirmed = source->confirmed_end(kClicks0);
  ASSERT_TRUE(confirmed);
  EXPECT_EQ(confirmed->end, 1U);
}

TEST_F(KafkaSourceTest, NamesTheRangeThatRetentionRemoved) {
  create_topics(1);
  produce(kClicks0, numbered(30, "c"));
  auto source = open_at_start();
  ASSERT_TRUE(source->seek(kClicks0, 5));
  broker_->delete_before(topics_[1], 0, 17);
  // Under the reader's feet, and again at every later read.
  const std::string lost = topics_[1] + "/0: the records [5, 17) are lost";
  for (int attempt = 0; attempt < 2; ++attempt) {
    const Error error = read_error(*source, kClicks0);
    EXPECT_EQ(error.kind, ErrorKind::stop);
    EXPECT_THAT(error.message, HasSubstr(lost));
  }
  // At a start.
  source = open_at_start();
  EXPECT_EQ(source->first_position(kClicks0).value_or(0), 17u);
  const Status sought = source->seek(kClicks0, 5);
  ASSERT_FALSE(sought);
  EXPECT_EQ(sought.error().kind, ErrorKind::stop);
  EXPECT_THAT(sought.error().message, HasSubstr(lost));
  const auto removed = source->record_at(kClicks0, 16);
  ASSERT_TRUE(removed) << removed.error().message;
  EXPECT_FALSE(removed->has_value());
  const auto kept = source->record_at(kClicks0, 17);
  ASSERT_TRUE(kept && *kept);
  EXPECT_EQ((*kept)->bytes, "c17");
  // The others are read on.
  ASSERT_TRUE(source->seek(kClicks0, 17));
  EXPECT_EQ(read_to(*source, kClicks0, 30).size(), 13u);
}

TEST_F(KafkaSourceTest, StopsWhereTheLogIsShorterThanItWas) {
  create_topics(1);
  produce(kClicks0, {"a", "b"});
  const auto source = open_at_start();
  const Status sought = source->seek(kClicks0, 3);
  ASSERT_FALSE(sought);
  EXPECT_THAT(sought.error().message, HasSubstr("ends at 2"));
  const auto record = source->record_at(kClicks0, 2);
  ASSERT_FALSE(record);
  EXPECT_EQ(record.error().kind, ErrorKind::stop);
}

TEST_F(KafkaSourceTest, RefusesCompactedTopics) {
  for (const char* policy : {"compact", "compact,delete"}) {
    topics_[1] = sluice::testing::unique_name("clicks");
    config_.streams.topic = topics_;
    for (std::size_t stream : {0, 2}) {
      topics_[stream] = sluice::testing::unique_name("plain");
      broker_->create_topic(topics_[stream], 1);
    }
    broker_->create_topic(topics_[1], 1, {{"cleanup.policy", policy}});
    config_.streams.topic = topics_;
    const auto partitions = open()->partitions();
    ASSERT_FALSE(partitions);
    EXPECT_EQ(partitions.error().kind, ErrorKind::stop);
    EXPECT_THAT(partitions.error().message,
                AllOf(HasSubstr(topics_[1]), HasSubstr("cleanup.policy")));
  }
}

TEST_F(KafkaSourceTest, RefusesUnequalPartitionCountsAndMissingTopics) {
  broker_->create_topic(topics_[0], 2);
  broker_->create_topic(topics_[1], 3);
  const auto missing = open()->partitions();
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().kind, ErrorKind::stop);
  EXPECT_THAT(missing.error().message, AllOf(HasSubstr(topics_[2]), HasSubstr("does not exist")));
  broker_->create_topic(topics_[2], 2);
  const auto unequal = open()->partitions();
  ASSERT_FALSE(unequal);
  EXPECT_EQ(unequal.error().kind, ErrorKind::stop);
  EXPECT_THAT(unequal.error().message,
              AllOf(HasSubstr(topics_[0] + " has 2 partitions"), HasSubstr(topics_[1] + " has 3")));
}

TEST_F(KafkaSourceTest, StopsWhenATopicGetsMorePartitions) {
  create_topics(1);
  config_.source.idle_after = 300;
  const auto source = open_at_start();
  (void)source->confirmed_end(kClicks0);
  EXPECT_THAT(read_to(*source, kClicks0, 0), IsEmpty());
  broker_->add_partitions(topics_[1], 2);
  const Error error = read_error(*source, kClicks0);
  EXPECT_EQ(error.kind, ErrorKind::stop);
  EXPECT_THAT(error.message, HasSubstr(topics_[1] + " now has 2 partitions, not 1"));
}

TEST_F(KafkaSourceTest, TakesTheLogTimeOfLogAppendTimeTopicsOnly) {
  create_topics(1, {{"message.timestamp.type", "LogAppendTime"}});
  const TimeMs before = clock_.wall_ms();
  produce(kClicks0, {"a"});
  const TimeMs after = clock_.wall_ms();
  const auto records = read_to(*open_at_start(), kClicks0, 1);
  ASSERT_EQ(records.size(), 1u);
  ASSERT_TRUE(records[0].log_time);
  EXPECT_GE(*records[0].log_time, before);
  EXPECT_LE(*records[0].log_time, after);
}

TEST_F(KafkaSourceTest, StartsWhereTheConfigSays) {
  create_topics(1);
  const TimeMs day = 86'400'000;
  const TimeMs base = parse_time("2024-05-01").value_or(0);
  std::vector<BrokerClient::Message> messages;
  for (int index = 0; index < 5; ++index)
    messages.push_back({topics_[1], 0, "c", base + index * day});
  broker_->produce(messages);
  const auto first_with = [&](const std::string& start) {
    config_.source.start = start;
    return open()->first_position(kClicks0).value_or(999);
  };
  EXPECT_EQ(first_with("earliest"), 0u);
  EXPECT_EQ(first_with("latest"), 5u);
  EXPECT_EQ(first_with("2024-05-03"), 2u);
  EXPECT_EQ(first_with("2024-05-03T00:00:01Z"), 3u);
  EXPECT_EQ(first_with("2024-06-01"), 5u);  // none yet
}

TEST_F(KafkaSourceTest, CutsWhatIsTooLongAndTakesNullForEmpty) {
  create_topics(1);
  config_.streams.max_record_bytes = 10;
  broker_->produce({{topics_[1], 0, std::nullopt, 0},
                    {topics_[1], 0, std::string(10, 'a'), 0},
                    {topics_[1], 0, std::string(5'000, 'b'), 0}});
  const auto source = open_at_start();
  EXPECT_THAT(texts_of(read_to(*source, kClicks0, 3)),
              ElementsAre("", std::string(10, 'a'), std::string(11, 'b')));
  const auto again = source->record_at(kClicks0, 2);
  ASSERT_TRUE(again && *again);
  EXPECT_EQ((*again)->bytes, std::string(11, 'b'));
}

// librdkafka notices a drained queue late when all the others are full; then each refill of the
// small queues here would cost up to a second.
TEST_F(KafkaSourceTest, RefillsADrainedQueueWhileTheOthersAreFull) {
  create_topics(1);
  for (std::size_t stream = 0; stream < kStreamsWithoutActions; ++stream) {
    produce({static_cast<Stream>(stream), 0},
            std::vector<std::string>(40'000, std::string(100, 'x')));
  }
  config_.source.max_queued_bytes = 500'000;
  const auto source = open_at_start();
  ASSERT_TRUE(source->read(kImpressions0, 1, kPatienceMs));
  clock_.sleep_ms(500);  // all queues fill
  const DurationMs start = clock_.steady_ms();
  EXPECT_EQ(read_to(*source, kImpressions0, 40'000).size(), 39'999u);
  EXPECT_LT(clock_.steady_ms() - start, 8'000);
}

using KafkaSourceSlowTest = KafkaSourceTest;

TEST_F(KafkaSourceSlowTest, GoesOnWhereItWasWhenTheBrokerHasCrashed) {
  sluice::testing::OwnBroker own;
  address_ = own.start();
  config_.source.brokers = address_;
  broker_ = std::make_unique<BrokerClient>(address_);
  create_topics(1);
  const auto before = numbered(1'000, "before ");
  produce(kClicks0, before);
  std::mutex mutex;
  std::string logged;
  const auto log = [&](std::string_view line) {
    const std::lock_guard lock(mutex);
    logged.append(line).append("\n");
  };
  auto opened = open_kafka_source(config_, clock_,
                                  {.log = log, .reach_within = 2'000, .unreachable_after = 1'500});
  ASSERT_TRUE(opened);
  Source& source = **opened;
  ASSERT_TRUE(source.partitions());
  ASSERT_TRUE(source.seek(kClicks0, 0));
  std::vector<std::string> read = texts_of(read_to(source, kClicks0, 1'000, 100));
  broker_.reset();

  own.kill();
  const Error error = read_error(source, kClicks0);
  EXPECT_EQ(error.kind, ErrorKind::retry);
  EXPECT_THAT(error.message, HasSubstr("cannot reach Kafka at " + address_));
  {
    const std::lock_guard lock(mutex);
    EXPECT_THAT(logged, HasSubstr("Connection refused"));
  }

  ASSERT_EQ(own.start(), address_);
  broker_ = std::make_unique<BrokerClient>(address_);
  const auto after = numbered(500, "after ");
  produce(kClicks0, after);
  const DurationMs deadline = clock_.steady_ms() + 2 * kPatienceMs;
  while (read.size() < 1'500 && clock_.steady_ms() < deadline) {
    const auto more = source.read(kClicks0, 100, 200);
    if (!more) {
      ASSERT_EQ(more.error().kind, ErrorKind::retry) << more.error().message;
      continue;
    }
    for (const Record& record : more->records) read.push_back(record.bytes);
  }
  std::vector<std::string> written = before;
  written.insert(written.end(), after.begin(), after.end());
  EXPECT_EQ(read, written);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
std::int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::int64_t all = 0;
  std::int64_t resident = 0;
  file >> all >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

TEST_F(KafkaSourceTest, WhatIsFetchedAndNotReadStaysWithinTheBudget) {
  constexpr std::int64_t kMegabyte = 1'000'000;
  create_topics(2);
  // 40 MB in two logs, as large records and as small ones, which cost most beside their bytes. The
  // large ones' digits are random, so that compression makes about half of them, not nothing.
  std::vector<std::string> large;
  for (std::uint64_t record = 0; record < 500; ++record) {
    std::string& text = large.emplace_back();
    while (text.size() < 40'000)
      text += hash128(std::to_string(record * 40'000 + text.size())).hex();
  }
  std::vector<std::string> small(200'000, std::string(100, 'y'));
  produce({Stream::impressions, 0}, large, "lz4");
  produce({Stream::impressions, 1}, small, "none");
  large = {};
  small = {};
  config_.source.max_queued_bytes = 6 * kMegabyte;
  const auto source = open_at_start();
  const std::int64_t before = resident_bytes();
  ASSERT_TRUE(source->read(kImpressions0, 1, kPatienceMs));
  std::int64_t most = 0;
  for (int wait = 0; wait < 15; ++wait) {
    clock_.sleep_ms(100);
    most = std::max(most, resident_bytes() - before);
  }
  // The allocator keeps more than is in use.
  EXPECT_LT(most, 12 * kMegabyte);
  EXPECT_EQ(read_to(*source, {Stream::impressions, 1}, 200'000).size(), 200'000u);
  // One of the first log's has been read.
  EXPECT_EQ(read_to(*source, kImpressions0, 500).size(), 499u);
}
#endif

TEST(KafkaQueueLimitsTest, AddUpToTheBudget) {
  for (const std::uint64_t budget : {1'000'000u, 64'000'000u, 1'000'000'000u}) {
    for (const std::uint64_t partitions : {3u, 12u, 192u}) {
      const KafkaQueueLimits limits = queue_limits(budget, partitions);
      EXPECT_LE(
          (limits.queue_kbytes * 1'000 + limits.queue_messages * 320 + limits.fetch_bytes * 4) *
              partitions,
          budget + partitions * 5'000);
      EXPECT_GE(limits.fetch_bytes, 1'000u);
    }
  }
}

TEST(KafkaConfigTest, NamesAnUnreachableBroker) {
  if (!sluice::testing::kCanConnect) GTEST_SKIP() << sluice::testing::kCannotConnect;
  SystemClock clock;
  std::mutex mutex;
  std::vector<std::string> lines;
  const auto log = [&](std::string_view line) {
    const std::lock_guard lock(mutex);
    lines.emplace_back(line);
  };
  const Config config = config_of("127.0.0.1:1", {"i", "c", "p"});
  auto source = open_kafka_source(config, clock, {.log = log, .reach_within = 700});
  ASSERT_TRUE(source);
  const DurationMs start = clock.steady_ms();
  const auto partitions = (*source)->partitions();
  EXPECT_LT(clock.steady_ms() - start, 5'000);
  ASSERT_FALSE(partitions);
  EXPECT_EQ(partitions.error().kind, ErrorKind::retry);
  EXPECT_THAT(partitions.error().message,
              AllOf(HasSubstr("cannot reach Kafka at 127.0.0.1:1"), HasSubstr("refused"),
                    HasSubstr("700 ms"), Not(HasSubstr("\n"))));
  // The error says it; the log has no more to say.
  const std::lock_guard lock(mutex);
  EXPECT_THAT(lines, IsEmpty());
}

TEST(KafkaConfigTest, RefusesUnsafeProperties) {
  SystemClock clock;
  for (const char* name :
       {"auto.offset.reset", "enable.auto.commit", "auto.commit.enable", "enable.auto.offset.store",
        "isolation.level", "check.crcs", "enable.partition.eof", "bootstrap.servers",
        "queued.max.messages.kbytes", "allow.auto.create.topics"}) {
    Config config = config_of("127.0.0.1:1", {"i", "c", "p"});
    config.source.properties[name] = "true";
    const auto source = open_kafka_source(config, clock);
    ASSERT_FALSE(source) << name;
    EXPECT_EQ(source.error().kind, ErrorKind::usage);
    EXPECT_THAT(source.error().message, AllOf(HasSubstr(name), HasSubstr("may not be set")));
  }
}

TEST(KafkaConfigTest, NamesWhatLibrdkafkaRefusesButNoSecret) {
  if (!sluice::testing::kCanConnect) GTEST_SKIP() << sluice::testing::kCannotConnect;
  SystemClock clock;
  const auto message_of = [&](const std::map<std::string, std::string>& properties) {
    Config config = config_of("127.0.0.1:1", {"i", "c", "p"});
    config.source.properties = properties;
    const auto source = open_kafka_source(config, clock, {.log = [](std::string_view) {}});
    EXPECT_FALSE(source) << properties.begin()->first;
    if (source) return std::string();
    EXPECT_EQ(source.error().kind, ErrorKind::usage);
    return source.error().message;
  };
  EXPECT_THAT(message_of({{"fetch.wait.max.msec", "5"}}), HasSubstr("fetch.wait.max.msec"));
  EXPECT_THAT(message_of({{"security.protocol", "TLS"}}),
              AllOf(HasSubstr("security.protocol"), HasSubstr("TLS")));
  EXPECT_THAT(message_of({{"ssl.key.pem", "hunter2"}, {"security.protocol", "SSL"}}),
              AllOf(HasSubstr("ssl.key.pem"), Not(HasSubstr("hunter2"))));
  EXPECT_THAT(message_of({{"sasl.pasword", "hunter2"}}),
              AllOf(HasSubstr("sasl.pasword"), Not(HasSubstr("hunter2"))));
}

TEST(KafkaConfigTest, PassesSecurityPropertiesOn) {
  if (!sluice::testing::kCanConnect) GTEST_SKIP() << sluice::testing::kCannotConnect;
  SystemClock clock;
  Config config = config_of("127.0.0.1:1", {"i", "c", "p"});
  config.source.properties = {{"security.protocol", "SASL_SSL"},
                              {"sasl.mechanism", "SCRAM-SHA-256"},
                              {"sasl.username", "sluice"},
                              {"sasl.password", "hunter2"},
                              {"fetch.wait.max.ms", "100"}};
  EXPECT_TRUE(open_kafka_source(config, clock, {.log = [](std::string_view) {}}));
}

}  // namespace
}  // namespace sluice
