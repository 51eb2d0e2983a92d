// Records as they lie in a log, and the events that they become.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/micros.h"
#include "base/time.h"
#include "config/config.h"

namespace sluice {

// A record's place in its partition's log; ascending along the log. Kafka: the offset. Files:
// segment number << 40 | offset of the line's first byte in the segment as uncompressed text.
using Position = std::uint64_t;

struct StreamPartition {
  Stream stream = Stream::impressions;
  std::uint32_t partition = 0;  // is the shard's number too
  friend auto operator<=>(const StreamPartition&, const StreamPartition&) = default;
};

// "clicks/3"
std::string to_string(const StreamPartition& where);

struct Record {
  Position position = 0;
  Position next = 0;               // where the log goes on after this record
  std::string bytes;               // without the line's end; an oversized one is cut, see Source
  std::optional<TimeMs> log_time;  // the broker's, of a LogAppendTime topic
};

// Why a record is not used. The first four are judged when a record is read, by its log alone; the
// others by the join. All but `repeat` and `duplicate` are dead-lettered.
enum class Refusal : std::uint8_t {
  oversized,           // longer than streams.max_record_bytes
  malformed,           // no valid JSON object, or a required field is absent or nonsense
  future,              // more than streams.max_ahead after its log time
  late,                // behind its own stream-partition's watermark
  late_after_quiet,    // its tick was processed while its partition was quiet
  duplicate,           // a second impression of an open impression_id
  repeat,              // a further click, action or purchase of a clicked impression
  no_open_impression,  // no impression of that id (or user and item) is open
  no_click,            // the impression is open, but unclicked or the record out of its window
};
inline constexpr std::size_t kRefusals = 9;
const char* to_string(Refusal refusal);
constexpr bool is_dead_letter(Refusal refusal) {
  return refusal != Refusal::repeat && refusal != Refusal::duplicate;
}

// Memory that many events share, so that none costs an allocation of its own. It goes back when the
// last event in it does, wherever that is.
class EventChunk;

// Where a decoder puts the events that it makes. Used by one thread; the events may go elsewhere.
class EventArena {
 public:
  EventArena() = default;
  ~EventArena();
  EventArena(EventArena&& other) noexcept : chunk_(std::exchange(other.chunk_, nullptr)) {}
  EventArena& operator=(EventArena&&) = delete;

 private:
  friend class Event;
  EventChunk* chunk_ = nullptr;  // the one that is being filled
};

// An accepted record, with the texts that it needs.
class Event {
 public:
  struct Texts {
    std::string_view id;  // event_id; an impression without one: its impression_id
    std::string_view impression_id;
    std::string_view user_id;
    std::string_view item_id;
    // Impressions: as ingest/features.h encodes them; purchases with a value: a ValueText.
    std::string_view features;
    std::string_view record;  // all but impressions: the original bytes, for a dead letter
  };

  Event() = default;
  // With memory of its own, or in an arena.
  Event(Stream stream, TimeMs time, Position position, const Texts& texts);
  Event(Stream stream, TimeMs time, Position position, const Texts& texts, EventArena& arena);
  Event(const Event& other);
  Event(Event&& other) noexcept { swap(other); }
  Event& operator=(Event other) noexcept {
    swap(other);
    return *this;
  }
  ~Event();

  Stream stream() const { return stream_; }
  TimeMs time() const { return time_; }
  Position position() const { return position_; }
  // Views into the event: they live as long as the event that it is moved to.
  std::string_view id() const { return part(0); }
  std::string_view impression_id() const { return part(1); }
  std::string_view user_id() const { return part(2); }
  std::string_view item_id() const { return part(3); }
  std::string_view features() const { return part(4); }
  // Of a purchase; none where it has no number there, or nobody asks for it (join.purchase_value).
  std::optional<Micros> value() const;
  std::string_view record() const { return part(5); }
  std::size_t bytes() const { return sizeof(Event) + ends_.back(); }

 private:
  std::string_view part(std::size_t index) const {
    const std::uint32_t begin = index == 0 ? 0 : ends_[index - 1];
    return {data_ + begin, ends_[index] - begin};
  }
  Texts texts() const {
    return {id(), impression_id(), user_id(), item_id(), features(), record()};
  }
  static std::size_t size_of(const Texts& texts);
  void fill(char* to, const Texts& texts);
  void swap(Event& other) noexcept;

  const char* data_ = nullptr;
  EventChunk* chunk_ = nullptr;
  TimeMs time_ = 0;
  Position position_ = 0;
  std::array<std::uint32_t, 6> ends_{};
  Stream stream_ = Stream::impressions;
};

// A purchase's value on its way into an event: among the texts, where an impression has its
// features, so that no other event is larger for it.
class ValueText {
 public:
  explicit ValueText(const std::optional<Micros>& value);
  std::string_view text() const { return {bytes_.data(), size_}; }

 private:
  std::array<char, sizeof(Micros)> bytes_{};
  std::size_t size_ = 0;
};

// Of the events of one moment: impressions before clicks, then actions, then purchases.
constexpr int rank_of(Stream stream) {
  switch (stream) {
    case Stream::impressions:
      return 0;
    case Stream::clicks:
      return 1;
    case Stream::actions:
      return 2;
    case Stream::purchases:
      return 3;
  }
  return 4;
}

// The total order inside a shard (docs/design.md): time, then rank, then id bytes (events without
// an id come after those with one), then position in the log.
bool happens_before(const Event& a, const Event& b);
// Brings them into that order.
void sort_events(std::vector<Event>& events);

}  // namespace sluice
