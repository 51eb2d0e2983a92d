// The open impressions of a user and item: what a click, action or purchase of the two asks for. A
// click asks for the latest one whose click window is open, the others for the latest clicked one;
// so none takes longer where a user and an item have very many. Found by a 64-bit fingerprint of
// the two, and to be confirmed by the full ids.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <utility>

#include "joiner/fingerprint_index.h"

namespace sluice {

class UserItemIndex {
 public:
  // The next impression; its click window is open. Numbers follow each other.
  void add(std::uint64_t fingerprint, ImpressionNumber number);
  // The click window of the oldest one closes.
  void leave_window(std::uint64_t fingerprint, ImpressionNumber number);

  // The latest one whose click window is open; and the next older one than that.
  std::optional<ImpressionNumber> latest(std::uint64_t fingerprint) const;
  std::optional<ImpressionNumber> before(ImpressionNumber number) const;

  // Clicked impressions, those without and those with a purchase, as long as they are open.
  class Clicked {
   public:
    void add(std::uint64_t fingerprint, ImpressionNumber number);
    void remove(std::uint64_t fingerprint, ImpressionNumber number);  // if it is there
    // The latest one that is older than `number`.
    std::optional<ImpressionNumber> before(std::uint64_t fingerprint,
                                           ImpressionNumber number) const;

   private:
    std::set<std::pair<std::uint64_t, ImpressionNumber>> entries_;
  };
  Clicked not_purchased;
  Clicked purchased;
  // The same of actions; empty where there are none (streams.actions).
  Clicked not_acted;
  Clicked acted;

 private:
  ImpressionNumber whole(std::uint32_t bits) const;

  FingerprintTable<std::uint32_t> latest_;  // one entry a fingerprint
  // Of each impression whose click window is open: how much older the one before it is that has the
  // same fingerprint; 0 where there was none.
  std::deque<std::uint32_t> steps_back_;
  ImpressionNumber front_ = 0;  // of steps_back_
};

}  // namespace sluice
