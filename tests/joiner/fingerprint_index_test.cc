#include "joiner/fingerprint_index.h"

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "stages.h"

namespace sluice {
namespace {

std::vector<ImpressionNumber> find(const FingerprintIndex& index, std::uint64_t fingerprint) {
  std::vector<ImpressionNumber> numbers;
  index.find(fingerprint, numbers);
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

TEST(FingerprintIndex, AnEmptyOneFindsNothing) {
  EXPECT_TRUE(find(FingerprintIndex(), 7).empty());
}

TEST(FingerprintIndex, FindAppends) {
  FingerprintIndex index;
  index.add(7, 1);
  std::vector<ImpressionNumber> numbers = {5};
  index.find(7, numbers);
  EXPECT_EQ(numbers, (std::vector<ImpressionNumber>{5, 1}));
}

// Against a multimap, with few fingerprints (long runs that collide) and with many.
TEST(FingerprintIndex, EqualsAMultimap) {
  for (const std::uint64_t fingerprints : {1u, 5u, 40u, 100'000u}) {
    TestRandom random(fingerprints);
    FingerprintIndex index;
    std::map<std::uint64_t, std::set<ImpressionNumber>> expected;
    std::vector<std::pair<std::uint64_t, ImpressionNumber>> entries;
    ImpressionNumber next = 0;
    for (int step = 0; step < 6'000; ++step) {
      // It grows, shrinks and grows again.
      const bool grows = (step / 1'500) % 2 == 0;
      if (entries.empty() || random.below(10) < (grows ? 7 : 3)) {
        const std::uint64_t fingerprint = random.below(fingerprints);
        index.add(fingerprint, next);
        expected[fingerprint].insert(next);
        entries.emplace_back(fingerprint, next++);
      } else {
        std::swap(entries[random.below(entries.size())], entries.back());
        const auto [fingerprint, number] = entries.back();
        entries.pop_back();
        index.remove(fingerprint, number);
        expected[fingerprint].erase(number);
      }
      ASSERT_EQ(index.size(), entries.size());
      const std::uint64_t asked = random.below(fingerprints);
      const auto& wanted = expected[asked];
      ASSERT_EQ(find(index, asked), (std::vector<ImpressionNumber>(wanted.begin(), wanted.end())));
    }
  }
}

TEST(FingerprintIndexDeathTest, RemovingWhatIsNotThereAborts) {
  FingerprintIndex index;
  index.add(7, 1);
  EXPECT_DEATH(index.remove(7, 2), "");
}

}  // namespace
}  // namespace sluice
