// Reading all logs by event time: which is read next, where reading ends, and how it begins again.
#include "ingest/log_reader.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "base/check.h"
#include "tests/ingest/scripted_source.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

constexpr TimeMs kEnd = floor_to(kTimeMax, 1'000);

StreamPartition impressions(std::uint32_t partition) {
  return {Stream::impressions, partition};
}
StreamPartition clicks(std::uint32_t partition) {
  return {Stream::clicks, partition};
}
StreamPartition purchases(std::uint32_t partition) {
  return {Stream::purchases, partition};
}

Config test_config() {
  Config config;
  config.source.type = SourceConfig::Type::kafka;
  config.source.read_records = 1;
  config.streams.max_out_of_orderness = {0, 0, 0};
  return config;
}

// A reader from its first start on.
class LogReaderTest : public ::testing::Test {
 protected:
  void open(const EndPolicy& policy) {
    reader_.emplace(config_, source_, clock_, partitions_, policy);
    const Status started =
        reader_->start(std::vector<IntakeState>(kStreamsWithoutActions * partitions_), true, {});
    ASSERT_TRUE(started) << started.error().message;
  }
  // A process of its own: it goes on from what the former one left.
  Status reopen(const EndPolicy& policy, std::vector<Position> pinned_ends) {
    std::vector<IntakeState> states = reader_->states();
    reader_.emplace(config_, source_, clock_, partitions_, policy);
    return reader_->start(std::move(states), false, std::move(pinned_ends));
  }
  std::size_t step(TimeMs frontier = kTimeMin, DurationMs wait_ms = 0) {
    const auto taken = reader_->step(frontier, wait_ms);
    EXPECT_TRUE(taken) << taken.error().message;
    return taken ? *taken : 0;
  }
  std::size_t read_all(TimeMs frontier = kTimeMin) {
    std::size_t sum = 0;
    for (int round = 0; round < 10'000 && !reader_->is_exhausted(); ++round) sum += step(frontier);
    EXPECT_TRUE(reader_->is_exhausted());
    return sum;
  }
  std::vector<std::string> released(TimeMs frontier) {
    std::vector<std::string> names;
    for (const auto& shard : reader_->release(frontier)) {
      for (const Event& event : shard) names.emplace_back(event.impression_id());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  std::uint32_t partitions_ = 1;
  Config config_ = test_config();
  ScriptedSource source_{4};
  ManualClock clock_;
  std::optional<LogReader> reader_;
};

// ---- which log is read next

RC_GTEST_FIXTURE_PROP(LogReaderTest, ReadsTheLogThatIsFurthestBehind, ()) {
  source_ = ScriptedSource(2);
  partitions_ = 2;
  std::map<StreamPartition, std::vector<TimeMs>> times;
  for (std::uint32_t index = 0; index < 6; ++index) {
    const StreamPartition where{static_cast<Stream>(index / 2), index % 2};
    TimeMs time = kT0;
    for (const int gap : *rc::gen::container<std::vector<int>>(20, rc::gen::inRange(0, 50))) {
      times[where].push_back(time += gap);
      source_.append(where, event_line(time, std::to_string(time)));
    }
  }
  open(kClose);
  std::map<StreamPartition, std::size_t> read;
  const auto watermark = [&](StreamPartition where) {
    if (read[where] == times[where].size()) return kTimeMax;
    return read[where] == 0 ? kTimeMin : times[where][read[where] - 1];
  };
  while (!reader_->is_exhausted()) {
    StreamPartition slowest = impressions(0);
    for (const auto& [where, log] : times) {
      if (watermark(where) < watermark(slowest)) slowest = where;
    }
    RC_ASSERT(reader_->slowest() == slowest);
    RC_ASSERT(reader_->watermark() == watermark(slowest));
    RC_ASSERT(step() == 1U);
    RC_ASSERT(source_.reads.back().where == slowest);
    ++read[slowest];
  }
  RC_ASSERT(source_.reads.size() == 120U);
  RC_ASSERT(reader_->watermark() == kTimeMax);
}

TEST_F(LogReaderTest, ThoseAheadAreReadOnlyAFewWhileTheSlowestHasNothing) {
  for (int index = 0; index < 1'000; ++index) {
    source_.append(impressions(0), event_line(kT0 + index, "name"));
    source_.append(clicks(0), event_line(kT0 + index, "name"));
  }
  source_.append(purchases(0), event_line(kT0 + 2'000, "name"));
  source_.set_fetching(purchases(0), true);
  Decoder decoder(config_.streams, config_.join, {});
  const auto event_bytes = [&](Stream stream) {
    return decoder.decode(stream, {0, 1, event_line(kT0, "name"), std::nullopt})->event.bytes();
  };
  const std::size_t allowance = 4'321;
  config_.source.max_queued_bytes = 3 * allowance;
  open(kClose);
  for (int round = 0; round < 1'500; ++round) step();
  std::map<StreamPartition, std::size_t> taken;
  for (const auto& read : source_.reads) taken[read.where] += read.records;
  for (const StreamPartition where : {impressions(0), clicks(0)}) {
    const std::size_t bytes = event_bytes(where.stream);
    EXPECT_EQ(taken[where], (allowance + bytes - 1) / bytes) << to_string(where);
  }
  // It waits for the slowest only.
  source_.reads.clear();
  step(kTimeMin, 20);
  for (const auto& read : source_.reads) {
    EXPECT_EQ(read.wait_ms > 0, &read == &source_.reads.back());
    EXPECT_EQ(to_string(read.where), "purchases/0");
  }
  EXPECT_EQ(source_.reads.size(), 2U);
  // What was taken is all there, once the slowest has come to its end.
  source_.set_fetching(purchases(0), false);
  while (!reader_->is_exhausted()) {
    step();
    reader_->release(floor_to(reader_->watermark(), 1'000));
  }
  EXPECT_EQ(reader_->states()[0].read_position, 1'000U);
}

// ---- close

TEST_F(LogReaderTest, CloseReadsToTheEndsAsTheyWereAtTheFirstStart) {
  for (const char* name : {"a", "b"}) source_.append(impressions(0), event_line(kT0, name));
  source_.append(clicks(0), event_line(kT0, "a"));
  open(kClose);
  EXPECT_EQ(reader_->pinned_ends(), (std::vector<Position>{2, 1, 0}));
  for (const char* name : {"c", "d"}) source_.append(impressions(0), event_line(kT0, name));
  source_.append(purchases(0), event_line(kT0, "a"));
  config_.source.read_records = 100;
  EXPECT_EQ(read_all(), 3U);
  EXPECT_EQ(reader_->watermark(), kTimeMax);
  EXPECT_EQ(released(kEnd), (std::vector<std::string>{"a", "a", "b"}));
  EXPECT_EQ(reader_->states()[0].read_position, 2U);
  EXPECT_EQ(reader_->fraction_read(), 1.0);
}

TEST_F(LogReaderTest, PinnedEndsAreThoseOfTheCommit) {
  for (int index = 0; index < 5; ++index) {
    source_.append(impressions(0), event_line(kT0 + index, std::to_string(index)));
  }
  open(kClose);
  step();
  step();
  source_.append(impressions(0), event_line(kT0, "after"));
  ASSERT_TRUE(reopen(kClose, {4, 0, 0}));
  EXPECT_EQ(reader_->pinned_ends(), (std::vector<Position>{4, 0, 0}));
  read_all();
  EXPECT_EQ(released(kEnd), (std::vector<std::string>{"0", "1", "2", "3"}));
}

TEST_F(LogReaderTest, CloseEndsBehindPositionsWithoutRecords) {
  source_.append(impressions(0), event_line(kT0, "a"));
  source_.skip(impressions(0), 3);  // the log's end: no record will come below it
  source_.skip(clicks(0), 7);       // nothing but control records
  source_.append(purchases(0), event_line(kT0, "a"));
  source_.skip(purchases(0), 1);
  open(kClose);
  EXPECT_EQ(reader_->pinned_ends(), (std::vector<Position>{4, 7, 2}));
  // The log grows: the next record lies beyond the pinned end, with a gap before it.
  source_.skip(purchases(0), 2);
  source_.append(purchases(0), event_line(kT0, "after"));
  // The present end may lie far beyond the pinned one.
  source_.skip(clicks(0), 50);
  EXPECT_EQ(read_all(), 2U);
  EXPECT_EQ(released(kEnd), (std::vector<std::string>{"a", "a"}));
  EXPECT_EQ(reader_->watermark(), kTimeMax);
}

TEST_F(LogReaderTest, CloseWaitsForALogWhoseRecordsAreStillUnderWay) {
  source_.append(impressions(0), event_line(kT0, "a"));
  source_.set_fetching(impressions(0), true);
  open(kClose);
  for (int round = 0; round < 3; ++round) EXPECT_EQ(step(), 0U);
  EXPECT_FALSE(reader_->is_exhausted());
  EXPECT_EQ(reader_->watermark(), kTimeMin);
  source_.set_fetching(impressions(0), false);
  EXPECT_EQ(read_all(), 1U);
}

// ---- hold, and until a time

TEST_F(LogReaderTest, HoldStopsWhereTheSlowestEnds) {
  for (int index = 0; index < 10; ++index) {
    source_.append(impressions(0), event_line(kT0 + index * 10, std::to_string(index)));
  }
  source_.append(clicks(0), event_line(kT0 + 35, "c"));
  source_.append(purchases(0), event_line(kT0 + 500, "p"));
  open(kHold);
  EXPECT_TRUE(reader_->pinned_ends().empty());
  read_all();
  EXPECT_EQ(to_string(reader_->slowest()), "clicks/0");
  EXPECT_EQ(reader_->watermark(), kT0 + 35);
  EXPECT_EQ(reader_->states()[0].read_position, 5U);  // the first one at or past it
  // A later start goes on when the slowest has grown.
  source_.append(clicks(0), event_line(kT0 + 62, "d"));
  ASSERT_TRUE(reopen(kHold, {}));
  read_all();
  EXPECT_EQ(reader_->watermark(), kT0 + 62);
  EXPECT_EQ(reader_->states()[0].read_position, 8U);
}

TEST_F(LogReaderTest, AnEmptyLogHoldsEverything) {
  source_.append(impressions(0), event_line(kT0, "a"));
  source_.append(clicks(0), event_line(kT0, "a"));
  open(kHold);
  read_all();
  EXPECT_EQ(reader_->watermark(), kTimeMin);
}

TEST_F(LogReaderTest, UntilATimeAllRecordsBeforeItAreIn) {
  config_.streams.max_out_of_orderness = {100, 100, 100};
  const TimeMs until = kT0 + 1'000;
  for (const TimeMs time : {500, 1'050, 990, 1'100, 1'150}) {
    source_.append(impressions(0), event_line(kT0 + time, std::to_string(time)));
  }
  source_.append(clicks(0), event_line(kT0 + 200, "c"));  // ends before: it is waited for no longer
  open({EndPolicy::Kind::at_time, until, false});
  read_all();
  EXPECT_EQ(reader_->watermark(), until);
  EXPECT_EQ(released(until), (std::vector<std::string>{"500", "990", "c"}));
  // Read no further than needed: 1100 − 100 says that all before `until` is in.
  EXPECT_EQ(reader_->states()[0].read_position, 4U);
  EXPECT_EQ(reader_->states()[0].resume_position, 1U);  // 1050 is not processed
}

TEST_F(LogReaderTest, ALiveSourceWaitsUntilTheTimeIsReached) {
  const TimeMs until = kT0 + 1'000;
  for (const StreamPartition where : {impressions(0), clicks(0), purchases(0)}) {
    source_.append(where, event_line(kT0, "a"));
  }
  config_.source.idle_after.reset();
  open({EndPolicy::Kind::at_time, until, true});
  for (int round = 0; round < 10; ++round) step();
  EXPECT_FALSE(reader_->is_exhausted());
  EXPECT_EQ(reader_->watermark(), kT0);
  for (const StreamPartition where : {impressions(0), clicks(0), purchases(0)}) {
    source_.append(where, event_line(until + 5, "b"));
  }
  read_all();
  EXPECT_EQ(reader_->watermark(), until);
}

// ---- starts

TEST_F(LogReaderTest, AFirstStartBeginsWhereTheSourceSays) {
  for (int index = 0; index < 4; ++index) {
    source_.append(impressions(0), event_line(kT0 + index, std::to_string(index)));
  }
  source_.remove_before(impressions(0), 2);
  open(kClose);
  EXPECT_EQ(source_.sought.at(impressions(0)), 2U);
  EXPECT_EQ(source_.sought.at(clicks(0)), 0U);
  // Committed at once: another start begins there too, even if the source now says otherwise.
  EXPECT_EQ(reader_->states()[0].resume_position, 2U);
  EXPECT_EQ(reader_->states()[0].read_position, 2U);
  source_.remove_before(impressions(0), 3);
  const Status again = reopen(kClose, reader_->pinned_ends());
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().message, "lost");
}

TEST_F(LogReaderTest, AChangedLastRecordStopsTheStart) {
  for (int index = 0; index < 4; ++index) {
    source_.append(clicks(0), event_line(kT0 + index, std::to_string(index)));
  }
  open(kHold);
  reader_.emplace(config_, source_, clock_, partitions_, kClose);
  ASSERT_TRUE(reader_->start(std::vector<IntakeState>(3), true, {}));
  while (reader_->states()[1].read_position < 3) step();
  source_.change(clicks(0), 1, event_line(kT0, "x"));  // not the last one read: not seen
  ASSERT_TRUE(reopen(kClose, reader_->pinned_ends()));
  source_.change(clicks(0), 2, event_line(kT0 + 2, "x"));
  const Status again = reopen(kClose, reader_->pinned_ends());
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().kind, ErrorKind::stop);
  EXPECT_NE(again.error().message.find("clicks/0@2"), std::string::npos) << again.error().message;
}

TEST_F(LogReaderTest, ALastRecordThatRetentionRemovedIsNoMistake) {
  for (int index = 0; index < 4; ++index) {
    source_.append(clicks(0), event_line(kT0 + index, std::to_string(index)));
  }
  open(kClose);
  while (reader_->states()[1].read_position < 3) step();
  reader_->release(kEnd);  // processed: reading goes on behind it
  source_.remove_before(clicks(0), 3);
  ASSERT_TRUE(reopen(kClose, reader_->pinned_ends()));
  read_all();
  EXPECT_EQ(released(kEnd), (std::vector<std::string>{"3"}));
}

// What a run of the reader gave, in an order of its own.
struct Outcome {
  std::vector<std::string> events;
  std::vector<std::string> refused;
};

// Drives a reader to its end. A commit follows a step with a chance of 1 in `commit_one_in`, a
// crash with one of 1 in `crash_one_in` (0: never): then only what was committed is left.
Outcome drive(const Config& config, ScriptedSource source, std::uint64_t seed,
              std::uint64_t commit_one_in, std::uint64_t crash_one_in) {
  const std::uint32_t partitions = *source.partitions();
  std::uint64_t draws = 0;
  const auto one_in = [&](std::uint64_t n) { return mix64(seed + draws++) % n == 0; };
  ManualClock clock;
  Outcome outcome, committed;
  TimeMs frontier = kTimeMin, committed_frontier = kTimeMin;
  std::optional<LogReader> reader;
  reader.emplace(config, source, clock, partitions, kClose);
  const auto take = [&](TimeMs before) {
    for (const auto& shard : reader->release(before)) {
      for (const Event& event : shard) {
        const StreamPartition where{event.stream(), 0};
        outcome.events.push_back(std::to_string(event.time()) + " " + to_string(where) + " " +
                                 std::string(event.id()) + " @" + std::to_string(event.position()));
      }
    }
  };
  SLUICE_CHECK(
      reader->start(std::vector<IntakeState>(kStreamsWithoutActions * partitions), true, {}));
  std::vector<IntakeState> states = reader->states();
  const std::vector<Position> pinned = reader->pinned_ends();
  int crashes_left = crash_one_in == 0 ? 0 : 10;
  while (!reader->is_exhausted()) {
    SLUICE_CHECK(reader->step(frontier, 0));
    for (const RefusedRecord& refused : reader->take_refused()) {
      outcome.refused.push_back(to_string(refused.where) + "@" + std::to_string(refused.position) +
                                " " + to_string(refused.reason) + " " + refused.bytes);
    }
    const TimeMs target = floor_to(reader->watermark(), config.join.tick);
    if (target > frontier && !one_in(3)) {
      frontier = target;
      take(frontier);
    }
    if (one_in(commit_one_in)) {
      states = reader->states();
      committed = outcome;
      committed_frontier = frontier;
    }
    if (crashes_left > 0 && one_in(crash_one_in)) {
      --crashes_left;
      outcome = committed;
      frontier = committed_frontier;
      reader.emplace(config, source, clock, partitions, kClose);
      SLUICE_CHECK(reader->start(states, false, pinned));
    }
  }
  take(kEnd);
  std::sort(outcome.events.begin(), outcome.events.end());
  std::sort(outcome.refused.begin(), outcome.refused.end());
  return outcome;
}

RC_GTEST_PROP(LogReaderRestart, GivesTheSameEventsAndRefusalsOnce, ()) {
  Config config = test_config();
  config.join.tick = 10;
  config.streams.max_out_of_orderness = {30, 20, 0};
  ScriptedSource source(2);
  std::size_t records = 0;
  for (std::uint32_t index = 0; index < 6; ++index) {
    const StreamPartition where{static_cast<Stream>(index / 2), index % 2};
    TimeMs time = kT0;
    for (const int draw : *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 1'000))) {
      time += draw % 17;
      ++records;
      if (draw % 11 == 0) {
        source.append(where, "no object");
      } else {
        source.append(where, event_line(time - draw % 7 * 10, std::to_string(records)));
      }
      if (draw % 13 == 0) source.skip(where, 1 + static_cast<Position>(draw % 3));
    }
  }
  const auto seed = *rc::gen::arbitrary<std::uint64_t>();
  config.source.read_records = *rc::gen::inRange<std::uint64_t>(1, 8);
  const Outcome undisturbed = drive(config, source, seed, 1, 0);
  const Outcome disturbed =
      drive(config, source, seed + 1, *rc::gen::inRange<std::uint64_t>(1, 9), 7);
  RC_ASSERT(undisturbed.events.size() + undisturbed.refused.size() == records);
  RC_ASSERT(disturbed.events == undisturbed.events);
  RC_ASSERT(disturbed.refused == undisturbed.refused);
}

// ---- files whose last line has no end when the ends are pinned

class UnfinishedLineTest : public ::testing::Test {
 protected:
  UnfinishedLineTest() {
    config_.source.type = SourceConfig::Type::files;
    config_.source.root = folder_.path().string();
    config_.source.read_records = 100;
    for (const char* stream : kStreamNames) {
      std::filesystem::create_directories(folder_.path() / stream / "00000");
      append(stream, 0, "");
    }
  }
  void append(const std::string& stream, int segment, const std::string& bytes) {
    std::ofstream out(folder_.path() / stream / "00000" / (std::to_string(segment) + ".jsonl"),
                      std::ios::app | std::ios::binary);
    out << bytes;
  }
  void open(std::vector<IntakeState> states, std::vector<Position> pinned) {
    reader_.reset();
    source_ = *open_file_source(config_);
    ASSERT_TRUE(source_->partitions());
    const bool is_first = pinned.empty();
    reader_.emplace(config_, *source_, clock_, 1, kClose);
    const Status started = reader_->start(std::move(states), is_first, std::move(pinned));
    ASSERT_TRUE(started) << started.error().message;
  }
  void read_all() {
    for (int round = 0; round < 100 && !reader_->is_exhausted(); ++round) {
      const auto taken = reader_->step(kTimeMin, 0);
      ASSERT_TRUE(taken) << taken.error().message;
      for (RefusedRecord& record : reader_->take_refused()) refused_.push_back(std::move(record));
    }
    ASSERT_TRUE(reader_->is_exhausted());
  }
  std::vector<std::string> ids() {
    std::vector<std::string> ids;
    const auto shards = reader_->release(kEnd);
    for (const Event& event : shards[0]) ids.emplace_back(event.id());
    return ids;
  }

  TemporaryFolder folder_;
  Config config_ = test_config();
  ManualClock clock_;
  std::unique_ptr<Source> source_;
  std::optional<LogReader> reader_;
  std::vector<RefusedRecord> refused_;
  const std::string half_ = event_line(kT0 + 1, "half").substr(0, 20);
  const std::string rest_ = event_line(kT0 + 1, "half").substr(20);
};

TEST_F(UnfinishedLineTest, IsMalformedAsItStood) {
  append("impressions", 0, event_line(kT0, "whole") + "\n" + half_);
  open(std::vector<IntakeState>(3), {});
  read_all();
  EXPECT_EQ(ids(), std::vector<std::string>{"whole"});
  ASSERT_EQ(refused_.size(), 1U);
  EXPECT_EQ(refused_[0].reason, Refusal::malformed);
  EXPECT_EQ(refused_[0].bytes, half_);
}

TEST_F(UnfinishedLineTest, MayGrowWhileTheRestIsRead) {
  // With and without an end, and with a further line behind it: always what stood there at first.
  for (const std::string& growth :
       {std::string(), rest_, rest_ + "\n", rest_ + "\n" + event_line(kT0 + 2, "after") + "\n"}) {
    for (const char* stream : kStreamNames) {
      std::filesystem::resize_file(folder_.path() / stream / "00000/0.jsonl", 0);
    }
    refused_.clear();
    append("clicks", 0, event_line(kT0, "whole") + "\n" + half_);
    open(std::vector<IntakeState>(3), {});
    append("clicks", 0, growth);
    read_all();
    EXPECT_EQ(ids(), std::vector<std::string>{"whole"}) << growth;
    ASSERT_EQ(refused_.size(), 1U) << growth;
    EXPECT_EQ(refused_[0].bytes, half_) << growth;
    // It grows once more before the next start, which finds the log unchanged all the same.
    append("clicks", 0, "more\n");
    open(reader_->states(), reader_->pinned_ends());
    read_all();
    EXPECT_EQ(refused_.size(), 1U) << growth;
  }
}

TEST_F(UnfinishedLineTest, AWholeLineStaysWholeWhenANewSegmentComes) {
  append("impressions", 0, event_line(kT0, "first") + "\n" + event_line(kT0 + 1, "last") + "\n");
  append("clicks", 0, half_);
  open(std::vector<IntakeState>(3), {});
  append("impressions", 1, event_line(kT0 + 2, "after") + "\n");
  append("clicks", 1, event_line(kT0 + 2, "after") + "\n");
  read_all();
  EXPECT_EQ(ids(), (std::vector<std::string>{"first", "last"}));
  ASSERT_EQ(refused_.size(), 1U);
  EXPECT_EQ(refused_[0].bytes, half_);
}

TEST_F(UnfinishedLineTest, IsOversizedFirst) {
  config_.streams.max_record_bytes = 10;
  append("clicks", 0, std::string(30, ' '));
  open(std::vector<IntakeState>(3), {});
  append("clicks", 0, std::string(30, ' ') + "\n");
  read_all();
  ASSERT_EQ(refused_.size(), 1U);
  EXPECT_EQ(refused_[0].reason, Refusal::oversized);
}

TEST_F(UnfinishedLineTest, ALogThatShrankStops) {
  append("impressions", 0, event_line(kT0, "a") + "\n" + event_line(kT0 + 1, "b") + "\n");
  open(std::vector<IntakeState>(3), {});
  std::filesystem::resize_file(folder_.path() / "impressions/00000/0.jsonl",
                               event_line(kT0, "a").size() + 1);
  Result<std::size_t> taken = std::size_t{1};
  for (int round = 0; round < 10 && taken && !reader_->is_exhausted(); ++round) {
    taken = reader_->step(kTimeMin, 0);
  }
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().kind, ErrorKind::stop);
}

}  // namespace
}  // namespace sluice
