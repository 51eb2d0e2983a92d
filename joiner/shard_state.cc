// How a shard's state lies in the store, and JoinCounters' bytes. The grammar is in
// docs/formats.md.
#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "joiner/shard.h"

namespace sluice {
namespace {

std::string state_key(std::uint32_t shard, char kind) {
  std::string key;
  ByteWriter bytes(key);
  bytes.key_u32(shard);
  bytes.u8(static_cast<std::uint8_t>(kind));
  return key;
}

enum ClickedFlag : std::uint8_t {
  kYEmitted = 1,
  kZEmitted = 2,
  kConversionClosed = 4,
  kPurchased = 8,
  kInPage = 16,    // its impression is not here, but in its page
  kHasValue = 32,  // other than 0
  kHasActionFlags = 64,
};

// A second byte, in a lineage with actions.
enum ClickedActionFlag : std::uint8_t {
  kActionEmitted = 1,
  kActionClosed = 2,
  kActed = 4,
};

// In the order in which they lie there.
constexpr std::array<Stream, 3> kWaiting = {Stream::clicks, Stream::actions, Stream::purchases};

// Added to a waiting event's stream.
constexpr std::uint8_t kValueFollows = 128;

void encode_event(const Event& event, ByteWriter& bytes) {
  const std::optional<Micros> value = event.value();
  bytes.u8(static_cast<std::uint8_t>(static_cast<std::uint8_t>(event.stream()) |
                                     (value ? kValueFollows : 0)));
  bytes.svarint(event.time());
  bytes.varint(event.position());
  bytes.text(event.id());
  bytes.text(event.impression_id());
  bytes.text(event.user_id());
  bytes.text(event.item_id());
  bytes.text(event.record());
  if (value) bytes.svarint(*value);
}

Event decode_event(ByteReader& bytes) {
  const std::uint8_t head = bytes.u8();
  const auto stream = static_cast<Stream>(head & ~kValueFollows);
  const TimeMs time = bytes.svarint();
  const Position position = bytes.varint();
  Event::Texts texts;
  texts.id = bytes.text();
  texts.impression_id = bytes.text();
  texts.user_id = bytes.text();
  texts.item_id = bytes.text();
  texts.record = bytes.text();
  std::optional<Micros> value;
  if ((head & kValueFollows) != 0) value = bytes.svarint();
  const ValueText value_text(value);
  texts.features = value_text.text();
  return Event(stream, time, position, texts);
}

Error damaged(std::uint32_t shard, const char* what) {
  return stop_error("the join state is damaged: " + std::string(what) + " of shard " +
                    std::to_string(shard) + "; replay into a new data folder");
}

}  // namespace

std::string Shard::clicked_key(ImpressionNumber number) const {
  std::string key = state_key(number_, 'c');
  ByteWriter(key).key_u64(number);
  return key;
}

std::string Shard::encode_clicked(const Clicked& clicked) const {
  std::string value;
  ByteWriter bytes(value);
  bytes.u8(static_cast<std::uint8_t>(
      (clicked.is_y_emitted ? kYEmitted : 0) | (clicked.is_z_emitted ? kZEmitted : 0) |
      (clicked.is_conversion_closed ? kConversionClosed : 0) |
      (clicked.purchase_time ? kPurchased : 0) | (clicked.is_y_emitted ? 0 : kInPage) |
      (clicked.value != 0 ? kHasValue : 0) | (has_actions_ ? kHasActionFlags : 0)));
  if (has_actions_) {
    bytes.u8(static_cast<std::uint8_t>((clicked.is_action_emitted ? kActionEmitted : 0) |
                                       (clicked.is_action_closed ? kActionClosed : 0) |
                                       (clicked.action_time ? kActed : 0)));
  }
  bytes.svarint(clicked.click_time);
  if (clicked.purchase_time) bytes.svarint(*clicked.purchase_time);
  if (clicked.value != 0) bytes.svarint(clicked.value);
  if (clicked.action_time) bytes.svarint(*clicked.action_time);
  value += clicked.bytes();
  return value;
}

void Shard::persist(WriteBatch& batch) {
  pages_.persist(batch);
  for (const ImpressionNumber number : dirty_clicked_) {
    const auto found = clicked_.find(number);
    if (found == clicked_.end()) {
      batch.remove(Space::state, clicked_key(number));
    } else {
      batch.put(Space::state, clicked_key(number), encode_clicked(found->second));
    }
  }
  dirty_clicked_.clear();
  if (!is_waiting_dirty_) return;
  is_waiting_dirty_ = false;
  if (waiting_records() == 0) {
    batch.remove(Space::state, state_key(number_, 'w'));
    return;
  }
  std::string value;
  ByteWriter bytes(value);
  for (const Stream stream : kWaiting) {
    if (stream == Stream::actions && !has_actions_) continue;
    const std::deque<Event>& queue = waiting_[queue_of(stream)];
    bytes.varint(queue.size());
    for (const Event& event : queue) encode_event(event, bytes);
  }
  batch.put(Space::state, state_key(number_, 'w'), std::move(value));
}

// False where it is damaged.
bool Shard::restore_clicked(ImpressionNumber number, std::string_view value) {
  Clicked& clicked = clicked_[number];
  ByteReader bytes(value);
  const std::uint8_t flags = bytes.u8();
  clicked.is_y_emitted = (flags & kYEmitted) != 0;
  clicked.is_z_emitted = (flags & kZEmitted) != 0;
  clicked.is_conversion_closed = (flags & kConversionClosed) != 0;
  if (((flags & kHasActionFlags) != 0) != has_actions_) return false;
  const std::uint8_t of_action = has_actions_ ? bytes.u8() : kActionEmitted | kActionClosed;
  clicked.is_action_emitted = (of_action & kActionEmitted) != 0;
  clicked.is_action_closed = (of_action & kActionClosed) != 0;
  clicked.click_time = bytes.svarint();
  if ((flags & kPurchased) != 0) clicked.purchase_time = bytes.svarint();
  if ((flags & kHasValue) != 0) clicked.value = bytes.svarint();
  if ((of_action & kActed) != 0) clicked.action_time = bytes.svarint();
  if (!bytes.ok() || !is_possible_time(clicked.click_time) ||
      !is_possible_time(clicked.purchase_time.value_or(0)) ||
      !is_possible_time(clicked.action_time.value_or(0)) ||
      (clicked.value != 0 && !clicked.purchase_time)) {
    return false;
  }
  // Those still in the queue of click windows were indexed with their page.
  if (clicked.is_y_emitted != (number < pages_.front_number())) return false;
  if (!clicked.is_conversion_closed) add_conversion_timer(number, clicked);
  if (!clicked.is_action_closed) add_action_timer(number, clicked);
  const std::string_view text = value.substr(value.size() - bytes.remaining());
  if ((flags & kInPage) != 0) {
    if (clicked.is_y_emitted || !text.empty()) return false;
  } else {
    const Impression impression = decode_impression(bytes);
    if (!bytes.ok() || !bytes.at_end() || !is_possible_time(impression.time)) return false;
    if (clicked.is_y_emitted) {
      clicked.keep(text);
      index(fingerprint(impression.impression_id), number, impression);
      index_clicked(number, impression, clicked);
    }
  }
  if (clicked.is_y_emitted) return true;
  if (number >= pages_.next_number()) return false;
  pages_.mark(number);
  return true;
}

// The index of user and item has them by what only their pages know; in the pages' order, so that
// each is read once.
Status Shard::restore_clicked_in_window() {
  std::vector<ImpressionNumber> numbers;
  for (const auto& [number, clicked] : clicked_) {
    if (!clicked.is_y_emitted) numbers.push_back(number);
  }
  std::sort(numbers.begin(), numbers.end());
  for (const ImpressionNumber number : numbers) {
    SLUICE_ASSIGN(const Impression open, impression(number));
    index_clicked(number, open, clicked_.at(number));
  }
  return {};
}

Status Shard::restore(const ShardProgress& progress) {
  SLUICE_TRY(pages_.restore(progress.front, progress.next,
                            [this](ImpressionNumber number, const Impression& open) {
                              index(fingerprint(open.impression_id), number, open);
                            }));
  bool is_whole = true;
  SLUICE_TRY(store_.scan(Space::state, state_key(number_, 'c'), state_key(number_, 'd'),
                         [&](std::string_view key, std::string_view value) {
                           ByteReader reader(key.substr(5));
                           const ImpressionNumber number = reader.key_u64();
                           is_whole = reader.ok() && restore_clicked(number, value);
                           return is_whole;
                         }));
  if (!is_whole) return damaged(number_, "a clicked impression");
  if (by_user_item()) SLUICE_TRY(restore_clicked_in_window());
  SLUICE_ASSIGN(const auto waiting, store_.get(Space::state, state_key(number_, 'w')));
  if (!waiting) return {};
  ByteReader bytes(*waiting);
  for (const Stream stream : kWaiting) {
    if (stream == Stream::actions && !has_actions_) continue;
    std::deque<Event>& queue = waiting_[queue_of(stream)];
    for (std::uint64_t left = bytes.varint(); left > 0 && bytes.ok(); --left) {
      queue.push_back(decode_event(bytes));
      is_whole &= queue.back().stream() == stream && is_possible_time(queue.back().time());
      ++waiting_keys_[waiting_key(queue.back())];
    }
  }
  if (!is_whole || !bytes.ok() || !bytes.at_end()) return damaged(number_, "the waiting records");
  return {};
}

std::uint64_t JoinCounters::read(Stream stream) const {
  const auto index = static_cast<std::size_t>(stream);
  std::uint64_t sum = used[index];
  for (const std::uint64_t count : refused[index]) sum += count;
  return sum;
}

std::uint64_t JoinCounters::refused_for(Refusal reason) const {
  std::uint64_t sum = 0;
  for (const auto& stream : refused) sum += stream[static_cast<std::size_t>(reason)];
  return sum;
}

void JoinCounters::encode(ByteWriter& out) const {
  for (std::size_t stream = 0; stream < kStreamsWithoutActions; ++stream) {
    out.varint(used[stream]);
    for (const std::uint64_t count : refused[stream]) out.varint(count);
  }
  out.varint(labelled_impressions);
  out.varint(clicked);
  out.varint(converted);
}

JoinCounters JoinCounters::decode(ByteReader& in) {
  JoinCounters counters;
  for (std::size_t stream = 0; stream < kStreamsWithoutActions; ++stream) {
    counters.used[stream] = in.varint();
    for (std::uint64_t& count : counters.refused[stream]) count = in.varint();
  }
  counters.labelled_impressions = in.varint();
  counters.clicked = in.varint();
  counters.converted = in.varint();
  return counters;
}

void JoinCounters::encode_actions(ByteWriter& out) const {
  const auto stream = static_cast<std::size_t>(Stream::actions);
  out.varint(used[stream]);
  for (const std::uint64_t count : refused[stream]) out.varint(count);
  out.varint(acted);
}

void JoinCounters::decode_actions(ByteReader& in) {
  const auto stream = static_cast<std::size_t>(Stream::actions);
  used[stream] = in.varint();
  for (std::uint64_t& count : refused[stream]) count = in.varint();
  acted = in.varint();
}

}  // namespace sluice
