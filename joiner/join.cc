#include "joiner/join.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "ingest/dead_letter.h"
#include "joiner/sample_log.h"

namespace sluice {
namespace {

// Format 1 ends before the numbers of the dead-letter topic, format 2 before those of values,
// format 3 before those of actions: it is still the one of lineages without.
constexpr std::uint8_t kProgressFormat = 3;
constexpr std::uint8_t kProgressFormatWithActions = 4;
constexpr std::uint8_t kFirstProgressFormat = 1;
constexpr const char* kProgressKey = "progress";
constexpr const char* kIdentityKey = "identity";
constexpr const char* kFeaturesKey = "features";  // of the identity
// Among those kept where there are actions.
constexpr const char* kActionsKey = "streams.actions.max_out_of_orderness";
// A key that is not among those kept (semantic_keys).
constexpr const char* kDefault = "its default";
// A dead letter's key and bookkeeping, about; counts towards dead_letters.keep.size.
constexpr std::uint64_t kDeadLetterOverhead = 32;
// What a sample's bytes hold beside its texts, about.
constexpr std::uint64_t kNumberBytes = 32;

// The join's semantic keys as "key = value" lines, the form in which they are kept and compared.
std::map<std::string, std::string> parse_lines(std::string_view text) {
  std::map<std::string, std::string> keys;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const std::size_t split = line.find(" = ");
    if (split != std::string_view::npos)
      keys.emplace(line.substr(0, split), line.substr(split + 3));
  }
  return keys;
}

// Pages and samples hold the features' values in this order and by these types, for every learner
// over the join (ingest/features.h): of several learners it is the config of the join that has the
// features of all.
std::string stored_features(const Config& config) {
  constexpr std::array<const char*, 4> kTypes = {"id", "ids", "weighted_ids", "number"};
  std::string text;
  for (const FeatureConfig& feature : config.features) {
    text += (text.empty() ? "" : ", ") + feature.name + ":" + feature.path + ":" +
            kTypes[static_cast<std::size_t>(feature.type)];
  }
  return text.empty() ? "none" : text;
}

std::map<std::string, std::string> identity_keys(const Config& config) {
  std::map<std::string, std::string> keys = semantic_keys(config, KeyGroup::join);
  keys[kFeaturesKey] = stored_features(config);
  return keys;
}

std::set<std::string> split_features(std::string_view text) {
  std::set<std::string> features;
  while (!text.empty()) {
    const std::string_view feature = text.substr(0, text.find(", "));
    features.emplace(feature);
    text.remove_prefix(std::min(text.size(), feature.size() + 2));
  }
  return features;
}

// Of a long list of features only what went and what came.
std::string describe_change(const std::string& key, const std::string& was, const std::string& is) {
  if (key != kFeaturesKey) return "; " + key + " was " + was + ", is " + is;
  const std::set<std::string> before = split_features(was);
  const std::set<std::string> now = split_features(is);
  std::string text;
  for (const std::string& feature : before) {
    if (!now.contains(feature)) text += "; feature " + feature + " is not there any more";
  }
  for (const std::string& feature : now) {
    if (!before.contains(feature)) text += "; feature " + feature + " is new";
  }
  return text;
}

// Where only one of the two has actions: that, and not the keys that only it has.
std::string take_actions(std::map<std::string, std::string>& before,
                         std::map<std::string, std::string>& now) {
  if (before.contains(kActionsKey) == now.contains(kActionsKey)) return "";
  const bool had_actions = before.contains(kActionsKey);
  for (auto* const keys : {&before, &now}) {
    std::erase_if(*keys, [](const auto& entry) {
      return entry.first.starts_with("streams.actions.") || entry.first.starts_with("join.action_");
    });
  }
  return std::string("; streams.actions.topic ") +
         (had_actions ? "named a stream, is empty" : "was empty, names a stream");
}

// About what it will be in the log.
std::uint64_t bytes_of(const SampleView& sample) {
  return kNumberBytes + sample.impression_id.size() + sample.user_id.size() +
         sample.item_id.size() + sample.features.size();
}

void encode_optional(const std::optional<std::uint64_t>& value, ByteWriter& bytes) {
  bytes.u8(value ? 1 : 0);
  bytes.varint(value.value_or(0));
}

}  // namespace

std::string JoinProgress::encode() const {
  std::string value;
  ByteWriter bytes(value);
  bytes.svarint(frontier);
  bytes.varint(next_sequence);
  bytes.u64(samples_digest.low);
  bytes.u64(samples_digest.high);
  counters.encode(bytes);
  bytes.varint(intakes.size());
  for (const IntakeState& intake : intakes) intake.encode(bytes);
  bytes.varint(shards.size());
  for (const ShardProgress& shard : shards) {
    bytes.varint(shard.front);
    bytes.varint(shard.next);
  }
  bytes.varint(pinned_ends.size());
  for (const Position end : pinned_ends) bytes.varint(end);
  bytes.u8(is_closed ? 1 : 0);
  encode_optional(irreproducible_from, bytes);
  bytes.varint(first_logged);
  bytes.varint(first_dead_letter);
  bytes.varint(next_dead_letter);
  bytes.varint(dead_letter_bytes);
  bytes.varint(trimmed_dead_letters);
  bytes.varint(sent_dead_letters);
  bytes.varint(trimmed_unsent_dead_letters);
  bytes.svarint(counters.value.units);
  bytes.svarint(counters.value.micros);
  bytes.varint(counters.without_value);
  const bool has_actions = streams() == kStreams;
  if (has_actions) counters.encode_actions(bytes);
  std::string framed;
  ByteWriter frame(framed);
  frame.u8(has_actions ? kProgressFormatWithActions : kProgressFormat);
  frame.u64(hash64(value));
  return framed + value;
}

Result<JoinProgress> JoinProgress::decode(std::string_view text) {
  ByteReader in(text);
  const Error damaged =
      stop_error("the join's progress record is damaged; replay into a new data folder");
  const std::uint8_t format = in.u8();
  const std::uint64_t checksum = in.u64();
  if (format < kFirstProgressFormat || format > kProgressFormatWithActions ||
      hash64(text.substr(text.size() - in.remaining())) != checksum) {
    return damaged;
  }
  JoinProgress progress;
  progress.frontier = in.svarint();
  progress.next_sequence = in.varint();
  progress.samples_digest.low = in.u64();
  progress.samples_digest.high = in.u64();
  progress.counters = JoinCounters::decode(in);
  for (std::uint64_t left = in.varint(); left > 0 && in.ok(); --left) {
    progress.intakes.push_back(IntakeState::decode(in));
  }
  for (std::uint64_t left = in.varint(); left > 0 && in.ok(); --left) {
    ShardProgress& shard = progress.shards.emplace_back();
    shard.front = in.varint();
    shard.next = in.varint();
  }
  for (std::uint64_t left = in.varint(); left > 0 && in.ok(); --left) {
    progress.pinned_ends.push_back(in.varint());
  }
  progress.is_closed = in.u8() != 0;
  const bool has_irreproducible = in.u8() != 0;
  const std::uint64_t irreproducible_from = in.varint();
  if (has_irreproducible) progress.irreproducible_from = irreproducible_from;
  progress.first_logged = in.varint();
  progress.first_dead_letter = in.varint();
  progress.next_dead_letter = in.varint();
  progress.dead_letter_bytes = in.varint();
  progress.trimmed_dead_letters = in.varint();
  if (format > kFirstProgressFormat) {
    progress.sent_dead_letters = in.varint();
    progress.trimmed_unsent_dead_letters = in.varint();
  }
  if (format > 2) {
    progress.counters.value.units = in.svarint();
    progress.counters.value.micros = in.svarint();
    progress.counters.without_value = in.varint();
    if (progress.counters.value.micros < 0 || progress.counters.value.micros >= kMicros) {
      return damaged;
    }
  }
  if (format == kProgressFormatWithActions) progress.counters.decode_actions(in);
  if (!in.ok() || !in.at_end()) return damaged;
  return progress;
}

Result<std::optional<JoinProgress>> read_progress(KeyValueStore& store) {
  SLUICE_ASSIGN(const auto stored, store.get(Space::meta, kProgressKey));
  if (!stored) return std::optional<JoinProgress>();
  SLUICE_ASSIGN(auto progress, JoinProgress::decode(*stored));
  return std::optional(std::move(progress));
}

Status compare_join_identity(const Config& config, KeyValueStore& store, FeatureRule rule) {
  SLUICE_ASSIGN(const auto stored, store.get(Space::meta, kIdentityKey));
  if (!stored) return {};
  std::map<std::string, std::string> before = parse_lines(*stored);
  before.erase("partitions");
  std::map<std::string, std::string> now = identity_keys(config);
  if (rule == FeatureRule::some) {
    const std::set<std::string> kept = split_features(before[kFeaturesKey]);
    const std::set<std::string> asked = split_features(now[kFeaturesKey]);
    if (std::includes(kept.begin(), kept.end(), asked.begin(), asked.end())) {
      now[kFeaturesKey] = before[kFeaturesKey];
    }
  }
  std::string differing = take_actions(before, now);
  for (const auto& [key, value] : now) {
    const auto found = before.find(key);
    const std::string was = found == before.end() ? kDefault : found->second;
    if (was != value) differing += describe_change(key, was, value);
    before.erase(key);
  }
  for (const auto& [key, value] : before)
    differing += "; " + key + " was " + value + ", is " + kDefault;
  if (differing.empty()) return {};
  return usage_error("this data folder was begun with another join config" + differing +
                     ". Take the old values or another --data-dir");
}

Join::Join(const Config& config, KeyValueStore& store) : config_(config), store_(store) {}

Result<std::unique_ptr<Join>> Join::open(const Config& config, std::uint32_t partitions,
                                         KeyValueStore& store) {
  std::unique_ptr<Join> join(new Join(config, store));
  SLUICE_TRY(join->check_identity(partitions));
  SLUICE_ASSIGN(auto stored, read_progress(store));
  JoinProgress& progress = join->committed_;
  if (stored) {
    progress = *std::move(stored);
    join->has_committed_ = true;
  } else {
    progress.intakes.resize(config.streams.count() * partitions);
    progress.shards.resize(partitions);
  }
  if (progress.intakes.size() != config.streams.count() * partitions ||
      progress.shards.size() != partitions) {
    return stop_error(
        "the join's progress record is of another number of partitions; replay into a "
        "new data folder");
  }
  for (std::uint32_t number = 0; number < partitions; ++number) {
    auto& shard = join->shards_.emplace_back(
        std::make_unique<Shard>(number, config.join, config.streams.has_actions(), store));
    SLUICE_TRY(shard->restore(progress.shards[number]));
  }
  join->frontier_ = progress.frontier;
  join->next_sequence_ = progress.next_sequence;
  join->samples_digest_ = progress.samples_digest;
  join->out_.counters = progress.counters;
  join->pinned_ends_ = progress.pinned_ends;
  join->is_closed_ = progress.is_closed;
  join->irreproducible_from_ = progress.irreproducible_from;
  return join;
}

Status Join::check_identity(std::uint32_t partitions) {
  SLUICE_ASSIGN(const auto stored, store_.get(Space::meta, kIdentityKey));
  const std::string count = std::to_string(partitions);
  if (!stored) {
    std::string text;
    for (const auto& [key, value] : identity_keys(config_)) text += key + " = " + value + "\n";
    WriteBatch batch;
    batch.put(Space::meta, kIdentityKey, "partitions = " + count + "\n" + text);
    return store_.commit(batch);
  }
  std::map<std::string, std::string> before = parse_lines(*stored);
  if (before["partitions"] != count) {
    return stop_error("the logs have " + count + " partitions but this data folder began with " +
                      before["partitions"] +
                      ": the number belongs to the lineage; replay into a "
                      "new data folder");
  }
  return compare_join_identity(config_, store_);
}

TimeMs Join::next_deadline() const {
  TimeMs next = kTimeMax;
  for (const auto& shard : shards_) next = std::min(next, shard->next_deadline());
  return next;
}

std::uint64_t Join::open_impressions() const {
  std::uint64_t sum = 0;
  for (const auto& shard : shards_) sum += shard->open_impressions();
  return sum;
}

std::uint64_t Join::waiting_records() const {
  std::uint64_t sum = 0;
  for (const auto& shard : shards_) sum += shard->waiting_records();
  return sum;
}

Status Join::process(TimeMs frontier, std::vector<std::vector<Event>> events) {
  SLUICE_CHECK(events.size() == shards_.size() && frontier >= frontier_);
  SLUICE_CHECK(!is_closed_ && !is_stopped_);
  out_.samples.clear();
  std::vector<std::size_t> ends;  // of each shard's samples
  for (std::size_t number = 0; number < shards_.size(); ++number) {
    for (const Event& event : events[number]) uncommitted_bytes_ += event.bytes();
    sort_events(events[number]);
    SLUICE_TRY(shards_[number]->process(events[number], frontier, out_));
    ends.push_back(out_.samples.size());
  }
  sequence_samples(frontier, ends);
  frontier_ = frontier;
  return {};
}

// Each shard's samples stand in time order, one shard after the other: tick by tick, and in it
// shard by shard, is the global order.
void Join::sequence_samples(TimeMs frontier, const std::vector<std::size_t>& ends) {
  const DurationMs tick = config_.join.tick;
  std::vector<std::size_t> next = {0};
  next.insert(next.end(), ends.begin(), ends.end() - 1);
  std::size_t left = out_.samples.size();
  while (left > 0) {
    TimeMs first = kTimeMax;
    for (std::size_t shard = 0; shard < ends.size(); ++shard) {
      if (next[shard] < ends[shard]) first = std::min(first, out_.samples[next[shard]].time);
    }
    const TimeMs tick_end = floor_to(first, tick) + tick;
    for (std::size_t shard = 0; shard < ends.size(); ++shard) {
      for (; next[shard] < ends[shard]; ++next[shard], --left) {
        SampleView& sample = out_.samples[next[shard]];
        if (sample.time >= tick_end) break;
        // Checked here, before it is written, and by the learner, after it is read.
        SLUICE_CHECK(frontier_ <= sample.time && sample.time < frontier && (!sample.z || sample.y));
        SLUICE_CHECK(sample.value == 0 || (sample.z && sample.z_final));
        SLUICE_CHECK(!sample.action || sample.y);
        sample.sequence = next_sequence_++;
        samples_digest_ = blocks_.add(sample, samples_digest_);
        uncommitted_bytes_ += bytes_of(sample);
      }
    }
  }
}

void Join::refuse(std::vector<RefusedRecord> refused) {
  for (RefusedRecord& record : refused) {
    if (record.reason == Refusal::late_after_quiet) mark_irreproducible();
    ++out_.counters.refused[static_cast<std::size_t>(record.where.stream)]
                           [static_cast<std::size_t>(record.reason)];
    uncommitted_bytes_ += sizeof record + record.bytes.size();
    out_.refused.push_back(std::move(record));
  }
}

bool Join::has_changes(const std::vector<IntakeState>& intakes) const {
  const auto bytes = [](const std::vector<IntakeState>& states) {
    std::string text;
    ByteWriter writer(text);
    for (const IntakeState& state : states) state.encode(writer);
    return text;
  };
  return frontier_ != committed_.frontier || is_closed_ != committed_.is_closed ||
         pinned_ends_ != committed_.pinned_ends || !out_.refused.empty() ||
         (sent_dead_letters_ && *sent_dead_letters_ > committed_.sent_dead_letters) ||
         bytes(intakes) != bytes(committed_.intakes);
}

Status Join::commit(std::vector<IntakeState> intakes, TimeMs wall_ms, std::uint64_t first_needed) {
  SLUICE_CHECK(!is_stopped_);
  is_stopped_ = true;  // until the write is done
  WriteBatch batch;
  JoinProgress progress = committed_;
  progress.frontier = frontier_;
  progress.next_sequence = next_sequence_;
  progress.samples_digest = samples_digest_;
  progress.counters = out_.counters;
  progress.intakes = std::move(intakes);
  progress.pinned_ends = pinned_ends_;
  progress.is_closed = is_closed_;
  progress.irreproducible_from = irreproducible_from_;
  for (std::size_t number = 0; number < shards_.size(); ++number) {
    shards_[number]->persist(batch);
    progress.shards[number] = shards_[number]->progress();
  }
  blocks_.append_to(batch);
  first_needed = std::min(first_needed, progress.next_sequence);
  if (first_needed > progress.first_logged) {
    trim_samples(progress.first_logged, first_needed, batch);
    progress.first_logged = first_needed;
  }
  progress.sent_dead_letters = std::max(progress.sent_dead_letters, sent_dead_letters_.value_or(0));
  SLUICE_TRY(write_dead_letters(progress, wall_ms, batch));
  batch.put(Space::meta, kProgressKey, progress.encode());
  SLUICE_TRY(store_.commit(batch));
  is_stopped_ = false;
  committed_ = std::move(progress);
  has_committed_ = true;
  out_.refused.clear();
  uncommitted_bytes_ = 0;
  return {};
}

Status Join::write_dead_letters(JoinProgress& progress, TimeMs wall_ms, WriteBatch& batch) {
  SLUICE_TRY(trim_dead_letters(progress, wall_ms, batch));
  for (const RefusedRecord& record : out_.refused) {
    if (!is_dead_letter(record.reason)) continue;
    std::string value = encode_dead_letter(record, wall_ms);
    progress.dead_letter_bytes += value.size() + kDeadLetterOverhead;
    batch.put(Space::dead_letters, dead_letter_key(progress.next_dead_letter++), std::move(value));
  }
  return {};
}

// Drops the oldest ones that are too old or too many; what is dropped is counted.
Status Join::trim_dead_letters(JoinProgress& progress, TimeMs wall_ms, WriteBatch& batch) {
  if (progress.first_dead_letter == progress.next_dead_letter) return {};
  const TimeMs oldest_kept = wall_ms - config_.dead_letters.keep_time;
  SLUICE_TRY(store_.scan(
      Space::dead_letters, dead_letter_key(progress.first_dead_letter),
      dead_letter_key(progress.next_dead_letter), [&](std::string_view, std::string_view value) {
        ByteReader in(value);
        const bool is_too_old = in.svarint() < oldest_kept;
        if (!is_too_old && progress.dead_letter_bytes <= config_.dead_letters.keep_bytes)
          return false;
        const std::uint64_t number = progress.first_dead_letter++;
        batch.remove(Space::dead_letters, dead_letter_key(number));
        if (sent_dead_letters_ && number >= progress.sent_dead_letters) {
          ++progress.trimmed_unsent_dead_letters;
        }
        progress.dead_letter_bytes -= value.size() + kDeadLetterOverhead;
        ++progress.trimmed_dead_letters;
        return true;
      }));
  return {};
}

}  // namespace sluice
