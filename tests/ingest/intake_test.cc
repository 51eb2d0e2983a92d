#include "ingest/intake.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace sluice {
namespace {

constexpr TimeMs kStart = 1'700'000'000'000;
constexpr DurationMs kTick = 10;

class IntakeTest : public ::testing::Test {
 protected:
  IntakeTest() {
    config_.max_out_of_orderness = {20, 20, 20};
    config_.max_ahead = 5;
    config_.log_time = "written";
    config_.max_record_bytes = 200;
  }

  Intake make(const IntakeState& state = {}) {
    return Intake({Stream::clicks, 3}, config_, kTick, decoder_, state);
  }
  // A click `time` ms after kStart, of 100 positions' length.
  static Record click(Position position, TimeMs time, std::optional<TimeMs> log_time = {}) {
    Record record;
    record.position = position;
    record.next = position + 100;
    record.bytes = "{\"ts\":" + std::to_string(kStart + time) + ",\"impression_id\":\"a\"}";
    if (log_time) record.log_time = kStart + *log_time;
    return record;
  }
  // Takes the record; the reason to refuse it, or "accepted".
  std::string take(Intake& intake, const Record& record, TimeMs frontier = kTimeMin) {
    std::vector<RefusedRecord> refused;
    intake.take(Record(record), frontier, refused);
    if (refused.empty()) return "accepted";
    EXPECT_EQ(refused.size(), 1u);
    EXPECT_EQ(refused[0].where, (StreamPartition{Stream::clicks, 3}));
    EXPECT_EQ(refused[0].position, record.position);
    EXPECT_EQ(refused[0].bytes, record.bytes);
    EXPECT_FALSE(refused[0].detail.empty());
    return to_string(refused[0].reason);
  }
  // The event times released, less kStart, sorted.
  static std::vector<TimeMs> release(Intake& intake, TimeMs frontier) {
    std::vector<Event> events;
    intake.release(kStart + frontier, events);
    std::vector<TimeMs> times;
    for (const Event& event : events) times.push_back(event.time() - kStart);
    std::sort(times.begin(), times.end());
    return times;
  }
  using Times = std::vector<TimeMs>;

  StreamsConfig config_;
  Decoder decoder_{config_with_log_time(), JoinConfig{}, {}};

 private:
  static StreamsConfig config_with_log_time() {
    StreamsConfig config;
    config.log_time = "written";
    config.max_record_bytes = 200;
    return config;
  }
};

TEST_F(IntakeTest, TheWatermarkFollowsTheHighestAcceptedTime) {
  Intake intake = make();
  EXPECT_EQ(intake.watermark(), kTimeMin);
  EXPECT_EQ(take(intake, click(0, 50)), "accepted");
  EXPECT_EQ(intake.watermark(), kStart + 30);
  EXPECT_EQ(take(intake, click(100, 40)), "accepted");
  EXPECT_EQ(intake.watermark(), kStart + 30);
  EXPECT_EQ(take(intake, click(200, 61)), "accepted");
  EXPECT_EQ(intake.watermark(), kStart + 41);
  EXPECT_EQ(intake.highest_time(), kStart + 61);
}

TEST_F(IntakeTest, LateIsWhatLiesBehindTheBound) {
  Intake intake = make();
  EXPECT_EQ(take(intake, click(0, 50)), "accepted");
  EXPECT_EQ(take(intake, click(100, 30)), "accepted");
  EXPECT_EQ(take(intake, click(200, 29)), "late");
  EXPECT_EQ(intake.watermark(), kStart + 30);
}

TEST_F(IntakeTest, RefusedRecordsDoNotMoveTheWatermark) {
  Intake intake = make();
  take(intake, click(0, 50));
  EXPECT_EQ(take(intake, click(100, 90, 84)), "future");
  Record broken = click(200, 90);
  broken.bytes.pop_back();
  EXPECT_EQ(take(intake, broken), "malformed");
  Record large = click(300, 90);
  large.bytes += std::string(200, ' ');
  EXPECT_EQ(take(intake, large), "oversized");
  EXPECT_EQ(intake.watermark(), kStart + 30);
  EXPECT_EQ(take(intake, click(400, 90, 85)), "accepted");  // exactly max_ahead
  EXPECT_EQ(intake.watermark(), kStart + 70);
}

TEST_F(IntakeTest, FutureIsJudgedBeforeLate) {
  Intake intake = make();
  take(intake, click(0, 50));
  EXPECT_EQ(take(intake, click(100, 10, 0)), "future");
}

TEST_F(IntakeTest, AnyLogTimeCanStandInARecord) {
  Intake intake = make();
  Record record = click(0, 50);
  record.log_time = std::numeric_limits<TimeMs>::max();
  EXPECT_EQ(take(intake, record), "accepted");
  record.position = 100;
  record.log_time = std::numeric_limits<TimeMs>::min();
  EXPECT_EQ(take(intake, record), "future");
}

TEST_F(IntakeTest, ReleasesWhatLiesBeforeTheFrontier) {
  Intake intake = make();
  for (const TimeMs time : {25, 9, 10, 19, 20, 12}) {
    take(intake, click(static_cast<Position>(time) * 100, time));
  }
  EXPECT_GT(intake.buffered_bytes(), 0u);
  EXPECT_EQ(release(intake, 0), Times{});
  EXPECT_EQ(release(intake, 20), (Times{9, 10, 12, 19}));
  EXPECT_EQ(release(intake, 20), Times{});
  EXPECT_EQ(release(intake, 30), (Times{20, 25}));
  EXPECT_EQ(intake.buffered_bytes(), 0u);
}

TEST_F(IntakeTest, ResumesAtTheLowestRecordThatIsNotProcessed) {
  Intake intake = make();
  take(intake, click(100, 5));
  take(intake, click(200, 25));
  take(intake, click(300, 7));
  EXPECT_EQ(intake.state().resume_position, 100u);
  EXPECT_EQ(intake.state().highest_before_resume, kTimeMin);
  release(intake, 10);
  EXPECT_EQ(intake.state().resume_position, 200u);
  EXPECT_EQ(intake.state().highest_before_resume, kStart + 5);
  EXPECT_EQ(intake.state().read_position, 400u);
  EXPECT_EQ(intake.state().last_record_position, 300u);
  EXPECT_EQ(intake.state().last_record_hash, hash128(click(300, 7).bytes));
  release(intake, 30);
  EXPECT_EQ(intake.state().resume_position, 400u);
  EXPECT_EQ(intake.state().highest_before_resume, kStart + 25);
}

TEST_F(IntakeTest, ARefusedRecordIsPassed) {
  Intake intake = make();
  Record broken = click(100, 5);
  broken.bytes.clear();
  take(intake, broken);
  EXPECT_EQ(intake.state().resume_position, 200u);
  EXPECT_EQ(intake.state().read_position, 200u);
  EXPECT_TRUE(intake.state().has_last_record);
}

// What is read again after a restart rebuilds the buffers, without being judged in public twice.
TEST_F(IntakeTest, ARestartGoesOnAsIfNothingHadHappened) {
  Record broken = click(300, 0);
  broken.bytes = "{";
  // At frontier 20: the second is not processed yet; the last two were never read.
  const std::vector<Record> log = {click(100, 5),  click(200, 25), broken,         click(400, 10),
                                   click(500, 40), click(600, 19), click(700, 31), click(800, 15)};
  Intake before = make();
  for (std::size_t index = 0; index < 6; ++index) take(before, log[index]);
  EXPECT_EQ(release(before, 20), (Times{5, 10}));  // 19 is late after 40
  const IntakeState committed = before.state();
  EXPECT_EQ(committed.resume_position, 200u);
  EXPECT_EQ(committed.read_position, 700u);

  Intake after = make(committed);
  EXPECT_EQ(after.highest_time(), kStart + 5);
  std::vector<RefusedRecord> refused;
  for (std::size_t index = 1; index < 6; ++index) {
    after.take(Record(log[index]), kStart + 20, refused);
    // A commit on the way is right too.
    EXPECT_EQ(after.state().resume_position, 200u);
    EXPECT_EQ(after.state().read_position, 700u);
    EXPECT_EQ(after.state().last_record_position, 600u);
  }
  EXPECT_TRUE(refused.empty());
  EXPECT_EQ(after.watermark(), before.watermark());
  EXPECT_EQ(after.buffered_bytes(), before.buffered_bytes());
  for (Intake* intake : {&before, &after}) {
    EXPECT_EQ(take(*intake, log[6], kStart + 20), "accepted");
    EXPECT_EQ(take(*intake, log[7], kStart + 20), "late");
    EXPECT_EQ(release(*intake, 50), (Times{25, 31, 40}));
  }
  EXPECT_EQ(before.state().resume_position, after.state().resume_position);
}

TEST_F(IntakeTest, AQuietWatermarkNeverGoesBack) {
  Intake intake = make();
  take(intake, click(0, 50));
  intake.advance_quiet(kStart + 100);
  EXPECT_EQ(intake.watermark(), kStart + 100);
  intake.advance_quiet(kStart + 90);
  EXPECT_EQ(intake.watermark(), kStart + 100);
  take(intake, click(100, 130));
  EXPECT_EQ(intake.watermark(), kStart + 110);
  // After a restart it counts when all is back in the buffer.
  const Intake again = make(intake.state());
  EXPECT_EQ(again.watermark(), kTimeMin);
}

TEST_F(IntakeTest, AQuietWatermarkCountsWhenAllIsReadAgain) {
  Intake intake = make();
  take(intake, click(0, 5));
  take(intake, click(100, 18));
  Record broken = click(200, 9);
  broken.bytes.clear();
  take(intake, broken);
  intake.advance_quiet(kStart + 20);
  EXPECT_EQ(release(intake, 10), Times{5});
  const IntakeState committed = intake.state();
  Intake again = make(committed);
  // Else another partition could lead the shard past 18 before that is in the buffer again.
  EXPECT_EQ(again.watermark(), kStart + 5 - 20);
  take(again, click(100, 18), kStart + 10);
  EXPECT_EQ(again.watermark(), kStart + 18 - 20);
  std::vector<RefusedRecord> refused;
  again.take(Record(broken), kStart + 10, refused);
  EXPECT_EQ(again.watermark(), kStart + 20);
  EXPECT_EQ(release(again, 20), Times{18});
  // Nothing to read again: it counts at once.
  EXPECT_EQ(make(again.state()).watermark(), kStart + 20);
}

// Lateness is judged by the log alone; that a quiet partition was passed is told apart.
TEST_F(IntakeTest, WhatComesAfterItsQuietPartitionWasPassed) {
  Intake intake = make();
  take(intake, click(0, 50));
  EXPECT_EQ(release(intake, 60), Times{50});
  intake.advance_quiet(kStart + 100);
  const TimeMs frontier = kStart + 100;
  EXPECT_EQ(take(intake, click(100, 99), frontier), "late_after_quiet");
  EXPECT_EQ(take(intake, click(200, 78), frontier), "late");
  EXPECT_EQ(take(intake, click(300, 100), frontier), "accepted");
  EXPECT_EQ(release(intake, 200), Times{100});

  // The same after a restart: the highest time before it is part of the state.
  Intake again = make(intake.state());
  EXPECT_EQ(take(again, click(400, 79), kStart + 200), "late");
  EXPECT_EQ(take(again, click(500, 80), kStart + 200), "late_after_quiet");
}

TEST_F(IntakeTest, AnUnfinishedLastLineIsMalformedOnce) {
  Intake intake = make();
  take(intake, click(0, 50));
  std::vector<RefusedRecord> refused;
  intake.take_unfinished(click(100, 60), refused);
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_EQ(refused[0].reason, Refusal::malformed);
  EXPECT_EQ(refused[0].position, 100u);
  EXPECT_EQ(intake.watermark(), kStart + 30);
  EXPECT_EQ(intake.state().read_position, 200u);
  Intake again = make(intake.state());
  again.take(click(0, 50), kTimeMin, refused);
  again.take_unfinished(click(100, 60), refused);
  EXPECT_EQ(refused.size(), 1u);
}

TEST_F(IntakeTest, TheStateSurvivesItsBytes) {
  IntakeState state;
  state.resume_position = Position{5} << 40 | 17;
  state.highest_before_resume = kTimeMin;
  state.read_position = Position{6} << 40;
  state.has_last_record = true;
  state.last_record_position = 99;
  state.last_record_hash = hash128("x");
  state.quiet_watermark = kStart;
  std::string bytes;
  ByteWriter writer(bytes);
  state.encode(writer);
  ByteReader reader(bytes);
  const IntakeState read = IntakeState::decode(reader);
  EXPECT_TRUE(reader.ok() && reader.at_end());
  EXPECT_EQ(read.resume_position, state.resume_position);
  EXPECT_EQ(read.highest_before_resume, state.highest_before_resume);
  EXPECT_EQ(read.read_position, state.read_position);
  EXPECT_EQ(read.has_last_record, state.has_last_record);
  EXPECT_EQ(read.last_record_position, state.last_record_position);
  EXPECT_EQ(read.last_record_hash, state.last_record_hash);
  EXPECT_EQ(read.quiet_watermark, state.quiet_watermark);
}

}  // namespace
}  // namespace sluice
