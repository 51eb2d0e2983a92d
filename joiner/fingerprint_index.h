// From a 64-bit fingerprint to the numbers of the open impressions that have it: a hint that is
// confirmed by the full id. Open addressing with linear probing; 16 bytes an entry.
#pragma once

#include <cstdint>
#include <vector>

#include "base/check.h"
#include "base/hash.h"

namespace sluice {

// An impression's number in its shard: 0, 1, 2, ... in the total order, never used again.
using ImpressionNumber = std::uint64_t;

class FingerprintIndex {
 public:
  void add(std::uint64_t fingerprint, ImpressionNumber number) {
    if ((size_ + 1) * 4 > slots_.size() * 3) grow();
    insert({fingerprint, number});
    ++size_;
  }

  // The entry must be there.
  void remove(std::uint64_t fingerprint, ImpressionNumber number) {
    std::size_t at = home(fingerprint);
    while (slots_[at].number != number || slots_[at].fingerprint != fingerprint) {
      SLUICE_CHECK(slots_[at].number != kEmpty);
      at = (at + 1) & mask();
    }
    close_gap(at);
    --size_;
  }

  // Appends the numbers under the fingerprint, in no order.
  void find(std::uint64_t fingerprint, std::vector<ImpressionNumber>& numbers) const {
    if (slots_.empty()) return;
    for (std::size_t at = home(fingerprint); slots_[at].number != kEmpty; at = (at + 1) & mask()) {
      if (slots_[at].fingerprint == fingerprint) numbers.push_back(slots_[at].number);
    }
  }

  // Asks for the memory that find(), add() and remove() of this fingerprint will look at first: it
  // is far from the CPU where many are open. (Always inlined: GCC takes a function that does
  // nothing else for one without effect, and drops the call.)
  [[gnu::always_inline]] void prefetch(std::uint64_t fingerprint) const {
    if (!slots_.empty()) __builtin_prefetch(&slots_[home(fingerprint)], 1);
  }

  std::size_t size() const { return size_; }

 private:
  static constexpr ImpressionNumber kEmpty = ~ImpressionNumber{0};
  struct Slot {
    std::uint64_t fingerprint = 0;
    ImpressionNumber number = kEmpty;
  };

  std::size_t mask() const { return slots_.size() - 1; }
  std::size_t home(std::uint64_t fingerprint) const { return mix64(fingerprint) & mask(); }

  void insert(const Slot& slot) {
    std::size_t at = home(slot.fingerprint);
    while (slots_[at].number != kEmpty) at = (at + 1) & mask();
    slots_[at] = slot;
  }

  // Moves later entries of the run back, so that no probe ends at the gap too early.
  void close_gap(std::size_t gap) {
    for (std::size_t at = (gap + 1) & mask(); slots_[at].number != kEmpty; at = (at + 1) & mask()) {
      const std::size_t distance_from_home = (at - home(slots_[at].fingerprint)) & mask();
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
      if (slot.number != kEmpty) insert(slot);
    }
  }

  std::vector<Slot> slots_;
  std::size_t size_ = 0;
};

}  // namespace sluice
