// The open click windows of one shard: impressions in the total order, which is also the order in
// which their windows close, since all windows are equally long. So this is a queue. It is kept in
// pages, each one value of the store, written once when it is sealed and removed when all of it has
// expired: no key an impression, no read on the way of an unclicked one.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/time.h"
#include "ingest/event.h"
#include "joiner/fingerprint_index.h"
#include "store/key_value.h"

namespace sluice {

// What the join keeps of an impression.
struct Impression {
  TimeMs time = 0;
  std::string_view event_id;
  std::string_view impression_id;
  std::string_view user_id;
  std::string_view item_id;
  std::string_view features;
};

void encode_impression(const Impression& impression, std::string& out);
// Reads one from the front; the texts are views into `in`'s bytes.
Impression decode_impression(ByteReader& in);

// Owned by the joining thread.
class ImpressionPages {
 public:
  ImpressionPages(std::uint32_t shard, KeyValueStore& store);

  // The number of the next impression; numbers count from the shard's first impression on.
  ImpressionNumber next_number() const { return next_; }
  // The oldest that has not been popped; next_number() when empty.
  ImpressionNumber front_number() const { return front_; }
  bool empty() const { return front_ == next_; }

  ImpressionNumber push(const Impression& impression);
  // Time of the front one. Not empty.
  TimeMs front_time() const { return front_time_; }
  // The front one, not empty; its texts are valid until release_popped() or
  // persist(), also after pop().
  Result<Impression> front();
  // Some that come after it, at most `count`, in their order: what will be the front one soon.
  // Fewer where they are not in memory. Valid until the next call of a non-const member.
  std::span<const Impression> after_front(std::size_t count) const;
  // Drops the front one.
  Status pop();
  // Gives back the memory of pages that were popped.
  void release_popped() { popped_.clear(); }

  // A mark for each impression, which lasts as long as it is in the queue and memory.
  void mark(ImpressionNumber number);
  bool is_front_marked() const;
  // An impression in [front_number(), next_number()); valid until the next call of a non-const
  // member but front(), pop() and mark().
  Result<Impression> at(ImpressionNumber number);

  // Puts into the batch what changed since the last call: sealed pages, and removals of expired
  // ones. The batch must be committed next.
  void persist(WriteBatch& batch);
  // Reads back what was committed with these two numbers; calls visit(number, impression) for each
  // impression that is still in the queue.
  Status restore(ImpressionNumber front, ImpressionNumber next,
                 const std::function<void(ImpressionNumber, const Impression&)>& visit);

 private:
  struct Page {
    ImpressionNumber first = 0;
    std::uint32_t count = 0;
    TimeMs first_time = 0;
    bool is_stored = false;  // its key is in the store
    std::string bytes;       // empty when dropped: then it is read from the store
    // Of each impression in bytes; empty where it is not known.
    std::vector<std::uint32_t> offsets;
    std::vector<bool> marks;  // of the first ones; none further
  };

  std::string key(ImpressionNumber first) const;
  void start_page(TimeMs time);
  // The page that holds the impression, in memory or not.
  Page& page_of(ImpressionNumber number);
  Status open_front();
  Status load(Page& page);
  template <class Visit>
  Status read_all(const Page& page, const Visit& visit) const;
  Error damaged(const Page& page) const;
  void drop_surplus();
  void give_room_back(Page& page);
  Status update_front_time();

  std::uint32_t shard_;
  KeyValueStore& store_;
  std::deque<std::unique_ptr<Page>> pages_;  // ascending; the last one may be open for appending
  std::vector<std::unique_ptr<Page>> popped_;
  // The front page's impressions, read in one go where one of them was popped or asked for; else
  // empty.
  std::vector<Impression> front_page_;
  bool last_is_open_ = false;
  ImpressionNumber front_ = 0;
  ImpressionNumber next_ = 0;
  TimeMs front_time_ = 0;
  std::vector<ImpressionNumber> expired_;  // first numbers of stored pages to remove
  std::size_t loaded_bytes_ = 0;
  // First numbers of the pages that are stored and in memory, in the order in which they came to be
  // so; some may have been popped since.
  std::deque<ImpressionNumber> droppable_;
  std::vector<std::string> spare_;  // empty, with room for a page
};

}  // namespace sluice
