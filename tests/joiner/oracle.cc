#include "oracle.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <tuple>
#include <utility>

namespace sluice {
namespace {

std::size_t index_of(Stream stream) {
  return static_cast<std::size_t>(stream);
}

struct Fact {
  Stream stream = Stream::impressions;
  OracleRecord record;
};

// An impression's id in the order of events is its event_id, or its impression_id without one.
std::string order_id(const Fact& fact) {
  if (fact.stream == Stream::impressions && fact.record.event_id.empty()) {
    return fact.record.impression_id;
  }
  return fact.record.event_id;
}

int rank(Stream stream) {
  const std::array<Stream, 4> order = {Stream::impressions, Stream::clicks, Stream::actions,
                                       Stream::purchases};
  return static_cast<int>(std::find(order.begin(), order.end(), stream) - order.begin());
}

bool comes_first(const Fact& a, const Fact& b) {
  const auto order = [](const Fact& fact) {
    const std::string id = order_id(fact);
    return std::tuple(fact.record.time, rank(fact.stream), id.empty(), id, fact.record.position);
  };
  return order(a) < order(b);
}

// An accepted impression and what has become of it.
struct Labelled {
  OracleRecord record;
  std::string id;
  std::optional<TimeMs> click;
  std::optional<TimeMs> purchase;
  std::optional<TimeMs> action;
  std::vector<std::int64_t> values;  // of its purchases, in the order in which they came
  bool click_window_is_closed = false;
  bool conversion_window_is_closed = false;
  bool action_window_is_closed = false;  // of the click that counts
  bool z_is_told = false;
  bool action_is_told = false;
};

// Of one time, timers fire in this order.
enum TimerKind {
  conversion_close,
  action_close,
  click_close,
  waiting_click,
  waiting_action,
  waiting_purchase
};
struct Timer {
  // (time, kind, has no id, id, order of the impression or position of the waiting record)
  std::tuple<TimeMs, int, bool, std::string, std::uint64_t> order;
  std::size_t index = 0;  // of the impression or of the waiting record
  TimeMs time() const { return std::get<0>(order); }
  int kind() const { return std::get<1>(order); }
};

// One after another; at the ends of 64 bits it stays there.
std::int64_t sum(const std::vector<std::int64_t>& values) {
  std::int64_t sum = 0;
  for (const std::int64_t value : values) {
    if (value > 0 && sum > INT64_MAX - value) {
      sum = INT64_MAX;
    } else if (value < 0 && sum < INT64_MIN - value) {
      sum = INT64_MIN;
    } else {
      sum += value;
    }
  }
  return sum;
}

class ShardOracle {
 public:
  ShardOracle(std::uint32_t shard, const JoinConfig& join, bool has_actions, OracleResult& result)
      : shard_(shard), join_(join), has_actions_(has_actions), result_(result) {}

  void run(std::vector<Fact> facts) {
    std::sort(facts.begin(), facts.end(), comes_first);
    for (const Fact& fact : facts) {
      fire_up_to(fact.record.time);
      apply(fact);
    }
    fire_up_to(kTimeMax);
  }

 private:
  bool is_open(const Labelled& one) const {
    if (!one.click_window_is_closed) return true;
    if (!one.click) return false;
    return !one.conversion_window_is_closed || (has_actions_ && !one.action_window_is_closed);
  }

  // Looks at everything that is open or waiting.
  std::optional<Timer> earliest_timer() const {
    std::optional<Timer> earliest;
    const auto offer = [&](TimeMs time, TimerKind kind, const std::string& id, std::uint64_t tie,
                           std::size_t index) {
      if (earliest && earliest->time() < time) return;
      Timer timer{{time, kind, id.empty(), id, tie}, index};
      if (!earliest || timer.order < earliest->order) earliest = timer;
    };
    for (std::size_t index = 0; index < impressions_.size(); ++index) {
      const Labelled& one = impressions_[index];
      if (one.click && !one.conversion_window_is_closed) {
        offer(*one.click + join_.conversion_window, conversion_close, one.id, index, index);
      }
      if (has_actions_ && one.click && !one.action_window_is_closed) {
        offer(*one.click + join_.action_window, action_close, one.id, index, index);
      }
      if (!one.click_window_is_closed) {
        offer(one.record.time + join_.click_window, click_close, one.id, index, index);
      }
    }
    for (std::size_t index = 0; index < waiting_.size(); ++index) {
      const Fact& fact = waiting_[index];
      const TimerKind kind = fact.stream == Stream::clicks    ? waiting_click
                             : fact.stream == Stream::actions ? waiting_action
                                                              : waiting_purchase;
      offer(fact.record.time + join_.clock_skew + 1, kind, fact.record.event_id,
            fact.record.position, index);
    }
    return earliest;
  }

  void fire_up_to(TimeMs last) {
    while (const auto timer = earliest_timer()) {
      if (timer->time() > last) return;
      if (timer->kind() == click_close) {
        close_click_window(impressions_[timer->index], timer->time());
      } else if (timer->kind() == conversion_close) {
        close_conversion_window(impressions_[timer->index], timer->time());
      } else if (timer->kind() == action_close) {
        close_action_window(impressions_[timer->index], timer->time());
      } else {
        refuse(waiting_[timer->index], Refusal::no_open_impression);
        waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(timer->index));
      }
    }
  }

  void close_click_window(Labelled& one, TimeMs time) {
    one.click_window_is_closed = true;
    const bool at_purchase = join_.purchase_label == JoinConfig::PurchaseLabel::at_purchase;
    const bool z_is_final =
        !one.click || one.conversion_window_is_closed || (at_purchase && one.purchase);
    const bool at_action = join_.action_label == JoinConfig::ActionLabel::at_action;
    const bool action_is_final =
        has_actions_ && (!one.click || one.action_window_is_closed || (at_action && one.action));
    tell(one, time, true, action_is_final, z_is_final);
  }

  void close_conversion_window(Labelled& one, TimeMs time) {
    one.conversion_window_is_closed = true;
    if (!one.click_window_is_closed || one.z_is_told) return;
    tell(one, time, false, false, true);
  }

  void close_action_window(Labelled& one, TimeMs time) {
    one.action_window_is_closed = true;
    if (!one.click_window_is_closed || one.action_is_told) return;
    tell(one, time, false, true, false);
  }

  void apply(const Fact& fact) {
    if (fact.stream == Stream::impressions) {
      for (const Labelled& other : impressions_) {
        if (is_open(other) && other.record.impression_id == fact.record.impression_id) {
          refuse(fact, Refusal::duplicate);
          return;
        }
      }
      Labelled& opened = impressions_.emplace_back();
      opened.record = fact.record;
      opened.id = order_id(fact);
      ++result_.used[index_of(Stream::impressions)];
      apply_waiting(fact);
      return;
    }
    if (follow(fact)) return;
    if (join_.clock_skew > 0) {
      waiting_.push_back(fact);
    } else {
      refuse(fact, Refusal::no_open_impression);
    }
  }

  // What waited for this impression, in the order of events, which is that in which they began to
  // wait.
  void apply_waiting(const Fact& impression) {
    const std::vector<Fact> all = std::exchange(waiting_, {});
    std::vector<Fact> mine;
    for (const Fact& fact : all) {
      (is_about(fact, impression.record) ? mine : waiting_).push_back(fact);
    }
    for (const Fact& fact : mine) follow(fact);
  }

  // False where no open impression is meant.
  bool follow(const Fact& fact) {
    if (fact.stream == Stream::clicks) return click(fact);
    return fact.stream == Stream::actions ? action(fact) : purchase(fact);
  }

  bool is_about(const Fact& fact, const OracleRecord& impression) const {
    if (join_.attribution == JoinConfig::Attribution::impression_id) {
      return fact.record.impression_id == impression.impression_id;
    }
    return fact.record.user_id == impression.user_id && fact.record.item_id == impression.item_id;
  }

  bool click(const Fact& fact) {
    Labelled* latest = nullptr;
    bool any_open = false;
    bool any_clicked = false;
    for (Labelled& one : impressions_) {
      if (!is_open(one) || !is_about(fact, one.record)) continue;
      any_open = true;
      if (one.click) any_clicked = true;
      const bool is_in_window = one.record.time - join_.clock_skew <= fact.record.time &&
                                fact.record.time < one.record.time + join_.click_window;
      if (is_in_window) latest = &one;
    }
    if (!any_open) return false;
    if (latest == nullptr) {
      refuse(fact, any_clicked ? Refusal::repeat : Refusal::no_click);
    } else if (latest->click && !takes_further_click(*latest, fact.record.time)) {
      refuse(fact, Refusal::repeat);
    } else {
      latest->click = fact.record.time;
      latest->action_window_is_closed = false;
      ++result_.used[index_of(Stream::clicks)];
    }
    return true;
  }

  // Of a clicked one whose click window is open.
  bool takes_further_click(const Labelled& one, TimeMs time) const {
    if (join_.attributed_click == JoinConfig::AttributedClick::first || one.purchase) return false;
    return *one.click <= time && time < *one.click + join_.conversion_window;
  }

  bool action(const Fact& fact) {
    Labelled* latest = nullptr;
    bool any_open = false;
    bool any_acted = false;
    for (Labelled& one : impressions_) {
      if (!is_open(one) || !is_about(fact, one.record)) continue;
      any_open = true;
      if (one.action) any_acted = true;
      if (!one.click || one.action) continue;
      const bool is_in_window =
          *one.click <= fact.record.time && fact.record.time < *one.click + join_.action_window;
      if (is_in_window && (latest == nullptr || *latest->click <= *one.click)) latest = &one;
    }
    if (!any_open) return false;
    if (latest == nullptr) {
      refuse(fact, any_acted ? Refusal::repeat : Refusal::no_click);
      return true;
    }
    latest->action = fact.record.time;
    ++result_.used[index_of(Stream::actions)];
    const bool at_action = join_.action_label == JoinConfig::ActionLabel::at_action;
    if (at_action && latest->click_window_is_closed) {
      tell(*latest, fact.record.time, false, true, false);
    }
    return true;
  }

  bool purchase(const Fact& fact) {
    Labelled* latest = nullptr;
    bool any_open = false;
    bool any_purchased = false;
    for (Labelled& one : impressions_) {
      if (!is_open(one) || !is_about(fact, one.record)) continue;
      any_open = true;
      if (one.purchase) any_purchased = true;
      if (!one.click || one.purchase) continue;
      const bool is_in_window =
          *one.click <= fact.record.time && fact.record.time < *one.click + join_.conversion_window;
      if (!is_in_window) continue;
      if (latest == nullptr || *latest->click <= *one.click) latest = &one;
    }
    if (!any_open) return false;
    if (latest == nullptr && further(fact)) return true;
    if (latest == nullptr) {
      refuse(fact, any_purchased ? Refusal::repeat : Refusal::no_click);
      return true;
    }
    latest->purchase = fact.record.time;
    take(*latest, fact);
    const bool at_purchase = join_.purchase_label == JoinConfig::PurchaseLabel::at_purchase;
    if (at_purchase && latest->click_window_is_closed) {
      tell(*latest, fact.record.time, false, false, true);
    }
    return true;
  }

  // A purchase that changes no label may still add its value to the latest click that has one.
  bool further(const Fact& fact) {
    if (join_.purchase_value != JoinConfig::PurchaseValue::sum) return false;
    Labelled* latest = nullptr;
    for (Labelled& one : impressions_) {
      if (!is_open(one) || !is_about(fact, one.record) || !one.click || !one.purchase) continue;
      const bool is_in_window =
          *one.click <= fact.record.time && fact.record.time < *one.click + join_.conversion_window;
      if (is_in_window && (latest == nullptr || *latest->click <= *one.click)) latest = &one;
    }
    if (latest == nullptr) return false;
    ++result_.further_purchases;
    take(*latest, fact);
    return true;
  }

  void take(Labelled& one, const Fact& fact) {
    ++result_.used[index_of(Stream::purchases)];
    if (join_.purchase_value != JoinConfig::PurchaseValue::sum) return;
    if (!fact.record.value) ++result_.without_value;
    one.values.push_back(fact.record.value.value_or(0));
  }

  void tell(Labelled& one, TimeMs time, bool y_final, bool action_final, bool z_final) {
    Sample sample;
    sample.z_earlier = has_actions_ && one.z_is_told;
    if (z_final) one.z_is_told = true;
    if (action_final) one.action_is_told = true;
    sample.shard = shard_;
    sample.time = time;
    sample.impression_time = one.record.time;
    sample.click_time = one.click;
    if (z_final) sample.purchase_time = one.purchase;
    if (z_final) sample.value = sum(one.values);
    sample.y = one.click.has_value();
    sample.y_final = y_final;
    sample.z = z_final && one.purchase;
    sample.z_final = z_final;
    // Once it is final the action is known, as the click is.
    if (one.action_is_told) sample.action_time = one.action;
    sample.action = one.action_is_told && one.action;
    sample.action_final = action_final;
    sample.action_later = has_actions_ && !one.action_is_told;
    if (action_final && sample.action) ++result_.acted;
    sample.impression_id = one.record.impression_id;
    sample.user_id = one.record.user_id;
    sample.item_id = one.record.item_id;
    sample.features = one.record.features;
    if (y_final) ++result_.labelled_impressions;
    if (y_final && sample.y) ++result_.clicked;
    if (z_final && sample.z) ++result_.converted;
    result_.samples.push_back(std::move(sample));
  }

  void refuse(const Fact& fact, Refusal reason) {
    ++result_.refused[index_of(fact.stream)][static_cast<std::size_t>(reason)];
    result_.refusals.push_back({{fact.stream, shard_}, fact.record.position, reason});
  }

  std::uint32_t shard_;
  const JoinConfig& join_;
  const bool has_actions_;
  OracleResult& result_;
  std::vector<Labelled> impressions_;  // in the order of events; also those that are closed
  std::vector<Fact> waiting_;
};

// Why a record is not accepted, judged by the records before it in its own log.
std::optional<Refusal> judge(const OracleRecord& record, std::optional<TimeMs> highest_accepted,
                             DurationMs max_out_of_orderness, DurationMs max_ahead) {
  if (record.unreadable) return record.unreadable;
  if (record.log_time && record.time > *record.log_time + max_ahead) return Refusal::future;
  if (highest_accepted && record.time < *highest_accepted - max_out_of_orderness) {
    return Refusal::late;
  }
  return std::nullopt;
}

}  // namespace

OracleResult expected_join(const OracleLogs& logs, std::uint32_t partitions,
                           const StreamsConfig& streams, const JoinConfig& join) {
  OracleResult result;
  std::vector<std::vector<Fact>> accepted(partitions);
  for (const auto& log : logs) {
    const StreamPartition where = log.first;
    const std::size_t stream = index_of(where.stream);
    std::optional<TimeMs> highest;
    for (const OracleRecord& record : log.second) {
      const auto reason =
          judge(record, highest, streams.max_out_of_orderness[stream], streams.max_ahead);
      const auto refuse = [&](Refusal why) {
        ++result.refused[stream][static_cast<std::size_t>(why)];
        result.refusals.push_back({where, record.position, why});
      };
      if (reason) {
        refuse(*reason);
        continue;
      }
      highest = std::max(highest.value_or(record.time), record.time);
      if (record.came_after_quiet) {
        refuse(Refusal::late_after_quiet);
        continue;
      }
      accepted[where.partition].push_back({where.stream, record});
    }
  }
  for (std::uint32_t shard = 0; shard < partitions; ++shard) {
    ShardOracle(shard, join, streams.has_actions(), result).run(std::move(accepted[shard]));
  }
  std::stable_sort(result.samples.begin(), result.samples.end(),
                   [&join](const Sample& a, const Sample& b) {
                     return std::pair(floor_to(a.time, join.tick), a.shard) <
                            std::pair(floor_to(b.time, join.tick), b.shard);
                   });
  for (std::size_t index = 0; index < result.samples.size(); ++index) {
    result.samples[index].sequence = index + 1;
  }
  std::sort(result.refusals.begin(), result.refusals.end());
  return result;
}

}  // namespace sluice
