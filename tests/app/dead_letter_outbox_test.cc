#include "app/dead_letter_outbox.h"

#include <deque>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "tests/app/driven_pipeline.h"
#include "tests/joiner/stages.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

// A topic in memory that takes, refuses, forgets and acknowledges as it is told.
class FakeSink final : public DeadLetterSink {
 public:
  bool offer(const DeadLetter& letter) override {
    if (in_flight.size() >= room) return false;
    ++offers;
    if (poison.contains(letter.number)) {
      deliveries.push_back({letter.number, false});
      return true;
    }
    in_flight.push_back(letter);
    return true;
  }
  std::vector<Delivery> take_deliveries() override { return std::exchange(deliveries, {}); }
  void wait(DurationMs timeout) override {
    clock.pass(timeout);
    if (settles_while_waiting) settle(settles_at_once, true);
  }
  std::string target() const override { return "the topic of a test"; }
  std::string problem() const override { return "none"; }

  // Of the oldest `count` in flight.
  void settle(std::size_t count, bool is_acknowledged) {
    for (; count > 0 && !in_flight.empty(); --count) {
      if (is_acknowledged) arrived[in_flight.front().number].push_back(in_flight.front());
      deliveries.push_back({in_flight.front().number, is_acknowledged});
      in_flight.pop_front();
    }
  }

  explicit FakeSink(ManualClock& its_clock) : clock(its_clock) {}
  ManualClock& clock;
  std::size_t room = 3;
  bool settles_while_waiting = true;
  std::size_t settles_at_once = 1'000'000;
  std::size_t offers = 0;          // that it took
  std::set<std::uint64_t> poison;  // refused at once, each time
  std::deque<DeadLetter> in_flight;
  std::vector<Delivery> deliveries;
  std::map<std::uint64_t, std::vector<DeadLetter>> arrived;  // by number
};

class DeadLetterOutboxTest : public ::testing::Test {
 protected:
  // Commits `count` more dead letters.
  void add(std::uint64_t count) {
    WriteBatch batch;
    for (; count > 0; --count) {
      const RefusedRecord record = {{Stream::clicks, 1},
                                    progress.next_dead_letter * 10,
                                    Refusal::malformed,
                                    "why",
                                    "record " + std::to_string(progress.next_dead_letter)};
      batch.put(Space::dead_letters, dead_letter_key(progress.next_dead_letter++),
                encode_dead_letter(record, clock.wall));
    }
    ASSERT_TRUE(store->commit(batch));
  }
  void trim(std::uint64_t count) {
    WriteBatch batch;
    for (; count > 0; --count) {
      batch.remove(Space::dead_letters, dead_letter_key(progress.first_dead_letter++));
    }
    ASSERT_TRUE(store->commit(batch));
  }

  std::unique_ptr<KeyValueStore> store = make_memory_store();
  ManualClock clock;
  FakeSink sink{clock};
  JoinProgress progress;
};

TEST_F(DeadLetterOutboxTest, SendsWhatIsCommittedInOrderAndWaitsForNoOne) {
  DeadLetterOutbox outbox(*store, sink, clock, progress);
  ASSERT_TRUE(outbox.pump(progress));
  EXPECT_EQ(outbox.sent_before(), 0U);
  add(5);
  ASSERT_TRUE(outbox.pump(progress));
  EXPECT_EQ(sink.in_flight.size(), 3U) << "it is full";
  EXPECT_EQ(outbox.sent_before(), 0U) << "offered is not acknowledged";
  EXPECT_EQ(outbox.unsent(progress), 5U);
  sink.settle(2, true);
  ASSERT_TRUE(outbox.pump(progress));
  EXPECT_EQ(outbox.sent_before(), 2U);
  sink.settle(9, true);
  ASSERT_TRUE(outbox.pump(progress));
  EXPECT_EQ(outbox.sent_before(), 5U);
  EXPECT_EQ(outbox.unsent(progress), 0U);
  ASSERT_EQ(sink.arrived.size(), 5U);
  EXPECT_EQ(sink.arrived[4].front().record.bytes, "record 4");
  EXPECT_EQ(sink.arrived[4].front().record.position, 40U);
}

TEST_F(DeadLetterOutboxTest, WhatFailsIsOfferedAgainAfterAPause) {
  DeadLetterOutbox outbox(*store, sink, clock, progress);
  add(3);
  ASSERT_TRUE(outbox.pump(progress));
  sink.settle(1, true);
  sink.settle(1, false);
  ASSERT_TRUE(outbox.pump(progress));
  EXPECT_EQ(outbox.sent_before(), 1U);
  sink.settle(1, true);
  ASSERT_TRUE(outbox.pump(progress));
  EXPECT_EQ(outbox.sent_before(), 1U) << "number 1 is missing";
  EXPECT_TRUE(sink.in_flight.empty()) << "not at once";
  clock.pass(500);
  ASSERT_TRUE(outbox.pump(progress));
  ASSERT_EQ(sink.in_flight.size(), 1U);
  sink.settle(1, true);
  ASSERT_TRUE(outbox.pump(progress));
  EXPECT_EQ(outbox.sent_before(), 3U);
}

TEST_F(DeadLetterOutboxTest, GoesOnWhereTheCommitSays) {
  add(4);
  progress.sent_dead_letters = 3;
  DeadLetterOutbox outbox(*store, sink, clock, progress);
  ASSERT_TRUE(outbox.pump(progress));
  ASSERT_EQ(sink.in_flight.size(), 1U);
  EXPECT_EQ(sink.in_flight.front().number, 3U);
}

TEST_F(DeadLetterOutboxTest, WhatIsTrimmedIsNotWaitedFor) {
  DeadLetterOutbox outbox(*store, sink, clock, progress);
  add(10);
  ASSERT_TRUE(outbox.pump(progress));
  sink.settle(1, false);
  ASSERT_TRUE(outbox.pump(progress));
  trim(5);
  ASSERT_TRUE(outbox.pump(progress));
  EXPECT_EQ(outbox.sent_before(), 5U);
  sink.settle(9, true);  // those trimmed while they were on their way
  clock.pass(500);
  ASSERT_TRUE(outbox.pump(progress));
  EXPECT_EQ(outbox.sent_before(), 5U);
  EXPECT_EQ(outbox.unsent(progress), 5U);
  ASSERT_EQ(sink.in_flight.size(), 3U);
  EXPECT_EQ(sink.in_flight.front().number, 5U);
}

TEST_F(DeadLetterOutboxTest, AnEndWaitsForAcknowledgementsButNotForEver) {
  DeadLetterOutbox outbox(*store, sink, clock, progress);
  add(100);
  ASSERT_TRUE(outbox.drain(progress, 5'000));
  EXPECT_EQ(outbox.sent_before(), 100U);
  add(1);
  sink.settles_while_waiting = false;
  const DurationMs begin = clock.steady;
  ASSERT_TRUE(outbox.drain(progress, 5'000));
  EXPECT_EQ(outbox.unsent(progress), 1U);
  EXPECT_GE(clock.steady - begin, 5'000);
  EXPECT_LE(clock.steady - begin, 6'000);
}

TEST_F(DeadLetterOutboxTest, AnEndIsBoundedHoweverSteadilyTheyArrive) {
  DeadLetterOutbox outbox(*store, sink, clock, progress);
  sink.settles_at_once = 1;  // 50 a second
  add(3'000);
  const DurationMs begin = clock.steady;
  ASSERT_TRUE(outbox.drain(progress, 5'000));
  EXPECT_GE(clock.steady - begin, 30'000);
  EXPECT_LE(clock.steady - begin, 31'000);
  EXPECT_GT(outbox.sent_before(), 1'400U);
  EXPECT_GT(outbox.unsent(progress), 1'400U);
}

TEST_F(DeadLetterOutboxTest, ALetterThatIsAlwaysRefusedHoldsUpNoOther) {
  DeadLetterOutbox outbox(*store, sink, clock, progress);
  sink.poison = {0, 7};
  sink.room = 1'000;
  for (int round = 0; round < 55; ++round) {
    add(10);
    ASSERT_TRUE(outbox.pump(progress));
    sink.settle(sink.in_flight.size(), true);
    ASSERT_TRUE(outbox.pump(progress));
    EXPECT_EQ(outbox.unsent(progress), 2U) << "round " << round;
    clock.pass(20);
  }
  EXPECT_EQ(sink.arrived.size(), 548U);
  EXPECT_EQ(outbox.unsent(progress), 2U);
  EXPECT_EQ(outbox.sent_before(), 0U) << "the next start offers it again";
  EXPECT_LT(sink.offers, 548U + 2 * 20) << "without a pause";
  sink.poison.clear();
  clock.pass(30'000);
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(outbox.pump(progress));
    sink.settle(sink.in_flight.size(), true);
  }
  ASSERT_TRUE(outbox.pump(progress));
  EXPECT_EQ(outbox.sent_before(), 550U);
}

TEST_F(DeadLetterOutboxTest, OneCallOffersFewHoweverManyHaveFailed) {
  DeadLetterOutbox outbox(*store, sink, clock, progress);
  sink.room = 100'000;
  constexpr std::uint64_t kLetters = 4'000;
  add(kLetters);
  while (sink.in_flight.size() < kLetters) ASSERT_TRUE(outbox.pump(progress));
  sink.settle(kLetters, false);
  // Half of them fail for ever; the others have their turn all the same.
  for (std::uint64_t number = 0; number < kLetters / 2; ++number) sink.poison.insert(number);
  for (int round = 0; round < 400 && outbox.unsent(progress) > kLetters / 2; ++round) {
    const std::size_t before = sink.offers;
    ASSERT_TRUE(outbox.pump(progress));
    EXPECT_LE(sink.offers - before, 500U);
    sink.settle(sink.in_flight.size(), true);
    clock.pass(1'000);
  }
  EXPECT_EQ(outbox.unsent(progress), kLetters / 2);
  EXPECT_EQ(sink.arrived.size(), kLetters / 2);
}

TEST_F(DeadLetterOutboxTest, ADataFolderKeepsItsName) {
  const std::string id = data_folder_id(*store, clock, "a").value();
  EXPECT_EQ(id.size(), 16U);
  clock.pass(1);
  EXPECT_EQ(data_folder_id(*store, clock, "b").value(), id);
  EXPECT_NE(data_folder_id(*make_memory_store(), clock, "a").value(), id);
}

// ---- with the join

std::string clicks_of_no_impression(std::size_t count) {
  std::string text;
  for (std::size_t n = 0; n < count; ++n) {
    text +=
        event_line(1'700'000'000'000 + static_cast<TimeMs>(n) * 2'000, "x" + std::to_string(n)) +
        "\n";
  }
  return text;
}

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  RealFileSystem files;
  ASSERT_TRUE(write_atomically(files, path, text));
}

// Killed at random between steps, with a topic that fails at random: every dead letter arrives.
TEST(DeadLetterSending, NoneIsMissingAfterCrashes) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    TestRandom random(seed);
    TemporaryFolder folder;
    constexpr std::size_t kLetters = 200;
    write(folder.path() / "logs/clicks/0.jsonl", clicks_of_no_impression(kLetters));
    write(folder.path() / "logs/impressions/0.jsonl", "");
    write(folder.path() / "logs/purchases/0.jsonl", "");
    Config config;
    config.source.root = (folder.path() / "logs").string();
    config.source.read_records = 7;
    config.store.commit_records = 20;
    FeatureConfig feature;
    feature.name = feature.table = "a";
    feature.path = "features.a";
    config.features = {feature};
    config.model.hidden = {4};
    config.model.embedding_dim = 2;
    DrivenPipeline pipeline(config, folder.path(), EndPolicy{});
    FakeSink sink(pipeline.clock);
    sink.settles_while_waiting = false;
    const auto start = [&] {
      sink.in_flight.clear();
      sink.deliveries.clear();
      EXPECT_TRUE(pipeline.start());
      pipeline.join_stage().send_dead_letters(pipeline.store, sink);
    };
    start();
    for (bool more = true; more;) {
      const auto step = pipeline.join();
      ASSERT_TRUE(step) << step.error().message;
      more = *step;
      pipeline.clock.pass(static_cast<DurationMs>(random.below(700)));
      sink.settle(random.below(4), random.one_in(2));
      if (random.one_in(8)) {
        pipeline.crash();
        start();
        more = true;
      }
    }
    sink.settles_while_waiting = true;
    ASSERT_TRUE(pipeline.join_stage().stop());
    EXPECT_EQ(sink.arrived.size(), kLetters);
    EXPECT_EQ(pipeline.join_stage().committed().sent_dead_letters, kLetters);
    EXPECT_EQ(pipeline.join_stage().committed().trimmed_unsent_dead_letters, 0U);
    std::size_t repeats = 0;
    for (const auto& [number, letters] : sink.arrived) {
      repeats += letters.size() - 1;
      for (const DeadLetter& letter : letters) {
        EXPECT_EQ(letter.record.bytes, letters.front().record.bytes);
      }
    }
    // What was acknowledged since the last commit comes again, not more.
    EXPECT_LT(repeats, kLetters);
  }
}

TEST(DeadLetterSending, WhatIsTrimmedBeforeItWasSentIsCounted) {
  TemporaryFolder folder;
  constexpr std::size_t kLetters = 100;
  write(folder.path() / "logs/clicks/0.jsonl", clicks_of_no_impression(kLetters));
  write(folder.path() / "logs/impressions/0.jsonl", "");
  write(folder.path() / "logs/purchases/0.jsonl", "");
  Config config;
  config.source.root = (folder.path() / "logs").string();
  config.source.read_records = 5;
  config.store.commit_records = 5;
  config.dead_letters.keep_bytes = 2'000;
  FeatureConfig feature;
  feature.name = feature.table = "a";
  feature.path = "features.a";
  config.features = {feature};
  config.model.hidden = {4};
  config.model.embedding_dim = 2;
  DrivenPipeline pipeline(config, folder.path(), EndPolicy{});
  FakeSink sink(pipeline.clock);
  sink.room = 0;  // an unreachable broker
  ASSERT_TRUE(pipeline.start());
  pipeline.join_stage().send_dead_letters(pipeline.store, sink);
  ASSERT_TRUE(pipeline.finish());
  const JoinProgress& held = pipeline.join_stage().committed();
  EXPECT_EQ(held.next_dead_letter, kLetters);
  EXPECT_GT(held.trimmed_dead_letters, 0U);
  EXPECT_EQ(held.trimmed_unsent_dead_letters, held.trimmed_dead_letters);
  sink.room = 1'000;
  ASSERT_TRUE(pipeline.join_stage().stop());
  EXPECT_EQ(sink.arrived.size() + pipeline.join_stage().committed().trimmed_unsent_dead_letters,
            kLetters);
}

}  // namespace
}  // namespace sluice
