// From a 64-bit fingerprint to the numbers of the open impressions that have it: a hint that is
// confirmed by the full id. But for UserItemIndex, with attribution by user and item, it is the one
// thing that is in memory of every open impression, so an entry is as small as it can be: 8 bytes
// while the impression's click window is open, when its number is less than 2^32 away from the
// oldest such one. Those that stay open longer, because they were clicked, are few and may be much
// older; theirs are 16 bytes.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/hash.h"

namespace sluice {

// An impression's number in its shard: 0, 1, 2, ... in the total order, never used again.
using ImpressionNumber = std::uint64_t;

inline std::uint64_t fingerprint(std::string_view id) {
  return hash64(id);
}

// Open addressing with linear probing, at most four fifths full. Of a fingerprint and of a number
// it keeps as many bits as `Bits` has: the fingerprint's highest and the number's lowest. It is cut
// into parts that grow each by itself and by a quarter, so that little room is free and no growth
// takes long.
template <std::unsigned_integral Bits>
class FingerprintTable {
 public:
  void add(std::uint64_t fingerprint, ImpressionNumber number) {
    const Place place(tag_of(fingerprint));
    Part& part = parts_[place.part()];
    if ((part.size + 1) * 5 > part.slots.size() * 4) part.grow();
    part.insert({place.tag, static_cast<Bits>(number)});
    ++part.size;
    ++size_;
  }

  // The entry must be there.
  void remove(std::uint64_t fingerprint, ImpressionNumber number) {
    const Place place(tag_of(fingerprint));
    Part& part = parts_[place.part()];
    SLUICE_CHECK(part.size > 0);
    const Slot wanted = {place.tag, static_cast<Bits>(number)};
    std::size_t at = part.home(place);
    while (part.slots[at].number != wanted.number || part.slots[at].tag != wanted.tag) {
      SLUICE_CHECK(part.slots[at].tag != kEmpty);
      at = part.after(at);
    }
    part.close_gap(at);
    --part.size;
    --size_;
  }

  // Calls found(number's bits) for each entry of the fingerprint, in no order.
  template <class Found>
  void find(std::uint64_t fingerprint, const Found& found) const {
    const Place place(tag_of(fingerprint));
    const Part& part = parts_[place.part()];
    if (part.size == 0) return;
    for (std::size_t at = part.home(place); part.slots[at].tag != kEmpty; at = part.after(at)) {
      if (part.slots[at].tag == place.tag) found(part.slots[at].number);
    }
  }

  // Always inlined: GCC takes a function that does nothing else for one without effect, and drops
  // the call.
  [[gnu::always_inline]] void prefetch(std::uint64_t fingerprint) const {
    const Place place(tag_of(fingerprint));
    const Part& part = parts_[place.part()];
    if (!part.slots.empty()) __builtin_prefetch(&part.slots[part.home(place)], 1);
  }

  std::size_t size() const { return size_; }

 private:
  static constexpr std::size_t kParts = 64;
  static constexpr std::size_t kFewestSlots = 8;
  static constexpr Bits kEmpty = 0;
  struct Slot {
    Bits tag = kEmpty;
    Bits number = 0;
  };

  static Bits tag_of(std::uint64_t fingerprint) {
    return std::max<Bits>(static_cast<Bits>(fingerprint >> (64 - 8 * sizeof(Bits))), 1);
  }

  // Where a fingerprint belongs: the hash's low half says the slot, the six bits above it the part.
  struct Place {
    explicit Place(Bits its_tag) : tag(its_tag), hash(mix64(its_tag)) {}
    std::size_t part() const { return hash >> 32 & (kParts - 1); }

    Bits tag;
    std::uint64_t hash;
  };

  struct Part {
    std::vector<Slot> slots;
    std::size_t size = 0;

    std::size_t home(const Place& place) const {
      return (place.hash & 0xFFFF'FFFF) * slots.size() >> 32;
    }
    std::size_t after(std::size_t at) const { return at + 1 == slots.size() ? 0 : at + 1; }
    std::size_t distance(std::size_t from, std::size_t to) const {
      return to >= from ? to - from : to + slots.size() - from;
    }

    void insert(const Slot& slot) {
      std::size_t at = home(Place(slot.tag));
      while (slots[at].tag != kEmpty) at = after(at);
      slots[at] = slot;
    }

    // Moves later entries of the run back, so that no probe ends at the gap too early.
    void close_gap(std::size_t gap) {
      for (std::size_t at = after(gap); slots[at].tag != kEmpty; at = after(at)) {
        if (distance(home(Place(slots[at].tag)), at) < distance(gap, at)) continue;
        slots[gap] = slots[at];
        gap = at;
      }
      slots[gap] = Slot{};
    }

    void grow() {
      std::vector<Slot> old(std::max(kFewestSlots, slots.size() + slots.size() / 4));
      old.swap(slots);
      for (const Slot& slot : old) {
        if (slot.tag != kEmpty) insert(slot);
      }
    }
  };

  std::array<Part, kParts> parts_;
  std::size_t size_ = 0;
};

class FingerprintIndex {
 public:
  // Of impressions in their click window the numbers must differ by less than this.
  static constexpr std::uint64_t kMostInWindow = std::uint64_t{1} << 32;

  // `front`, here and below: the number of the oldest impression whose click window is open. What
  // is not older than it is in its click window.
  void add(std::uint64_t fingerprint, ImpressionNumber number, ImpressionNumber front) {
    if (number >= front) {
      in_window_.add(fingerprint, number);
    } else {
      after_window_.add(fingerprint, number);
    }
  }

  // The entry must be there.
  void remove(std::uint64_t fingerprint, ImpressionNumber number, ImpressionNumber front) {
    if (number >= front) {
      in_window_.remove(fingerprint, number);
    } else {
      after_window_.remove(fingerprint, number);
    }
  }

  // The click window of the front one closes and it stays open: before it stops being the front
  // one.
  void leave_window(std::uint64_t fingerprint, ImpressionNumber front) {
    in_window_.remove(fingerprint, front);
    after_window_.add(fingerprint, front);
  }

  // Appends the numbers under the fingerprint, in no order.
  void find(std::uint64_t fingerprint, ImpressionNumber front,
            std::vector<ImpressionNumber>& numbers) const {
    in_window_.find(fingerprint, [&](std::uint32_t bits) {
      numbers.push_back(front + (bits - static_cast<std::uint32_t>(front)));
    });
    after_window_.find(fingerprint, [&](std::uint64_t number) { numbers.push_back(number); });
  }

  // Asks for the memory that find(), add() and remove() of this fingerprint will look at first: it
  // is far from the CPU where many are open.
  [[gnu::always_inline]] void prefetch(std::uint64_t fingerprint) const {
    in_window_.prefetch(fingerprint);
    after_window_.prefetch(fingerprint);
  }

  std::size_t size() const { return in_window_.size() + after_window_.size(); }

 private:
  FingerprintTable<std::uint32_t> in_window_;
  FingerprintTable<std::uint64_t> after_window_;
};

}  // namespace sluice
