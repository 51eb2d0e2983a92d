#include "joiner/fingerprint_index.h"

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "stages.h"

namespace sluice {
namespace {

std::vector<ImpressionNumber> find(const FingerprintIndex& index, std::uint64_t fingerprint,
                                   ImpressionNumber front) {
  std::vector<ImpressionNumber> numbers;
  index.find(fingerprint, front, numbers);
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

// That an index tells apart, however few bits of them it keeps.
std::uint64_t print(std::uint64_t number) {
  return (number + 1) * 0x1'0000'0001;
}

TEST(FingerprintIndex, AnEmptyOneFindsNothing) {
  EXPECT_TRUE(find(FingerprintIndex(), print(7), 0).empty());
}

TEST(FingerprintIndex, FindAppends) {
  FingerprintIndex index;
  index.add(print(7), 1, 0);
  std::vector<ImpressionNumber> numbers = {5};
  index.find(print(7), 0, numbers);
  EXPECT_EQ(numbers, (std::vector<ImpressionNumber>{5, 1}));
}

// Every 64-bit value is a fingerprint, also those whose kept bits are 0.
TEST(FingerprintIndex, FingerprintsNearZero) {
  for (const std::uint64_t one : {0ULL, 1ULL, 0xFFFF'FFFFULL, 0x1'0000'0000ULL, ~0ULL}) {
    FingerprintIndex index;
    index.add(one, 3, 2);
    index.add(one, 1, 2);
    EXPECT_EQ(find(index, one, 2), (std::vector<ImpressionNumber>{1, 3})) << one;
    index.remove(one, 3, 2);
    index.remove(one, 1, 2);
    EXPECT_TRUE(find(index, one, 2).empty()) << one;
  }
}

// Against a multimap: a queue of numbers that leave at its front, some of which stay on; with few
// fingerprints (long runs that collide) and with many, and where 32 bits of the numbers run over.
TEST(FingerprintIndex, EqualsAMultimap) {
  const std::uint64_t turn = FingerprintIndex::kMostInWindow;
  for (const ImpressionNumber begin : {ImpressionNumber{0}, turn - 500, 5 * turn - 2}) {
    for (const std::uint64_t fingerprints : {1u, 5u, 40u, 100'000u}) {
      TestRandom random(fingerprints + begin);
      FingerprintIndex index;
      std::map<std::uint64_t, std::set<ImpressionNumber>> expected;
      std::vector<std::uint64_t> queue;  // the fingerprints of [front, next)
      std::vector<std::pair<std::uint64_t, ImpressionNumber>> stayed;
      ImpressionNumber front = begin;
      std::size_t open = 0;
      for (int step = 0; step < 6'000; ++step) {
        // It grows, shrinks and grows again.
        const bool grows = (step / 1'500) % 2 == 0;
        if (front - begin == queue.size() || random.below(10) < (grows ? 7 : 3)) {
          const std::uint64_t added = print(random.below(fingerprints));
          const ImpressionNumber number = begin + queue.size();
          index.add(added, number, front);
          expected[added].insert(number);
          queue.push_back(added);
          ++open;
        } else {
          const std::uint64_t closed = queue[front - begin];
          if (random.below(4) == 0) {
            index.leave_window(closed, front);
            stayed.emplace_back(closed, front);
          } else {
            index.remove(closed, front, front);
            expected[closed].erase(front);
            --open;
          }
          ++front;
        }
        if (!stayed.empty() && random.below(8) == 0) {
          std::swap(stayed[random.below(stayed.size())], stayed.back());
          index.remove(stayed.back().first, stayed.back().second, front);
          expected[stayed.back().first].erase(stayed.back().second);
          stayed.pop_back();
          --open;
        }
        ASSERT_EQ(index.size(), open);
        const std::uint64_t asked = print(random.below(fingerprints));
        const auto& wanted = expected[asked];
        ASSERT_EQ(find(index, asked, front),
                  (std::vector<ImpressionNumber>(wanted.begin(), wanted.end())));
      }
    }
  }
}

TEST(FingerprintIndexDeathTest, RemovingWhatIsNotThereAborts) {
  FingerprintIndex index;
  index.add(print(7), 1, 0);
  EXPECT_DEATH(index.remove(print(7), 2, 0), "");
  EXPECT_DEATH(index.remove(print(8), 1, 0), "");
  EXPECT_DEATH(index.remove(print(7), 1, 2), "");
}

}  // namespace
}  // namespace sluice
