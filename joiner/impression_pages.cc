#include "joiner/impression_pages.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "joiner/sample.h"

namespace sluice {
namespace {

constexpr std::size_t kPageBytes = 64 << 10;
constexpr std::size_t kPageImpressions = 1024;
// Sealed pages that stay in memory besides the store's caches: clicks mostly name young
// impressions.
constexpr std::size_t kLoadedBytes = 8 << 20;
constexpr std::size_t kSpareRooms = 8;
constexpr std::uint8_t kPageFormat = 1;
constexpr std::size_t kMostPageHeader = 1 + kMostVarintBytes + sizeof(std::uint64_t);

}  // namespace

void encode_impression(const Impression& impression, std::string& out) {
  // Where an impression has no event id of its own, it is not written twice.
  const std::string_view event_id =
      impression.event_id == impression.impression_id ? std::string_view() : impression.event_id;
  const std::array<std::string_view, 5> texts = {event_id, impression.impression_id,
                                                 impression.user_id, impression.item_id,
                                                 impression.features};
  std::size_t most = (1 + texts.size()) * kMostVarintBytes;
  for (const std::string_view text : texts) most += text.size();
  const std::size_t begin = out.size();
  if (out.capacity() - begin < most) out.reserve(std::max(2 * out.capacity(), begin + most));
  // In one piece beforehand: appending each number by itself costs more than making it.
  std::array<char, 512> small;
  std::string large;
  char* const first = most <= small.size() ? small.data() : (large.resize(most), large.data());
  char* to = put_svarint(first, impression.time);
  for (const std::string_view text : texts) {
    to = put_varint(to, text.size());
    if (!text.empty()) std::memcpy(to, text.data(), text.size());
    to += text.size();
  }
  out.append(first, to);
}

Impression decode_impression(ByteReader& in) {
  Impression impression;
  impression.time = in.svarint();
  impression.event_id = in.text();
  impression.impression_id = in.text();
  if (impression.event_id.empty()) impression.event_id = impression.impression_id;
  impression.user_id = in.text();
  impression.item_id = in.text();
  impression.features = in.text();
  return impression;
}

ImpressionPages::ImpressionPages(std::uint32_t shard, KeyValueStore& store)
    : shard_(shard), store_(store) {}

std::string ImpressionPages::key(ImpressionNumber first) const {
  std::string key;
  ByteWriter bytes(key);
  bytes.key_u32(shard_);
  bytes.u8('p');
  bytes.key_u64(first);
  return key;
}

void ImpressionPages::start_page(TimeMs time) {
  Page& page = *pages_.emplace_back(std::make_unique<Page>());
  page.first = next_;
  page.first_time = time;
  if (!spare_.empty()) {
    page.bytes = std::move(spare_.back());
    spare_.pop_back();
  }
  last_is_open_ = true;
}

ImpressionNumber ImpressionPages::push(const Impression& impression) {
  if (last_is_open_ &&
      (pages_.back()->bytes.size() >= kPageBytes || pages_.back()->count >= kPageImpressions)) {
    last_is_open_ = false;
  }
  if (!last_is_open_) start_page(impression.time);
  Page& page = *pages_.back();
  // Its offsets may have been looked for before.
  if (!page.offsets.empty() || page.count == 0) {
    page.offsets.push_back(static_cast<std::uint32_t>(page.bytes.size()));
  }
  const std::size_t before = page.bytes.size();
  encode_impression(impression, page.bytes);
  loaded_bytes_ += page.bytes.size() - before;
  ++page.count;
  if (empty()) front_time_ = impression.time;
  return next_++;
}

Status ImpressionPages::pop() {
  SLUICE_CHECK(!empty());
  // What was given out of it stays where it is.
  if (pages_.size() == 1) last_is_open_ = false;
  ++front_;
  Page& page = *pages_.front();
  if (front_ == page.first + page.count) {
    if (page.is_stored) expired_.push_back(page.first);
    loaded_bytes_ -= page.bytes.size();
    popped_.push_back(std::move(pages_.front()));
    pages_.pop_front();
    front_page_.clear();
  }
  return update_front_time();
}

Status ImpressionPages::update_front_time() {
  if (empty()) return {};
  Page& page = *pages_.front();
  if (page.first == front_) {
    front_time_ = page.first_time;
    return {};
  }
  SLUICE_TRY(open_front());
  front_time_ = front_page_[front_ - page.first].time;
  return {};
}

Status ImpressionPages::open_front() {
  if (!front_page_.empty()) return {};
  if (pages_.size() == 1) last_is_open_ = false;
  Page& page = *pages_.front();
  if (page.bytes.empty()) SLUICE_TRY(load(page));
  return read_all(page, [this](const Impression& one) { front_page_.push_back(one); });
}

Result<Impression> ImpressionPages::front() {
  SLUICE_CHECK(!empty());
  SLUICE_TRY(open_front());
  return front_page_[front_ - pages_.front()->first];
}

std::span<const Impression> ImpressionPages::after_front(std::size_t count) const {
  if (front_page_.empty()) return {};
  const auto rest = std::span(front_page_).subspan(front_ + 1 - pages_.front()->first);
  return rest.first(std::min(count, rest.size()));
}

ImpressionPages::Page& ImpressionPages::page_of(ImpressionNumber number) {
  SLUICE_CHECK(front_ <= number && number < next_);
  auto page = std::upper_bound(
      pages_.begin(), pages_.end(), number,
      [](ImpressionNumber n, const std::unique_ptr<Page>& p) { return n < p->first; });
  return **--page;
}

Result<Impression> ImpressionPages::at(ImpressionNumber number) {
  Page& page = page_of(number);
  if (page.bytes.empty()) {
    drop_surplus();
    SLUICE_TRY(load(page));
  }
  if (page.offsets.empty()) {
    std::uint32_t offset = 0;
    SLUICE_TRY(read_all(page, [&](const Impression& one) {
      page.offsets.push_back(offset);
      // The texts end with the features, and so does the impression.
      offset =
          static_cast<std::uint32_t>(one.features.data() + one.features.size() - page.bytes.data());
    }));
  }
  ByteReader reader(std::string_view(page.bytes).substr(page.offsets[number - page.first]));
  return decode_impression(reader);
}

void ImpressionPages::mark(ImpressionNumber number) {
  Page& page = page_of(number);
  const std::size_t slot = number - page.first;
  if (page.marks.size() <= slot) page.marks.resize(slot + 1);
  page.marks[slot] = true;
}

bool ImpressionPages::is_front_marked() const {
  const Page& page = *pages_.front();
  const std::size_t slot = front_ - page.first;
  return slot < page.marks.size() && page.marks[slot];
}

Error ImpressionPages::damaged(const Page& page) const {
  return stop_error("the join state is damaged: page " + std::to_string(page.first) + " of shard " +
                    std::to_string(shard_) + "; replay into a new data folder");
}

Status ImpressionPages::load(Page& page) {
  SLUICE_ASSIGN(auto value, store_.get(Space::state, key(page.first)));
  if (!value) return damaged(page);
  std::string& bytes = page.bytes;
  bytes = *std::move(value);
  ByteReader reader(bytes);
  const std::uint8_t format = reader.u8();
  const std::uint64_t count = reader.varint();
  const std::uint64_t checksum = reader.u64();
  const std::string_view body = std::string_view(bytes).substr(bytes.size() - reader.remaining());
  // An impression has some bytes: what is left of a count is in 32 bits.
  if (format != kPageFormat || checksum != hash64(body) || count == 0 || count > body.size()) {
    bytes.clear();
    return damaged(page);
  }
  page.count = static_cast<std::uint32_t>(count);
  bytes.erase(0, bytes.size() - body.size());
  loaded_bytes_ += bytes.size();
  droppable_.push_back(page.first);
  return {};
}

// Calls visit(impression) for each of a page that is in memory.
template <class Visit>
Status ImpressionPages::read_all(const Page& page, const Visit& visit) const {
  ByteReader reader(page.bytes);
  for (std::uint32_t left = page.count; left > 0; --left) {
    const Impression impression = decode_impression(reader);
    if (!reader.ok() || !is_possible_time(impression.time)) return damaged(page);
    visit(impression);
  }
  return reader.at_end() ? Status() : damaged(page);
}

// Keeps those that were written or asked for last, and the front one; only what the store holds is
// dropped.
void ImpressionPages::drop_surplus() {
  while (loaded_bytes_ > kLoadedBytes && !droppable_.empty()) {
    const ImpressionNumber first = droppable_.front();
    droppable_.pop_front();
    if (first <= pages_.front()->first) continue;
    Page& page = page_of(first);
    loaded_bytes_ -= page.bytes.size();
    std::string().swap(page.bytes);  // assigned, an empty one would leave it its memory
    page.offsets = std::vector<std::uint32_t>();
  }
}

void ImpressionPages::persist(WriteBatch& batch) {
  for (const ImpressionNumber first : expired_) batch.remove(Space::state, key(first));
  expired_.clear();
  auto first_new = pages_.end();
  while (first_new != pages_.begin() && !(*std::prev(first_new))->is_stored) --first_new;
  for (auto at = first_new; at != pages_.end(); ++at) {
    Page& page = **at;
    std::string value;
    value.reserve(kMostPageHeader + page.bytes.size());
    ByteWriter bytes(value);
    bytes.u8(kPageFormat);
    bytes.varint(page.count);
    bytes.u64(hash64(page.bytes));
    value += page.bytes;
    batch.put(Space::state, key(page.first), std::move(value));
    page.is_stored = true;
    droppable_.push_back(page.first);
    give_room_back(page);
  }
  if (!pages_.empty() && first_new == pages_.begin()) front_page_.clear();  // its texts have moved
  last_is_open_ = false;
  drop_surplus();
}

// Its bytes move to memory of just their size.
void ImpressionPages::give_room_back(Page& page) {
  std::string room = std::exchange(page.bytes, std::string(page.bytes));
  room.clear();
  // One long impression makes its page's room larger than others need.
  const bool is_usual = room.capacity() <= 2 * kPageBytes;
  if (is_usual && spare_.size() < kSpareRooms) spare_.push_back(std::move(room));
}

Status ImpressionPages::restore(
    ImpressionNumber front, ImpressionNumber next,
    const std::function<void(ImpressionNumber, const Impression&)>& visit) {
  front_ = front;
  next_ = next;
  std::vector<ImpressionNumber> firsts;
  SLUICE_TRY(store_.scan(Space::state, key(0), key(~ImpressionNumber{0}),
                         [&](std::string_view page_key, std::string_view) {
                           ByteReader reader(page_key.substr(5));
                           firsts.push_back(reader.key_u64());
                           return true;
                         }));
  ImpressionNumber expected = firsts.empty() ? next : firsts.front();
  bool is_whole = expected <= front && front <= next;
  for (const ImpressionNumber first : firsts) {
    is_whole &= first == expected && first < next;
    if (!is_whole) break;
    Page& page = *pages_.emplace_back(std::make_unique<Page>());
    page.first = first;
    page.is_stored = true;
    SLUICE_TRY(load(page));
    expected = first + page.count;
    is_whole &= front < expected;  // else it would have been removed
    if (!is_whole) break;
    ImpressionNumber number = first;
    SLUICE_TRY(read_all(page, [&](const Impression& one) {
      if (number == first) page.first_time = one.time;
      if (number >= front) visit(number, one);
      ++number;
    }));
    drop_surplus();
  }
  if (!is_whole || expected != next) {
    return stop_error("the join state is damaged: shard " + std::to_string(shard_) +
                      " lacks pages; replay into a new data folder");
  }
  return update_front_time();
}

}  // namespace sluice
