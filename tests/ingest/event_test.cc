#include "ingest/event.h"

#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace sluice {
namespace {

Event event(Stream stream, TimeMs time, std::string_view id, Position position) {
  Event::Texts texts;
  texts.id = id;
  return Event(stream, time, position, texts);
}

TEST(Event, HoldsItsTexts) {
  Event::Texts texts;
  texts.id = "id";
  texts.impression_id = "impression";
  texts.item_id = "item";
  texts.features = std::string_view("\0f", 2);
  texts.record = "record";
  Event moved_from(Stream::purchases, 5, 6, texts);
  const Event held = std::move(moved_from);
  EXPECT_EQ(held.stream(), Stream::purchases);
  EXPECT_EQ(held.time(), 5);
  EXPECT_EQ(held.position(), 6u);
  EXPECT_EQ(held.id(), "id");
  EXPECT_EQ(held.impression_id(), "impression");
  EXPECT_EQ(held.user_id(), "");
  EXPECT_EQ(held.item_id(), "item");
  EXPECT_EQ(held.features(), std::string_view("\0f", 2));
  EXPECT_EQ(held.record(), "record");
}

TEST(Event, TheTotalOrder) {
  // Time, rank of the stream, then id bytes, those without one last, then position.
  const std::vector<Event> ordered = {
      event(Stream::purchases, 1, "z", 90),    event(Stream::impressions, 2, "z", 80),
      event(Stream::clicks, 2, "10", 70),      event(Stream::clicks, 2, "9", 10),
      event(Stream::clicks, 2, "9", 11),       event(Stream::clicks, 2, "9a", 5),
      event(Stream::clicks, 2, "\xc3\xa4", 4),  // bytes, not signed characters
      event(Stream::clicks, 2, "", 1),         event(Stream::clicks, 2, "", 2),
      event(Stream::actions, 2, "z", 0),       event(Stream::actions, 2, "", 0),
      event(Stream::purchases, 2, "a", 0),     event(Stream::purchases, 2, "", 0),
      event(Stream::impressions, 3, "a", 0),
  };
  for (std::size_t a = 0; a < ordered.size(); ++a) {
    for (std::size_t b = 0; b < ordered.size(); ++b) {
      EXPECT_EQ(happens_before(ordered[a], ordered[b]), a < b) << a << " " << b;
    }
  }
}

TEST(Event, NamesOfRefusalsAreDistinctAndTwoAreNoDeadLetters) {
  std::set<std::string> names;
  std::set<std::string> kept;
  for (std::size_t reason = 0; reason < kRefusals; ++reason) {
    const auto refusal = static_cast<Refusal>(reason);
    names.insert(to_string(refusal));
    if (!is_dead_letter(refusal)) kept.insert(to_string(refusal));
  }
  EXPECT_EQ(names.size(), kRefusals);
  EXPECT_EQ(kept, (std::set<std::string>{"duplicate", "repeat"}));
  EXPECT_EQ(to_string(StreamPartition{Stream::clicks, 3}), "clicks/3");
}

}  // namespace
}  // namespace sluice
