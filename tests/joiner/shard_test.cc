// The rules of labels, one small story each; join_property_test.cc says that all stories are right.
#include "joiner/shard.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "store/key_value.h"

namespace sluice {
namespace {

class ShardTest : public ::testing::Test {
 protected:
  ShardTest() {
    join_.click_window = 100;
    join_.conversion_window = 1'000;
  }

  Event event(Stream stream, TimeMs time, const std::string& impression_id, const std::string& user,
              const std::string& item, std::optional<Micros> value = std::nullopt) {
    Event::Texts texts;
    const std::string id = "e" + std::to_string(++events_);
    texts.id = id;
    texts.impression_id = impression_id;
    texts.user_id = user;
    texts.item_id = item;
    texts.features = stream == Stream::impressions ? "features" : "";
    texts.record = stream == Stream::impressions ? "" : "record";
    const ValueText value_text(value);
    if (stream == Stream::purchases) texts.features = value_text.text();
    return Event(stream, time, events_, texts);
  }
  void impression(TimeMs time, const std::string& id = "a", const std::string& user = "u",
                  const std::string& item = "x") {
    pending_.push_back(event(Stream::impressions, time, id, user, item));
  }
  void click(TimeMs time, const std::string& id = "a", const std::string& user = "u",
             const std::string& item = "x") {
    pending_.push_back(event(Stream::clicks, time, id, user, item));
  }
  void purchase(TimeMs time, const std::string& id = "a", const std::string& user = "u",
                const std::string& item = "x") {
    pending_.push_back(event(Stream::purchases, time, id, user, item));
  }

  static std::string label(const char* name, bool value, bool is_final) {
    return std::string(name) + (value ? "1" : "0") + (is_final ? "!" : "");
  }

  // Processes what is pending; what came out, in words.
  std::vector<std::string> run_to(TimeMs frontier) {
    if (!shard_) shard_ = std::make_unique<Shard>(2, join_, has_actions_, *store_);
    std::sort(pending_.begin(), pending_.end(), happens_before);
    ShardOutput out;
    EXPECT_TRUE(shard_->process(pending_, frontier, out).has_value());
    pending_.clear();
    std::vector<std::string> words;
    for (const SampleView& sample : out.samples) {
      EXPECT_EQ(sample.shard, 2u);
      EXPECT_EQ(sample.features, "features");
      words.push_back(std::to_string(sample.time) + " " + std::string(sample.impression_id) + "@" +
                      std::to_string(sample.impression_time) +
                      label(" y", sample.y, sample.y_final) +
                      (has_actions_ ? label(" a", sample.action, sample.action_final) : "") +
                      label(" z", sample.z, sample.z_final) +
                      (has_actions_ && is_last_sample(sample) ? " last" : ""));
      EXPECT_EQ(sample.action, sample.action_time.has_value());
      if (!has_actions_) {
        EXPECT_EQ(is_last_sample(sample), sample.z_final);
      }
      if (tells_clicks_ && sample.click_time) {
        words.back() += " click " + std::to_string(*sample.click_time);
      }
      if (sample.value != 0) words.back() += " value " + format_micros(sample.value);
    }
    counters_ = out.counters;
    refused_ = out.refused;
    return words;
  }
  std::vector<std::string> run() { return run_to(kTimeMax); }
  std::uint64_t refused(Refusal reason) const { return counters_.refused_for(reason); }
  using Words = std::vector<std::string>;

  JoinConfig join_;
  bool has_actions_ = false;
  std::unique_ptr<KeyValueStore> store_ = make_memory_store();
  std::unique_ptr<Shard> shard_;
  std::vector<Event> pending_;
  std::uint64_t events_ = 0;
  bool tells_clicks_ = false;
  JoinCounters counters_;
  std::vector<RefusedRecord> refused_;
};

// The same stories with join.attributed_click = "last"; a sample tells its click too.
class LastClickTest : public ShardTest {
 protected:
  LastClickTest() {
    join_.attributed_click = JoinConfig::AttributedClick::last;
    tells_clicks_ = true;
  }

  void begin() {
    store_ = make_memory_store();
    shard_.reset();
  }
  // What a commit keeps is all that is left.
  void restart() {
    WriteBatch batch;
    shard_->persist(batch);
    const ShardProgress progress = shard_->progress();
    ASSERT_TRUE(store_->commit(batch).has_value());
    shard_ = std::make_unique<Shard>(2, join_, has_actions_, *store_);
    ASSERT_TRUE(shard_->restore(progress).has_value());
  }
};

// And with join.purchase_value = "sum".
class ValueTest : public LastClickTest {
 protected:
  ValueTest() {
    join_.attributed_click = JoinConfig::AttributedClick::first;
    join_.purchase_label = JoinConfig::PurchaseLabel::at_close;
    join_.purchase_value = JoinConfig::PurchaseValue::sum;
    tells_clicks_ = false;
  }
  void purchase_of(std::optional<Micros> value, TimeMs time, const std::string& id = "a",
                   const std::string& user = "u", const std::string& item = "x") {
    pending_.push_back(event(Stream::purchases, time, id, user, item, value));
  }
};

// And with in-shop actions.
class ActionTest : public LastClickTest {
 protected:
  ActionTest() {
    has_actions_ = true;
    join_.action_window = 500;
    join_.attributed_click = JoinConfig::AttributedClick::first;
    tells_clicks_ = false;
  }
  void action(TimeMs time, const std::string& id = "a", const std::string& user = "u",
              const std::string& item = "x") {
    pending_.push_back(event(Stream::actions, time, id, user, item));
  }
};

TEST_F(ShardTest, AnUnclickedImpressionIsLabelledWhenItsClickWindowCloses) {
  impression(10);
  EXPECT_EQ(run_to(110), Words{});
  EXPECT_EQ(shard_->next_deadline(), 110);
  EXPECT_EQ(run_to(111), (Words{"110 a@10 y0! z0!"}));
  EXPECT_EQ(shard_->open_impressions(), 0u);
  EXPECT_EQ(shard_->next_deadline(), kTimeMax);
}

TEST_F(ShardTest, AClickedOneGivesYWhenTheClickWindowClosesAndZLater) {
  impression(10);
  click(20);
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z0", "1020 a@10 y1 z0!"}));
}

TEST_F(ShardTest, APurchaseMakesZFinalAtOnceWhenYIs) {
  impression(10);
  click(20);
  purchase(500);
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z0", "500 a@10 y1 z1!"}));
  EXPECT_EQ(counters_.converted, 1u);
}

TEST_F(ShardTest, APurchaseInsideTheClickWindowGivesOneSample) {
  impression(10);
  click(20);
  purchase(50);
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z1!"}));
}

TEST_F(ShardTest, AtCloseZWaitsForTheConversionWindow) {
  join_.purchase_label = JoinConfig::PurchaseLabel::at_close;
  impression(10);
  click(20);
  purchase(50);
  impression(10, "b");
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z0", "110 b@10 y0! z0!", "1020 a@10 y1 z1!"}));
}

TEST_F(ShardTest, AConversionWindowThatClosesFirstGivesOneSample) {
  for (const auto label :
       {JoinConfig::PurchaseLabel::at_purchase, JoinConfig::PurchaseLabel::at_close}) {
    // The last closes in the same millisecond as the click window: conversions come first.
    for (const DurationMs conversion_window : {30, 89, 90}) {
      shard_.reset();
      join_.purchase_label = label;
      join_.conversion_window = conversion_window;
      impression(10);
      click(20);
      purchase(25);
      impression(10, "b");
      click(20, "b");
      EXPECT_EQ(run(), (Words{"110 a@10 y1! z1!", "110 b@10 y1! z0!"})) << conversion_window;
    }
  }
}

TEST_F(ShardTest, WindowsAreHalfOpen) {
  impression(10);
  click(110);  // the window has closed: nothing is open
  impression(1'000, "b");
  click(1'099, "b");
  purchase(2'099, "b");  // likewise
  EXPECT_EQ(run(), (Words{"110 a@10 y0! z0!", "1100 b@1000 y1! z0", "2099 b@1000 y1 z0!"}));
  EXPECT_EQ(refused(Refusal::no_open_impression), 2u);
  impression(5'000);
  click(5'099);
  purchase(6'098);
  EXPECT_EQ(run(), (Words{"5100 a@5000 y1! z0", "6098 a@5000 y1 z1!"}));
}

TEST_F(ShardTest, RepeatsAndDuplicatesAreCountedAndNoDeadLetters) {
  impression(10);
  impression(20);
  click(30);
  click(40);
  click(300);  // after the click window, while it is open for purchases
  purchase(310);
  purchase(320);
  impression(330);
  EXPECT_EQ(run_to(1'000).size(), 2u);
  EXPECT_EQ(refused(Refusal::duplicate), 2u);
  EXPECT_EQ(refused(Refusal::repeat), 3u);
  EXPECT_TRUE(refused_.empty());
  EXPECT_EQ(counters_.read(Stream::clicks), 3u);
  // Purchased or not, it stays open until its conversion window closes.
  purchase(1'029);
  impression(1'029);
  impression(1'030);
  run_to(1'031);
  EXPECT_EQ(refused(Refusal::repeat), 1u);
  EXPECT_EQ(refused(Refusal::duplicate), 1u);
  EXPECT_EQ(counters_.used[0], 1u);
}

TEST_F(LastClickTest, TheConversionWindowIsMeasuredFromTheLastClick) {
  for (const bool restarts : {false, true}) {
    begin();
    impression(10);
    click(20);
    EXPECT_EQ(run_to(50), Words{});
    if (restarts) restart();
    EXPECT_EQ(shard_->next_deadline(), 110);
    click(100);
    EXPECT_EQ(run_to(101), Words{});
    EXPECT_EQ(counters_.used[1], 1u);
    if (restarts) restart();
    EXPECT_EQ(run_to(1'000), (Words{"110 a@10 y1! z0 click 100"}));
    EXPECT_EQ(counters_.clicked, 1u);
    if (restarts) restart();
    purchase(1'099);  // the first click's window closed at 1020
    EXPECT_EQ(run(), (Words{"1099 a@10 y1 z1! click 100"}));
    EXPECT_EQ(shard_->open_impressions(), 0u);
    EXPECT_EQ(shard_->next_deadline(), kTimeMax);
  }
}

// As it was written before the page's copy was enough.
TEST_F(LastClickTest, AStateWithTheImpressionBehindAClickedOneInItsWindowIsRead) {
  begin();
  impression(10);
  click(20);
  EXPECT_EQ(run_to(50), Words{});
  restart();
  std::string key;
  std::string value;
  ASSERT_TRUE(store_
                  ->scan(Space::state, std::string("\0\0\0\2c", 5), std::string("\0\0\0\2d", 5),
                         [&](std::string_view one_key, std::string_view one_value) {
                           key = one_key;
                           value = one_value;
                           return true;
                         })
                  .has_value());
  ASSERT_EQ(value.at(0), 16);
  value[0] = 0;
  encode_impression({10, "e1", "a", "u", "x", "features"}, value);
  WriteBatch batch;
  batch.put(Space::state, key, value);
  ASSERT_TRUE(store_->commit(batch).has_value());
  const ShardProgress progress = shard_->progress();
  shard_ = std::make_unique<Shard>(2, join_, has_actions_, *store_);
  ASSERT_TRUE(shard_->restore(progress).has_value());
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z0 click 20", "1020 a@10 y1 z0! click 20"}));
}

TEST_F(LastClickTest, WithoutAPurchaseZIsFinalAtTheLastClicksClose) {
  impression(10);
  click(20);
  click(30);
  click(109);
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z0 click 109", "1109 a@10 y1 z0! click 109"}));
  EXPECT_EQ(counters_.used[1], 3u);
  EXPECT_EQ(counters_.labelled_impressions, 1u);
}

TEST_F(LastClickTest, AClickAfterThePurchaseOrTheClickWindowIsARepeat) {
  impression(10);
  click(20);
  purchase(20);
  click(30);
  impression(10, "b");
  click(20, "b");
  click(110, "b");  // y is emitted, the conversion window open
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z1! click 20", "110 b@10 y1! z0 click 20",
                          "1020 b@10 y1 z0! click 20"}));
  EXPECT_EQ(refused(Refusal::repeat), 2u);
  EXPECT_EQ(counters_.used[1], 2u);
}

// Timers rank before the events of their millisecond.
TEST_F(LastClickTest, AClickAtItsConversionWindowsCloseIsARepeat) {
  join_.conversion_window = 30;
  impression(10);
  click(20);
  click(50);
  impression(10, "b");
  click(20, "b");
  click(49, "b");
  purchase(78, "b");
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z0! click 20", "110 b@10 y1! z1! click 49"}));
  EXPECT_EQ(refused(Refusal::repeat), 1u);
}

TEST_F(LastClickTest, TwoClicksOfOneMillisecondBothCount) {
  impression(10);
  click(20);
  click(20);
  purchase(20);
  click(20);  // ranks before the purchase
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z1! click 20"}));
  EXPECT_EQ(counters_.used[1], 3u);
}

TEST_F(LastClickTest, OfWaitingClicksTheLastBeforeAPurchaseCounts) {
  join_.clock_skew = 5;
  click(10);
  click(11);
  purchase(12);
  click(13);
  impression(14);
  click(9, "b");
  click(11, "b");
  purchase(11, "b");
  impression(12, "b");
  click(11, "c");
  click(13, "c");
  impression(15, "c");
  purchase(15, "c");
  EXPECT_EQ(run(), (Words{"112 b@12 y1! z1! click 11", "114 a@14 y1! z1! click 11",
                          "115 c@15 y1! z1! click 13"}));
  EXPECT_EQ(refused(Refusal::repeat), 1u);
  EXPECT_EQ(counters_.used[1], 6u);
}

TEST_F(LastClickTest, ByUserAndItemAPurchaseGoesToTheLatestAttributedClick) {
  join_.attribution = JoinConfig::Attribution::user_item;
  impression(10, "a");
  click(20, "");
  click(30, "");
  impression(40, "b");
  purchase(41, "");  // b is not clicked yet
  click(50, "");
  click(60, "");
  purchase(61, "");
  purchase(62, "");
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z1! click 30", "140 b@40 y1! z1! click 60"}));
  EXPECT_EQ(refused(Refusal::repeat), 1u);
  EXPECT_EQ(counters_.used[1], 4u);
}

TEST_F(ShardTest, APurchaseWithoutAClickIsADeadLetter) {
  impression(10);
  purchase(20);
  click(30);
  EXPECT_EQ(run_to(40), Words{});
  EXPECT_EQ(refused(Refusal::no_click), 1u);
  ASSERT_EQ(refused_.size(), 1u);
  EXPECT_EQ(refused_[0].where, (StreamPartition{Stream::purchases, 2}));
  EXPECT_EQ(refused_[0].position, 2u);
  EXPECT_EQ(refused_[0].bytes, "record");
}

TEST_F(ShardTest, AClickBeforeItsImpressionWaitsWhileTheSkewAllows) {
  join_.clock_skew = 5;
  click(10);
  EXPECT_EQ(run_to(12), Words{});
  EXPECT_EQ(shard_->waiting_records(), 1u);
  EXPECT_EQ(counters_.read(Stream::clicks), 0u);  // counts when it is decided
  EXPECT_EQ(shard_->next_deadline(), 16);
  purchase(12);
  impression(15);
  EXPECT_EQ(run(), (Words{"115 a@15 y1! z1!"}));
  click(200, "b");
  impression(206, "b");
  EXPECT_EQ(run(), (Words{"306 b@206 y0! z0!"}));
  EXPECT_EQ(refused(Refusal::no_open_impression), 1u);
  EXPECT_EQ(shard_->waiting_records(), 0u);
}

TEST_F(ShardTest, WaitingRecordsAreAppliedInTheirOrder) {
  join_.clock_skew = 5;
  purchase(10);
  click(11);
  click(12);
  impression(13);
  run();
  EXPECT_EQ(refused(Refusal::no_click), 1u);  // the purchase lies before its click
  EXPECT_EQ(refused(Refusal::repeat), 1u);
  EXPECT_EQ(counters_.clicked, 1u);
}

TEST_F(ShardTest, ByUserAndItemAClickGoesToTheLatestImpression) {
  join_.attribution = JoinConfig::Attribution::user_item;
  impression(10, "a");
  impression(20, "b");
  impression(20, "c", "u", "other");
  impression(20, "d", "ux", "");
  click(30, "");
  purchase(40, "");
  purchase(41, "", "u", "other");
  EXPECT_EQ(run(), (Words{"110 a@10 y0! z0!", "120 b@20 y1! z1!", "120 c@20 y0! z0!",
                          "120 d@20 y0! z0!"}));
  EXPECT_EQ(refused(Refusal::no_click), 1u);
}

// More impressions of one user and item than the index's first size, so that it grows and wraps.
TEST_F(ShardTest, ByUserAndItemTheLatestIsFoundAmongMany) {
  join_.attribution = JoinConfig::Attribution::user_item;
  join_.click_window = 10'000;
  for (int number = 0; number < 500; ++number) {
    impression(1'000 + number, std::to_string(number));
    if (number % 3 == 0) click(1'000 + number, "");
  }
  int clicked = 0;
  for (const std::string& word : run_to(20'000)) {
    if (word.find("y1!") == std::string::npos) continue;
    EXPECT_NE(word.find(" " + std::to_string(3 * clicked) + "@"), std::string::npos) << word;
    ++clicked;
  }
  EXPECT_EQ(clicked, 167);
}

TEST_F(ShardTest, TimersOfOneTimeFireInTheirOrder) {
  join_.clock_skew = 9;
  join_.click_window = 100;
  join_.conversion_window = 190;
  // All at 200: b's click window, a's conversion window, the waiting records.
  impression(5, "a");
  click(10, "a");
  impression(100, "b");
  purchase(190, "q");
  click(190, "k");
  EXPECT_EQ(run_to(200), (Words{"105 a@5 y1! z0"}));
  EXPECT_EQ(run_to(201), (Words{"200 a@5 y1 z0!", "200 b@100 y0! z0!"}));
  ASSERT_EQ(refused_.size(), 2u);
  EXPECT_EQ(refused_[0].where.stream, Stream::clicks);
  EXPECT_EQ(refused_[1].where.stream, Stream::purchases);
}

// Timers rank before the events of their millisecond, so the id can be used again at once.
TEST_F(ShardTest, AtItsCloseAnImpressionMakesRoomForAnother) {
  impression(10);
  impression(110);
  EXPECT_EQ(run(), (Words{"110 a@10 y0! z0!", "210 a@110 y0! z0!"}));
  EXPECT_EQ(refused(Refusal::duplicate), 0u);
}

TEST_F(ValueTest, TheSumIsToldWhenTheConversionWindowCloses) {
  impression(10);
  click(20);
  purchase_of(19'990'000, 50);
  purchase_of(5'000'000, 1'019);
  purchase_of(7'000'000, 1'020);  // the first moment that does not count
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z0", "1020 a@10 y1 z1! value 24.99"}));
  EXPECT_EQ(counters_.used[2], 2u);
  EXPECT_EQ(refused(Refusal::no_open_impression), 1u);
  EXPECT_EQ(counters_.converted, 1u);
  EXPECT_EQ(counters_.value.units, 24);
  EXPECT_EQ(counters_.value.micros, 990'000);
  EXPECT_EQ(counters_.without_value, 0u);
}

TEST_F(ValueTest, AShortConversionWindowIsToldWithTheClickWindow) {
  join_.conversion_window = 30;
  impression(10);
  click(20);
  purchase_of(1'000'000, 30);
  purchase_of(2'000'000, 49);
  purchase_of(4'000'000, 50);  // its impression is open, its window is not
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z1! value 3"}));
  EXPECT_EQ(refused(Refusal::repeat), 1u);
}

TEST_F(ValueTest, APurchaseWithoutAValueIsAPurchase) {
  impression(10);
  click(20);
  purchase_of(std::nullopt, 50);
  purchase_of(0, 60);
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z0", "1020 a@10 y1 z1!"}));
  EXPECT_EQ(counters_.used[2], 2u);
  EXPECT_EQ(counters_.without_value, 1u);
}

TEST_F(ValueTest, WhatIsNotAttributedAddsNothing) {
  impression(10);
  purchase_of(1'000'000, 15);
  click(20);
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z0", "1020 a@10 y1 z0!"}));
  EXPECT_EQ(refused(Refusal::no_click), 1u);
}

// A purchase keeps the click that it counts for, so no sum ever changes its click.
TEST_F(ValueTest, ByTheLastClickTheSumIsThatOfTheClickBeforeTheFirstPurchase) {
  join_.attributed_click = JoinConfig::AttributedClick::last;
  impression(10);
  click(20);
  click(40);
  purchase_of(1'000'000, 50);
  click(60);
  purchase_of(2'000'000, 1'039);
  purchase_of(4'000'000, 1'040);
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z0", "1040 a@10 y1 z1! value 3"}));
  EXPECT_EQ(counters_.used[1], 2u);
  EXPECT_EQ(refused(Refusal::repeat), 1u);
}

// Labels stay as they are without values: each click gets its first purchase first.
TEST_F(ValueTest, ByUserAndItemAFurtherPurchaseGoesToTheLatestClick) {
  join_.attribution = JoinConfig::Attribution::user_item;
  impression(10, "a");
  click(20, "");
  impression(30, "b");
  click(40, "");
  purchase_of(1'000'000, 50, "");
  purchase_of(2'000'000, 60, "");
  purchase_of(4'000'000, 70, "");
  purchase_of(8'000'000, 1'020, "");  // a's window has closed
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z0", "130 b@30 y1! z0", "1020 a@10 y1 z1! value 2",
                          "1040 b@30 y1 z1! value 13"}));
  EXPECT_EQ(counters_.used[2], 4u);
}

TEST_F(ValueTest, ARestartForgetsNoPartOfASumAndNoValueThatWaits) {
  join_.clock_skew = 5;
  impression(10, "a");
  click(20, "a");
  purchase_of(1'000'000, 50, "a");
  click(98, "b");
  purchase_of(-250'000, 99, "b");
  purchase_of(std::nullopt, 99, "b");
  EXPECT_EQ(run_to(100), Words{});
  restart();
  purchase_of(2'000'000, 100, "a");
  impression(100, "b");
  EXPECT_EQ(run_to(110), Words{});
  EXPECT_EQ(counters_.without_value, 1u);
  restart();
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z0", "200 b@100 y1! z0", "1020 a@10 y1 z1! value 3",
                          "1098 b@100 y1 z1! value -0.25"}));
}

// In the total order, at the ends of 64 bits too.
TEST_F(ValueTest, ASumStaysAtTheEndOfItsRangeUntilItComesBack) {
  impression(10);
  click(20);
  purchase_of(INT64_MAX, 50);
  purchase_of(5, 60);
  purchase_of(-7, 70);
  EXPECT_EQ(run(), (Words{"110 a@10 y1! z0", "1020 a@10 y1 z1! value 9223372036854.7758"}));
}

TEST_F(ActionTest, UnclickedAllLabelsAreFinalAtOnce) {
  impression(10);
  EXPECT_EQ(run(), (Words{"110 a@10 y0! a0! z0! last"}));
  EXPECT_EQ(shard_->next_deadline(), kTimeMax);
}

TEST_F(ActionTest, WithoutAnActionItsLabelIsFinalWhenTheActionWindowCloses) {
  impression(10);
  click(20);
  EXPECT_EQ(run_to(600), (Words{"110 a@10 y1! a0 z0", "520 a@10 y1 a0! z0"}));
  EXPECT_EQ(shard_->open_impressions(), 1u);
  EXPECT_EQ(run(), (Words{"1020 a@10 y1 a0 z0! last"}));
  EXPECT_EQ(counters_.acted, 0u);
  EXPECT_EQ(shard_->open_impressions(), 0u);
}

TEST_F(ActionTest, LabelsBecomeFinalInTheOrderOfWhatHappens) {
  impression(10);
  click(20);
  action(300);
  purchase(400);
  impression(2'010);
  click(2'020);
  purchase(2'300);
  action(2'400);
  EXPECT_EQ(run(), (Words{"110 a@10 y1! a0 z0", "300 a@10 y1 a1! z0", "400 a@10 y1 a1 z1! last",
                          "2110 a@2010 y1! a0 z0", "2300 a@2010 y1 a0 z1!",
                          "2400 a@2010 y1 a1! z0 last"}));
  EXPECT_EQ(counters_.acted, 2u);
  EXPECT_EQ(counters_.converted, 2u);
  EXPECT_EQ(counters_.used[3], 2u);
}

TEST_F(ActionTest, APurchaseWithoutAnActionIsNone) {
  impression(10);
  click(20);
  purchase(300);
  EXPECT_EQ(run(), (Words{"110 a@10 y1! a0 z0", "300 a@10 y1 a0 z1!", "520 a@10 y1 a0! z0 last"}));
}

TEST_F(ActionTest, WhatIsFinalByTheClickWindowsCloseIsInOneSample) {
  impression(10);
  click(20);
  action(50);
  EXPECT_EQ(run(), (Words{"110 a@10 y1! a1! z0", "1020 a@10 y1 a1 z0! last"}));
  impression(2'010);
  click(2'020);
  action(2'050);
  purchase(2'050);
  EXPECT_EQ(run(), (Words{"2110 a@2010 y1! a1! z1! last"}));
}

TEST_F(ActionTest, AtCloseTheActionWaitsForItsWindow) {
  join_.action_label = JoinConfig::ActionLabel::at_close;
  impression(10);
  click(20);
  action(50);
  purchase(400);
  EXPECT_EQ(run(), (Words{"110 a@10 y1! a0 z0", "400 a@10 y1 a0 z1!", "520 a@10 y1 a1! z0 last"}));
}

TEST_F(ActionTest, AWindowThatClosesWithTheClickWindowIsInItsSample) {
  for (const DurationMs window : {30, 89, 90}) {
    shard_.reset();
    join_.action_window = window;
    impression(10);
    click(20);
    EXPECT_EQ(run(), (Words{"110 a@10 y1! a0! z0", "1020 a@10 y1 a0 z0! last"})) << window;
  }
}

// Each timer and each event says one thing.
TEST_F(ActionTest, OfOneMomentEachLabelHasASampleOfItsOwn) {
  join_.action_window = 1'000;
  impression(10);
  click(20);
  impression(10, "b");
  click(20, "b");
  impression(3'000, "c");
  click(3'010, "c");
  action(3'500, "c");
  purchase(3'500, "c");
  EXPECT_EQ(run(), (Words{"110 a@10 y1! a0 z0", "110 b@10 y1! a0 z0", "1020 a@10 y1 a0 z0!",
                          "1020 b@10 y1 a0 z0!", "1020 a@10 y1 a0! z0 last",
                          "1020 b@10 y1 a0! z0 last", "3100 c@3000 y1! a0 z0",
                          "3500 c@3000 y1 a1! z0", "3500 c@3000 y1 a1 z1! last"}));
}

TEST_F(ActionTest, TheActionWindowIsHalfOpenAndTheFirstActionCounts) {
  impression(10);
  action(19);
  click(20);
  action(520);
  impression(10, "b");
  click(20, "b");
  action(20, "b");
  action(519, "b");
  action(30, "c");
  run();
  EXPECT_EQ(counters_.acted, 1u);
  EXPECT_EQ(refused(Refusal::no_click), 2u);
  EXPECT_EQ(refused(Refusal::repeat), 1u);
  EXPECT_EQ(refused(Refusal::no_open_impression), 1u);
  EXPECT_EQ(counters_.read(Stream::actions), 5u);
  EXPECT_EQ(refused_.size(), 3u);
}

TEST_F(ActionTest, AnImpressionIsOpenUntilItsLastWindowHasClosed) {
  for (const bool restarts : {false, true}) {
    begin();
    join_.action_window = 2'000;
    impression(10);
    click(20);
    EXPECT_EQ(run_to(1'500), (Words{"110 a@10 y1! a0 z0", "1020 a@10 y1 a0 z0!"}));
    if (restarts) restart();
    impression(1'500);
    purchase(1'600);
    action(1'700);
    action(1'800);
    EXPECT_EQ(run_to(2'020), (Words{"1700 a@10 y1 a1! z0 last"}));
    EXPECT_EQ(refused(Refusal::duplicate), 1u);
    EXPECT_EQ(refused(Refusal::no_click), 1u);
    EXPECT_EQ(refused(Refusal::repeat), 1u);
    if (restarts) restart();
    EXPECT_EQ(shard_->open_impressions(), 1u);
    EXPECT_EQ(run(), Words{});
    EXPECT_EQ(shard_->open_impressions(), 0u);
  }
}

// Whose conversion is measured does not depend on actions: an action keeps no click.
TEST_F(ActionTest, ByTheLastClickTheActionWindowBeginsAnewAndAnActionStays) {
  for (const bool restarts : {false, true}) {
    begin();
    join_.attributed_click = JoinConfig::AttributedClick::last;
    tells_clicks_ = true;
    join_.action_window = 30;
    impression(10);
    click(20);
    impression(10, "b");
    click(20, "b");
    action(40, "b");
    EXPECT_EQ(run_to(60), Words{});  // both action windows have closed
    if (restarts) restart();
    click(90);
    click(90, "b");
    action(95, "b");
    EXPECT_EQ(run_to(115), (Words{"110 a@10 y1! a0 z0 click 90", "110 b@10 y1! a1! z0 click 90"}));
    EXPECT_EQ(refused(Refusal::repeat), 1u);
    if (restarts) restart();
    action(119);
    EXPECT_EQ(run(), (Words{"119 a@10 y1 a1! z0 click 90", "1090 a@10 y1 a1 z0! last click 90",
                            "1090 b@10 y1 a1 z0! last click 90"}));
  }
}

TEST_F(ActionTest, ByUserAndItemAnActionGoesToTheLatestClickWithoutOne) {
  join_.attribution = JoinConfig::Attribution::user_item;
  for (const bool restarts : {false, true}) {
    begin();
    impression(10, "a");
    click(20, "");
    impression(30, "b");
    click(40, "");
    purchase(45, "");
    EXPECT_EQ(run_to(50), Words{});
    if (restarts) restart();
    action(50, "");
    EXPECT_EQ(run_to(55), Words{});
    if (restarts) restart();
    action(60, "");
    action(70, "");
    action(75, "", "u", "y");
    purchase(80, "");
    EXPECT_EQ(run(), (Words{"110 a@10 y1! a1! z1! last", "130 b@30 y1! a1! z1! last"}));
    EXPECT_EQ(refused(Refusal::repeat), 1u);
    EXPECT_EQ(refused(Refusal::no_open_impression), 1u);
    EXPECT_EQ(shard_->open_impressions(), 0u);
  }
}

TEST_F(ActionTest, AnActionThatComesBeforeItsImpressionWaits) {
  join_.clock_skew = 5;
  for (const bool restarts : {false, true}) {
    begin();
    purchase(12);
    action(11);
    action(11, "b");
    click(11);
    EXPECT_EQ(run_to(14), Words{});
    if (restarts) restart();
    EXPECT_EQ(shard_->waiting_records(), 4u);
    impression(14);
    EXPECT_EQ(run_to(17), Words{});
    EXPECT_EQ(shard_->waiting_records(), 1u);
    EXPECT_EQ(run(), (Words{"114 a@14 y1! a1! z1! last"}));
    EXPECT_EQ(refused(Refusal::no_open_impression), 1u);
    EXPECT_EQ(shard_->waiting_records(), 0u);
  }
}

// Which is not the order of the streams' numbers.
TEST_F(ActionTest, WaitingRecordsExpireClickThenActionThenPurchase) {
  join_.clock_skew = 5;
  purchase(11);
  action(11);
  click(11);
  EXPECT_EQ(run(), Words{});
  ASSERT_EQ(refused_.size(), 3u);
  EXPECT_EQ(refused_[0].where.stream, Stream::clicks);
  EXPECT_EQ(refused_[1].where.stream, Stream::actions);
  EXPECT_EQ(refused_[2].where.stream, Stream::purchases);
}

TEST_F(ActionTest, AStateWithoutActionsIsNoneWithThem) {
  has_actions_ = false;
  begin();
  impression(10);
  click(20);
  EXPECT_EQ(run_to(50), Words{});
  restart();
  WriteBatch batch;
  shard_->persist(batch);
  const ShardProgress progress = shard_->progress();
  shard_ = std::make_unique<Shard>(2, join_, true, *store_);
  EXPECT_FALSE(shard_->restore(progress).has_value());
}

}  // namespace
}  // namespace sluice
