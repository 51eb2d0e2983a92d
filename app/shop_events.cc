#include "app/shop_events.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>
#include <utility>

#include "app/shop_random.h"
#include "app/shop_text.h"

namespace sluice {
namespace {

enum PagePurpose : std::uint64_t { kPageTimes = 100, kPages, kActions };

constexpr double kSecondMs = 1'000.0;

// A long-tailed delay below `window`.
DurationMs delay_within(Random& random, double median_ms, double sigma, DurationMs window) {
  for (int attempt = 0; attempt < 16; ++attempt) {
    const double delay = random.lognormal(median_ms, sigma);
    if (delay < static_cast<double>(window)) return static_cast<DurationMs>(delay);
  }
  return static_cast<DurationMs>(random.below(static_cast<std::uint64_t>(window)));
}

// A delay of `window` or more; one in eight is the first that is outside.
DurationMs delay_beyond(Random& random, DurationMs window, double mean_ms) {
  if (random.below(8) == 0) return window;
  return window + static_cast<DurationMs>(random.exponential(mean_ms));
}

// On the way from the shop to the log: mostly short, anything below `disorder` happens.
DurationMs transport(Random& random, DurationMs disorder) {
  if (disorder == 0) return 0;
  const double delay = random.chance(0.9) ? random.exponential(0.05 * static_cast<double>(disorder))
                                          : random.uniform() * static_cast<double>(disorder);
  return std::min(static_cast<DurationMs>(delay), disorder - 1);
}

// What a broken producer or disk leaves of a line. None of it is an event: no whole JSON object, or
// one without a valid time or impression_id.
void damage(Random& random, std::string& line) {
  line.pop_back();
  const auto replace = [&](std::string_view from, std::string_view to) {
    const std::size_t at = line.find(from);
    if (at != std::string::npos) line.replace(at, from.size(), to);
  };
  switch (random.below(8)) {
    case 0:
      line.resize(1 + random.below(line.size() - 1));
      break;  // cut
    case 1:
      line += line;
      break;  // two in one line
    case 2:
      line.insert(0, "["), line += ']';
      break;  // not an object
    case 3:
      replace("\"ts\":", "\"ts_ms\":");
      break;  // no time
    case 4:
      replace("\"ts\":", "\"ts\":\"noon\",\"sent\":");
      break;  // a time that is none
    case 5:
      replace("\"ts\":", "\"ts\":0,\"sent\":");
      break;  // before streams.not_before
    case 6:
      replace("\"impression_id\":", "\"impression\":");
      break;  // names no impression
    default:
      replace("\"impression_id\":\"", "\"impression_id\":\"\xff\xfe");
      break;  // not UTF-8
  }
  line += '\n';
}

}  // namespace

TimeMs ShopEvents::page_time(std::uint64_t page) const {
  // Pages are spread over the span, more by day than by night: the map ascends, and its ends stay.
  const double share =
      (static_cast<double>(page) + Random(options_.seed, kPageTimes, page).uniform()) /
      static_cast<double>(pages());
  const double rounds = 2.0 * std::numbers::pi * static_cast<double>(options_.span) / kDayMs;
  const auto moved = [&](double x) { return x + 0.6 * std::sin(rounds * x) / rounds; };
  const double at = moved(share) / moved(1.0);
  return options_.start + static_cast<DurationMs>(at * static_cast<double>(options_.span));
}

// One page being drawn.
class ShopEvents::Drawing {
 public:
  Drawing(const ShopOptions& options, const ShopModel& model, std::uint64_t page, TimeMs time,
          ShopPage& out)
      : options_(options),
        model_(model),
        random_(options.seed, kPages, page),
        action_random_(options.seed, kActions, page),
        page_(page),
        time_(time),
        out_(out) {}

  void draw() {
    out_.impressions.clear();
    out_.records.clear();
    user_ = model_.user(model_.pick_user(random_));
    context_ = model_.context(random_, time_);
    out_.partition = user_.partition;
    // Half of the pages have one moment, the others are logged a millisecond an impression.
    const DurationMs step = random_.below(2) == 0 ? 0 : 1;
    const std::uint64_t first = page_ * options_.page;
    const std::uint64_t count =
        std::min<std::uint64_t>(options_.page, options_.impressions - first);
    shown_.clear();
    actions_.clear();
    for (std::uint32_t position = 0; position < count; ++position) {
      draw_impression(first + position, position, time_ + step * position);
    }
    for (ShopRecord& record : out_.records) send(random_, record);
    for (ShopRecord& record : actions_) {
      send(action_random_, record);
      out_.records.push_back(std::move(record));
    }
  }

 private:
  void draw_impression(std::uint64_t number, std::uint32_t position, TimeMs time) {
    const std::uint64_t item = pick_new_item();
    item_ = item;
    subject_ = number;
    id_.clear();
    append_number(id_, page_);
    id_ += '-';
    append_number(id_, position);
    const Rates rates = model_.rates(user_, context_, model_.item(item), position);
    ShopImpression& impression = out_.impressions.emplace_back();
    impression.id = id_;
    impression.rates = rates;

    const std::size_t first_record = out_.records.size();
    const std::size_t first_action = actions_.size();
    add_impression(time, position);
    if (random_.chance(options_.duplicates)) out_.records.push_back(out_.records.back());
    draw_clicks(time, impression);
    if (random_.chance(options_.orphans)) draw_orphan(time);
    if (options_.has_actions) draw_actions(time, impression);
    const auto records = static_cast<std::uint32_t>(out_.records.size() - first_record +
                                                    actions_.size() - first_action);
    for (std::size_t i = first_record; i < out_.records.size(); ++i) {
      out_.records[i].subject_records = records;
    }
    for (std::size_t i = first_action; i < actions_.size(); ++i) {
      actions_[i].subject_records = records;
    }
    if (stray_) out_.records.push_back(std::move(*stray_));
    stray_.reset();
  }

  // A page shows an item once.
  std::uint64_t pick_new_item() {
    std::uint64_t item = model_.pick_item(random_, time_);
    while (std::find(shown_.begin(), shown_.end(), item) != shown_.end()) {
      item = (item + 1) % options_.items;
    }
    shown_.push_back(item);
    return item;
  }

  void draw_clicks(TimeMs time, ShopImpression& impression) {
    const double draw = random_.uniform();
    const double pctr = impression.rates.pctr;
    impression.clicked = draw < pctr;
    impression.purchased = false;
    if (impression.clicked) {
      const TimeMs click = time + delay_within(random_, 40 * kSecondMs, 1.2, options_.click_window);
      click_ = click;
      add_follow_up(Stream::clicks, click, true);
      draw_repeats(Stream::clicks, click, 20 * kSecondMs);
      draw_purchases(click, impression);
    } else if (draw < pctr * (1.0 + options_.late_clicks)) {
      const TimeMs click = time + delay_beyond(random_, options_.click_window, 600 * kSecondMs);
      add_follow_up(Stream::clicks, click, true);
      if (random_.chance(impression.rates.pcvr)) {
        add_follow_up(
            Stream::purchases,
            click + delay_within(random_, 1'200 * kSecondMs, 1.8, options_.conversion_window),
            true);
      }
    }
  }

  void draw_purchases(TimeMs click, ShopImpression& impression) {
    const double draw = random_.uniform();
    const double pcvr = impression.rates.pcvr;
    if (draw < pcvr) {
      impression.purchased = true;
      const TimeMs purchase =
          click + delay_within(random_, 1'200 * kSecondMs, 1.8, options_.conversion_window);
      purchase_ = purchase;
      add_follow_up(Stream::purchases, purchase, true);
      draw_repeats(Stream::purchases, purchase, 1'200 * kSecondMs);
    } else if (draw < pcvr * (1.0 + options_.late_purchases)) {
      add_follow_up(Stream::purchases,
                    click + delay_beyond(random_, options_.conversion_window, 21'600 * kSecondMs),
                    true);
    }
  }

  // Of a sequence of its own: what else happens is as it would be without actions. So an action is
  // drawn where it is known whether there is a purchase, from the rates the other way round; it
  // comes before it.
  void draw_actions(TimeMs time, ShopImpression& impression) {
    Random& random = action_random_;
    impression.acted = false;
    if (impression.clicked) {
      const Rates& rates = impression.rates;
      const double with_purchase = rates.paction * rates.pcvr_acted / rates.pcvr;
      const double without = rates.paction * (1.0 - rates.pcvr_acted) / (1.0 - rates.pcvr);
      const double likely = impression.purchased ? with_purchase : without;
      const double draw = random.uniform();
      if (draw < likely) {
        impression.acted = true;
        const DurationMs longest = impression.purchased
                                       ? std::min(options_.action_window, purchase_ - click_ + 1)
                                       : options_.action_window;
        const TimeMs action = click_ + delay_within(random, 300 * kSecondMs, 1.5, longest);
        add_action(action, true);
        if (random.chance(options_.repeats)) {
          add_action(action + static_cast<DurationMs>(random.lognormal(300 * kSecondMs, 1.5)),
                     false);
        }
      } else if (draw < likely * (1.0 + options_.late_purchases)) {
        add_action(click_ + delay_beyond(random, options_.action_window, 21'600 * kSecondMs), true);
      }
    }
    // One of this impression, whatever its clicks.
    if (random.chance(options_.orphans)) {
      add_action(time + static_cast<DurationMs>(random.lognormal(120 * kSecondMs, 1.5)), true);
    }
  }

  void add_action(TimeMs time, bool has_event_id) {
    const char* const kind = action_random_.chance(0.7) ? "cart" : "favourite";
    add_follow_up(Stream::actions, time, has_event_id);
    std::string& line = actions_.back().line;
    line.insert(line.size() - 2, std::string(",\"action\":\"") + kind + "\"");
  }

  // The second and, less often, third time; these have no event_id.
  void draw_repeats(Stream stream, TimeMs time, double median_ms) {
    if (!random_.chance(options_.repeats)) return;
    const std::uint64_t count = 1 + (random_.below(4) == 0 ? 1 : 0);
    for (std::uint64_t i = 0; i < count; ++i) {
      time += static_cast<DurationMs>(random_.lognormal(median_ms, 1.5));
      add_follow_up(stream, time, false);
    }
  }

  // A purchase of this impression whatever its clicks, or a record of an impression that never was.
  void draw_orphan(TimeMs time) {
    const TimeMs later = time + static_cast<DurationMs>(random_.lognormal(120 * kSecondMs, 1.5));
    if (random_.below(3) == 0) {
      add_follow_up(Stream::purchases, later, true);
      return;
    }
    const std::string id = std::exchange(id_, "x" + id_);
    add_follow_up(random_.below(2) == 0 ? Stream::clicks : Stream::purchases, later, true);
    id_ = id;
    stray_ = std::move(out_.records.back());
    stray_->subject_records = 1;
    out_.records.pop_back();
  }

  ShopRecord& add_record(Stream stream, TimeMs time) {
    auto& records = stream == Stream::actions ? actions_ : out_.records;
    ShopRecord& record = records.emplace_back();
    record.stream = stream;
    record.partition = user_.partition;
    record.time = time;
    record.subject = subject_;
    return record;
  }

  void add_impression(TimeMs time, std::uint32_t position) {
    std::string& line = add_record(Stream::impressions, time).line;
    line.reserve(384);
    line = "{\"event_id\":\"i";
    line += id_;
    append_common(line, time);
    line += ",\"features\":{\"user\":";
    line += user_.json;
    line += ",\"context\":";
    line += context_.json;
    line += ",\"item\":";
    line += model_.item(item_).json;
    line += ",\"position\":";
    append_number(line, position);
    line += "}}\n";
  }

  void add_follow_up(Stream stream, TimeMs time, bool has_event_id) {
    ShopRecord& record = add_record(stream, time);
    std::string& line = record.line;
    if (has_event_id) {
      line = "{\"event_id\":\"";
      line += stream == Stream::clicks ? 'c' : stream == Stream::actions ? 'a' : 'p';
      line += id_;
      append_common(line, time);
    } else {
      append_common(line, time);
      line.replace(0, 2, "{");
    }
    if (stream == Stream::purchases && options_.has_values) {
      record.value = model_.item(item_).price * (kMicros / 100);
      line += ",\"value\":";
      append_hundredths(line, model_.item(item_).price);
    }
    line += "}\n";
  }

  // From the end of the event_id on.
  void append_common(std::string& line, TimeMs time) const {
    line += "\",\"ts\":";
    append_number(line, time);
    line += ",\"impression_id\":\"";
    line += id_;
    line += "\",\"user_id\":\"";
    line += user_.id;
    line += "\",\"item_id\":";
    append_number(line, item_);
  }

  // How the record reaches its log.
  void send(Random& random, ShopRecord& record) {
    record.arrival = record.time + transport(random, options_.disorder);
    if (random.chance(options_.late)) {
      const auto bound = static_cast<double>(options_.max_out_of_orderness);
      record.arrival += options_.max_out_of_orderness + 1 +
                        static_cast<DurationMs>(random.exponential(bound + 60 * kSecondMs));
    }
    record.is_malformed = random.chance(options_.malformed);
    if (record.is_malformed) damage(random, record.line);
  }

  const ShopOptions& options_;
  const ShopModel& model_;
  Random random_;
  Random action_random_;
  const std::uint64_t page_;
  const TimeMs time_;
  ShopPage& out_;
  ShopUser user_;
  ShopContext context_;
  std::vector<std::uint64_t> shown_;
  std::vector<ShopRecord> actions_;  // of the page; go to its records last
  // Of the impression being drawn.
  std::uint64_t item_ = 0;
  std::uint64_t subject_ = 0;
  std::string id_;
  TimeMs click_ = 0;     // of a clicked one
  TimeMs purchase_ = 0;  // of a purchased one
  std::optional<ShopRecord> stray_;
};

void ShopEvents::draw(std::uint64_t page, ShopPage& out) const {
  Drawing(options_, model_, page, page_time(page), out).draw();
}

}  // namespace sluice
