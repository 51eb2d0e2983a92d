#include "joiner/attribution.h"

namespace sluice {
namespace {

Attribution use(std::size_t index) {
  return {Attribution::Verdict::use, index, Refusal::no_open_impression};
}

Attribution refuse(Refusal reason) {
  return {Attribution::Verdict::refuse, 0, reason};
}

// Whether a click inside the click window of this clicked one becomes its attributed click.
bool takes_further_click(const JoinConfig& join, const Candidate& clicked, TimeMs time) {
  if (join.attributed_click != JoinConfig::AttributedClick::last) return false;
  return !clicked.purchase_time && *clicked.click_time <= time &&
         time < *clicked.click_time + join.conversion_window;
}

}  // namespace

Attribution attribute_click(const JoinConfig& join, std::span<const Candidate> candidates,
                            TimeMs time) {
  if (candidates.empty()) return {};
  bool any_clicked = false;
  for (std::size_t index = candidates.size(); index-- > 0;) {
    const Candidate& candidate = candidates[index];
    any_clicked |= candidate.click_time.has_value();
    const bool is_open = candidate.impression_time - join.clock_skew <= time &&
                         time < candidate.impression_time + join.click_window;
    if (!is_open) continue;
    const bool is_repeat = candidate.click_time && !takes_further_click(join, candidate, time);
    return is_repeat ? refuse(Refusal::repeat) : use(index);
  }
  return refuse(any_clicked ? Refusal::repeat : Refusal::no_click);
}

Attribution attribute_purchase(const JoinConfig& join, std::span<const Candidate> candidates,
                               TimeMs time) {
  if (candidates.empty()) return {};
  std::optional<std::size_t> unpurchased;  // the latest ones
  std::optional<std::size_t> purchased;
  bool any_purchased = false;
  for (std::size_t index = 0; index < candidates.size(); ++index) {
    const Candidate& candidate = candidates[index];
    any_purchased |= candidate.purchase_time.has_value();
    if (!candidate.click_time) continue;
    const bool in_window =
        *candidate.click_time <= time && time < *candidate.click_time + join.conversion_window;
    if (!in_window) continue;
    std::optional<std::size_t>& latest = candidate.purchase_time ? purchased : unpurchased;
    if (!latest || *candidate.click_time >= *candidates[*latest].click_time) latest = index;
  }
  if (unpurchased) return use(*unpurchased);
  if (purchased && join.sums_values()) return use(*purchased);
  return refuse(any_purchased ? Refusal::repeat : Refusal::no_click);
}

}  // namespace sluice
