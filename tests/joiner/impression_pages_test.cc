#include "joiner/impression_pages.h"

#include <deque>
#include <optional>
#include <string>

#include <malloc.h>

#include <gtest/gtest.h>

#include "stages.h"

namespace sluice {
namespace {

constexpr std::uint32_t kShard = 3;

struct Texts {
  TimeMs time = 0;
  std::string event_id, impression_id, user_id, item_id, features;
  Impression view() const { return {time, event_id, impression_id, user_id, item_id, features}; }
  static Texts of(const Impression& one) {
    return {one.time,
            std::string(one.event_id),
            std::string(one.impression_id),
            std::string(one.user_id),
            std::string(one.item_id),
            std::string(one.features)};
  }
  friend bool operator==(const Texts&, const Texts&) = default;
};

Texts impression(std::uint64_t number, std::size_t features_bytes = 10) {
  const std::string digits = std::to_string(number);
  return {1'700'000'000'000 + static_cast<TimeMs>(number / 3),
          number % 2 == 0 ? "i" + digits : digits,  // like the impression's, for odd ones
          digits,
          number % 5 == 0 ? "" : "u" + digits,
          "x",
          std::string(features_bytes, static_cast<char>('a' + number % 26))};
}

void commit(ImpressionPages& pages, KeyValueStore& store) {
  WriteBatch batch;
  pages.persist(batch);
  ASSERT_TRUE(store.commit(batch).has_value());
}

TEST(ImpressionPages, AnImpressionSurvivesItsBytes) {
  for (const std::uint64_t number : {0u, 1u, 2u, 5u}) {
    const Texts texts = impression(number);
    std::string bytes;
    encode_impression(texts.view(), bytes);
    bytes += "rest";
    ByteReader reader(bytes);
    EXPECT_EQ(Texts::of(decode_impression(reader)), texts);
    EXPECT_EQ(reader.remaining(), 4u);
  }
}

// A store that keeps nothing, so that what is in memory is the pages'.
class Nowhere final : public KeyValueStore {
 public:
  Status commit(const WriteBatch& /*batch*/) override { return {}; }
  Result<std::optional<std::string>> get(Space /*space*/, std::string_view /*key*/) override {
    return std::optional<std::string>();
  }
  Status scan(
      Space /*space*/, std::string_view /*begin*/, std::string_view /*end*/,
      const std::function<bool(std::string_view key, std::string_view value)>& /*visit*/) override {
    return {};
  }
  std::uint64_t disk_bytes() override { return 0; }
};

TEST(ImpressionPages, OnlyTheYoungestAreInMemory) {
  if (::mallinfo2().uordblks == 0) GTEST_SKIP() << "this allocator does not tell what is in use";
  const auto in_use = [] {
    const auto info = ::mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  Nowhere store;
  ImpressionPages pages(kShard, store);
  const std::size_t before = in_use();
  const std::size_t each = 1'000;
  for (std::uint64_t number = 0; number < 100'000; ++number) {
    pages.push(impression(number, each).view());
    if (number % 5'000 == 0) commit(pages, store);
  }
  commit(pages, store);
  EXPECT_LT(in_use() - before, 20 * 1'000 * each) << "of 100 MB";
}

TEST(ImpressionPages, NumbersCountOnAfterAllWasPopped) {
  const auto store = make_memory_store();
  ImpressionPages pages(kShard, *store);
  EXPECT_TRUE(pages.empty());
  EXPECT_EQ(pages.push(impression(0).view()), 0u);
  ASSERT_TRUE(pages.pop().has_value());
  EXPECT_TRUE(pages.empty());
  EXPECT_EQ(pages.push(impression(1).view()), 1u);
  EXPECT_EQ(pages.front_number(), 1u);
  EXPECT_EQ(pages.front_time(), impression(1).time);
  EXPECT_EQ(Texts::of(*pages.at(1)), impression(1));
}

// Against a plain queue: pushes, pops, look-ups, commits and restarts in random order, with
// impressions so large that pages leave memory.
TEST(ImpressionPages, EqualsAQueue) {
  for (const std::uint64_t seed : {1u, 2u, 3u, 4u}) {
    const std::size_t features_bytes = seed % 2 == 0 ? 30'000 : 20;
    const auto store = make_memory_store();
    TestRandom random(seed);
    auto pages = std::make_unique<ImpressionPages>(kShard, *store);
    ImpressionNumber front = 0;
    ImpressionNumber next = 0;
    ImpressionNumber committed_front = 0;
    ImpressionNumber marked = ~ImpressionNumber{0};
    ImpressionNumber committed_next = 0;
    for (int step = 0; step < 600; ++step) {
      const bool grows = (step / 200) % 2 == 0;
      const std::uint64_t burst = random.below(seed % 2 == 0 ? 6 : 500);
      for (std::uint64_t left = burst; left > 0 && random.below(10) < (grows ? 9 : 2); --left) {
        ASSERT_EQ(pages->push(impression(next, features_bytes).view()), next);
        ++next;
      }
      // What was popped stays readable until it is given back.
      pages->release_popped();
      std::vector<std::pair<ImpressionNumber, Impression>> popped;
      for (std::uint64_t left = burst; left > 0 && front < next && !grows; --left) {
        popped.emplace_back(front, *pages->front());
        ASSERT_TRUE(pages->pop().has_value());
        ++front;
        if (random.one_in(4)) {
          ASSERT_EQ(pages->push(impression(next, features_bytes).view()), next);
          ++next;
        }
      }
      for (const auto& [number, one] : popped) {
        ASSERT_EQ(Texts::of(one), impression(number, features_bytes)) << seed;
      }
      if (random.one_in(5)) {
        commit(*pages, *store);
        committed_front = front;
        committed_next = next;
      }
      if (random.one_in(20)) {  // a crash
        front = committed_front;
        next = committed_next;
        pages = std::make_unique<ImpressionPages>(kShard, *store);
        marked = ~ImpressionNumber{0};  // marks are not kept
        ImpressionNumber visited = front;
        const Status restored =
            pages->restore(front, next, [&](ImpressionNumber number, const Impression& one) {
              EXPECT_EQ(number, visited++);
              EXPECT_EQ(Texts::of(one), impression(number, features_bytes));
            });
        ASSERT_TRUE(restored.has_value()) << restored.error().message;
        ASSERT_EQ(visited, next);
      }
      ASSERT_EQ(pages->front_number(), front);
      ASSERT_EQ(pages->next_number(), next);
      ASSERT_EQ(pages->empty(), front == next);
      if (front == next) continue;
      ASSERT_EQ(pages->front_time(), impression(front).time);
      if (random.one_in(2)) {
        ASSERT_EQ(Texts::of(*pages->front()), impression(front, features_bytes)) << seed;
        const auto after = pages->after_front(8);
        for (std::size_t index = 0; index < after.size(); ++index) {
          ASSERT_EQ(Texts::of(after[index]), impression(front + 1 + index, features_bytes));
        }
      }
      if (random.one_in(3)) pages->mark(marked = front + random.below(next - front));
      if (front == marked) {
        ASSERT_TRUE(pages->is_front_marked());
      }
      const ImpressionNumber asked = front + random.below(next - front);
      ASSERT_EQ(Texts::of(*pages->at(asked)), impression(asked, features_bytes)) << seed;
    }
    while (!pages->empty()) ASSERT_TRUE(pages->pop().has_value());
    commit(*pages, *store);
    EXPECT_EQ(count_keys(*store, Space::state), 0u);
  }
}

TEST(ImpressionPages, AnUnclickedImpressionCostsNoKeyOfItsOwn) {
  const auto store = make_memory_store();
  ImpressionPages pages(kShard, *store);
  for (std::uint64_t number = 0; number < 2'048; ++number) pages.push(impression(number).view());
  commit(pages, *store);
  EXPECT_EQ(count_keys(*store, Space::state), 2u);
}

TEST(ImpressionPages, DamageIsAnError) {
  const auto store = make_memory_store();
  ImpressionPages pages(kShard, *store);
  for (std::uint64_t number = 0; number < 10; ++number) pages.push(impression(number).view());
  commit(pages, *store);
  for (std::uint64_t number = 10; number < 20; ++number) pages.push(impression(number).view());
  commit(pages, *store);
  std::vector<std::pair<std::string, std::string>> stored;
  ASSERT_TRUE(store->scan(Space::state, {}, {}, [&](std::string_view key, std::string_view value) {
    stored.emplace_back(key, value);
    return true;
  }));
  ASSERT_EQ(stored.size(), 2u);
  const auto restores = [&store] {
    ImpressionPages read(kShard, *store);
    return read.restore(0, 20, [](ImpressionNumber, const Impression&) {}).has_value();
  };
  EXPECT_TRUE(restores());
  for (const auto& [key, value] : stored) {
    for (std::size_t at = 0; at < value.size(); ++at) {
      std::string damaged = value;
      damaged[at] = static_cast<char>(damaged[at] ^ 0x20);
      WriteBatch batch;
      batch.put(Space::state, key, damaged);
      ASSERT_TRUE(store->commit(batch).has_value());
      EXPECT_FALSE(restores()) << "byte " << at;
    }
    WriteBatch gone;
    gone.remove(Space::state, key);
    ASSERT_TRUE(store->commit(gone).has_value());
    EXPECT_FALSE(restores());
    WriteBatch back;
    back.put(Space::state, key, value);
    ASSERT_TRUE(store->commit(back).has_value());
  }
  EXPECT_TRUE(restores());
}

}  // namespace
}  // namespace sluice
