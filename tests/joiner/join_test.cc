// The commit: what it holds, what it refuses, and what a restart finds.
#include "joiner/join.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "joiner/sample_log.h"
#include "stages.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr TimeMs kStart = 1'700'000'000'000;

// Fails every commit while it is told to.
class FailingStore final : public KeyValueStore {
 public:
  explicit FailingStore(KeyValueStore& store) : store_(store) {}
  Status commit(const WriteBatch& batch) override {
    ++commits;
    if (fails) return stop_error("the disk is full");
    return store_.commit(batch);
  }
  Result<std::optional<std::string>> get(Space space, std::string_view key) override {
    return store_.get(space, key);
  }
  Status scan(Space space, std::string_view begin, std::string_view end,
              const std::function<bool(std::string_view, std::string_view)>& visit) override {
    return store_.scan(space, begin, end, visit);
  }
  std::uint64_t disk_bytes() override { return store_.disk_bytes(); }

  bool fails = false;
  int commits = 0;

 private:
  KeyValueStore& store_;
};

class JoinTest : public ::testing::Test {
 protected:
  JoinTest() {
    config_.join.click_window = 1'000;
    config_.join.tick = 100;
  }

  std::unique_ptr<Join> open(std::uint32_t partitions = 2) {
    auto join = Join::open(config_, partitions, *store_);
    EXPECT_TRUE(join.has_value()) << join.error().message;
    return *std::move(join);
  }
  std::string open_error(std::uint32_t partitions = 2) {
    const auto join = Join::open(config_, partitions, *store_);
    return join ? std::string() : join.error().message;
  }
  static Event impression(TimeMs time, const std::string& id) {
    Event::Texts texts;
    texts.id = id;
    texts.impression_id = id;
    return Event(Stream::impressions, kStart + time, 0, texts);
  }
  static Event click(TimeMs time, const std::string& id, Position position) {
    return answer(Stream::clicks, time, id, position);
  }
  static Event purchase(TimeMs time, const std::string& id, Position position) {
    return answer(Stream::purchases, time, id, position);
  }
  static Event answer(Stream stream, TimeMs time, const std::string& id, Position position) {
    Event::Texts texts;
    texts.impression_id = id;
    return Event(stream, kStart + time, position, texts);
  }
  static RefusedRecord refused(Position position, Refusal reason, std::size_t bytes = 10) {
    return {{Stream::purchases, 1}, position, reason, "why", std::string(bytes, 'r')};
  }
  static void process(Join& join, TimeMs frontier, std::vector<Event> shard_0 = {},
                      std::vector<Event> shard_1 = {}) {
    std::vector<std::vector<Event>> events(2);
    events[0] = std::move(shard_0);
    events[1] = std::move(shard_1);
    ASSERT_TRUE(join.process(kStart + frontier, std::move(events)).has_value());
  }
  static void commit(Join& join, TimeMs wall_ms = 0, std::uint64_t first_needed = 1) {
    const Status status = join.commit(intakes(), wall_ms, first_needed);
    ASSERT_TRUE(status.has_value()) << status.error().message;
  }
  static std::vector<IntakeState> intakes() { return std::vector<IntakeState>(6); }

  Config config_;
  std::unique_ptr<KeyValueStore> store_ = make_memory_store();
};

TEST_F(JoinTest, ANewLineageBeginsWithNothing) {
  const auto join = open();
  EXPECT_EQ(join->partitions(), 2u);
  EXPECT_EQ(join->frontier(), kTimeMin);
  EXPECT_EQ(join->next_deadline(), kTimeMax);
  EXPECT_EQ(join->committed().next_sequence, 1u);
  EXPECT_EQ(join->committed().intakes.size(), 6u);
  EXPECT_EQ(join->committed().samples_digest, Digest{});
  EXPECT_FALSE(join->has_changes(intakes()));
}

TEST_F(JoinTest, AnotherJoinConfigIsRefusedNamingTheKeys) {
  open();
  const Config before = config_;
  config_.join.click_window = 2'000;
  config_.streams.max_depth = 5;
  const std::string error = open_error();
  EXPECT_THAT(error, HasSubstr("join.click_window"));
  EXPECT_THAT(error, HasSubstr("streams.max_depth"));
  EXPECT_THAT(error, Not(HasSubstr("join.tick")));
  EXPECT_EQ(Join::open(config_, 2, *store_).error().kind, ErrorKind::usage);
  // Operational keys and the learner's may change.
  config_ = before;
  config_.source.root = "elsewhere";
  config_.training.batch_size = 7;
  config_.store.commit_interval = 7;
  EXPECT_EQ(open_error(), "");
}

TEST_F(JoinTest, OfTheFeaturesOnlyThoseThatChangedAreNamed) {
  const auto id = [](const char* name, const char* path) {
    FeatureConfig feature;
    feature.name = name;
    feature.path = path;
    return feature;
  };
  config_.features = {id("city", "features.city"), id("site", "features.site")};
  open();
  config_.features = {id("city", "features.city"), id("country", "features.country"),
                      id("site", "features.page")};
  const std::string error = open_error();
  EXPECT_THAT(error, HasSubstr("feature country:features.country:id is new"));
  EXPECT_THAT(error, HasSubstr("feature site:features.site:id is not there any more"));
  EXPECT_THAT(error, HasSubstr("feature site:features.page:id is new"));
  EXPECT_THAT(error, Not(HasSubstr("city")));
}

// Who only reads what was learned may know some of the features; who joins must have all.
TEST_F(JoinTest, AReaderMayHaveSomeOfTheFeatures) {
  const auto id = [](const char* name, const char* path) {
    FeatureConfig feature;
    feature.name = name;
    feature.path = path;
    return feature;
  };
  const auto reader_error = [&] {
    const Status status = compare_join_identity(config_, *store_, FeatureRule::some);
    return status ? std::string() : status.error().message;
  };
  config_.features = {id("city", "features.city"), id("site", "features.site")};
  open();
  EXPECT_EQ(reader_error(), "");
  config_.features = {id("site", "features.site")};
  EXPECT_EQ(reader_error(), "");
  EXPECT_THAT(open_error(), HasSubstr("feature city:features.city:id is not there any more"));
  config_.features = {id("site", "features.page")};
  EXPECT_THAT(reader_error(), HasSubstr("feature site:features.page:id is new"));
  config_.features = {id("site", "features.site")};
  config_.join.click_window = 2'000;
  EXPECT_THAT(reader_error(), HasSubstr("join.click_window"));
  EXPECT_THAT(reader_error(), Not(HasSubstr("feature")));
}

TEST_F(JoinTest, AnotherAttributedClickIsRefusedInBothDirections) {
  open();
  config_.join.attributed_click = JoinConfig::AttributedClick::last;
  EXPECT_THAT(open_error(), HasSubstr("join.attributed_click was its default, is \"last\""));
  store_ = make_memory_store();
  open();
  EXPECT_EQ(open_error(), "");
  config_.join.attributed_click = JoinConfig::AttributedClick::first;
  EXPECT_THAT(open_error(), HasSubstr("join.attributed_click was \"last\", is its default"));
}

TEST_F(JoinTest, ValuesThatAreSummedOrNotAreAnotherLineage) {
  config_.join.purchase_label = JoinConfig::PurchaseLabel::at_close;
  open();
  config_.join.purchase_value = JoinConfig::PurchaseValue::sum;
  config_.streams.value = "total";
  EXPECT_THAT(open_error(), HasSubstr("join.purchase_value was its default, is \"sum\""));
  EXPECT_THAT(open_error(), HasSubstr("streams.value was its default, is \"total\""));
  store_ = make_memory_store();
  open();
  EXPECT_EQ(open_error(), "");
  config_.join.purchase_value = JoinConfig::PurchaseValue::none;
  EXPECT_THAT(open_error(), HasSubstr("join.purchase_value was \"sum\", is its default"));
}

// A progress record of the format before there were values, and of this one.
TEST_F(JoinTest, ProgressOfTheFormatBeforeValuesIsRead) {
  JoinProgress progress;
  progress.counters.value.add(-1'500'000);
  progress.counters.without_value = 3;
  progress.trimmed_unsent_dead_letters = 7;
  const std::string bytes = progress.encode();
  const auto now = JoinProgress::decode(bytes);
  ASSERT_TRUE(now.has_value());
  EXPECT_EQ(now->counters.value, progress.counters.value);
  EXPECT_EQ(now->counters.without_value, 3u);
  // The frame is the format and a checksum; −2 and 500,000 (three bytes) and 3 are what was added.
  const std::string body = bytes.substr(9, bytes.size() - 9 - 5);
  std::string before;
  ByteWriter writer(before);
  writer.u8(2);
  writer.u64(hash64(body));
  const auto old = JoinProgress::decode(before + body);
  ASSERT_TRUE(old.has_value());
  EXPECT_EQ(old->trimmed_unsent_dead_letters, 7u);
  EXPECT_EQ(old->counters.value, MicrosSum{});
  EXPECT_EQ(old->counters.without_value, 0u);
}

TEST_F(JoinTest, AnotherNumberOfPartitionsIsRefused) {
  open();
  EXPECT_THAT(open_error(3), HasSubstr("3 partitions"));
}

TEST_F(JoinTest, OrdersSamplesByTickThenShardThenTime) {
  const auto join = open();
  // Windows close at 1150 and 1120 (one tick), and at 1210; shard 1 has the earliest.
  process(*join, 5'000, {impression(150, "a"), impression(210, "b")}, {impression(120, "c")});
  commit(*join);
  const auto samples = read_samples(*store_, 1, 10);
  ASSERT_EQ(samples->size(), 3u);
  EXPECT_EQ((*samples)[0].impression_id, "a");
  EXPECT_EQ((*samples)[1].impression_id, "c");
  EXPECT_EQ((*samples)[2].impression_id, "b");
  EXPECT_EQ((*samples)[2].sequence, 3u);
}

TEST_F(JoinTest, HowFarEachStepGoesDoesNotMatter) {
  const auto join = open();
  process(*join, 200, {impression(150, "a")}, {impression(120, "c")});
  process(*join, 1'200, {impression(210, "b")});
  process(*join, 5'000);
  commit(*join);
  const Digest in_steps = join->committed().samples_digest;
  store_ = make_memory_store();
  const auto other = open();
  process(*other, 5'000, {impression(210, "b"), impression(150, "a")}, {impression(120, "c")});
  commit(*other);
  EXPECT_EQ(other->committed().samples_digest, in_steps);
}

TEST_F(JoinTest, WhatIsNotCommittedIsNotThere) {
  auto join = open();
  process(*join, 5'000, {impression(0, "a")});
  commit(*join);
  process(*join, 9'000, {impression(5'000, "b")});
  EXPECT_EQ(join->uncommitted_samples(), 1u);
  EXPECT_EQ(join->counters().labelled_impressions, 2u);
  EXPECT_EQ(read_samples(*store_, 1, 10)->size(), 1u);
  join = open();
  EXPECT_EQ(join->frontier(), kStart + 5'000);
  EXPECT_EQ(join->committed().next_sequence, 2u);
  EXPECT_EQ(join->counters().labelled_impressions, 1u);
}

TEST_F(JoinTest, ARestartBetweenTwoClicksForgetsNeither) {
  config_.join.attributed_click = JoinConfig::AttributedClick::last;
  config_.join.conversion_window = 300;
  auto join = open();
  process(*join, 100, {impression(10, "a"), click(50, "a", 1)});
  commit(*join);
  join = open();
  // Inside the first one's conversion window, which would close at 350.
  process(*join, 400, {click(349, "a", 2)});
  commit(*join);
  join = open();
  EXPECT_EQ(join->next_deadline(), kStart + 649);
  process(*join, 5'000, {purchase(648, "a", 3)});
  commit(*join);
  EXPECT_EQ(join->committed().counters.used[1], 2u);
  const auto samples = read_samples(*store_, 1, 10);
  ASSERT_EQ(samples->size(), 1u);
  EXPECT_EQ((*samples)[0].click_time, kStart + 349);
  EXPECT_EQ((*samples)[0].purchase_time, kStart + 648);
  EXPECT_EQ(count_keys(*store_, Space::state), 0u);
}

TEST_F(JoinTest, ACommitKeepsAllThatItIsGiven) {
  const auto join = open();
  process(*join, 500, {impression(0, "a")}, {impression(100, "b"), impression(100, "b")});
  join->refuse({refused(5, Refusal::late)});
  join->pin_ends({1, 2, 3, 4, 5, 6});
  std::vector<IntakeState> states = intakes();
  states[4].resume_position = 77;
  states[4].quiet_watermark = kStart;
  EXPECT_TRUE(join->has_changes(states));
  ASSERT_TRUE(join->commit(states, 0, 1).has_value());
  EXPECT_FALSE(join->has_changes(states));
  const auto again = open();
  const JoinProgress& progress = again->committed();
  EXPECT_EQ(progress.encode(), join->committed().encode());
  EXPECT_EQ(progress.pinned_ends, (std::vector<Position>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(progress.intakes[4].resume_position, 77u);
  EXPECT_EQ(progress.intakes[4].quiet_watermark, kStart);
  EXPECT_EQ(progress.counters.used[0], 2u);
  EXPECT_EQ(progress.counters.refused_for(Refusal::duplicate), 1u);
  EXPECT_EQ(progress.counters.refused_for(Refusal::late), 1u);
  EXPECT_EQ(progress.counters.read(Stream::purchases), 1u);
  EXPECT_EQ(again->open_impressions(), 2u);
  EXPECT_EQ(again->next_deadline(), kStart + 1'000);
  EXPECT_FALSE(progress.is_closed);
}

TEST_F(JoinTest, ClosingTakesEffectWithTheNextCommit) {
  const auto join = open();
  process(*join, 500);
  commit(*join);
  join->close();
  EXPECT_FALSE(join->committed().is_closed);
  EXPECT_TRUE(join->has_changes(intakes()));
  commit(*join);
  EXPECT_TRUE(open()->committed().is_closed);
}

TEST_F(JoinTest, TheSampleLogReachesBackToWhatIsNeeded) {
  const auto join = open();
  for (int step = 1; step <= 4; ++step) {
    process(*join, step * 2'000, {impression((step - 1) * 2'000, "a")});
    commit(*join, 0, step == 4 ? 3 : 1);
  }
  EXPECT_EQ(join->committed().first_logged, 3u);
  EXPECT_EQ(read_samples(*store_, 3, 10)->size(), 2u);
  EXPECT_FALSE(read_samples(*store_, 2, 10).has_value());
  commit(*join, 0, 100);  // never beyond the next one
  EXPECT_EQ(join->committed().first_logged, 5u);
  process(*join, 20'000, {impression(10'000, "a")});
  commit(*join, 0, 1);  // nor back
  EXPECT_EQ(join->committed().first_logged, 5u);
  EXPECT_EQ(read_samples(*store_, 5, 10)->size(), 1u);
}

TEST_F(JoinTest, DeadLettersHoldPositionReasonAndBytes) {
  const auto join = open();
  join->refuse({refused(5, Refusal::late), refused(6, Refusal::malformed)});
  join->refuse({refused(7, Refusal::oversized)});
  commit(*join, 1'234);
  const auto letters = read_dead_letters(*store_);
  ASSERT_EQ(letters.size(), 3u);
  EXPECT_EQ(letters[1].refusal, (OracleRefusal{{Stream::purchases, 1}, 6, Refusal::malformed}));
  EXPECT_EQ(letters[1].bytes, "rrrrrrrrrr");
  EXPECT_EQ(letters[1].detail, "why");
  EXPECT_EQ(letters[1].wall_ms, 1'234);
  commit(*join, 2'000);
  EXPECT_EQ(read_dead_letters(*store_).size(), 3u);  // each once
  EXPECT_EQ(open()->committed().next_dead_letter, 3u);
}

TEST_F(JoinTest, OldDeadLettersAreTrimmedAndCounted) {
  config_.dead_letters.keep_time = 100;
  const auto join = open();
  join->refuse({refused(5, Refusal::late), refused(6, Refusal::late)});
  commit(*join, 1'000);
  join->refuse({refused(7, Refusal::late)});
  commit(*join, 1'100);  // exactly as old as allowed
  EXPECT_EQ(read_dead_letters(*store_).size(), 3u);
  commit(*join, 1'101);
  const auto letters = read_dead_letters(*store_);
  ASSERT_EQ(letters.size(), 1u);
  EXPECT_EQ(letters[0].refusal.position, 7u);
  EXPECT_EQ(join->committed().trimmed_dead_letters, 2u);
  commit(*join, 9'000);
  EXPECT_EQ(read_dead_letters(*store_).size(), 0u);
  EXPECT_EQ(join->committed().dead_letter_bytes, 0u);
  EXPECT_EQ(join->committed().counters.refused_for(Refusal::late), 3u);
}

TEST_F(JoinTest, TooManyDeadLettersLeaveTheOldestFirst) {
  config_.dead_letters.keep_bytes = 5'000;
  const auto join = open();
  for (Position position = 0; position < 50; ++position) {
    join->refuse({refused(position, Refusal::late, 1'000)});
    commit(*join);
  }
  const auto letters = read_dead_letters(*store_);
  EXPECT_LE(letters.size(), 6u);
  EXPECT_GE(letters.size(), 4u);
  EXPECT_EQ(letters.back().refusal.position, 49u);
  EXPECT_EQ(join->committed().trimmed_dead_letters + letters.size(), 50u);
}

TEST_F(JoinTest, ARecordAfterItsQuietPartitionMarksWhatFollows) {
  const auto join = open();
  process(*join, 5'000, {impression(0, "a")});
  commit(*join);
  EXPECT_FALSE(join->committed().irreproducible_from.has_value());
  join->refuse({refused(5, Refusal::late_after_quiet)});
  commit(*join);
  EXPECT_EQ(join->committed().irreproducible_from, 2u);
  process(*join, 9'000, {impression(5'000, "b")});
  join->refuse({refused(6, Refusal::late_after_quiet)});
  commit(*join);
  EXPECT_EQ(open()->committed().irreproducible_from, 2u);  // the first one counts
}

TEST_F(JoinTest, AFailedCommitLeavesTheStoreAsItWas) {
  FailingStore failing(*store_);
  auto join = Join::open(config_, 2, failing);
  ASSERT_TRUE(join.has_value());
  process(**join, 5'000, {impression(0, "a")});
  commit(**join);
  process(**join, 9'000, {impression(5'000, "b")});
  failing.fails = true;
  const Status failed = (*join)->commit(intakes(), 0, 1);
  ASSERT_FALSE(failed.has_value());
  EXPECT_THAT(failed.error().message, HasSubstr("the disk is full"));
  EXPECT_EQ((*join)->committed().next_sequence, 2u);
  EXPECT_EQ(open()->committed().next_sequence, 2u);
}

TEST_F(JoinTest, NothingDurableFollowsAFailedCommit) {
  FailingStore failing(*store_);
  auto join = Join::open(config_, 2, failing);
  ASSERT_TRUE(join.has_value());
  failing.fails = true;
  ASSERT_FALSE((*join)->commit(intakes(), 0, 1).has_value());
  failing.fails = false;
  EXPECT_DEATH(static_cast<void>((*join)->commit(intakes(), 0, 1)), "");
  EXPECT_DEATH(static_cast<void>((*join)->process(kStart, {{}, {}})), "");
}

TEST_F(JoinTest, TheFrontierNeverGoesBack) {
  const auto join = open();
  process(*join, 500);
  EXPECT_DEATH(static_cast<void>(join->process(kStart + 400, {{}, {}})), "");
}

TEST_F(JoinTest, AProgressRecordOfTheFirstFormatIsRead) {
  JoinProgress progress;
  progress.next_sequence = 7;
  progress.first_dead_letter = 2;
  progress.next_dead_letter = 5;
  progress.trimmed_dead_letters = 2;
  const std::string now = progress.encode();
  // It ended before the two numbers of the dead-letter topic and the three of values, a byte each
  // here.
  const std::string rest = now.substr(9, now.size() - 9 - 5);
  std::string first;
  ByteWriter bytes(first);
  bytes.u8(1);
  bytes.u64(hash64(rest));
  const auto read = JoinProgress::decode(first + rest);
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_EQ(read->next_sequence, 7U);
  EXPECT_EQ(read->trimmed_dead_letters, 2U);
  EXPECT_EQ(read->sent_dead_letters, 0U);
  EXPECT_EQ(read->trimmed_unsent_dead_letters, 0U);
  EXPECT_EQ(read->encode(), now);
}

// Bytes of lineages without actions are what they were.
TEST_F(JoinTest, OnlyALineageWithActionsCountsThem) {
  JoinProgress progress;
  progress.shards.resize(2);
  progress.intakes.resize(6);
  progress.counters.used[3] = 5;
  EXPECT_EQ(progress.streams(), 3u);
  EXPECT_EQ(progress.encode().at(0), 3);
  const auto without = JoinProgress::decode(progress.encode());
  ASSERT_TRUE(without.has_value());
  EXPECT_EQ(without->counters.used[3], 0u);
  progress.intakes.resize(8);
  progress.counters.refused[3][2] = 7;
  progress.counters.acted = 300;
  EXPECT_EQ(progress.streams(), 4u);
  EXPECT_EQ(progress.encode().at(0), 4);
  const auto with = JoinProgress::decode(progress.encode());
  ASSERT_TRUE(with.has_value());
  EXPECT_EQ(with->counters.used, progress.counters.used);
  EXPECT_EQ(with->counters.refused, progress.counters.refused);
  EXPECT_EQ(with->counters.acted, 300u);
  EXPECT_EQ(with->encode(), progress.encode());
}

TEST_F(JoinTest, ALineageHasActionsFromItsBeginningOrNever) {
  open();
  config_.streams.topic[3] = "carts";
  config_.join.action_window = 5;
  EXPECT_THAT(open_error(), HasSubstr("streams.actions.topic was empty, names a stream. Take"));
  store_ = make_memory_store();
  EXPECT_EQ(open()->committed().intakes.size(), 8u);
  config_.join.action_window = 6;
  EXPECT_THAT(open_error(), HasSubstr("join.action_window was \"5 ms\", is \"6 ms\". Take"));
  config_.join.action_window = 5;
  config_.streams.topic[3] = "favourites";
  EXPECT_EQ(open_error(), "");
  config_.streams.topic[3] = "";
  EXPECT_THAT(open_error(), HasSubstr("streams.actions.topic named a stream, is empty. Take"));
}

TEST_F(JoinTest, ADamagedProgressRecordIsAnError) {
  const auto join = open();
  process(*join, 500, {impression(0, "a")});
  commit(*join);
  const std::string bytes = join->committed().encode();
  ASSERT_TRUE(JoinProgress::decode(bytes).has_value());
  EXPECT_EQ(JoinProgress::decode(bytes)->encode(), bytes);
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    EXPECT_FALSE(JoinProgress::decode(damaged).has_value()) << at;
    EXPECT_FALSE(JoinProgress::decode(bytes.substr(0, at)).has_value()) << at;
  }
  EXPECT_FALSE(JoinProgress::decode(bytes + "x").has_value());
}

}  // namespace
}  // namespace sluice
