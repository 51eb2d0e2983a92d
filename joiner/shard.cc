#include "joiner/shard.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"

namespace sluice {
namespace {

// So many events, or windows that close, before their turn the index is asked for.
constexpr std::size_t kAhead = 8;

std::size_t index_of(Stream stream) {
  return static_cast<std::size_t>(stream);
}

}  // namespace

Shard::Shard(std::uint32_t number, const JoinConfig& join, bool has_actions, KeyValueStore& store)
    : number_(number),
      join_(join),
      has_actions_(has_actions),
      store_(store),
      pages_(number, store) {
  // A rule of the config: a sum is whole at the window's close.
  SLUICE_CHECK(!join.sums_values() || join.purchase_label == JoinConfig::PurchaseLabel::at_close);
}

Status Shard::process(std::span<const Event> events, TimeMs frontier, ShardOutput& out) {
  pages_.release_popped();
  retired_.clear();
  for (std::size_t index = 0; index < events.size(); ++index) {
    if (index + kAhead < events.size()) {
      by_id_.prefetch(fingerprint(events[index + kAhead].impression_id()));
    }
    const Event& event = events[index];
    SLUICE_CHECK(event.time() < frontier);
    // Timers rank before all events of the same millisecond.
    SLUICE_TRY(fire_timers(event.time(), out));
    SLUICE_TRY(apply(event, out));
  }
  return fire_timers(frontier - 1, out);
}

void Shard::Clicked::keep(std::string_view bytes) {
  text_size = static_cast<std::uint32_t>(bytes.size());
  text = std::make_unique_for_overwrite<char[]>(bytes.size());
  std::copy(bytes.begin(), bytes.end(), text.get());
}

Impression Shard::Clicked::impression() const {
  ByteReader reader(bytes());
  return decode_impression(reader);
}

TimeMs Shard::next_deadline() const {
  const auto timer = next_timer();
  return timer ? timer->deadline : kTimeMax;
}

std::string Shard::user_item_key(std::string_view user, std::string_view item) {
  std::string key;
  ByteWriter(key).text(user);
  key += item;
  return key;
}

// ---- timers

std::optional<Shard::Timer> Shard::next_timer() const {
  std::optional<Timer> next;
  const auto offer = [&](TimeMs deadline, TimerKind kind) {
    // Kinds are offered in their order, so the first of equal deadlines stays.
    if (!next || deadline < next->deadline) next = Timer{deadline, kind};
  };
  if (!conversions_.empty()) offer(conversions_.top().deadline, TimerKind::conversion_close);
  if (!actions_.empty()) offer(actions_.top().deadline, TimerKind::action_close);
  if (!pages_.empty()) offer(pages_.front_time() + join_.click_window, TimerKind::click_close);
  const TimeMs patience = join_.clock_skew + 1;
  const auto offer_waiting = [&](Stream stream, TimerKind kind) {
    const std::deque<Event>& queue = waiting_[queue_of(stream)];
    if (!queue.empty()) offer(queue.front().time() + patience, kind);
  };
  offer_waiting(Stream::clicks, TimerKind::waiting_click);
  offer_waiting(Stream::actions, TimerKind::waiting_action);
  offer_waiting(Stream::purchases, TimerKind::waiting_purchase);
  return next;
}

Status Shard::fire_timers(TimeMs last, ShardOutput& out) {
  for (auto timer = next_timer(); timer && timer->deadline <= last; timer = next_timer()) {
    switch (timer->kind) {
      case TimerKind::conversion_close:
        close_conversion_windows(out);
        break;
      case TimerKind::action_close:
        close_action_windows(out);
        break;
      case TimerKind::click_close:
        SLUICE_TRY(close_click_window(out));
        break;
      case TimerKind::waiting_click:
        expire_waiting(queue_of(Stream::clicks), out);
        break;
      case TimerKind::waiting_action:
        expire_waiting(queue_of(Stream::actions), out);
        break;
      case TimerKind::waiting_purchase:
        expire_waiting(queue_of(Stream::purchases), out);
        break;
    }
  }
  return {};
}

// y is final; the others too, where they can be known.
Status Shard::close_click_window(ShardOutput& out) {
  if (const auto next = pages_.after_front(kAhead); next.size() == kAhead) {
    by_id_.prefetch(fingerprint(next.back().impression_id));
  }
  const ImpressionNumber number = pages_.front_number();
  const TimeMs time = pages_.front_time() + join_.click_window;
  SLUICE_ASSIGN(const Impression impression, pages_.front());
  if (!pages_.is_front_marked()) {
    emit(impression, nullptr, time, {.y = true, .action = has_actions_, .z = true}, out);
    leave_window(impression, false);
    return pages_.pop();
  }
  const auto found = clicked_.find(number);
  SLUICE_CHECK(found != clicked_.end());
  Clicked& clicked = found->second;
  const bool z_final =
      clicked.is_conversion_closed ||
      (clicked.purchase_time && join_.purchase_label == JoinConfig::PurchaseLabel::at_purchase);
  const bool action_final =
      has_actions_ &&
      (clicked.is_action_closed ||
       (clicked.action_time && join_.action_label == JoinConfig::ActionLabel::at_action));
  emit(impression, &clicked, time, {.y = true, .action = action_final, .z = z_final}, out);
  dirty_clicked_.insert(number);
  leave_window(impression, !clicked.is_followed_up());
  if (clicked.is_followed_up()) {
    forget_clicked(number, impression);
    retire(found);
  } else {
    closed_text_.clear();
    encode_impression(impression, closed_text_);
    clicked.keep(closed_text_);
  }
  return pages_.pop();
}

// Moves all whose deadline is the next one, which it returns, to closing_, in the order of their
// impressions' event ids. Where the click window is open nothing is emitted, so that the order does
// not matter.
TimeMs Shard::take_due(CloseTimers& timers, DurationMs window) {
  const TimeMs deadline = timers.top().deadline;
  closing_.clear();
  while (!timers.empty() && timers.top().deadline == deadline) {
    const ImpressionNumber number = timers.top().number;
    timers.pop();
    const Clicked& clicked = clicked_.at(number);
    if (clicked.click_time + window > deadline) {
      timers.push({clicked.click_time + window, number});
      continue;
    }
    const bool has_text = clicked.is_y_emitted;
    closing_.emplace_back(has_text ? clicked.impression().event_id : std::string_view(), number);
  }
  std::sort(closing_.begin(), closing_.end());
  return deadline;
}

void Shard::close_conversion_windows(ShardOutput& out) {
  const TimeMs deadline = take_due(conversions_, join_.conversion_window);
  for (const auto& [event_id, number] : closing_) close_conversion_window(number, deadline, out);
}

void Shard::close_conversion_window(ImpressionNumber number, TimeMs time, ShardOutput& out) {
  const auto found = clicked_.find(number);
  Clicked& clicked = found->second;
  clicked.is_conversion_closed = true;
  dirty_clicked_.insert(number);
  if (!clicked.is_y_emitted) return;  // the click window's close will say both labels
  const Impression impression = clicked.impression();
  if (!clicked.is_z_emitted) emit(impression, &clicked, time, {.z = true}, out);
  if (clicked.is_action_closed) close(found, impression);
}

void Shard::close_action_windows(ShardOutput& out) {
  const TimeMs deadline = take_due(actions_, join_.action_window);
  for (const auto& [event_id, number] : closing_) close_action_window(number, deadline, out);
}

void Shard::close_action_window(ImpressionNumber number, TimeMs time, ShardOutput& out) {
  const auto found = clicked_.find(number);
  Clicked& clicked = found->second;
  clicked.is_action_closed = true;
  dirty_clicked_.insert(number);
  if (!clicked.is_y_emitted) return;
  const Impression impression = clicked.impression();
  if (!clicked.is_action_emitted) emit(impression, &clicked, time, {.action = true}, out);
  if (clicked.is_conversion_closed) close(found, impression);
}

// All its windows have closed, the click window not as the last one.
void Shard::close(ClickedMap::iterator clicked, const Impression& closed) {
  const ImpressionNumber number = clicked->first;
  by_id_.remove(fingerprint(closed.impression_id), number, pages_.front_number());
  forget_clicked(number, closed);
  retire(clicked);
}

void Shard::expire_waiting(std::size_t queue, ShardOutput& out) {
  const Event event = std::move(waiting_[queue].front());
  waiting_[queue].pop_front();
  const auto count = waiting_keys_.find(waiting_key(event));
  SLUICE_CHECK(count != waiting_keys_.end());
  if (--count->second == 0) waiting_keys_.erase(count);
  is_waiting_dirty_ = true;
  refuse(event, Refusal::no_open_impression, out);
}

// ---- events

Status Shard::apply(const Event& event, ShardOutput& out) {
  if (event.stream() == Stream::impressions) return apply_impression(event, out);
  SLUICE_ASSIGN(const bool is_decided, attribute(event, out));
  if (is_decided) return {};
  if (join_.clock_skew == 0) {
    refuse(event, Refusal::no_open_impression, out);
    return {};
  }
  waiting_[queue_of(event.stream())].push_back(event);
  ++waiting_keys_[waiting_key(event)];
  is_waiting_dirty_ = true;
  return {};
}

Status Shard::apply_impression(const Event& event, ShardOutput& out) {
  if (pages_.next_number() - pages_.front_number() == FingerprintIndex::kMostInWindow) {
    return stop_error("one partition has " + std::to_string(FingerprintIndex::kMostInWindow) +
                      " impressions in their click window, the most there can be; take a shorter "
                      "join.click_window or more partitions");
  }
  const std::uint64_t id_print = fingerprint(event.impression_id());
  SLUICE_ASSIGN(const bool is_duplicate, is_open(event.impression_id(), id_print));
  if (is_duplicate) {
    refuse(event, Refusal::duplicate, out);
    return {};
  }
  const Impression opened = {event.time(),    event.id(),      event.impression_id(),
                             event.user_id(), event.item_id(), event.features()};
  const ImpressionNumber number = pages_.push(opened);
  if (out.watcher != nullptr) out.watcher->used({event.stream(), number_}, event, opened);
  index(id_print, number, opened);
  ++out.counters.used[index_of(Stream::impressions)];
  if (waiting_keys_.empty()) return {};
  return apply_waiting(waiting_key(event), out);
}

// The impression that these records waited for has come. All of them are applied in one order, so
// that a click after a purchase does not take its place as the attributed one.
Status Shard::apply_waiting(std::string_view key, ShardOutput& out) {
  if (waiting_keys_.erase(std::string(key)) == 0) return {};
  is_waiting_dirty_ = true;
  std::vector<Event> named;
  for (std::deque<Event>& queue : waiting_) {
    std::deque<Event> others;
    for (Event& event : queue) {
      if (waiting_key(event) == key) {
        named.push_back(std::move(event));
      } else {
        others.push_back(std::move(event));
      }
    }
    queue = std::move(others);
  }
  sort_events(named);
  for (const Event& event : named) {
    SLUICE_ASSIGN(const bool is_decided, attribute(event, out));
    SLUICE_CHECK(is_decided);
  }
  return {};
}

Result<bool> Shard::attribute(const Event& event, ShardOutput& out) {
  SLUICE_TRY(find_candidates(event));
  const Stream stream = event.stream();
  const auto rule = stream == Stream::clicks    ? attribute_click
                    : stream == Stream::actions ? attribute_action
                                                : attribute_purchase;
  const Attribution decision = rule(join_, candidates_, event.time());
  switch (decision.verdict) {
    case Attribution::Verdict::unknown:
      return false;
    case Attribution::Verdict::refuse:
      refuse(event, decision.reason, out);
      return true;
    case Attribution::Verdict::use:
      break;
  }
  ++out.counters.used[index_of(event.stream())];
  const ImpressionNumber number = candidate_numbers_[decision.index];
  if (out.watcher != nullptr) {
    SLUICE_ASSIGN(const Impression named, impression(number));
    out.watcher->used({event.stream(), number_}, event, named);
  }
  if (stream == Stream::clicks) {
    click(event, number);
  } else if (stream == Stream::actions) {
    action(event, number, out);
  } else {
    purchase(event, number, out);
  }
  return true;
}

// Where it is clicked already, this further click becomes the attributed one. Nothing that was
// emitted knew of the one before: it lies inside the click window, and y is emitted at its close.
// The action window begins anew with it, also where that of the one before has closed; an action
// that counts already stays.
void Shard::click(const Event& event, ImpressionNumber number) {
  const auto [entry, is_first] = clicked_.try_emplace(number);
  Clicked& clicked = entry->second;
  SLUICE_CHECK(!clicked.is_y_emitted && !clicked.is_conversion_closed && !clicked.purchase_time);
  clicked.click_time = event.time();
  dirty_clicked_.insert(number);
  if (!has_actions_) {
    clicked.is_action_closed = clicked.is_action_emitted = true;
  } else if (is_first || clicked.is_action_closed) {
    clicked.is_action_closed = false;
    add_action_timer(number, clicked);
  }
  if (!is_first) return;
  pages_.mark(number);
  add_conversion_timer(number, clicked);
  if (!by_user_item()) return;
  const std::uint64_t print = user_item_print(event.user_id(), event.item_id());
  by_user_item_.not_purchased.add(print, number);
  if (has_actions_) by_user_item_.not_acted.add(print, number);
}

void Shard::add_action_timer(ImpressionNumber number, const Clicked& clicked) {
  actions_.push({clicked.click_time + join_.action_window, number});
}

void Shard::add_conversion_timer(ImpressionNumber number, const Clicked& clicked) {
  conversions_.push({clicked.click_time + join_.conversion_window, number});
}

void Shard::purchase(const Event& event, ImpressionNumber number, ShardOutput& out) {
  Clicked& clicked = clicked_.at(number);
  dirty_clicked_.insert(number);
  if (join_.sums_values()) add_value(clicked, event, out);
  if (clicked.purchase_time) return;  // a further one
  clicked.purchase_time = event.time();
  if (by_user_item()) {
    by_user_item_.not_purchased.remove(user_item_print(event.user_id(), event.item_id()), number);
    by_user_item_.purchased.add(user_item_print(event.user_id(), event.item_id()), number);
  }
  const bool is_final_now =
      clicked.is_y_emitted && join_.purchase_label == JoinConfig::PurchaseLabel::at_purchase;
  if (!is_final_now) return;
  emit(clicked.impression(), &clicked, event.time(), {.z = true}, out);
}

void Shard::action(const Event& event, ImpressionNumber number, ShardOutput& out) {
  Clicked& clicked = clicked_.at(number);
  SLUICE_CHECK(!clicked.action_time && !clicked.is_action_closed);
  dirty_clicked_.insert(number);
  clicked.action_time = event.time();
  if (by_user_item()) {
    by_user_item_.not_acted.remove(user_item_print(event.user_id(), event.item_id()), number);
    by_user_item_.acted.add(user_item_print(event.user_id(), event.item_id()), number);
  }
  const bool is_final_now =
      clicked.is_y_emitted && join_.action_label == JoinConfig::ActionLabel::at_action;
  if (is_final_now) emit(clicked.impression(), &clicked, event.time(), {.action = true}, out);
}

void Shard::add_value(Clicked& clicked, const Event& event, ShardOutput& out) const {
  SLUICE_CHECK(!clicked.is_z_emitted);
  const std::optional<Micros> value = event.value();
  if (!value) ++out.counters.without_value;
  clicked.value = add_saturating(clicked.value, value.value_or(0));
}

// ---- output

// Notes, too, what is emitted now.
void Shard::emit(const Impression& impression, Clicked* clicked, TimeMs time, const Finals& finals,
                 ShardOutput& out) {
  SampleView& sample = out.samples.emplace_back();
  sample.shard = number_;
  sample.time = time;
  sample.impression_time = impression.time;
  sample.impression_id = impression.impression_id;
  sample.user_id = impression.user_id;
  sample.item_id = impression.item_id;
  sample.features = impression.features;
  sample.y = clicked != nullptr;
  sample.y_final = finals.y;
  sample.action_final = finals.action;
  sample.z_final = finals.z;
  if (clicked != nullptr) {
    sample.click_time = clicked->click_time;
    // A label that is not final yet is not told: it would leak into the first sample.
    if (finals.z) {
      sample.purchase_time = clicked->purchase_time;
      sample.value = clicked->value;
    }
    sample.z = sample.purchase_time.has_value();
    sample.z_earlier = has_actions_ && clicked->is_z_emitted;
    clicked->is_y_emitted |= finals.y;
    clicked->is_action_emitted |= finals.action;
    clicked->is_z_emitted |= finals.z;
    if (clicked->is_action_emitted) sample.action_time = clicked->action_time;
    sample.action = sample.action_time.has_value();
    sample.action_later = !clicked->is_action_emitted;
  }
  if (finals.y) {
    ++out.counters.labelled_impressions;
    if (sample.y) ++out.counters.clicked;
  }
  if (finals.action && sample.action) ++out.counters.acted;
  if (finals.z && sample.z) {
    ++out.counters.converted;
    out.counters.value.add(sample.value);
  }
}

void Shard::refuse(const Event& event, Refusal reason, ShardOutput& out) const {
  if (out.watcher != nullptr) out.watcher->refused({event.stream(), number_}, event, reason);
  ++out.counters.refused[index_of(event.stream())][static_cast<std::size_t>(reason)];
  if (!is_dead_letter(reason)) return;
  out.refused.push_back({{event.stream(), number_},
                         event.position(),
                         reason,
                         "event time " + format_time(event.time()),
                         std::string(event.record())});
}

std::string Shard::waiting_key(const Event& event) const {
  return by_user_item() ? user_item_key(event.user_id(), event.item_id())
                        : std::string(event.impression_id());
}

}  // namespace sluice
