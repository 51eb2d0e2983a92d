#include "joiner/attribution.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace sluice {
namespace {

JoinConfig windows(DurationMs click, DurationMs conversion, DurationMs skew = 0) {
  JoinConfig join;
  join.click_window = click;
  join.conversion_window = conversion;
  join.clock_skew = skew;
  return join;
}

std::string text(const Attribution& decision) {
  switch (decision.verdict) {
    case Attribution::Verdict::use:
      return "use " + std::to_string(decision.index);
    case Attribution::Verdict::refuse:
      return to_string(decision.reason);
    case Attribution::Verdict::unknown:
      return "unknown";
  }
  return "?";
}

std::string click(const JoinConfig& join, const std::vector<Candidate>& candidates, TimeMs time) {
  return text(attribute_click(join, candidates, time));
}
std::string purchase(const JoinConfig& join, const std::vector<Candidate>& candidates,
                     TimeMs time) {
  return text(attribute_purchase(join, candidates, time));
}

constexpr auto kNone = std::nullopt;

TEST(Attribution, NothingOpenIsUnknown) {
  EXPECT_EQ(click(windows(10, 20), {}, 5), "unknown");
  EXPECT_EQ(purchase(windows(10, 20), {}, 5), "unknown");
}

TEST(Attribution, TheClickWindowIsHalfOpen) {
  const JoinConfig join = windows(10, 20, 3);
  const std::vector<Candidate> one = {{100, kNone, kNone}};
  EXPECT_EQ(click(join, one, 96), "no_click");
  EXPECT_EQ(click(join, one, 97), "use 0");
  EXPECT_EQ(click(join, one, 100), "use 0");
  EXPECT_EQ(click(join, one, 109), "use 0");
  EXPECT_EQ(click(join, one, 110), "no_click");
}

TEST(Attribution, AFurtherClickIsARepeatInsideTheWindowOrNot) {
  const JoinConfig join = windows(10, 20);
  const std::vector<Candidate> clicked = {{100, 105, kNone}};
  EXPECT_EQ(click(join, clicked, 109), "repeat");
  EXPECT_EQ(click(join, clicked, 110), "repeat");
}

JoinConfig by_last_click(JoinConfig join) {
  join.attributed_click = JoinConfig::AttributedClick::last;
  return join;
}

TEST(Attribution, ByTheLastClickAFurtherOneCountsInsideBothWindows) {
  const JoinConfig join = by_last_click(windows(50, 20));
  const std::vector<Candidate> clicked = {{100, 105, kNone}};
  EXPECT_EQ(click(join, clicked, 104), "repeat");  // before the one that counts
  EXPECT_EQ(click(join, clicked, 105), "use 0");
  EXPECT_EQ(click(join, clicked, 124), "use 0");
  EXPECT_EQ(click(join, clicked, 125), "repeat");  // the conversion window is half-open
  EXPECT_EQ(click(join, {{100, 140, kNone}}, 149), "use 0");
  EXPECT_EQ(click(join, {{100, 140, kNone}}, 150), "repeat");  // so is the click window
  EXPECT_EQ(click(join, {{100, 105, 110}}, 115), "repeat");    // purchased
}

TEST(Attribution, ByTheLastClickItStillGoesToTheLatestImpressionOnly) {
  const JoinConfig join = by_last_click(windows(50, 20));
  EXPECT_EQ(click(join, {{100, 101, kNone}, {105, 105, kNone}}, 106), "use 1");
  EXPECT_EQ(click(join, {{100, 101, kNone}, {105, kNone, kNone}}, 106), "use 1");
  EXPECT_EQ(click(join, {{100, 106, kNone}, {105, 105, 106}}, 107), "repeat");
}

// A click that waited for its impression lies before it.
TEST(Attribution, ByTheLastClickItMayLieBeforeItsImpression) {
  const JoinConfig join = by_last_click(windows(50, 20, 10));
  EXPECT_EQ(click(join, {{100, 91, kNone}}, 95), "use 0");
  EXPECT_EQ(click(join, {{100, 91, kNone}}, 100), "use 0");
}

TEST(Attribution, AClickGoesToTheLatestWhoseWindowIsOpen) {
  const JoinConfig join = windows(10, 20, 2);
  EXPECT_EQ(click(join, {{100, kNone, kNone}, {105, kNone, kNone}}, 106), "use 1");
  // The latest is not begun yet, the first is over.
  EXPECT_EQ(click(join, {{96, kNone, kNone}, {100, kNone, kNone}, {109, kNone, kNone}}, 106),
            "use 1");
  // Not to an older one when the latest is clicked.
  EXPECT_EQ(click(join, {{100, kNone, kNone}, {105, 105, kNone}}, 106), "repeat");
  EXPECT_EQ(click(join, {{100, 101, kNone}, {105, kNone, kNone}}, 106), "use 1");
  // None open for clicks: a repeat if any is clicked.
  EXPECT_EQ(click(join, {{80, 81, kNone}, {85, kNone, kNone}}, 106), "repeat");
  EXPECT_EQ(click(join, {{80, kNone, kNone}, {85, kNone, kNone}}, 106), "no_click");
}

TEST(Attribution, TheConversionWindowIsHalfOpen) {
  const JoinConfig join = windows(10, 20);
  const std::vector<Candidate> clicked = {{100, 105, kNone}};
  EXPECT_EQ(purchase(join, clicked, 104), "no_click");
  EXPECT_EQ(purchase(join, clicked, 105), "use 0");
  EXPECT_EQ(purchase(join, clicked, 124), "use 0");
  EXPECT_EQ(purchase(join, clicked, 125), "no_click");
  EXPECT_EQ(purchase(join, {{100, kNone, kNone}}, 105), "no_click");
}

TEST(Attribution, AFurtherPurchaseIsARepeatInsideTheWindowOrNot) {
  const JoinConfig join = windows(10, 20);
  const std::vector<Candidate> converted = {{100, 105, 110}};
  EXPECT_EQ(purchase(join, converted, 110), "repeat");
  EXPECT_EQ(purchase(join, converted, 130), "repeat");
}

// By join.purchase_value; which click the first purchase goes to stays as it is.
TEST(Attribution, WhereValuesAreSummedAFurtherPurchaseCountsInsideTheWindow) {
  JoinConfig join = windows(50, 20);
  join.purchase_value = JoinConfig::PurchaseValue::sum;
  EXPECT_EQ(purchase(join, {{100, 105, 110}}, 110), "use 0");
  EXPECT_EQ(purchase(join, {{100, 105, 110}}, 124), "use 0");
  EXPECT_EQ(purchase(join, {{100, 105, 110}}, 125), "repeat");
  EXPECT_EQ(purchase(join, {{100, 105, 110}}, 104), "repeat");
  // To one without a purchase first, then to the latest with one.
  EXPECT_EQ(purchase(join, {{100, 110, kNone}, {105, 112, 113}}, 115), "use 0");
  EXPECT_EQ(purchase(join, {{100, 110, 111}, {105, 112, 113}}, 115), "use 1");
  EXPECT_EQ(purchase(join, {{100, 112, 113}, {105, 110, 111}}, 115), "use 0");
  EXPECT_EQ(purchase(join, {{100, 110, 111}, {105, 110, 111}}, 115), "use 1");
  EXPECT_EQ(purchase(join, {{100, 101, 102}, {105, kNone, kNone}}, 115), "use 0");
  EXPECT_EQ(purchase(join, {{60, 61, 62}, {105, kNone, kNone}}, 115), "repeat");
  EXPECT_EQ(purchase(join, {{60, 61, kNone}, {105, kNone, kNone}}, 115), "no_click");
}

TEST(Attribution, APurchaseGoesToTheLatestClickInItsWindowWithoutOne) {
  const JoinConfig join = windows(50, 20);
  // By the click's time, not the impression's.
  EXPECT_EQ(purchase(join, {{100, 112, kNone}, {105, 110, kNone}}, 115), "use 0");
  // The later impression of equal click times.
  EXPECT_EQ(purchase(join, {{100, 110, kNone}, {105, 110, kNone}}, 115), "use 1");
  EXPECT_EQ(purchase(join, {{100, 110, kNone}, {105, 112, 113}}, 115), "use 0");
  EXPECT_EQ(purchase(join, {{100, 110, kNone}, {105, 116, kNone}}, 115), "use 0");
  EXPECT_EQ(purchase(join, {{100, 101, 102}, {105, kNone, kNone}}, 115), "repeat");
  EXPECT_EQ(purchase(join, {{60, 61, kNone}, {105, 106, 107}}, 115), "repeat");
  EXPECT_EQ(purchase(join, {{60, 61, kNone}, {105, kNone, kNone}}, 115), "no_click");
}

// By its own window and whether there was an action; purchases say nothing of it.
TEST(Attribution, AnActionGoesToTheLatestClickInItsWindowWithoutOne) {
  JoinConfig join = windows(50, 1'000);
  join.action_window = 20;
  join.purchase_value = JoinConfig::PurchaseValue::sum;
  const auto action = [&join](const std::vector<Candidate>& candidates, TimeMs time) {
    return text(attribute_action(join, candidates, time));
  };
  EXPECT_EQ(action({}, 115), "unknown");
  EXPECT_EQ(action({{100, kNone, kNone, kNone}}, 115), "no_click");
  EXPECT_EQ(action({{100, 105, kNone, kNone}}, 104), "no_click");
  EXPECT_EQ(action({{100, 105, kNone, kNone}}, 105), "use 0");
  EXPECT_EQ(action({{100, 105, kNone, kNone}}, 124), "use 0");
  EXPECT_EQ(action({{100, 105, kNone, kNone}}, 125), "no_click");
  EXPECT_EQ(action({{100, 105, 106, kNone}}, 110), "use 0");
  EXPECT_EQ(action({{100, 105, kNone, 106}}, 110), "repeat");
  EXPECT_EQ(action({{100, 105, kNone, 106}}, 130), "repeat");
  EXPECT_EQ(action({{100, 105, kNone, kNone}, {101, 107, kNone, kNone}}, 110), "use 1");
  EXPECT_EQ(action({{100, 105, kNone, kNone}, {101, 107, kNone, 108}}, 110), "use 0");
  EXPECT_EQ(action({{100, 105, kNone, kNone}, {101, 105, kNone, kNone}}, 110), "use 1");
}

// Of an impression with an action a further click may be the attributed one all the same.
TEST(Attribution, ActionsDecideNothingOfClicksAndPurchases) {
  JoinConfig join = windows(50, 20);
  join.attributed_click = JoinConfig::AttributedClick::last;
  EXPECT_EQ(click(join, {{100, 105, kNone, 106}}, 110), "use 0");
  EXPECT_EQ(purchase(join, {{100, 105, kNone, 106}}, 110), "use 0");
}

}  // namespace
}  // namespace sluice
