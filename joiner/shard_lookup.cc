// Which open impressions a record may be about, and the indexes that know.
#include <algorithm>

#include "joiner/shard.h"

namespace sluice {

Result<Impression> Shard::impression(ImpressionNumber number) {
  if (number >= pages_.front_number()) return pages_.at(number);
  return clicked_.at(number).impression();
}

Result<bool> Shard::is_open(std::string_view impression_id, std::uint64_t id_print) {
  found_.clear();
  by_id_.find(id_print, pages_.front_number(), found_);
  for (const ImpressionNumber number : found_) {
    SLUICE_ASSIGN(const Impression open, impression(number));
    if (open.impression_id == impression_id) return true;
  }
  return false;
}

Status Shard::find_candidates(const Event& event) {
  candidate_numbers_.clear();
  candidates_.clear();
  if (by_user_item()) {
    SLUICE_TRY(find_by_user_item(event));
  } else {
    SLUICE_TRY(find_by_id(event));
  }
  for (const ImpressionNumber number : candidate_numbers_) {
    SLUICE_ASSIGN(const Impression open, impression(number));
    Candidate& candidate = candidates_.emplace_back();
    candidate.impression_time = open.time;
    if (const auto clicked = clicked_.find(number); clicked != clicked_.end()) {
      candidate.click_time = clicked->second.click_time;
      candidate.purchase_time = clicked->second.purchase_time;
      candidate.action_time = clicked->second.action_time;
    }
  }
  return {};
}

Status Shard::find_by_id(const Event& event) {
  found_.clear();
  by_id_.find(fingerprint(event.impression_id()), pages_.front_number(), found_);
  for (const ImpressionNumber number : found_) {
    SLUICE_ASSIGN(const Impression open, impression(number));
    if (open.impression_id == event.impression_id()) candidate_numbers_.push_back(number);
  }
  return {};
}

// As later impressions have later windows, and take the clicks while their windows are open, few of
// a user's and item's can decide. For a click: the latest in its click window; else any, which says
// that there is a clicked one. For a purchase: the latest clicked one without a purchase, as
// others' clicks are older; the latest with one, which makes it a repeat; else any. For an action
// likewise.
Status Shard::find_by_user_item(const Event& event) {
  const std::uint64_t print = user_item_print(event.user_id(), event.item_id());
  const auto add_latest_clicked = [&](const UserItemIndex::Clicked& clicked) -> Status {
    const auto next = [&](ImpressionNumber number) { return clicked.before(print, number); };
    SLUICE_ASSIGN(const auto number, first_of_user_item(event, next(pages_.next_number()), next));
    if (number) candidate_numbers_.push_back(*number);
    return {};
  };
  const auto add_latest_in_window = [&]() -> Status {
    const auto next = [&](ImpressionNumber number) { return by_user_item_.before(number); };
    SLUICE_ASSIGN(const auto number, first_of_user_item(event, by_user_item_.latest(print), next));
    if (number) candidate_numbers_.push_back(*number);
    return {};
  };
  if (event.stream() == Stream::clicks) {
    SLUICE_TRY(add_latest_in_window());
    if (!candidate_numbers_.empty()) return {};
  }
  const bool is_action = event.stream() == Stream::actions;
  SLUICE_TRY(add_latest_clicked(is_action ? by_user_item_.not_acted : by_user_item_.not_purchased));
  SLUICE_TRY(add_latest_clicked(is_action ? by_user_item_.acted : by_user_item_.purchased));
  std::sort(candidate_numbers_.begin(), candidate_numbers_.end());
  return candidate_numbers_.empty() ? add_latest_in_window() : Status();
}

template <class Next>
Result<std::optional<ImpressionNumber>> Shard::first_of_user_item(
    const Event& event, std::optional<ImpressionNumber> number, const Next& next) {
  for (; number; number = next(*number)) {
    SLUICE_ASSIGN(const Impression open, impression(*number));
    if (open.user_id == event.user_id() && open.item_id == event.item_id()) break;
  }
  return number;
}

void Shard::index(std::uint64_t id_print, ImpressionNumber number, const Impression& open) {
  by_id_.add(id_print, number, pages_.front_number());
  if (by_user_item() && number >= pages_.front_number()) {
    by_user_item_.add(user_item_print(open.user_id, open.item_id), number);
  }
}

void Shard::index_clicked(ImpressionNumber number, const Impression& open, const Clicked& clicked) {
  if (!by_user_item()) return;
  const std::uint64_t print = user_item_print(open.user_id, open.item_id);
  (clicked.purchase_time ? by_user_item_.purchased : by_user_item_.not_purchased)
      .add(print, number);
  if (!has_actions_) return;
  (clicked.action_time ? by_user_item_.acted : by_user_item_.not_acted).add(print, number);
}

void Shard::leave_window(const Impression& front, bool stays_open) {
  const ImpressionNumber number = pages_.front_number();
  const std::uint64_t id_print = fingerprint(front.impression_id);
  if (stays_open) {
    by_id_.leave_window(id_print, number);
  } else {
    by_id_.remove(id_print, number, number);
  }
  if (by_user_item()) {
    by_user_item_.leave_window(user_item_print(front.user_id, front.item_id), number);
  }
}

void Shard::forget_clicked(ImpressionNumber number, const Impression& closed) {
  if (!by_user_item()) return;
  const std::uint64_t print = user_item_print(closed.user_id, closed.item_id);
  by_user_item_.not_purchased.remove(print, number);
  by_user_item_.purchased.remove(print, number);
  if (!has_actions_) return;
  by_user_item_.not_acted.remove(print, number);
  by_user_item_.acted.remove(print, number);
}

void Shard::retire(ClickedMap::iterator clicked) {
  retired_.push_back(clicked_.extract(clicked));
}

}  // namespace sluice
