// Quiet partitions of a live source: when one is declared quiet, how far event time then goes, and
// what comes too late after it.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ingest/log_reader.h"
#include "tests/ingest/scripted_source.h"

namespace sluice {
namespace {

constexpr DurationMs kIdleAfter = 10'000;
constexpr DurationMs kMaxDelay = 60'000;

constexpr std::array<StreamPartition, 3> kAll = {kImpressions, kClicks, kPurchases};

class QuietTest : public ::testing::Test {
 protected:
  QuietTest() {
    config_.source.type = SourceConfig::Type::kafka;
    config_.source.idle_after = kIdleAfter;
    config_.source.max_delay = kMaxDelay;
    config_.streams.max_out_of_orderness = {1'000, 1'000, 1'000};
  }
  void open() {
    reader_.emplace(config_, source_, clock_, 1U, kLive);
    ASSERT_TRUE(reader_->start(std::vector<IntakeState>(kStreamsWithoutActions), true, {}));
  }
  // Until nothing more is there.
  void read() {
    std::size_t taken = 1;
    while (taken > 0) {
      const auto result = reader_->step(frontier_, 0);
      ASSERT_TRUE(result);
      taken = *result;
    }
  }
  // The broker's answer: nothing unread now.
  void confirm(StreamPartition where) {
    source_.confirm(where, {source_.end_of(where), clock_.wall, clock_.steady});
  }
  void append(StreamPartition where, TimeMs time) {
    source_.append(where, event_line(time, std::to_string(names_++)));
  }
  TimeMs watermark(StreamPartition where) {
    return reader_->states()[static_cast<std::size_t>(where.stream)].quiet_watermark;
  }

  Config config_;
  ScriptedSource source_{1};
  ManualClock clock_;
  std::optional<LogReader> reader_;
  TimeMs frontier_ = kTimeMin;
  int names_ = 0;
};

TEST_F(QuietTest, FollowsTheLowestOfThoseThatAreNotQuiet) {
  const TimeMs now = clock_.wall;
  append(kPurchases, now - 500'000);
  open();
  read();
  clock_.pass(kIdleAfter);
  append(kImpressions, now - 70'000);
  append(kClicks, now - 80'000);
  confirm(kPurchases);
  read();
  EXPECT_EQ(reader_->quiet_partitions(), 1U);
  EXPECT_EQ(watermark(kPurchases), now - 80'000 - 1'000);
  EXPECT_EQ(reader_->watermark(), now - 80'000 - 1'000);
  // It goes on with them, as long as the answer is fresh.
  clock_.pass(kIdleAfter);
  append(kClicks, now - 75'000);
  append(kImpressions, now - 65'000);
  read();
  EXPECT_EQ(reader_->watermark(), now - 75'000 - 1'000);
  clock_.pass(1);
  append(kClicks, now - 72'000);
  append(kImpressions, now - 60'000);
  read();
  EXPECT_EQ(reader_->quiet_partitions(), 0U);
  EXPECT_EQ(reader_->watermark(), now - 75'000 - 1'000);
  EXPECT_EQ(to_string(reader_->slowest()), "purchases/0");
}

TEST_F(QuietTest, IsNotDeclaredBeforeIdleAfter) {
  const TimeMs now = clock_.wall;
  for (const StreamPartition where : {kImpressions, kClicks, kPurchases}) {
    append(where, now - 100'000);
  }
  open();
  read();
  clock_.pass(kIdleAfter - 1);
  append(kImpressions, now - 90'000);
  append(kClicks, now - 90'000);
  confirm(kPurchases);
  read();
  EXPECT_EQ(reader_->quiet_partitions(), 0U);
  EXPECT_EQ(reader_->watermark(), now - 101'000);
  clock_.pass(1);
  read();
  EXPECT_EQ(reader_->quiet_partitions(), 1U);
  EXPECT_EQ(reader_->watermark(), now - 91'000);
}

TEST_F(QuietTest, ANewRecordEndsIt) {
  const TimeMs now = clock_.wall;
  for (const StreamPartition where : kAll) append(where, now - 300'000);
  open();
  read();
  clock_.pass(kIdleAfter);
  append(kImpressions, now - 200'000);
  append(kClicks, now - 200'000);
  confirm(kPurchases);
  read();
  ASSERT_EQ(reader_->quiet_partitions(), 1U);
  append(kPurchases, now - 250'000);  // behind the quiet watermark, whose tick is not processed
  confirm(kPurchases);
  read();
  EXPECT_EQ(reader_->quiet_partitions(), 0U);
  EXPECT_TRUE(reader_->take_refused().empty());
  EXPECT_EQ(reader_->watermark(), now - 201'000);  // it did not go back
}

TEST_F(QuietTest, NeedsAConfirmedEndThatIsNotBeyondTheNextFetch) {
  const TimeMs now = clock_.wall;
  append(kPurchases, now - 100'000);
  source_.skip(kPurchases, 2);  // control records: the next fetch is behind them
  open();
  read();
  clock_.pass(kIdleAfter);
  append(kImpressions, now - 90'000);
  append(kClicks, now - 90'000);
  read();
  EXPECT_EQ(reader_->quiet_partitions(), 0U);  // nothing was confirmed at all
  source_.confirm(kPurchases, {4, clock_.wall, clock_.steady});
  read();
  EXPECT_EQ(reader_->quiet_partitions(), 0U);  // something lies at 3 that was not read
  source_.confirm(kPurchases, {3, clock_.wall, clock_.steady});
  read();
  EXPECT_EQ(reader_->quiet_partitions(), 1U);
  // A fetch is under way: the last read did not find the end.
  source_.set_fetching(kPurchases, true);
  read();
  EXPECT_EQ(reader_->quiet_partitions(), 0U);
}

TEST_F(QuietTest, GoesNoFurtherThanMaxDelayBeforeTheRequest) {
  const TimeMs now = clock_.wall;
  append(kPurchases, now - 100'000);
  open();
  read();
  clock_.pass(kIdleAfter);
  append(kImpressions, now);
  append(kClicks, now);
  // Asked long ago, answered just now: what was sent in between may be missing in the answer.
  source_.confirm(kPurchases, {1, now - 20'000, clock_.steady});
  read();
  EXPECT_EQ(reader_->watermark(), now - 20'000 - kMaxDelay);
  source_.confirm(kPurchases, {1, now - 30'000, clock_.steady});
  read();
  EXPECT_EQ(reader_->watermark(), now - 20'000 - kMaxDelay);  // never back
}

TEST_F(QuietTest, WhenAllAreQuietEventTimeGoesOnWithTheClock) {
  const TimeMs now = clock_.wall;
  for (const StreamPartition where : kAll) append(where, now - 300'000);
  append(kClicks, now - 290'000);
  open();
  read();
  const DurationMs read_at = clock_.steady;
  clock_.pass(25'000);
  for (const StreamPartition where : kAll) confirm(where);
  read();
  EXPECT_EQ(reader_->quiet_partitions(), 3U);
  EXPECT_EQ(reader_->watermark(), now - 290'000 + (clock_.steady - read_at));
  clock_.pass(5'000);
  read();
  EXPECT_EQ(reader_->watermark(), now - 290'000 + 30'000);
  // The wall clock steps back; the steady one decides, and nothing goes back.
  clock_.wall -= 1'000'000;
  for (const StreamPartition where : kAll) confirm(where);
  read();
  EXPECT_EQ(reader_->watermark(), now - 290'000 + 30'000);
}

TEST_F(QuietTest, WithoutAnyEventThereIsNoEventTime) {
  open();
  clock_.pass(kIdleAfter);
  for (const StreamPartition where : kAll) confirm(where);
  read();
  EXPECT_EQ(reader_->watermark(), kTimeMin);
}

TEST_F(QuietTest, NeverWaitsForEver) {
  const TimeMs now = clock_.wall;
  config_.source.idle_after.reset();
  append(kPurchases, now - 100'000);
  open();
  read();
  append(kImpressions, now - 90'000);
  append(kClicks, now - 90'000);
  clock_.pass(1'000'000'000);
  for (const StreamPartition where : kAll) confirm(where);
  read();
  EXPECT_EQ(reader_->quiet_partitions(), 0U);
  EXPECT_EQ(reader_->watermark(), now - 101'000);
}

TEST_F(QuietTest, ALogThatIsOnlyReplayedIsNeverQuiet) {
  const TimeMs now = clock_.wall;
  append(kPurchases, now - 100'000);
  append(kImpressions, now - 90'000);
  append(kClicks, now - 90'000);
  reader_.emplace(config_, source_, clock_, 1U, EndPolicy{EndPolicy::Kind::hold, 0, false});
  ASSERT_TRUE(reader_->start(std::vector<IntakeState>(kStreamsWithoutActions), true, {}));
  read();
  clock_.pass(10 * kIdleAfter);
  for (const StreamPartition where : kAll) confirm(where);
  read();
  EXPECT_EQ(reader_->quiet_partitions(), 0U);
  EXPECT_EQ(reader_->watermark(), now - 101'000);
}

TEST_F(QuietTest, AnAdvanceIsPartOfTheState) {
  const TimeMs now = clock_.wall;
  append(kPurchases, now - 100'000);
  open();
  read();
  clock_.pass(kIdleAfter);
  append(kImpressions, now - 70'000);
  append(kClicks, now - 70'000);
  confirm(kPurchases);
  read();
  ASSERT_EQ(reader_->watermark(), now - 71'000);
  const std::vector<IntakeState> states = reader_->states();
  reader_.emplace(config_, source_, clock_, 1U, kLive);
  ASSERT_TRUE(reader_->start(states, false, {}));
  read();  // idle_after has not passed since the start: nothing is declared anew
  EXPECT_EQ(reader_->quiet_partitions(), 0U);
  EXPECT_EQ(reader_->watermark(), now - 71'000);
}

TEST_F(QuietTest, TooLateIsExactlyWhatComesBeforeTheProcessedTick) {
  const TimeMs now = clock_.wall;
  append(kPurchases, now - 100'000);
  open();
  read();
  clock_.pass(kIdleAfter);
  append(kImpressions, now - 70'000);
  append(kClicks, now - 70'000);
  confirm(kPurchases);
  read();
  frontier_ = floor_to(reader_->watermark(), config_.join.tick);
  reader_->release(frontier_);
  append(kPurchases, now - 102'000);    // late by its own log, quiet or not
  append(kPurchases, frontier_ - 1);    // its tick went by
  append(kPurchases, frontier_);        // behind the quiet watermark or not: its tick is still open
  append(kPurchases, frontier_ - 500);  // accepted by its own log, its tick went by
  read();
  const auto refused = reader_->take_refused();
  ASSERT_EQ(refused.size(), 3U);
  EXPECT_EQ(refused[0].reason, Refusal::late);
  EXPECT_EQ(refused[1].reason, Refusal::late_after_quiet);
  EXPECT_EQ(refused[1].position, 2U);
  EXPECT_EQ(refused[2].reason, Refusal::late_after_quiet);
  EXPECT_EQ(refused[2].position, 4U);
  // A restart does not refuse them again.
  const std::vector<IntakeState> states = reader_->states();
  reader_.emplace(config_, source_, clock_, 1U, kLive);
  ASSERT_TRUE(reader_->start(states, false, {}));
  read();
  EXPECT_TRUE(reader_->take_refused().empty());
  std::vector<Position> positions;
  const auto shards = reader_->release(kTimeMax);
  for (const Event& event : shards[0]) {
    if (event.stream() == Stream::purchases) positions.push_back(event.position());
  }
  EXPECT_EQ(positions, std::vector<Position>{3});
}

// Records reach the broker within max_delay of their event time; clocks go on, partitions fall
// silent and come back, answers are sometimes old. Then event time never goes back and nothing is
// ever late_after_quiet.
RC_GTEST_FIXTURE_PROP(QuietTest, WhatComesWithinMaxDelayIsNeverTooLate, ()) {
  config_.streams.max_out_of_orderness = {kMaxDelay, kMaxDelay, kMaxDelay};
  open();
  TimeMs last = kTimeMin;
  bool was_quiet = false;
  for (const auto& [action, amount] : *rc::gen::container<std::vector<std::pair<int, int>>>(
           200, rc::gen::pair(rc::gen::inRange(0, 8), rc::gen::inRange(0, 60'000)))) {
    const StreamPartition where = kAll[static_cast<std::size_t>(amount) % 3];
    if (action < 2) append(where, clock_.wall - amount);
    if (action == 2 || action == 3) confirm(where);
    if (action == 5) clock_.pass(amount / 10);
    if (action == 4 || action == 6) {
      if (action == 6) clock_.pass(kIdleAfter);
      for (const StreamPartition every : kAll) confirm(every);
    }
    if (action == 7) source_.set_fetching(where, amount % 2 == 0);
    RC_ASSERT(reader_->step(frontier_, 0).has_value());
    RC_ASSERT(reader_->watermark() >= last);
    last = reader_->watermark();
    was_quiet |= reader_->quiet_partitions() > 0;
    if (amount % 4 == 0 && last > kTimeMin) {
      frontier_ = std::max(frontier_, floor_to(last, config_.join.tick));
      reader_->release(frontier_);
    }
    for (const RefusedRecord& refused : reader_->take_refused()) {
      RC_ASSERT(refused.reason == Refusal::late);
    }
  }
  RC_TAG(was_quiet ? "some partition was quiet" : "none was quiet");
}

}  // namespace
}  // namespace sluice
