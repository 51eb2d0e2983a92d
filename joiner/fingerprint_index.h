// From a 64-bit fingerprint to the numbers of the open impressions that have it: a hint that is
// confirmed by the full id. It is the one thing that is in memory of every open impression, so an
// entry is as small as it can be: 8 bytes while the impression's click window is open, when its
// number is less than 2^32 away from the oldest such one. Those that stay open longer, because they
// were clicked, are few and may be much older; theirs are 16 bytes.
#pragma once

#include <algorithm>
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

// Open addressing with linear probing, at most three quarters full. Of a fingerprint and of a
// number it keeps as many bits as `Bits` has: the fingerprint's highest and the number's lowest.
template <std::unsigned_integral Bits>
class FingerprintTable {
 public:
  void add(std::uint64_t fingerprint, ImpressionNumber number) {
    if ((size_ + 1) * 4 > slots_.size() * 3) grow();
    insert({tag(fingerprint), static_cast<Bits>(number)});
    ++size_;
  }

  // The entry must be there.
  void remove(std::uint64_t fingerprint, ImpressionNumber number) {
    SLUICE_CHECK(!slots_.empty());
    const Slot wanted = {tag(fingerprint), static_cast<Bits>(number)};
    std::size_t at = home(wanted.tag);
    while (slots_[at].number != wanted.number || slots_[at].tag != wanted.tag) {
      SLUICE_CHECK(slots_[at].tag != kEmpty);
      at = (at + 1) & mask();
    }
    close_gap(at);
    --size_;
  }

  // Calls found(number's bits) for each entry of the fingerprint, in no order.
  template <class Found>
  void find(std::uint64_t fingerprint, const Found& found) const {
    if (slots_.empty()) return;
    const Bits wanted = tag(fingerprint);
    for (std::size_t at = home(wanted); slots_[at].tag != kEmpty; at = (at + 1) & mask()) {
      if (slots_[at].tag == wanted) found(slots_[at].number);
    }
  }

  // Always inlined: GCC takes a function that does nothing else for one without effect, and drops
  // the call.
  [[gnu::always_inline]] void prefetch(std::uint64_t fingerprint) const {
    if (!slots_.empty()) __builtin_prefetch(&slots_[home(tag(fingerprint))], 1);
  }

  std::size_t size() const { return size_; }

 private:
  static constexpr Bits kEmpty = 0;
  struct Slot {
    Bits tag = kEmpty;
    Bits number = 0;
  };

  static Bits tag(std::uint64_t fingerprint) {
    return std::max<Bits>(static_cast<Bits>(fingerprint >> (64 - 8 * sizeof(Bits))), 1);
  }
  std::size_t mask() const { return slots_.size() - 1; }
  std::size_t home(Bits tag) const { return mix64(tag) & mask(); }

  void insert(const Slot& slot) {
    std::size_t at = home(slot.tag);
    while (slots_[at].tag != kEmpty) at = (at + 1) & mask();
    slots_[at] = slot;
  }

  // Moves later entries of the run back, so that no probe ends at the gap too early.
  void close_gap(std::size_t gap) {
    for (std::size_t at = (gap + 1) & mask(); slots_[at].tag != kEmpty; at = (at + 1) & mask()) {
      const std::size_t distance_from_home = (at - home(slots_[at].tag)) & mask();
      if (distance_from_home < ((at - gap) & mask())) continue;
      slots_[gap] = slots_[at];
      gap = at;
    }
    slots_[gap] = Slot{};
  }

  void grow() {
    std::vector<Slot> old(slots_.empty() ? 64 : slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.tag != kEmpty) insert(slot);
    }
  }

  std::vector<Slot> slots_;
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
