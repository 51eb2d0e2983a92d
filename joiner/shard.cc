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

Shard::Shard(std::uint32_t number, const JoinConfig& join, KeyValueStore& store)
    : number_(number), join_(join), store_(store), pages_(number, store) {
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

Impression Shard::Clicked::impression() const {
  ByteReader reader(bytes);
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
  if (!conversions_.empty()) offer(conversions_.begin()->deadline, TimerKind::conversion_close);
  if (!pages_.empty()) offer(pages_.front_time() + join_.click_window, TimerKind::click_close);
  const TimeMs patience = join_.clock_skew + 1;
  if (!waiting_[0].empty()) offer(waiting_[0].front().time() + patience, TimerKind::waiting_click);
  if (!waiting_[1].empty()) {
    offer(waiting_[1].front().time() + patience, TimerKind::waiting_purchase);
  }
  return next;
}

Status Shard::fire_timers(TimeMs last, ShardOutput& out) {
  for (auto timer = next_timer(); timer && timer->deadline <= last; timer = next_timer()) {
    switch (timer->kind) {
      case TimerKind::conversion_close:
        close_conversion_window(out);
        break;
      case TimerKind::click_close:
        SLUICE_TRY(close_click_window(out));
        break;
      case TimerKind::waiting_click:
        expire_waiting(0, out);
        break;
      case TimerKind::waiting_purchase:
        expire_waiting(1, out);
        break;
    }
  }
  return {};
}

// y is final; z too, where it can be known.
Status Shard::close_click_window(ShardOutput& out) {
  if (const auto next = pages_.after_front(kAhead); next.size() == kAhead) {
    by_id_.prefetch(fingerprint(next.back().impression_id));
  }
  const ImpressionNumber number = pages_.front_number();
  const TimeMs time = pages_.front_time() + join_.click_window;
  if (!pages_.is_front_marked()) {
    SLUICE_ASSIGN(const Impression unclicked, pages_.front());
    emit(unclicked, nullptr, time, true, true, out);
    forget(number, unclicked);
  } else {
    const auto found = clicked_.find(number);
    SLUICE_CHECK(found != clicked_.end());
    Clicked& clicked = found->second;
    const bool z_final =
        clicked.is_conversion_closed ||
        (clicked.purchase_time && join_.purchase_label == JoinConfig::PurchaseLabel::at_purchase);
    const Impression impression = clicked.impression();
    emit(impression, &clicked, time, true, z_final, out);
    clicked.is_y_emitted = true;
    clicked.is_z_emitted = z_final;
    dirty_clicked_.insert(number);
    if (clicked.is_conversion_closed) {
      forget(number, impression);
      retire(found);
    } else {
      leave_window(impression);
    }
  }
  return pages_.pop();
}

void Shard::close_conversion_window(ShardOutput& out) {
  const ConversionTimer timer = *conversions_.begin();
  conversions_.erase(conversions_.begin());
  const auto found = clicked_.find(timer.number);
  SLUICE_CHECK(found != clicked_.end());
  Clicked& clicked = found->second;
  clicked.is_conversion_closed = true;
  dirty_clicked_.insert(timer.number);
  if (!clicked.is_y_emitted) return;  // the click window's close will say both labels
  const Impression impression = clicked.impression();
  if (!clicked.is_z_emitted) emit(impression, &clicked, timer.deadline, false, true, out);
  forget(timer.number, impression);
  retire(found);
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
  waiting_[event.stream() == Stream::clicks ? 0 : 1].push_back(event);
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

// The impression that these records waited for has come. Clicks and purchases are applied in one
// order, so that a click after a purchase does not take its place as the attributed one.
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
  const bool is_click = event.stream() == Stream::clicks;
  const Attribution decision = is_click ? attribute_click(join_, candidates_, event.time())
                                        : attribute_purchase(join_, candidates_, event.time());
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
  if (is_click) {
    SLUICE_TRY(click(number, event.time()));
  } else {
    purchase(number, event, out);
  }
  return true;
}

Status Shard::click(ImpressionNumber number, TimeMs time) {
  if (const auto found = clicked_.find(number); found != clicked_.end()) {
    move_click(number, found->second, time);
    return {};
  }
  SLUICE_ASSIGN(const Impression unclicked, pages_.at(number));
  pages_.mark(number);
  Clicked& clicked = clicked_[number];
  encode_impression(unclicked, clicked.bytes);
  clicked.click_time = time;
  conversions_.insert(conversion_timer(number, clicked));
  dirty_clicked_.insert(number);
  return {};
}

// A further click becomes the attributed one. Nothing that was emitted knew of the one before: it
// lies inside the click window, and y is emitted at its close.
void Shard::move_click(ImpressionNumber number, Clicked& clicked, TimeMs time) {
  SLUICE_CHECK(!clicked.is_y_emitted && !clicked.is_conversion_closed && !clicked.purchase_time);
  conversions_.erase(conversion_timer(number, clicked));
  clicked.click_time = time;
  conversions_.insert(conversion_timer(number, clicked));
  dirty_clicked_.insert(number);
}

Shard::ConversionTimer Shard::conversion_timer(ImpressionNumber number,
                                               const Clicked& clicked) const {
  return {clicked.click_time + join_.conversion_window, std::string(clicked.impression().event_id),
          number};
}

void Shard::add_value(Clicked& clicked, const Event& event, ShardOutput& out) const {
  SLUICE_CHECK(!clicked.is_z_emitted);
  const std::optional<Micros> value = event.value();
  if (!value) ++out.counters.without_value;
  clicked.value = add_saturating(clicked.value, value.value_or(0));
}

void Shard::purchase(ImpressionNumber number, const Event& event, ShardOutput& out) {
  const TimeMs time = event.time();
  Clicked& clicked = clicked_.at(number);
  dirty_clicked_.insert(number);
  if (join_.sums_values()) add_value(clicked, event, out);
  if (clicked.purchase_time) return;  // a further one
  clicked.purchase_time = time;
  const bool is_final_now =
      clicked.is_y_emitted && join_.purchase_label == JoinConfig::PurchaseLabel::at_purchase;
  if (!is_final_now) return;
  emit(clicked.impression(), &clicked, time, false, true, out);
  clicked.is_z_emitted = true;
}

// ---- look-up

Result<Impression> Shard::impression(ImpressionNumber number) {
  const auto found = clicked_.find(number);
  if (found != clicked_.end()) return found->second.impression();
  return pages_.at(number);
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
  found_.clear();
  candidate_numbers_.clear();
  candidates_.clear();
  if (by_user_item()) {
    by_user_item_.find(fingerprint(user_item_key(event.user_id(), event.item_id())),
                       pages_.front_number(), found_);
  } else {
    by_id_.find(fingerprint(event.impression_id()), pages_.front_number(), found_);
  }
  std::sort(found_.begin(), found_.end());
  for (const ImpressionNumber number : found_) {
    SLUICE_ASSIGN(const Impression open, impression(number));
    const bool is_named = by_user_item()
                              ? open.user_id == event.user_id() && open.item_id == event.item_id()
                              : open.impression_id == event.impression_id();
    if (!is_named) continue;
    Candidate candidate;
    candidate.impression_time = open.time;
    if (const auto clicked = clicked_.find(number); clicked != clicked_.end()) {
      candidate.click_time = clicked->second.click_time;
      candidate.purchase_time = clicked->second.purchase_time;
    }
    candidate_numbers_.push_back(number);
    candidates_.push_back(candidate);
  }
  return {};
}

void Shard::index(std::uint64_t id_print, ImpressionNumber number, const Impression& open) {
  by_id_.add(id_print, number, pages_.front_number());
  if (by_user_item()) {
    by_user_item_.add(fingerprint(user_item_key(open.user_id, open.item_id)), number,
                      pages_.front_number());
  }
}

void Shard::leave_window(const Impression& open) {
  by_id_.leave_window(fingerprint(open.impression_id), pages_.front_number());
  if (by_user_item()) {
    by_user_item_.leave_window(fingerprint(user_item_key(open.user_id, open.item_id)),
                               pages_.front_number());
  }
}

void Shard::forget(ImpressionNumber number, const Impression& closed) {
  by_id_.remove(fingerprint(closed.impression_id), number, pages_.front_number());
  if (by_user_item()) {
    by_user_item_.remove(fingerprint(user_item_key(closed.user_id, closed.item_id)), number,
                         pages_.front_number());
  }
}

void Shard::retire(std::unordered_map<ImpressionNumber, Clicked>::iterator clicked) {
  retired_.push_back(clicked_.extract(clicked));
}

// ---- output

void Shard::emit(const Impression& impression, const Clicked* clicked, TimeMs time, bool y_final,
                 bool z_final, ShardOutput& out) {
  SampleView& sample = out.samples.emplace_back();
  sample.shard = number_;
  sample.time = time;
  sample.impression_time = impression.time;
  sample.impression_id = impression.impression_id;
  sample.user_id = impression.user_id;
  sample.item_id = impression.item_id;
  sample.features = impression.features;
  sample.y = clicked != nullptr;
  sample.y_final = y_final;
  sample.z_final = z_final;
  if (clicked != nullptr) {
    sample.click_time = clicked->click_time;
    // A purchase whose label is not final yet is not told: it would leak into the first sample.
    if (z_final) {
      sample.purchase_time = clicked->purchase_time;
      sample.value = clicked->value;
    }
    sample.z = sample.purchase_time.has_value();
  }
  if (y_final) {
    ++out.counters.labelled_impressions;
    if (sample.y) ++out.counters.clicked;
  }
  if (z_final && sample.z) {
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
