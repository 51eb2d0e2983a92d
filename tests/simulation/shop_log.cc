#include "tests/simulation/shop_log.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "ingest/features.h"

namespace sluice::simulation {
namespace {

// A record before it has a place in its log.
struct Draft {
  StreamPartition where;
  TimeMs arrival = 0;
  std::string bytes;
  std::optional<TimeMs> broker_time;
  OracleRecord fact;
};

struct Ids {
  std::string impression, user, item;
};

class ShopWriter {
 public:
  explicit ShopWriter(const Plan& plan)
      : plan_(plan),
        shape_(plan.shape),
        config_(plan.config),
        random_(plan.seed, 2),
        values_(plan.seed, 11),
        actions_(plan.seed, 13) {}

  ShopLog write() {
    draw_silence();
    TimeMs now = kLogBegin;
    const auto mean = std::max<DurationMs>(
        1, shape_.span / static_cast<DurationMs>(std::max<std::uint64_t>(1, shape_.impressions)));
    bool in_burst = false;
    for (std::uint64_t number = 0; number < shape_.impressions; ++number) {
      if (shape_.has_bursts && random_.one_in(30)) in_burst = !in_burst;
      now += in_burst ? random_.between(0, 1) : random_.between(0, 2 * mean);
      impression(number, now);
      if (random_.permille(shape_.orphans)) orphan(now);
      if (has_actions()) orphan_action(now);
    }
    return place();
  }

 private:
  // ---- what happens in the shop

  void impression(std::uint64_t number, TimeMs time) {
    Ids ids;
    ids.impression =
        shape_.has_number_ids ? std::to_string(number * 7) : "i" + std::to_string(number);
    // Skewed: the first ones come most.
    ids.user = "u" + std::to_string(random_.below(random_.below(shape_.users) + 1));
    ids.item = std::to_string(random_.below(random_.below(shape_.items) + 1));
    add(Stream::impressions, time, ids);
    const DurationMs open = config_.join.click_window + config_.join.conversion_window;
    if (random_.permille(shape_.duplicates)) {
      add(Stream::impressions, time + random_.between(0, std::min(2 * open, shape_.span)), ids);
    }
    if (!random_.permille(shape_.clicks)) return;
    const TimeMs click = time + near(config_.join.click_window, config_.join.clock_skew);
    add(Stream::clicks, click, ids);
    if (has_actions()) draw_actions(click, ids);
    if (random_.permille(shape_.repeats)) {
      add(Stream::clicks, click + random_.between(-3, config_.join.click_window), ids);
    }
    if (!random_.permille(shape_.purchases)) return;
    const TimeMs purchase = click + near(config_.join.conversion_window, 1);
    add(Stream::purchases, purchase, ids);
    if (random_.permille(shape_.repeats)) {
      add(Stream::purchases, purchase + random_.between(-3, 1'000), ids);
    }
  }

  bool has_actions() const { return config_.streams.has_actions(); }

  // All that is random of actions comes from a sequence of its own: the rest of the log is as it
  // would be without.
  void draw_actions(TimeMs click, const Ids& ids) {
    std::swap(random_, actions_);
    if (random_.permille(shape_.actions)) {
      const TimeMs action = click + near(config_.join.action_window, 1);
      add(Stream::actions, action, ids);
      if (random_.permille(shape_.repeats)) {
        add(Stream::actions, action + random_.between(-3, 1'000), ids);
      }
    }
    std::swap(random_, actions_);
  }

  void orphan_action(TimeMs time) {
    std::swap(random_, actions_);
    if (random_.permille(shape_.orphans)) {
      add(Stream::actions, time, {"nobody" + std::to_string(random_.below(5)), "u0", "none"});
    }
    std::swap(random_, actions_);
  }

  void orphan(TimeMs time) {
    const Stream stream = random_.one_in(2) ? Stream::clicks : Stream::purchases;
    add(stream, time, {"nobody" + std::to_string(random_.below(5)), "u0", "none"});
  }

  // Mostly inside the window, often at its very ends, sometimes outside.
  DurationMs near(DurationMs window, DurationMs before) {
    if (random_.permille(700)) {
      return random_.between(0, std::min(window, shape_.span) - 1);
    }
    if (random_.one_in(3)) return window + random_.between(-1, 1);
    if (random_.one_in(2)) return -before + random_.between(-1, 1);
    return random_.between(-2 * before, std::min(2 * window, 2 * shape_.span));
  }

  // ---- records

  void add(Stream stream, TimeMs time, const Ids& ids) {
    const std::string& key = config_.join.attribution == JoinConfig::Attribution::impression_id
                                 ? ids.impression
                                 : ids.user;
    Draft draft;
    draft.where = {stream, static_cast<std::uint32_t>(hash64(key) % shape_.partitions)};
    if (random_.permille(shape_.wrong_partitions)) {
      draft.where.partition = static_cast<std::uint32_t>(random_.below(shape_.partitions));
    }
    if (const auto end = silent_after_.find(draft.where);
        end != silent_after_.end() && time > end->second) {
      return;
    }
    draft.fact.time = time;
    draft.arrival = time + delay(stream);
    if (shape_.has_log_times) {
      draft.fact.log_time = draft.arrival;
      if (shape_.has_broker_times) draft.broker_time = draft.arrival;
    }
    write_text(ids, draft);
    if (random_.permille(shape_.malformed)) spoil(draft);
    if (random_.permille(shape_.nonsense_times)) change_time(draft);
    drafts_.push_back(std::move(draft));
  }

  // How long a record takes to its log; less than 0 where its clock goes ahead.
  DurationMs delay(Stream stream) {
    const DurationMs disorder =
        config_.streams.max_out_of_orderness[static_cast<std::size_t>(stream)];
    const DurationMs bound = plan_.mode == Mode::live ? config_.source.max_delay : 2 * disorder;
    if (random_.permille(shape_.too_delayed)) {
      has_too_delayed_ = true;
      return bound + random_.between(1, shape_.span / 5);
    }
    if (random_.permille(shape_.ahead)) return -random_.between(1, shape_.span / 20);
    if (random_.permille(shape_.too_disordered)) {
      return std::min(bound, disorder + random_.between(0, disorder + 10));
    }
    return std::min(bound, random_.between(0, random_.one_in(4) ? disorder : disorder / 3));
  }

  void write_text(const Ids& ids, Draft& draft) {
    OracleRecord& fact = draft.fact;
    const bool by_id = config_.join.attribution == JoinConfig::Attribution::impression_id;
    std::string text = "{\"ts\":" + std::to_string(fact.time);
    if (!random_.one_in(3)) {
      // Few ids: orders among equal times are decided by them, then by the position.
      fact.event_id = "e" + std::to_string(random_.below(50));
      text += ",\"event_id\":\"" + fact.event_id + "\"";
    }
    if (draft.where.stream == Stream::impressions || by_id) {
      fact.impression_id = ids.impression;
      text += ",\"impression_id\":" +
              (shape_.has_number_ids && random_.one_in(2) && ids.impression[0] != 'n'
                   ? ids.impression
                   : "\"" + ids.impression + "\"");
    }
    fact.user_id = ids.user;
    fact.item_id = ids.item;
    text += ",\"user_id\":\"" + ids.user + "\",\"item_id\":\"" + ids.item + "\"";
    if (fact.log_time && !shape_.has_broker_times) {
      text += ",\"written\":" + std::to_string(*fact.log_time);
    }
    if (draft.where.stream == Stream::impressions) text += features(ids, fact);
    if (draft.where.stream == Stream::purchases) text += value(fact);
    draft.bytes = text + "}";
  }

  // Cents, now and then none; of a sequence of its own, as the other draws were there before it.
  std::string value(OracleRecord& fact) {
    if (!config_.join.sums_values() || values_.one_in(8)) return "";
    if (values_.one_in(8)) return ",\"value\":\"dear\"";
    const std::int64_t cents = values_.between(-300, 9'999);
    fact.value = cents * 10'000;
    const std::string digits = std::to_string(1'000 + std::abs(cents) % 100);
    return ",\"value\":" + std::string(cents < 0 ? "-" : "") +
           std::to_string(std::abs(cents) / 100) + (cents % 100 == 0 ? "" : "." + digits.substr(2));
  }

  // In the order of their names, as the config has them.
  std::string features(const Ids& ids, OracleRecord& fact) {
    FeatureWriter writer(fact.features);
    std::string text = ",\"features\":{\"item\":\"" + ids.item + "\"";
    writer.id(ids.item);
    const auto quarters = random_.between(-10, 200);
    if (random_.permille(shape_.odd_features)) {
      text += ",\"price\":\"much\"";
      writer.wrong_type();
    } else if (random_.permille(shape_.odd_features)) {
      text += ",\"price\":null";
      writer.absent();
    } else {
      text += ",\"price\":" + std::to_string(quarters / 4) + (quarters % 4 == 0 ? ".0" : ".25");
      const double sign = quarters < 0 ? -1 : 1;
      const auto whole = static_cast<double>(quarters / 4);
      writer.number(quarters % 4 == 0 ? whole : whole + sign * 0.25);
      // "-0.25" would be written as "0.25".
      if (quarters < 0 && quarters > -4) {
        text.erase(text.rfind(':') + 1);
        text += "-0.25";
      }
    }
    if (config_.features.size() > 2) {
      const auto count = random_.below(4);
      text += ",\"tags\":[";
      writer.list(count);
      for (std::uint64_t index = 0; index < count; ++index) {
        const std::string tag = "t" + std::to_string(random_.below(9));
        text += (index == 0 ? "\"" : ",\"") + tag + "\"";
        writer.id(tag);
      }
      text += "]";
    }
    return text + "}";
  }

  void spoil(Draft& draft) {
    draft.fact.unreadable = Refusal::malformed;
    switch (random_.below(6)) {
      case 0:
        draft.bytes.pop_back();
        break;
      case 1:
        draft.bytes += "}";
        break;
      case 2:
        draft.bytes = "[" + draft.bytes + "]";
        break;
      case 3:
        draft.bytes.clear();
        break;
      case 4:
        draft.bytes.insert(1, "\"user_id\":[1],");
        break;
      default:
        draft.bytes.insert(draft.bytes.size() - 1, std::string(600, ' '));
        draft.fact.unreadable = Refusal::oversized;
    }
  }

  // Seconds for milliseconds, zero, or a clock that is days ahead.
  void change_time(Draft& draft) {
    if (draft.fact.unreadable) return;
    constexpr std::size_t kBegin = 6;  // {"ts":
    const std::size_t end = draft.bytes.find(',', kBegin);
    TimeMs time = draft.fact.time;
    switch (random_.below(3)) {
      case 0:
        time /= 1'000;
        draft.fact.unreadable = Refusal::malformed;
        break;
      case 1:
        time = 0;
        draft.fact.unreadable = Refusal::malformed;
        break;
      default:
        // Without log times all that follows in its log would be late.
        if (!shape_.has_log_times) return;
        time += 5 * 86'400'000;
        draft.fact.time = time;
    }
    draft.bytes.replace(kBegin, end - kBegin, std::to_string(time));
  }

  // ---- logs

  std::vector<StreamPartition> all_partitions() const {
    std::vector<StreamPartition> all;
    for (std::size_t stream = 0; stream < config_.streams.count(); ++stream) {
      for (std::uint32_t partition = 0; partition < shape_.partitions; ++partition) {
        all.push_back({static_cast<Stream>(stream), partition});
      }
    }
    return all;
  }
  Random& random_of(Stream stream) { return stream == Stream::actions ? actions_ : random_; }

  void draw_silence() {
    for (const StreamPartition where : all_partitions()) {
      Random& random = random_of(where.stream);
      if (!random.permille(shape_.silent)) continue;
      silent_after_[where] = random.one_in(2) ? 0 : kLogBegin + random.between(0, shape_.span);
    }
  }

  ShopLog place() {
    std::stable_sort(drafts_.begin(), drafts_.end(),
                     [](const Draft& a, const Draft& b) { return a.arrival < b.arrival; });
    ShopLog log;
    log.has_too_delayed = has_too_delayed_;
    log.first_arrival = drafts_.empty() ? kLogBegin : drafts_.front().arrival;
    log.last_arrival = drafts_.empty() ? kLogBegin : drafts_.back().arrival;
    for (const StreamPartition where : all_partitions()) {
      log.partitions[where].begin =
          shape_.is_like_files ? 0
                               : static_cast<Position>(random_of(where.stream).pick({0, 7, 1'000}));
      log.facts[where];
    }
    for (Draft& draft : drafts_) {
      PartitionLog& partition = log.partitions[draft.where];
      Record record;
      record.position = partition.end(partition.records.size(), 0);
      record.next = record.position + 1 + (shape_.is_like_files ? draft.bytes.size() : 0);
      record.log_time = draft.broker_time;
      record.bytes = std::move(draft.bytes);
      draft.fact.position = record.position;
      log.facts[draft.where].push_back(std::move(draft.fact));
      Random& random = random_of(draft.where.stream);
      const Position gap = shape_.has_gaps && random.one_in(4) ? 1 + random.below(3) : 0;
      partition.records.push_back({std::move(record), draft.arrival, gap});
    }
    cut_oversized(log);
    if (plan_.mode == Mode::growing) {
      cut_for_growth(log);
    } else if (shape_.has_unfinished) {
      leave_unfinished(log);
    }
    return log;
  }

  // Of a longer record a source gives only so much that it can be refused.
  void cut_oversized(ShopLog& log) const {
    for (auto& [where, partition] : log.partitions) {
      for (LogRecord& one : partition.records) {
        if (one.record.bytes.size() > config_.streams.max_record_bytes + 1) {
          one.record.bytes.resize(config_.streams.max_record_bytes + 1);
        }
      }
    }
  }

  void leave_unfinished(ShopLog& log) {
    for (auto& [where, partition] : log.partitions) {
      if (random_.one_in(2)) continue;
      partition.unfinished = random_.one_in(4) ? std::string(601, 'x') : R"({"ts":1712345678000)";
      OracleRecord fact;
      fact.position = partition.end(partition.records.size(), 0);
      fact.unreadable = partition.unfinished.size() > 600 ? Refusal::oversized : Refusal::malformed;
      log.facts[where].push_back(fact);
    }
  }

  // The replay sees the first part of each log; the rest comes after it has pinned the ends.
  void cut_for_growth(ShopLog& log) {
    for (auto& [where, partition] : log.partitions) {
      const std::size_t size = partition.records.size();
      partition.first_count = size - std::min<std::size_t>(size, random_.below(size / 3 + 2));
      auto& facts = log.facts[where];
      facts.resize(partition.first_count);
      if (partition.first_count == size || !shape_.has_unfinished) continue;
      const Record& cut = partition.records[partition.first_count].record;
      if (cut.bytes.size() < 2 || cut.bytes.size() > config_.streams.max_record_bytes) continue;
      // Up to all of it but the line's end.
      partition.first_bytes = 1 + random_.below(cut.bytes.size());
      OracleRecord fact;
      fact.position = cut.position;
      fact.unreadable = Refusal::malformed;
      facts.push_back(fact);
    }
  }

  const Plan& plan_;
  const Shape& shape_;
  const Config& config_;
  Random random_;
  Random values_;
  Random actions_;
  std::map<StreamPartition, TimeMs> silent_after_;
  std::vector<Draft> drafts_;
  bool has_too_delayed_ = false;
};

}  // namespace

Position PartitionLog::end(std::size_t count, std::size_t bytes) const {
  if (count == 0) return begin + bytes;
  return records[count - 1].record.next + records[count - 1].gap + bytes;
}

ShopLog write_shop_log(const Plan& plan) {
  return ShopWriter(plan).write();
}

}  // namespace sluice::simulation
