#include "joiner/user_item_index.h"

#include "base/check.h"

namespace sluice {

// Those in their click window are at most 2^32 − 1 younger than the oldest.
ImpressionNumber UserItemIndex::whole(std::uint32_t bits) const {
  return front_ + (bits - static_cast<std::uint32_t>(front_));
}

std::optional<ImpressionNumber> UserItemIndex::latest(std::uint64_t fingerprint) const {
  std::optional<ImpressionNumber> result;
  latest_.find(fingerprint, [&](std::uint32_t bits) { result = whole(bits); });
  return result;
}

std::optional<ImpressionNumber> UserItemIndex::before(ImpressionNumber number) const {
  const std::uint32_t back = steps_back_[number - front_];
  if (back == 0 || number - front_ < back) return {};
  return number - back;
}

void UserItemIndex::add(std::uint64_t fingerprint, ImpressionNumber number) {
  if (steps_back_.empty()) front_ = number;
  SLUICE_CHECK(number == front_ + steps_back_.size());
  const auto before = latest(fingerprint);
  if (before) latest_.remove(fingerprint, *before);
  latest_.add(fingerprint, number);
  steps_back_.push_back(before ? static_cast<std::uint32_t>(number - *before) : 0);
}

void UserItemIndex::leave_window(std::uint64_t fingerprint, ImpressionNumber number) {
  SLUICE_CHECK(!steps_back_.empty() && number == front_);
  if (latest(fingerprint) == number) latest_.remove(fingerprint, number);
  steps_back_.pop_front();
  ++front_;
}

void UserItemIndex::Clicked::add(std::uint64_t fingerprint, ImpressionNumber number) {
  entries_.emplace(fingerprint, number);
}

void UserItemIndex::Clicked::remove(std::uint64_t fingerprint, ImpressionNumber number) {
  entries_.erase({fingerprint, number});
}

std::optional<ImpressionNumber> UserItemIndex::Clicked::before(std::uint64_t fingerprint,
                                                               ImpressionNumber number) const {
  auto entry = entries_.lower_bound({fingerprint, number});
  if (entry == entries_.begin() || (--entry)->first != fingerprint) return {};
  return entry->second;
}

}  // namespace sluice
