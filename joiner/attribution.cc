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

// To the latest click in whose window it lies and that has none so far; where there is none and
// `takes_further`, to the latest that has one.
Attribution attribute_follower(std::span<const Candidate> candidates, TimeMs time,
                               DurationMs window, std::optional<TimeMs> Candidate::*so_far,
                               bool takes_further) {
  if (candidates.empty()) return {};
  std::optional<std::size_t> free;  // the latest ones
  std::optional<std::size_t> taken;
  bool any_taken = false;
  for (std::size_t index = 0; index < candidates.size(); ++index) {
    const Candidate& candidate = candidates[index];
    const bool is_taken = (candidate.*so_far).has_value();
    any_taken |= is_taken;
    if (!candidate.click_time) continue;
    if (time < *candidate.click_time || time >= *candidate.click_time + window) continue;
    std::optional<std::size_t>& latest = is_taken ? taken : free;
    if (!latest || *candidate.click_time >= *candidates[*latest].click_time) latest = index;
  }
  if (free) return use(*free);
  if (taken && takes_further) return use(*taken);
  return refuse(any_taken ? Refusal::repeat : Refusal::no_click);
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
  return attribute_follower(candidates, time, join.conversion_window, &Candidate::purchase_time,
                            join.sums_values());
}

Attribution attribute_action(const JoinConfig& join, std::span<const Candidate> candidates,
                             TimeMs time) {
  return attribute_follower(candidates, time, join.action_window, &Candidate::action_time, false);
}

}  // namespace sluice
