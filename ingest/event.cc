#include "ingest/event.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>

#include "base/check.h"

namespace sluice {

std::string to_string(const StreamPartition& where) {
  return std::string(kStreamNames[static_cast<std::size_t>(where.stream)]) + "/" +
         std::to_string(where.partition);
}

const char* to_string(Refusal refusal) {
  switch (refusal) {
    case Refusal::oversized:
      return "oversized";
    case Refusal::malformed:
      return "malformed";
    case Refusal::future:
      return "future";
    case Refusal::late:
      return "late";
    case Refusal::late_after_quiet:
      return "late_after_quiet";
    case Refusal::duplicate:
      return "duplicate";
    case Refusal::repeat:
      return "repeat";
    case Refusal::no_open_impression:
      return "no_open_impression";
    case Refusal::no_click:
      return "no_click";
  }
  SLUICE_CHECK(false);
}

// A count of events and the bytes after it. Events may be freed by another thread than the one that
// fills the chunk.
class EventChunk {
 public:
  static constexpr std::size_t kBytes = 64 << 10;

  static EventChunk* make(std::size_t bytes) {
    void* const memory = ::operator new(sizeof(EventChunk) + bytes);
    return new (memory) EventChunk(bytes);
  }
  bool has_room(std::size_t bytes) const { return bytes <= size_ - used_; }
  // The next `bytes` bytes, for one more event.
  char* take(std::size_t bytes) {
    char* const begin = reinterpret_cast<char*>(this + 1) + used_;
    used_ += bytes;
    users_.fetch_add(1, std::memory_order_relaxed);
    return begin;
  }
  void release() {
    if (users_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    this->~EventChunk();
    ::operator delete(this);
  }

 private:
  explicit EventChunk(std::size_t size) : size_(size) {}

  std::atomic<std::uint32_t> users_ = 1;  // whoever made it is one
  std::size_t size_;
  std::size_t used_ = 0;
};

EventArena::~EventArena() {
  if (chunk_ != nullptr) chunk_->release();
}

Event::Event(Stream stream, TimeMs time, Position position, const Texts& texts)
    : time_(time), position_(position), stream_(stream) {
  const std::size_t size = size_of(texts);
  chunk_ = EventChunk::make(size);
  fill(chunk_->take(size), texts);
  chunk_->release();
}

Event::Event(Stream stream, TimeMs time, Position position, const Texts& texts, EventArena& arena)
    : time_(time), position_(position), stream_(stream) {
  const std::size_t size = size_of(texts);
  if (arena.chunk_ == nullptr || !arena.chunk_->has_room(size)) {
    if (arena.chunk_ != nullptr) arena.chunk_->release();
    arena.chunk_ = EventChunk::make(std::max(size, EventChunk::kBytes));
  }
  chunk_ = arena.chunk_;
  fill(chunk_->take(size), texts);
}

Event::Event(const Event& other)
    : Event(other.stream_, other.time_, other.position_, other.texts()) {}

Event::~Event() {
  if (chunk_ != nullptr) chunk_->release();
}

ValueText::ValueText(const std::optional<Micros>& value) {
  if (!value) return;
  std::memcpy(bytes_.data(), &*value, sizeof *value);
  size_ = sizeof *value;
}

std::optional<Micros> Event::value() const {
  Micros value = 0;
  if (stream_ != Stream::purchases || part(4).size() != sizeof value) return std::nullopt;
  std::memcpy(&value, part(4).data(), sizeof value);
  return value;
}

std::size_t Event::size_of(const Texts& texts) {
  return texts.id.size() + texts.impression_id.size() + texts.user_id.size() +
         texts.item_id.size() + texts.features.size() + texts.record.size();
}

void Event::fill(char* to, const Texts& texts) {
  data_ = to;
  std::uint32_t end = 0;
  std::size_t index = 0;
  for (const std::string_view part : {texts.id, texts.impression_id, texts.user_id, texts.item_id,
                                      texts.features, texts.record}) {
    if (!part.empty()) std::memcpy(to + end, part.data(), part.size());
    end += static_cast<std::uint32_t>(part.size());
    ends_[index++] = end;
  }
}

void Event::swap(Event& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(chunk_, other.chunk_);
  std::swap(time_, other.time_);
  std::swap(position_, other.position_);
  std::swap(ends_, other.ends_);
  std::swap(stream_, other.stream_);
}

bool happens_before(const Event& a, const Event& b) {
  if (a.time() != b.time()) return a.time() < b.time();
  if (a.stream() != b.stream()) return rank_of(a.stream()) < rank_of(b.stream());
  const std::string_view a_id = a.id();
  const std::string_view b_id = b.id();
  if (a_id.empty() != b_id.empty()) return b_id.empty();
  if (const int order = a_id.compare(b_id); order != 0) return order < 0;
  return a.position() < b.position();
}

// What decides nearly always is sorted by itself; the events are moved once.
void sort_events(std::vector<Event>& events) {
  struct Key {
    TimeMs time;
    const Event* event;
  };
  std::vector<Key> keys;
  keys.reserve(events.size());
  for (const Event& event : events) keys.push_back({event.time(), &event});
  std::sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) {
    return a.time != b.time ? a.time < b.time : happens_before(*a.event, *b.event);
  });
  std::vector<Event> sorted;
  sorted.reserve(events.size());
  for (const Key& key : keys)
    sorted.push_back(std::move(events[static_cast<std::size_t>(key.event - events.data())]));
  events.swap(sorted);
}

}  // namespace sluice
