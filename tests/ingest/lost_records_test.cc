// Logs that change behind the reader's back: what is found, and what is passed over when it is told
// to.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ingest/log_reader.h"
#include "tests/ingest/scripted_source.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A scripted source whose connection breaks, and whose last record cannot be asked for now and
// then.
class BreakingSource final : public Source {
 public:
  ScriptedSource logs{1};
  std::uint64_t epoch = 0;
  bool is_away = false;
  int comparisons = 0;
  std::map<StreamPartition, Position> cut_at;  // the log's end, where it was cut

  Result<std::uint32_t> partitions() override { return logs.partitions(); }
  Result<Position> first_position(StreamPartition where) override {
    return logs.first_position(where);
  }
  Result<Position> end_position(StreamPartition where) override {
    if (cut_at.contains(where)) return cut_at[where];
    return logs.end_position(where);
  }
  Status seek(StreamPartition where, Position position) override {
    return logs.seek(where, position);
  }
  Result<ReadResult> read(StreamPartition where, std::size_t max_records,
                          DurationMs wait_ms) override {
    return logs.read(where, max_records, wait_ms);
  }
  Result<std::optional<Record>> record_at(StreamPartition where, Position position) override {
    ++comparisons;
    if (is_away) return retry_error("away");
    return logs.record_at(where, position);
  }
  std::uint64_t connection_epoch() const override { return epoch; }
  std::optional<EndConfirmation> confirmed_end(StreamPartition where) override {
    return logs.confirmed_end(where);
  }
  std::string describe(StreamPartition where, Position position) const override {
    return logs.describe(where, position);
  }
};

class LostRecordsTest : public ::testing::Test {
 protected:
  LostRecordsTest() {
    config_.source.type = SourceConfig::Type::kafka;
    config_.source.read_records = 5;
    config_.streams.max_out_of_orderness = {0, 0, 0};
    for (int second = 0; second < 20; ++second) {
      for (const StreamPartition where : {kImpressions, kClicks, kPurchases}) {
        source_.logs.append(where, line(second));
      }
    }
  }

  static std::string line(int second, const std::string& stem = "r") {
    return event_line(kT0 + second * 1'000, stem + std::to_string(second));
  }

  Status start(std::vector<IntakeState> states, bool is_first, const EndPolicy& policy = kLive,
               LostRecords lost = LostRecords::stop, std::vector<Position> pinned = {}) {
    reader_.emplace(config_, source_, clock_, 1, policy);
    return reader_->start(std::move(states), is_first, std::move(pinned), lost);
  }
  void begin(const EndPolicy& policy = kLive) {
    const Status started = start(std::vector<IntakeState>(kStreamsWithoutActions), true, policy);
    ASSERT_TRUE(started) << started.error().message;
  }
  // One read of each log.
  void step(int times = 3) {
    for (int time = 0; time < times; ++time) {
      const auto taken = reader_->step(kTimeMin, 0);
      ASSERT_TRUE(taken) << taken.error().message;
    }
  }
  // Steps until there is an error.
  std::optional<Error> step_to_error() {
    for (int time = 0; time < 50; ++time) {
      clock_.pass(10);
      if (const auto taken = reader_->step(kTimeMin, 0); !taken) return taken.error();
    }
    return std::nullopt;
  }
  // All that can still be read and is released, by stream, from a start with these states.
  std::vector<std::string> names(Stream stream) {
    std::vector<std::string> found;
    for (int time = 0; time < 50; ++time) EXPECT_TRUE(reader_->step(kTimeMin, 0));
    const auto released = reader_->release(kTimeMax);
    for (const Event& event : released.at(0)) {
      if (event.stream() == stream) found.emplace_back(event.impression_id());
    }
    return found;
  }

  Config config_;
  BreakingSource source_;
  ManualClock clock_;
  std::optional<LogReader> reader_;
};

// ---- changed while it is read

TEST_F(LostRecordsTest, AfterABreakTheLastRecordIsComparedBeforeMoreIsTaken) {
  begin();
  step();
  const auto read = reader_->states()[1].read_position;
  ASSERT_GT(read, 0U);
  source_.logs.change(kClicks, read - 1, line(3, "other"));
  EXPECT_EQ(source_.comparisons, 0);
  source_.epoch = 1;
  const auto error = step_to_error();
  ASSERT_TRUE(error);
  EXPECT_EQ(error->kind, ErrorKind::stop);
  EXPECT_THAT(error->message,
              HasSubstr("the log was changed: clicks/0@" + std::to_string(read - 1)));
  EXPECT_EQ(reader_->states()[1].read_position, read);
}

TEST_F(LostRecordsTest, WhatWasReadWaitsUntilTheComparisonSucceeds) {
  begin();
  step();
  source_.epoch = 1;
  source_.is_away = true;
  const auto before = reader_->states();
  for (int attempt = 0; attempt < 3; ++attempt) {
    const auto taken = reader_->step(kTimeMin, 0);
    ASSERT_FALSE(taken);
    EXPECT_EQ(taken.error().kind, ErrorKind::retry);
  }
  EXPECT_EQ(reader_->states()[0].read_position, before[0].read_position);
  source_.is_away = false;
  EXPECT_EQ(names(Stream::impressions).size(), 20U);
  // Once for each log.
  EXPECT_EQ(source_.comparisons, 3 + 3);
}

TEST_F(LostRecordsTest, APauseIsAReasonToCompareToo) {
  begin();
  step();
  source_.logs.change(kImpressions, reader_->states()[0].read_position - 1, line(3, "other"));
  clock_.pass(60'000);
  const auto error = step_to_error();
  ASSERT_TRUE(error);
  EXPECT_THAT(error->message, HasSubstr("the log was changed: impressions/0"));
}

// Replaced without any sign, and read on: the record that is now the last one is the new log's own.
TEST_F(LostRecordsTest, AnEarlierRecordIsComparedNowAndThen) {
  config_.source.read_records = 1;
  begin();
  step(3);
  const auto anchor = reader_->states()[0].last_record_position;
  for (std::size_t index = 0; index <= anchor; ++index) {
    source_.logs.change(kImpressions, index, line(static_cast<int>(index), "other"));
  }
  std::optional<Error> error;
  for (int second = 0; second < 12 && !error; ++second) {
    clock_.pass(1'001);
    if (const auto taken = reader_->step(kTimeMin, 0); !taken) error = taken.error();
  }
  ASSERT_TRUE(error);
  EXPECT_THAT(error->message, HasSubstr("the log was changed: impressions/0"));
}

// No step fails because of it, and it is not asked for again at every step.
TEST_F(LostRecordsTest, AnEarlierRecordThatCannotBeAskedForIsLeftForTheNextPeriod) {
  config_.source.read_records = 1;
  begin();
  step(3);
  source_.is_away = true;
  const auto read = reader_->states()[0].read_position;
  for (int index = 0; index < 12 * 4; ++index) {
    clock_.pass(250);
    step(1);
  }
  EXPECT_GE(reader_->states()[0].read_position, read + 10);
  EXPECT_EQ(source_.comparisons, 2);
  // What could not be compared is compared later.
  source_.logs.change(kImpressions, 0, line(0, "other"));
  source_.is_away = false;
  std::optional<Error> error;
  for (int index = 0; index < 6 * 4 && !error; ++index) {
    clock_.pass(250);
    if (const auto taken = reader_->step(kTimeMin, 0); !taken) error = taken.error();
  }
  ASSERT_TRUE(error);
  EXPECT_THAT(error->message, HasSubstr("the log was changed: impressions/0@0"));
}

TEST_F(LostRecordsTest, ALogCutBelowItsPinnedEndIsNotWaitedFor) {
  begin(kClose);
  step();
  source_.cut_at[kClicks] = 15;
  source_.epoch = 1;
  const auto error = step_to_error();
  ASSERT_TRUE(error);
  EXPECT_EQ(error->kind, ErrorKind::stop);
  EXPECT_THAT(error->message, HasSubstr("the records from clicks/0@15 up to clicks/0@20 are gone"));
}

// ---- lost, and passed over

TEST_F(LostRecordsTest, RemovedRecordsAreNamedAndPassedOverOnlyWhenAsked) {
  begin();
  step(12);
  auto states = reader_->states();  // nothing processed
  ASSERT_EQ(states[1].resume_position, 0U);
  ASSERT_GT(states[1].read_position, 12U);
  source_.logs.remove_before(kClicks, 8);
  EXPECT_FALSE(start(states, false));
  const Status started = start(states, false, kLive, LostRecords::pass_over);
  ASSERT_TRUE(started) << started.error().message;
  EXPECT_THAT(reader_->passed_over(), ElementsAre(HasSubstr("clicks/0@0 up to clicks/0@8")));
  // What is left of those that were read comes back, and the rest follows.
  const auto clicks = names(Stream::clicks);
  ASSERT_EQ(clicks.size(), 12U);
  EXPECT_EQ(clicks.front(), "r8");
  EXPECT_EQ(clicks.back(), "r19");
}

TEST_F(LostRecordsTest, AllThatWasReadMayBeGone) {
  begin();
  step(6);
  auto states = reader_->states();
  const Position read = states[1].read_position;
  ASSERT_LT(read, 18U);
  states[1].quiet_watermark = kT0 + 500'000;
  source_.logs.remove_before(kClicks, 18);
  ASSERT_TRUE(start(states, false, kLive, LostRecords::pass_over));
  // The last record is not waited for: the quiet watermark counts at once.
  step(3);
  EXPECT_FALSE(reader_->states()[1].has_last_record && reader_->states()[1].read_position < 18);
  EXPECT_THAT(names(Stream::clicks), ElementsAre("r18", "r19"));
}

TEST_F(LostRecordsTest, ACutLogGoesOnAtItsEnd) {
  begin();
  step(15);
  auto states = reader_->states();
  ASSERT_EQ(states[1].read_position, 20U);
  source_.cut_at[kClicks] = 20;
  for (const Position end : {Position{17}, Position{0}}) {
    source_.cut_at[kClicks] = end;
    ASSERT_TRUE(start(states, false, kLive, LostRecords::pass_over));
    EXPECT_THAT(reader_->passed_over(),
                ElementsAre(HasSubstr("clicks/0@" + std::to_string(end) + " up to clicks/0@20")));
    EXPECT_EQ(reader_->states()[1].read_position, end);
    EXPECT_FALSE(reader_->states()[1].has_last_record);
  }
}

TEST_F(LostRecordsTest, NothingLostIsNothingPassedOver) {
  begin();
  step(9);
  const auto states = reader_->states();
  ASSERT_TRUE(start(states, false, kLive, LostRecords::pass_over));
  EXPECT_THAT(reader_->passed_over(), IsEmpty());
  EXPECT_EQ(reader_->states()[1].read_position, states[1].read_position);
}

TEST_F(LostRecordsTest, AnotherLogIsNoLoss) {
  begin();
  step(9);
  const auto states = reader_->states();
  source_.logs.change(kClicks, states[1].last_record_position, line(1, "other"));
  const Status started = start(states, false, kLive, LostRecords::pass_over);
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message, HasSubstr("the log was changed"));
}

// ---- held back

TEST_F(LostRecordsTest, ALogThatGoesOnButGivesNothingIsTold) {
  begin();
  step(15);
  const auto confirm = [&](Position end) {
    source_.logs.confirm(kClicks, {end, clock_.wall, clock_.steady});
  };
  confirm(20);
  step();
  EXPECT_THAT(reader_->held_back(0), IsEmpty());
  confirm(25);  // in a transaction
  for (int second = 0; second < 11; ++second) {
    step(1);
    clock_.pass(1'000);
  }
  const auto held = reader_->held_back(10'000);
  ASSERT_EQ(held.size(), 1U);
  EXPECT_EQ(to_string(held[0].where), "clicks/0");
  EXPECT_EQ(held[0].position, 20U);
  EXPECT_EQ(held[0].end, 25U);
  EXPECT_EQ(held[0].for_ms, 10'000);
  // Still not all is given, but it moves: the time begins anew.
  source_.logs.append(kClicks, line(20));
  step(3);
  EXPECT_THAT(reader_->held_back(1), IsEmpty());
  confirm(21);
  step(3);
  EXPECT_THAT(reader_->held_back(0), IsEmpty());
}

}  // namespace
}  // namespace sluice
