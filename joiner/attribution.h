// Which open impression a click, an action or a purchase counts for: pure decisions over facts. A
// shell (the shard) finds the facts and carries the decision out. Other attributions plug in here.
//
// Windows are half-open: a click at t counts for an impression at t_i when
// t_i − clock_skew ≤ t < t_i + click_window; an action at t for a click at t_c when
// t_c ≤ t < t_c + action_window; a purchase when t_c ≤ t < t_c + conversion_window.
#pragma once

#include <optional>
#include <span>

#include "base/time.h"
#include "config/config.h"
#include "ingest/event.h"

namespace sluice {

// An open impression that a click, action or purchase names (by impression_id there is at most
// one), or that its user and item share.
struct Candidate {
  TimeMs impression_time = 0;
  std::optional<TimeMs> click_time;        // of its attributed click
  std::optional<TimeMs> purchase_time;     // of its attributed purchase
  std::optional<TimeMs> action_time = {};  // of its attributed action
};

struct Attribution {
  enum class Verdict {
    use,      // counts for candidates[index]
    refuse,   // for `reason`
    unknown,  // no open impression: wait for it while clock_skew allows, else no_open_impression
  };
  Verdict verdict = Verdict::unknown;
  std::size_t index = 0;
  Refusal reason = Refusal::no_open_impression;
};

// Candidates are ordered as their impressions are in the total order.
// A click goes to the latest candidate whose click window is open. If that one is clicked already,
// it is a repeat, unless the last click is wanted (join.attributed_click), its conversion window is
// open and it has no purchase: then this click takes the place of the one before. If none is open
// for clicks but one is clicked, it is a repeat too. Actions decide nothing of it: y and z are the
// same with them and without.
Attribution attribute_click(const JoinConfig& join, std::span<const Candidate> candidates,
                            TimeMs time);

// A purchase goes to the latest attributed click in whose conversion window it lies and that has no
// purchase; of equally late ones to that of the latest impression. Where there is none, and values
// are summed (join.purchase_value), it goes to the latest one in whose window it lies and that has
// a purchase, as a further one. Else it is a repeat if a candidate has a purchase, else no_click.
Attribution attribute_purchase(const JoinConfig& join, std::span<const Candidate> candidates,
                               TimeMs time);

// An action likewise, by the action window: to the latest attributed click that has no action.
// Else it is a repeat if a candidate has an action, else no_click.
Attribution attribute_action(const JoinConfig& join, std::span<const Candidate> candidates,
                             TimeMs time);

}  // namespace sluice
