// The join against the oracle, on random logs and random configs, driven in random rhythms.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <set>
#include <sstream>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "ingest/features.h"
#include "oracle.h"
#include "stages.h"

namespace sluice {
namespace {

constexpr TimeMs kFirstTime = 1'712'345'678'000;

// One record of some log, in the order of writing over all logs.
struct Writing {
  int stream = 0;
  int partition = 0;  // -1: the one that its key belongs to
  int pause = 0;      // event time since the record before it
  int delay = 0;      // how far its own event time lies behind
  int impression = 0;
  int user = 0;
  int item = 0;
  int event = 0;      // 0: no event_id
  int flaw = 0;       // 0: none, else as spoil() says
  int log_delay = 0;  // log time − event time; 0: no log time
  int value = 0;      // of a purchase: index of kValues
};

// What may stand for a purchase's value, and what it is in millionths.
struct ValueCase {
  const char* text;
  std::optional<std::int64_t> micros;
};
constexpr std::array<ValueCase, 12> kValues = {{
    {"", std::nullopt},  // no such field
    {"null", std::nullopt},
    {"\"5\"", std::nullopt},
    {"[5]", std::nullopt},
    {"0", 0},
    {"7", 7'000'000},
    {"19.99", 19'990'000},
    {"-3.5", -3'500'000},
    {"1e-6", 1},
    {"0.0000004", 0},
    {"9000000000000", 9'000'000'000'000'000'000},  // two of them are beyond 64 bits
    {"-1e300", INT64_MIN},
}};

void showValue(const Writing& w, std::ostream& out) {
  out << kStreamNames.at(static_cast<std::size_t>(w.stream)) << "/" << w.partition << " pause "
      << w.pause << " delay " << w.delay << " impression " << w.impression << " user " << w.user
      << " item " << w.item << " event " << w.event << " flaw " << w.flaw << " log_delay "
      << w.log_delay << " value " << w.value << "\n";
}

struct Settings {
  int partitions = 1;
  int click_window = 10;
  int conversion_window = 20;
  int tick = 1;
  int clock_skew = 0;
  bool by_user_item = false;
  bool by_last_click = false;
  bool at_close = false;
  bool sums_values = false;  // then at_close too
  bool has_actions = false;  // else what is written as an action is a purchase
  int action_window = 20;
  bool action_at_close = false;
  std::vector<int> max_out_of_orderness = {0, 0, 0, 0};
  int max_ahead = 5;
};

void showValue(const Settings& s, std::ostream& out) {
  out << "partitions " << s.partitions << " click_window " << s.click_window
      << " conversion_window " << s.conversion_window << " tick " << s.tick << " clock_skew "
      << s.clock_skew << " by_user_item " << s.by_user_item << " by_last_click " << s.by_last_click
      << " at_close " << s.at_close << " sums_values " << s.sums_values << " has_actions "
      << s.has_actions << " action_window " << s.action_window << " action_at_close "
      << s.action_at_close << " max_out_of_orderness";
  for (const int disorder : s.max_out_of_orderness) out << " " << disorder;
  out << " max_ahead " << s.max_ahead;
}

rc::Gen<int> between(int low, int high) {  // both included
  return rc::gen::resize(rc::kNominalSize, rc::gen::inRange(low, high + 1));
}

// Mostly `usual`, else something of `other`.
rc::Gen<int> mostly(int usual, rc::Gen<int> other) {
  return rc::gen::weightedOneOf<int>({{9, rc::gen::just(usual)}, {1, std::move(other)}});
}

rc::Gen<Writing> any_writing() {
  return rc::gen::build<Writing>(
      rc::gen::set(&Writing::stream, rc::gen::element(0, 0, 0, 1, 1, 1, 2, 2, 3, 3)),
      rc::gen::set(&Writing::partition, mostly(-1, between(0, 3))),
      rc::gen::set(&Writing::pause, rc::gen::element(0, 0, 1, 1, 2, 3, 7)),
      rc::gen::set(&Writing::delay, rc::gen::element(0, 0, 0, 1, 2, 3, 5, 8, 13, 30)),
      rc::gen::set(&Writing::impression, between(0, 4)),
      rc::gen::set(&Writing::user, between(0, 1)), rc::gen::set(&Writing::item, between(0, 1)),
      rc::gen::set(&Writing::event, between(0, 5)),
      rc::gen::set(&Writing::flaw, mostly(0, between(1, 6))),
      rc::gen::set(&Writing::log_delay, mostly(0, between(-12, 12))),
      rc::gen::set(&Writing::value, between(0, static_cast<int>(kValues.size()) - 1)));
}

rc::Gen<Settings> any_settings() {
  return rc::gen::build<Settings>(
      rc::gen::set(&Settings::partitions, between(1, 4)),
      rc::gen::set(&Settings::click_window, between(5, 50)),
      rc::gen::set(&Settings::conversion_window, between(1, 80)),
      rc::gen::set(&Settings::tick, between(1, 20)),
      rc::gen::set(&Settings::clock_skew, rc::gen::element(0, 0, 1, 3, 10)),
      rc::gen::set(&Settings::by_user_item), rc::gen::set(&Settings::by_last_click),
      rc::gen::set(&Settings::at_close), rc::gen::set(&Settings::sums_values),
      rc::gen::set(&Settings::has_actions), rc::gen::set(&Settings::action_at_close),
      rc::gen::set(&Settings::action_window, between(1, 80)),
      rc::gen::set(&Settings::max_out_of_orderness,
                   rc::gen::container<std::vector<int>>(kStreams, rc::gen::element(0, 3, 10, 30))),
      rc::gen::set(&Settings::max_ahead, between(0, 10)));
}

rc::Gen<Rhythm> any_rhythm() {
  return rc::gen::build<Rhythm>(
      rc::gen::set(&Rhythm::seed, rc::gen::arbitrary<std::uint64_t>()),
      rc::gen::set(&Rhythm::max_read, rc::gen::element<std::size_t>(1, 2, 5, 40)),
      rc::gen::set(&Rhythm::commit_one_in, rc::gen::element<std::uint64_t>(1, 2, 5, 20)),
      rc::gen::set(&Rhythm::crash_one_in, rc::gen::element<std::uint64_t>(0, 4, 10, 40)),
      rc::gen::set(&Rhythm::hesitates), rc::gen::set(&Rhythm::trims));
}

}  // namespace

void showValue(const Rhythm& r, std::ostream& out) {
  out << "seed " << r.seed << " max_read " << r.max_read << " commit_one_in " << r.commit_one_in
      << " crash_one_in " << r.crash_one_in << " hesitates " << r.hesitates << " trims " << r.trims
      << " quiets " << r.quiets;
}

namespace {

Config make_config(const Settings& settings) {
  Config config;
  config.join.attribution = settings.by_user_item ? JoinConfig::Attribution::user_item
                                                  : JoinConfig::Attribution::impression_id;
  config.join.attributed_click = settings.by_last_click ? JoinConfig::AttributedClick::last
                                                        : JoinConfig::AttributedClick::first;
  const bool at_close = settings.at_close || settings.sums_values;
  config.join.purchase_label =
      at_close ? JoinConfig::PurchaseLabel::at_close : JoinConfig::PurchaseLabel::at_purchase;
  if (settings.sums_values) config.join.purchase_value = JoinConfig::PurchaseValue::sum;
  config.streams.value = "basket.total";
  config.join.click_window = settings.click_window;
  config.join.conversion_window = settings.conversion_window;
  config.join.tick = settings.tick;
  config.join.clock_skew = settings.clock_skew;
  for (std::size_t stream = 0; stream < kStreams; ++stream) {
    config.streams.max_out_of_orderness[stream] = settings.max_out_of_orderness[stream];
  }
  if (settings.has_actions) config.streams.topic[3] = "actions";
  config.join.action_window = settings.action_window;
  if (settings.action_at_close) config.join.action_label = JoinConfig::ActionLabel::at_close;
  config.streams.max_ahead = settings.max_ahead;
  config.streams.log_time = "written";
  config.streams.max_record_bytes = 400;
  config.features = {{"country", "features.country", FeatureConfig::Type::id, "country", 0, {}}};
  return config;
}

std::string quoted(const std::string& name, const std::string& value) {
  return value.empty() ? "" : ",\"" + name + "\":\"" + value + "\"";
}

// Both sides of a log: what lies in it, and what the oracle is told.
struct Logs {
  std::map<StreamPartition, std::vector<Record>> records;
  OracleLogs facts;
  std::size_t count = 0;
};

void spoil(int flaw, std::string& bytes, OracleRecord& fact) {
  fact.unreadable = Refusal::malformed;
  switch (flaw) {
    case 1:
      bytes.pop_back();
      break;
    case 2:
      bytes += "}";
      break;
    case 3:
      bytes.erase(6, 3);  // as if in seconds
      break;
    case 4:
      bytes.clear();
      break;
    case 5:
      bytes.insert(bytes.size() - 1, ",\"user_id\":[1]");
      break;
    default:
      bytes.insert(bytes.size() - 1, std::string(400, ' '));
      fact.unreadable = Refusal::oversized;
  }
}

Logs write_logs(const std::vector<Writing>& writings, const Settings& settings) {
  Logs logs;
  TimeMs now = kFirstTime;
  for (const Writing& w : writings) {
    const int key = settings.by_user_item ? w.user : w.impression;
    const int partition = (w.partition < 0 ? key : w.partition) % settings.partitions;
    const int stream = w.stream == 3 && !settings.has_actions ? 2 : w.stream;
    const StreamPartition where{static_cast<Stream>(stream), static_cast<std::uint32_t>(partition)};
    now += w.pause;
    OracleRecord fact;
    fact.time = now - w.delay;
    if (w.log_delay != 0) fact.log_time = fact.time + w.log_delay;
    if (w.event != 0) fact.event_id = "e" + std::to_string(w.event);
    // With user_item attribution a click names no impression.
    if (where.stream == Stream::impressions || !settings.by_user_item) {
      fact.impression_id = std::to_string(w.impression);
    }
    fact.user_id = "u" + std::to_string(w.user);
    fact.item_id = std::to_string(w.item);
    std::string bytes = "{\"ts\":" + std::to_string(fact.time) + quoted("event_id", fact.event_id) +
                        quoted("impression_id", fact.impression_id) +
                        // An integer id is its digits.
                        ",\"item_id\":" + fact.item_id;
    if (fact.log_time) bytes += ",\"written\":" + std::to_string(*fact.log_time);
    if (where.stream == Stream::impressions) {
      const std::string country = "country " + std::to_string(w.user + 2 * w.item);
      bytes += ",\"features\":{\"country\":\"" + country + "\"}";
      FeatureWriter(fact.features).id(country);
    }
    if (where.stream == Stream::purchases) {
      const ValueCase& value = kValues.at(static_cast<std::size_t>(w.value));
      fact.value = value.micros;
      if (*value.text != '\0') bytes += std::string(",\"basket\":{\"total\":") + value.text + "}";
    }
    // Last, so that spoil() cannot add a second one that would not count.
    bytes += w.flaw == 5 ? "}" : quoted("user_id", fact.user_id) + "}";
    if (w.flaw != 0) spoil(w.flaw, bytes, fact);
    auto& log = logs.records[where];
    Record record;
    record.position = log.empty() ? 7 : log.back().next;
    record.next = record.position + 1 + bytes.size();
    record.bytes = bytes;
    fact.position = record.position;
    log.push_back(std::move(record));
    logs.facts[where].push_back(std::move(fact));
    ++logs.count;
  }
  return logs;
}

// A sample's time must lie before every log's true watermark when it appears: the highest accepted
// time of what was read, less the disorder allowed.
void check_not_early(const Stages& stages, const std::vector<Sample>& added, const Logs& logs,
                     const OracleResult& expected, const Config& config, std::uint32_t partitions) {
  std::set<std::pair<StreamPartition, Position>> refused_at_reading;
  for (const OracleRefusal& refusal : expected.refusals) {
    if (refusal.reason > Refusal::late) continue;
    refused_at_reading.insert({refusal.where, refusal.position});
  }
  TimeMs watermark = kTimeMax;
  for (std::uint32_t index = 0; index < config.streams.count() * partitions; ++index) {
    const StreamPartition where{static_cast<Stream>(index / partitions), index % partitions};
    if (stages.is_at_end(where)) continue;
    TimeMs highest = kTimeMin;
    const auto log = logs.facts.find(where);
    if (log != logs.facts.end()) {
      for (const OracleRecord& fact : log->second) {
        if (fact.position >= stages.read_up_to(where)) break;
        if (refused_at_reading.count({where, fact.position}) != 0) continue;
        highest = std::max(highest, fact.time);
      }
    }
    watermark = std::min(
        watermark,
        highest - config.streams.max_out_of_orderness[static_cast<std::size_t>(where.stream)]);
  }
  for (const Sample& sample : added) RC_ASSERT(sample.time < watermark);
}

void check_each_labelled_once(const std::vector<Sample>& samples, std::uint64_t impressions,
                              bool has_actions) {
  using Key = std::tuple<std::uint32_t, std::string, TimeMs>;
  std::map<Key, int> y_final;
  std::map<Key, int> action_final;
  std::map<Key, int> z_final;
  std::map<Key, int> last;
  for (const Sample& sample : samples) {
    const Key key{sample.shard, sample.impression_id, sample.impression_time};
    y_final[key] += sample.y_final ? 1 : 0;
    RC_ASSERT(y_final[key] == 1);  // y is never later than the others
    z_final[key] += sample.z_final ? 1 : 0;
    action_final[key] += sample.action_final ? 1 : 0;
    RC_ASSERT(last[key] == 0);  // none comes after the last one
    last[key] += is_last_sample(sample) ? 1 : 0;
    RC_ASSERT(sample.y_final || sample.action_final || sample.z_final);
    RC_ASSERT(!sample.z || (sample.y && sample.z_final));
    RC_ASSERT(!sample.action || (sample.y && has_actions && action_final[key] == 1));
    RC_ASSERT(sample.action == sample.action_time.has_value());
  }
  RC_ASSERT(y_final.size() == impressions);
  for (const auto& [key, count] : action_final) RC_ASSERT(count == (has_actions ? 1 : 0));
  for (const auto& [key, count] : last) RC_ASSERT(count == 1);
  for (const auto& [key, count] : y_final) RC_ASSERT(count == 1);
  for (const auto& [key, count] : z_final) RC_ASSERT(count == 1);
}

void check_dead_letters(KeyValueStore& store, const Logs& logs, const OracleResult& expected) {
  std::vector<OracleRefusal> refusals;
  for (const StoredDeadLetter& letter : read_dead_letters(store)) {
    refusals.push_back(letter.refusal);
    bool has_same_bytes = false;
    for (const Record& record : logs.records.at(letter.refusal.where)) {
      if (record.position == letter.refusal.position) has_same_bytes = record.bytes == letter.bytes;
    }
    RC_ASSERT(has_same_bytes);
  }
  std::sort(refusals.begin(), refusals.end());
  std::vector<OracleRefusal> wanted;
  for (const OracleRefusal& refusal : expected.refusals) {
    if (is_dead_letter(refusal.reason)) wanted.push_back(refusal);
  }
  RC_ASSERT(refusals == wanted);
}

// The oracle cannot know which records came after their quiet partition was passed: it is told, and
// must then agree on all the rest.
void mark_after_quiet(KeyValueStore& store, OracleLogs& facts) {
  for (const StoredDeadLetter& letter : read_dead_letters(store)) {
    if (letter.refusal.reason != Refusal::late_after_quiet) continue;
    for (OracleRecord& fact : facts.at(letter.refusal.where)) {
      if (fact.position == letter.refusal.position) fact.came_after_quiet = true;
    }
  }
}

// What "sum" adds to "none" is the values, and the use of some repeats.
void check_labels_stay(const OracleLogs& facts, std::uint32_t partitions, Config config,
                       const OracleResult& summed) {
  config.join.purchase_value = JoinConfig::PurchaseValue::none;
  OracleResult plain = expected_join(facts, partitions, config.streams, config.join);
  std::vector<Sample> without = summed.samples;
  for (Sample& sample : without) sample.value = 0;
  RC_ASSERT(difference(without, plain.samples) == "");
  RC_ASSERT(summed.used[2] == plain.used[2] + summed.further_purchases);
  plain.refused[2][static_cast<std::size_t>(Refusal::repeat)] -= summed.further_purchases;
  RC_ASSERT(plain.refused == summed.refused);
  for (const Sample& sample : summed.samples) RC_ASSERT(sample.value == 0 || sample.z);
}

// Actions add labels and samples, and change nothing of the others; but where their window is the
// longer one impressions are open for longer.
void check_y_and_z_stay(OracleLogs facts, std::uint32_t partitions, Config config,
                        const OracleResult& acted) {
  if (config.join.action_window > config.join.conversion_window) return;
  std::erase_if(facts, [](const auto& log) { return log.first.stream == Stream::actions; });
  config.streams.topic[3].clear();
  const OracleResult plain = expected_join(facts, partitions, config.streams, config.join);
  std::vector<Sample> without;
  for (Sample sample : acted.samples) {
    if (!sample.y_final && !sample.z_final) continue;
    sample.sequence = without.size() + 1;
    sample.action = sample.action_final = sample.z_earlier = sample.action_later = false;
    sample.action_time.reset();
    without.push_back(sample);
  }
  RC_ASSERT(difference(without, plain.samples) == "");
  for (std::size_t stream = 0; stream < kStreamsWithoutActions; ++stream) {
    RC_ASSERT(plain.used[stream] == acted.used[stream]);
    RC_ASSERT(plain.refused[stream] == acted.refused[stream]);
  }
}

OracleResult join_equals_oracle(const Settings& settings, const std::vector<Writing>& writings,
                                const Rhythm& rhythm) {
  const Config config = make_config(settings);
  const auto partitions = static_cast<std::uint32_t>(settings.partitions);
  Logs logs = write_logs(writings, settings);
  MemorySource source(partitions, logs.records);
  Decoder decoder(config.streams, config.join, config.features);
  const auto store = make_memory_store();
  Stages stages(config, source, decoder, *store, rhythm);
  const OracleResult undisturbed =
      expected_join(logs.facts, partitions, config.streams, config.join);
  const auto samples = stages.run([&](const Stages& now, const std::vector<Sample>& added) {
    if (!rhythm.quiets) check_not_early(now, added, logs, undisturbed, config, partitions);
  });
  mark_after_quiet(*store, logs.facts);
  const OracleResult expected = expected_join(logs.facts, partitions, config.streams, config.join);
  const std::size_t quiet = static_cast<std::size_t>(Refusal::late_after_quiet);
  const bool has_late_after_quiet =
      std::any_of(expected.refused.begin(), expected.refused.end(),
                  [quiet](const auto& stream) { return stream[quiet] > 0; });
  RC_ASSERT(rhythm.quiets || !has_late_after_quiet);

  const std::string wrong_samples = difference(samples, expected.samples);
  if (!wrong_samples.empty()) RC_FAIL(wrong_samples);
  Digest digest;
  for (const Sample& sample : expected.samples) digest = chain_sample(digest, sample);
  const JoinProgress& progress = stages.join().committed();
  RC_ASSERT(progress.samples_digest == digest);
  RC_ASSERT(progress.is_closed);
  RC_ASSERT(progress.irreproducible_from.has_value() == has_late_after_quiet);
  if (config.join.sums_values()) check_labels_stay(logs.facts, partitions, config, expected);
  const bool has_actions = config.streams.has_actions();
  RC_ASSERT(progress.streams() == config.streams.count());
  if (has_actions) check_y_and_z_stay(logs.facts, partitions, config, expected);
  const std::string wrong_counters = difference(progress.counters, expected);
  if (!wrong_counters.empty()) RC_FAIL(wrong_counters);
  std::uint64_t read = 0;
  for (std::size_t stream = 0; stream < kStreams; ++stream) {
    read += progress.counters.read(static_cast<Stream>(stream));
  }
  RC_ASSERT(read == logs.count);
  check_dead_letters(*store, logs, expected);
  check_each_labelled_once(samples, expected.used[0], has_actions);
  RC_ASSERT(count_keys(*store, Space::state) == 0u);
  RC_ASSERT(stages.join().open_impressions() == 0u);
  RC_ASSERT(stages.join().waiting_records() == 0u);
  RC_ASSERT(stages.join().next_deadline() == kTimeMax);
  return expected;
}

// Clicks that took the place of an earlier one.
std::uint64_t further_clicks(const OracleResult& expected) {
  return expected.used[1] - expected.clicked;
}

// How often the rare things happened over all cases: a property that never meets them says little.
struct Coverage {
  std::array<std::uint64_t, kRefusals> refused{};
  std::uint64_t second_samples = 0;
  std::uint64_t converted = 0;
  std::uint64_t further_clicks = 0;     // that became the attributed one
  std::uint64_t further_purchases = 0;  // that added to a sum
  std::uint64_t at_an_end = 0;          // sums beyond 64 bits
  std::uint64_t acted = 0;
  std::uint64_t third_samples = 0;
  std::uint64_t repeated_actions = 0;
};

// In the rhythms of any_rhythm(), with quiet partitions or without.
Coverage check_property(bool quiets, int cases) {
  rc::detail::TestParams params = rc::detail::configuration().testParams;
  params.maxSuccess = std::max(params.maxSuccess, cases);
  rc::detail::TestMetadata metadata;
  metadata.id = quiets ? "quiet join" : "join";
  metadata.description = "the join equals the oracle";
  Coverage coverage;
  const auto result = rc::detail::checkTestable(
      [&coverage, quiets] {
        const auto settings = *any_settings();
        const auto count = *rc::gen::inRange<std::size_t>(0, 120);
        const auto writings = *rc::gen::container<std::vector<Writing>>(count, any_writing());
        auto rhythm = *any_rhythm();
        rhythm.quiets = quiets;
        const OracleResult expected = join_equals_oracle(settings, writings, rhythm);
        for (const auto& stream : expected.refused) {
          for (std::size_t reason = 0; reason < kRefusals; ++reason) {
            coverage.refused[reason] += stream[reason];
          }
        }
        coverage.second_samples += expected.samples.size() - expected.labelled_impressions;
        coverage.converted += expected.converted;
        coverage.further_clicks += further_clicks(expected);
        coverage.further_purchases += expected.further_purchases;
        coverage.acted += expected.acted;
        coverage.repeated_actions += expected.refused[3][static_cast<std::size_t>(Refusal::repeat)];
        for (const Sample& sample : expected.samples) {
          const bool is_third =
              !sample.y_final && is_last_sample(sample) &&
              (sample.z_earlier || (settings.has_actions && !sample.action_final));
          if (is_third) ++coverage.third_samples;
          if (sample.value == INT64_MAX || sample.value == INT64_MIN) ++coverage.at_an_end;
        }
      },
      metadata, params);
  std::ostringstream message;
  rc::detail::printResultMessage(result, message);
  EXPECT_TRUE(result.is<rc::detail::SuccessResult>())
      << message.str() << "\nrepeat with RC_PARAMS=\"seed=" << params.seed << "\"";
  return coverage;
}

TEST(JoinProperty, EqualsTheOracleInAnyRhythm) {
  const Coverage coverage = check_property(false, 4'000);
  for (std::size_t reason = 0; reason < kRefusals; ++reason) {
    const auto refusal = static_cast<Refusal>(reason);
    RecordProperty(to_string(refusal), std::to_string(coverage.refused[reason]));
    if (refusal == Refusal::late_after_quiet) {
      EXPECT_EQ(coverage.refused[reason], 0u);  // nothing is quiet in a replay
    } else {
      EXPECT_GT(coverage.refused[reason], 500u) << to_string(refusal);
    }
  }
  RecordProperty("second_samples", std::to_string(coverage.second_samples));
  RecordProperty("converted", std::to_string(coverage.converted));
  EXPECT_GT(coverage.second_samples, 1'000u);
  EXPECT_GT(coverage.converted, 1'000u);
  RecordProperty("further_clicks", std::to_string(coverage.further_clicks));
  EXPECT_GT(coverage.further_clicks, 500u);
  RecordProperty("further_purchases", std::to_string(coverage.further_purchases));
  EXPECT_GT(coverage.further_purchases, 500u);
  RecordProperty("at_an_end", std::to_string(coverage.at_an_end));
  EXPECT_GT(coverage.at_an_end, 50u);
  RecordProperty("acted", std::to_string(coverage.acted));
  EXPECT_GT(coverage.acted, 500u);
  RecordProperty("third_samples", std::to_string(coverage.third_samples));
  EXPECT_GT(coverage.third_samples, 500u);
  RecordProperty("repeated_actions", std::to_string(coverage.repeated_actions));
  EXPECT_GT(coverage.repeated_actions, 100u);
}

TEST(JoinProperty, WithQuietPartitionsNothingIsLostOrCountedTwice) {
  const Coverage coverage = check_property(true, 2'000);
  EXPECT_GT(coverage.refused[static_cast<std::size_t>(Refusal::late_after_quiet)], 500u);
}

// Long logs and windows: many open impressions in many pages, and look-ups in old ones.
TEST(JoinProperty, EqualsTheOracleOnLongLogs) {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    TestRandom random(seed);
    Settings settings;
    settings.partitions = static_cast<int>(1 + seed % 2);
    settings.click_window = 1'500;
    settings.conversion_window = 3'000;
    settings.tick = 10;
    settings.clock_skew = seed % 3 == 0 ? 10 : 0;
    settings.by_user_item = seed > 3;
    settings.by_last_click = seed % 3 != 1;
    settings.at_close = seed % 2 == 0;
    settings.sums_values = seed % 4 == 0;
    settings.has_actions = seed % 2 == 1;
    settings.action_window = seed % 4 == 1 ? 2'000 : 4'000;
    settings.action_at_close = seed == 5;
    settings.max_out_of_orderness = {10, 30, 30, 30};
    settings.max_ahead = 5;
    std::vector<Writing> writings;
    for (int count = 0; count < 4'000; ++count) {
      const auto below = [&random](int bound) {
        return static_cast<int>(random.below(static_cast<std::uint64_t>(bound)));
      };
      Writing w;
      w.stream = std::max(0, below(9) - 5);
      w.partition = -1;
      w.pause = below(3);
      w.delay = below(12);
      // Ids of some time ago; an impression's own is mostly new.
      w.impression = w.stream == 0 ? count : std::max(0, count - below(600)) / 5 * 5;
      if (below(20) == 0) w.impression = below(50);
      w.user = below(8);
      w.item = below(8);
      w.event = below(3) * (1 + below(100));
      w.value = below(static_cast<int>(kValues.size()));
      writings.push_back(w);
    }
    // join_equals_oracle() speaks RapidCheck; a check of one case tells what it says.
    rc::detail::TestParams once;
    once.maxSuccess = 1;
    const Rhythm rhythm{seed, 300, 5, 15, true, true, false};
    std::uint64_t converted = 0;
    std::uint64_t further = 0;
    const auto result = rc::detail::checkTestable(
        [&] {
          const OracleResult expected = join_equals_oracle(settings, writings, rhythm);
          converted += expected.converted;
          further += further_clicks(expected);
        },
        rc::detail::TestMetadata(), once);
    std::ostringstream message;
    rc::detail::printResultMessage(result, message);
    EXPECT_TRUE(result.is<rc::detail::SuccessResult>()) << "seed " << seed << "\n" << message.str();
    EXPECT_GT(converted, 20u) << "seed " << seed;
    EXPECT_EQ(further > 20, settings.by_last_click) << "seed " << seed << ": " << further;
  }
}

}  // namespace
}  // namespace sluice
