// The topic of dead letters, on a real broker: one that goes away, and one that takes no long ones.
// Headers and kills are tests of the whole program (tests/e2e/test_dead_letters.py).
#include "ingest/dead_letter_topic.h"

#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/ingest/kafka_testing.h"

namespace sluice::testing {
namespace {

using ::sluice::testing::kPatienceMs;
using ::testing::HasSubstr;

Config config_for(const std::string& address, const std::string& topic) {
  Config config;
  config.source.type = SourceConfig::Type::kafka;
  config.source.brokers = address;
  config.dead_letters.topic = topic;
  return config;
}

DeadLetter letter(std::uint64_t number, std::string bytes) {
  return {number,
          1'700'000'000'000,
          {{Stream::clicks, 1}, number, Refusal::malformed, "no JSON", std::move(bytes)}};
}

std::unique_ptr<DeadLetterSink> open_or_die(const Config& config) {
  auto sink = open_dead_letter_topic(config, "f", {[](std::string_view) {}, 10'000});
  EXPECT_TRUE(sink.has_value()) << sink.error().message;
  return sink ? *std::move(sink) : nullptr;
}

// Offers the letters [first, end) and again what failed, until all are acknowledged.
void send_all(DeadLetterSink& sink, std::uint64_t first, std::uint64_t end,
              const std::function<std::string(std::uint64_t)>& bytes) {
  SystemClock clock;
  const DurationMs deadline = clock.steady_ms() + kPatienceMs;
  std::set<std::uint64_t> to_offer, in_flight;
  for (std::uint64_t number = first; number < end; ++number) to_offer.insert(number);
  while (!to_offer.empty() || !in_flight.empty()) {
    ASSERT_LT(clock.steady_ms(), deadline)
        << to_offer.size() << " and " << in_flight.size() << " left; " << sink.problem();
    while (!to_offer.empty() && sink.offer(letter(*to_offer.begin(), bytes(*to_offer.begin())))) {
      in_flight.insert(*to_offer.begin());
      to_offer.erase(to_offer.begin());
    }
    sink.wait(20);
    for (const DeadLetterSink::Delivery& delivery : sink.take_deliveries()) {
      ASSERT_EQ(in_flight.erase(delivery.number), 1U);
      if (!delivery.is_acknowledged) to_offer.insert(delivery.number);
    }
  }
}

// The values in the topic's only partition.
std::vector<std::string> values_in(const Config& config) {
  const auto client = KafkaClient::open(config.source, {}, {}, [](std::string_view) {});
  EXPECT_TRUE(client.has_value());
  const auto marks = (*client)->watermarks(config.dead_letters.topic, 0, 30'000);
  EXPECT_TRUE(marks.has_value()) << marks.error().message;
  std::vector<std::string> values;
  for (Position at = marks->low; at < marks->high; ++at) {
    const auto record = (*client)->record_at(config.dead_letters.topic, 0, at, 1 << 24, 30'000);
    EXPECT_TRUE(record.has_value() && record->has_value());
    if (record && *record) values.push_back((*record)->bytes);
  }
  return values;
}

TEST(DeadLetterTopicTest, ATopicThatIsNotThereIsAnErrorAndNotMade) {
  if (!sluice::testing::kCanConnect) GTEST_SKIP() << sluice::testing::kCannotConnect;
  const auto address = test_broker();
  if (!address) GTEST_SKIP() << "SLUICE_KAFKA names no broker (./dev test starts one)";
  const Config config = config_for(*address, unique_name("nowhere"));
  for (int attempt = 0; attempt < 2; ++attempt) {
    const auto sink = open_dead_letter_topic(config, "f");
    ASSERT_FALSE(sink.has_value());
    EXPECT_EQ(sink.error().kind, ErrorKind::stop);
    EXPECT_THAT(sink.error().message, HasSubstr("dead_letters.topic"));
    EXPECT_THAT(sink.error().message, HasSubstr(config.dead_letters.topic));
  }
}

TEST(DeadLetterTopicTest, ACompactedTopicIsRefused) {
  if (!sluice::testing::kCanConnect) GTEST_SKIP() << sluice::testing::kCannotConnect;
  const auto address = test_broker();
  if (!address) GTEST_SKIP() << "SLUICE_KAFKA names no broker (./dev test starts one)";
  const Config config = config_for(*address, unique_name("compacted"));
  BrokerClient(*address).create_topic(config.dead_letters.topic, 1,
                                      {{"cleanup.policy", "compact"}});
  const auto sink = open_dead_letter_topic(config, "f");
  ASSERT_FALSE(sink.has_value());
  EXPECT_THAT(sink.error().message, HasSubstr("compact"));
}

TEST(DeadLetterTopicTest, ALetterTooLongForTheTopicIsCut) {
  if (!sluice::testing::kCanConnect) GTEST_SKIP() << sluice::testing::kCannotConnect;
  const auto address = test_broker();
  if (!address) GTEST_SKIP() << "SLUICE_KAFKA names no broker (./dev test starts one)";
  const Config config = config_for(*address, unique_name("short"));
  BrokerClient(*address).create_topic(config.dead_letters.topic, 1,
                                      {{"max.message.bytes", "3000"}});
  const auto sink = open_or_die(config);
  ASSERT_NE(sink, nullptr);
  // What cannot be compressed.
  std::string noise;
  for (std::uint64_t n = 0; noise.size() < 20'000; ++n) noise += std::to_string(mix64(n));
  send_all(*sink, 0, 3, [&](std::uint64_t number) { return number == 1 ? noise : "short"; });
  std::map<std::size_t, int> sizes;
  for (const std::string& value : values_in(config)) {
    ++sizes[value.size()];
    EXPECT_TRUE(value == "short" || noise.starts_with(value));
  }
  ASSERT_EQ(sizes.size(), 2U);
  EXPECT_GT(sizes.rbegin()->first, 1'000U);
}

TEST(DeadLetterTopicTest, SlowABrokerThatIsKilledLosesNothingAndBlocksNobody) {
  if (!sluice::testing::kCanConnect) GTEST_SKIP() << sluice::testing::kCannotConnect;
  if (!test_broker()) GTEST_SKIP() << "SLUICE_KAFKA names no broker (./dev test starts one)";
  OwnBroker broker;
  const std::string address = broker.start();
  Config config = config_for(address, unique_name("dead"));
  BrokerClient(address).create_topic(config.dead_letters.topic, 1);
  const auto sink = open_or_die(config);
  ASSERT_NE(sink, nullptr);
  const auto bytes = [](std::uint64_t number) { return "letter " + std::to_string(number); };
  send_all(*sink, 0, 500, bytes);
  broker.kill();

  // Until it has no room: then it says so, at once.
  SystemClock clock;
  std::uint64_t taken = 500;
  const DurationMs begin = clock.steady_ms();
  while (taken < 100'000 && sink->offer(letter(taken, bytes(taken)))) ++taken;
  EXPECT_LT(taken, 100'000U);
  EXPECT_GT(taken, 1'000U);
  EXPECT_LT(clock.steady_ms() - begin, 2'000);
  EXPECT_TRUE(sink->take_deliveries().empty());

  ASSERT_EQ(broker.start(), address);
  std::set<std::uint64_t> missing;
  for (std::uint64_t number = 500; number < taken; ++number) missing.insert(number);
  const DurationMs deadline = clock.steady_ms() + kPatienceMs;
  while (!missing.empty()) {
    ASSERT_LT(clock.steady_ms(), deadline) << missing.size() << " left; " << sink->problem();
    sink->wait(20);
    for (const DeadLetterSink::Delivery& delivery : sink->take_deliveries()) {
      if (delivery.is_acknowledged) {
        missing.erase(delivery.number);
      } else {
        EXPECT_TRUE(sink->offer(letter(delivery.number, bytes(delivery.number))));
      }
    }
  }
  send_all(*sink, taken, taken + 500, bytes);
  const auto client = KafkaClient::open(config.source, {}, {}, [](std::string_view) {});
  ASSERT_TRUE(client.has_value());
  const auto marks = (*client)->watermarks(config.dead_letters.topic, 0, 30'000);
  ASSERT_TRUE(marks.has_value()) << marks.error().message;
  EXPECT_GE(marks->high, taken + 500);
}

TEST(DeadLetterTopicTest, PropertiesThatLetNothingBeSentAreRefused) {
  if (!sluice::testing::kCanConnect) GTEST_SKIP() << sluice::testing::kCannotConnect;
  Config config = config_for("127.0.0.1:1", "dead");
  for (const auto& [name, value] :
       {std::pair{"transactional.id", "a"}, {"message.max.bytes", "1000"}}) {
    config.source.properties = {{name, value}};
    const auto sink = open_dead_letter_topic(config, "f", {[](std::string_view) {}, 300});
    ASSERT_FALSE(sink.has_value()) << name;
    EXPECT_EQ(sink.error().kind, ErrorKind::usage);
    EXPECT_THAT(sink.error().message, HasSubstr(name));
    EXPECT_THAT(sink.error().message, HasSubstr("dead_letters.topic"));
  }
}

TEST(DeadLetterTopicTest, ALetterThatIsRefusedAloneHoldsUpNoOther) {
  if (!sluice::testing::kCanConnect) GTEST_SKIP() << sluice::testing::kCannotConnect;
  Config config = config_for("127.0.0.1:1", "dead");
  config.source.properties = {{"message.max.bytes", "8192"}};
  const auto sink = open_dead_letter_topic(config, "f", {[](std::string_view) {}, 300});
  ASSERT_TRUE(sink.has_value()) << sink.error().message;
  DeadLetter long_detail = letter(0, std::string(5'000, 'x'));
  long_detail.record.detail = std::string(20'000, 'y');
  EXPECT_TRUE((*sink)->offer(long_detail));
  EXPECT_THAT((*sink)->problem(), HasSubstr("dead letter 0: "));
  EXPECT_TRUE((*sink)->offer(letter(1, "x")));
  const auto deliveries = (*sink)->take_deliveries();
  ASSERT_EQ(deliveries.size(), 1U);
  EXPECT_EQ(deliveries.front().number, 0U);
  EXPECT_FALSE(deliveries.front().is_acknowledged);
}

TEST(DeadLetterTopicTest, AnUnreachableBrokerIsWaitedFor) {
  if (!sluice::testing::kCanConnect) GTEST_SKIP() << sluice::testing::kCannotConnect;
  Config config = config_for("127.0.0.1:1", "dead");
  std::string said;
  const auto sink =
      open_dead_letter_topic(config, "f", {[&said](std::string_view line) { said += line; }, 300});
  ASSERT_TRUE(sink.has_value()) << sink.error().message;
  EXPECT_THAT(said, HasSubstr("wait in the data folder"));
  EXPECT_TRUE((*sink)->offer(letter(0, "x")));
  (*sink)->wait(100);
  EXPECT_TRUE((*sink)->take_deliveries().empty());
  EXPECT_FALSE((*sink)->problem().empty());
}

}  // namespace
}  // namespace sluice::testing
