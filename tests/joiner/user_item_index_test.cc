#include "joiner/user_item_index.h"

#include <map>
#include <optional>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "stages.h"

namespace sluice {
namespace {

using Number = std::optional<ImpressionNumber>;

// Numbers under the fingerprint whose click window is open, the latest first.
std::vector<ImpressionNumber> in_window(const UserItemIndex& index, std::uint64_t fingerprint) {
  std::vector<ImpressionNumber> numbers;
  for (Number at = index.latest(fingerprint); at; at = index.before(*at)) numbers.push_back(*at);
  return numbers;
}

TEST(UserItemIndex, AnEmptyOneFindsNothing) {
  EXPECT_EQ(UserItemIndex().latest(7), std::nullopt);
  EXPECT_EQ(UserItemIndex().purchased.before(7, 100), std::nullopt);
}

// Against sets: a queue of numbers that grows, shrinks, becomes empty and begins again later. In
// some rounds different fingerprints agree in the bits that the index keeps; then others' numbers
// may be among what it finds, and none of its own is missing.
TEST(UserItemIndex, FindsTheLatestInTheWindow) {
  for (const bool are_alike : {false, true}) {
    for (const std::uint64_t fingerprints : {1u, 3u, 500u}) {
      TestRandom random(fingerprints);
      UserItemIndex index;
      const auto print = [&](std::uint64_t n) { return (n + 1) << (are_alike ? 0 : 32); };
      std::map<std::uint64_t, std::set<ImpressionNumber>> expected;
      std::vector<std::uint64_t> queue;
      ImpressionNumber front = 0;
      for (int step = 0; step < 6'000; ++step) {
        const bool grows = (step / 1'000) % 2 == 0;
        if (front == queue.size() || random.below(10) < (grows ? 6 : 3)) {
          const std::uint64_t added = print(random.below(fingerprints));
          index.add(added, queue.size());
          expected[added].insert(queue.size());
          queue.push_back(added);
        } else {
          index.leave_window(queue[front], front);
          expected[queue[front]].erase(front);
          ++front;
        }
        const std::uint64_t asked = print(random.below(fingerprints));
        std::vector<ImpressionNumber> found;
        for (const ImpressionNumber number : in_window(index, asked)) {
          ASSERT_GE(number, front);
          if (queue[number] == asked) found.push_back(number);
          ASSERT_TRUE(are_alike || queue[number] == asked);
        }
        ASSERT_EQ(found,
                  std::vector<ImpressionNumber>(expected[asked].rbegin(), expected[asked].rend()));
      }
    }
  }
}

TEST(UserItemIndex, ClickedOnesAreFoundFromTheLatestOn) {
  UserItemIndex index;
  for (const ImpressionNumber number : {4u, 9u, 7u}) index.not_purchased.add(7, number);
  index.not_purchased.add(6, 8);
  index.not_purchased.add(8, 8);
  EXPECT_EQ(index.not_purchased.before(7, 100), Number(9));
  EXPECT_EQ(index.not_purchased.before(7, 9), Number(7));
  EXPECT_EQ(index.not_purchased.before(7, 4), std::nullopt);
  index.not_purchased.remove(7, 9);
  index.not_purchased.remove(7, 9);
  EXPECT_EQ(index.not_purchased.before(7, 100), Number(7));
  EXPECT_EQ(index.purchased.before(7, 100), std::nullopt);
}

TEST(UserItemIndexDeathTest, OnlyTheOldestLeaves) {
  UserItemIndex index;
  index.add(7, 3);
  index.add(7, 4);
  EXPECT_DEATH(index.leave_window(7, 4), "");
  EXPECT_DEATH(index.add(7, 6), "");
}

}  // namespace
}  // namespace sluice
