// The typed config: what a TOML file, its defaults and `--set` say together. Every key, its unit,
// default and kind is listed once, in config/schema.cc; docs/config.md is made from that list.
// A Config is plain data, read-only after loading and shared by all threads.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/hash.h"
#include "base/result.h"
#include "base/time.h"

namespace sluice {

// The streams of one shop. The numbers lie in data folders: the actions, which came later and which
// not every shop has, are the last. Their order in time is another one (ingest/event.h).
enum class Stream : std::uint8_t { impressions, clicks, purchases, actions };
inline constexpr std::size_t kStreams = 4;
inline constexpr std::size_t kStreamsWithoutActions = 3;
inline constexpr std::array<const char*, kStreams> kStreamNames = {"impressions", "clicks",
                                                                   "purchases", "actions"};

// [source], operational: where the logs are.
struct SourceConfig {
  enum class Type { files, kafka };
  Type type = Type::files;
  std::string root;     // files: already resolved against the config's folder
  std::string brokers;  // kafka: "host:port,..."
  std::map<std::string, std::string> properties;  // kafka: passed to librdkafka as they are
  std::string start = "earliest";                 // kafka, first start: earliest, latest or a time
  std::optional<DurationMs> idle_after = 10'000;  // quiet after this; none: "never", waits for ever
  DurationMs max_delay = 60'000;              // what comes later than this may be late_after_quiet
  std::uint64_t max_queued_bytes = 64 << 20;  // fetched and not yet read, all partitions together
  std::uint64_t read_records = 1'000;         // records taken from one partition at a time
  friend bool operator==(const SourceConfig&, const SourceConfig&) = default;
};

// [streams], semantic but for the topics' names.
struct StreamsConfig {
  // That of the actions is semantic in one respect: without a name there is no such stream.
  std::array<std::string, kStreams> topic = {"impressions", "clicks", "purchases", ""};
  std::array<DurationMs, kStreams> max_out_of_orderness = {10'000, 10'000, 10'000, 10'000};
  DurationMs max_ahead = 3'600'000;       // of the record's log time
  TimeMs not_before = 1'000'000'000'000;  // 2001-09-09: older event times are malformed
  std::uint64_t max_record_bytes = 1 << 20;
  std::uint64_t max_depth = 32;  // of nested objects and lists
  std::string log_time;          // a record's field (ms); empty: none
  // Names of the event's fields; "a.b" is b inside a.
  std::string ts = "ts";
  std::string event_id = "event_id";
  std::string impression_id = "impression_id";
  std::string user_id = "user_id";
  std::string item_id = "item_id";
  std::string value = "value";  // of a purchase; read only where join.purchase_value asks for it
  bool has_actions() const { return !topic[static_cast<std::size_t>(Stream::actions)].empty(); }
  // The streams that there are: the first so many.
  std::size_t count() const { return has_actions() ? kStreams : kStreamsWithoutActions; }
  friend bool operator==(const StreamsConfig&, const StreamsConfig&) = default;
};

// [join], semantic.
struct JoinConfig {
  enum class Attribution { impression_id, user_item };
  enum class AttributedClick { first, last };
  enum class PurchaseLabel { at_purchase, at_close };
  enum class ActionLabel { at_action, at_close };
  enum class PurchaseValue { none, sum };
  Attribution attribution = Attribution::impression_id;
  AttributedClick attributed_click = AttributedClick::first;  // of an impression's clicks
  DurationMs click_window = 1'800'000;
  DurationMs conversion_window = 86'400'000;
  DurationMs tick = 1'000;
  DurationMs clock_skew = 0;
  PurchaseLabel purchase_label = PurchaseLabel::at_purchase;
  PurchaseValue purchase_value = PurchaseValue::none;  // sum: needs purchase_label at_close
  // Of a shop with actions only.
  DurationMs action_window = 86'400'000;
  ActionLabel action_label = ActionLabel::at_action;
  bool sums_values() const { return purchase_value == PurchaseValue::sum; }
  friend bool operator==(const JoinConfig&, const JoinConfig&) = default;
};

// One line of [features], semantic for the learner.
struct FeatureConfig {
  enum class Type { id, ids, weighted_ids, number };
  std::string name;
  std::string path;  // "features.user.site": keys joined by dots, from the impression's top
  Type type = Type::id;
  std::string table;  // features of one table share its rows; default: the feature's name
  // number only. log_buckets n > 0: sign(v)·floor(n·ln(1+|v|)); edges: ascending; neither: dense.
  int log_buckets = 0;
  std::vector<double> edges;
  // Features that a request's impressions share name one group; empty: none.
  std::string group = {};
  bool is_dense() const { return type == Type::number && log_buckets == 0 && edges.empty(); }
  friend bool operator==(const FeatureConfig&, const FeatureConfig&) = default;
};

// [model], semantic but for the bounds.
struct ModelConfig {
  enum class Precision { f32, bf16 };  // of the matrix products' factors; all else is f32
  std::string name = "model";          // its folder under models/
  std::string recipe = "esmm";         // config/recipe.h: a built-in's name or a file's path
  std::string recipe_text = {};        // a file's content in canonical form; empty: a built-in
  std::uint64_t embedding_dim = 18;
  std::vector<std::uint64_t> hidden = {200, 80};
  std::uint64_t seed = 1;
  Precision precision = Precision::f32;
  std::uint64_t max_rows = 0;    // of all embedding tables; operational; 0: no bound
  std::uint64_t max_memory = 0;  // bytes of all embedding tables; operational; 0: no bound
  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

// The formulas are in learner/optimizer.h. A key that the optimizer does not have is at its
// default.
struct OptimizerConfig {
  enum class Rule { adam, adagrad, ftrl, sgd, rowwise_adagrad };  // the last for embeddings only
  Rule optimizer = Rule::adam;
  double learning_rate = 1e-3;
  double beta1 = 0.9;              // adam
  double beta2 = 0.999;            // adam
  double epsilon = 1e-8;           // adam, adagrad, rowwise_adagrad
  double momentum = 0.9;           // sgd
  double initial_accumulator = 0;  // adagrad, rowwise_adagrad
  double ftrl_beta = 1;            // ftrl
  double l1 = 0;                   // ftrl
  double l2 = 0;
  std::uint64_t warmup_steps = 0;  // batches; 0: none
  double clip_norm = 0;            // 0: none
  friend bool operator==(const OptimizerConfig&, const OptimizerConfig&) = default;
};

// Samples by their sequence numbers, both ends included.
struct SampleRange {
  std::uint64_t first = 0, last = 0;
  bool holds(std::uint64_t sequence) const { return first <= sequence && sequence <= last; }
  friend bool operator==(const SampleRange&, const SampleRange&) = default;
};

// [training], semantic but for lane and threads.
struct TrainingConfig {
  std::uint64_t batch_size = 1'024;
  std::optional<DurationMs> batch_span;  // of event time; none: batches are cut by size only
  std::uint64_t lane = 128;              // operational; samples that one thread computes at a time
  // Predicted and counted, never learned; ascending, apart.
  std::vector<SampleRange> skip_samples = {};
  OptimizerConfig dense;
  OptimizerConfig embeddings;
  std::uint64_t threads = 0;  // operational; 0: one a core
  friend bool operator==(const TrainingConfig&, const TrainingConfig&) = default;
};

// [snapshots.gate], operational: app/snapshot_gate.h.
struct GateConfig {
  double max_auc_drop = 1;
  double calibration_min = 0;
  double calibration_max = 0;         // 0: no bound
  std::uint64_t min_positives = 100;  // of a task in the window; with fewer it is not judged
  friend bool operator==(const GateConfig&, const GateConfig&) = default;
};

struct SnapshotsConfig {
  DurationMs every = 3'600'000;  // of event time; semantic
  std::uint64_t full_every = 1;  // every n-th snapshot is full; semantic; this version: 1
  std::uint64_t keep = 4;        // operational
  GateConfig gate;
  friend bool operator==(const SnapshotsConfig&, const SnapshotsConfig&) = default;
};

// [checkpoints], operational.
struct CheckpointsConfig {
  std::uint64_t every = 1'000'000;  // samples
  DurationMs interval = 600'000;    // wall time
  std::uint64_t keep = 2;           // at least 2
  friend bool operator==(const CheckpointsConfig&, const CheckpointsConfig&) = default;
};

// [store], operational.
struct StoreConfig {
  DurationMs commit_interval = 1'000;      // steady time
  std::uint64_t commit_records = 200'000;  // a commit after so many records at the latest
  std::uint64_t memtable_bytes = 16 << 20;
  std::uint64_t block_cache_bytes = 64 << 20;
  std::uint64_t max_learner_lag = 2'000'000;  // samples; the join waits for the learner beyond it
  friend bool operator==(const StoreConfig&, const StoreConfig&) = default;
};

// [dead_letters], operational.
struct DeadLettersConfig {
  DurationMs keep_time = 2'592'000'000;  // 30 d, of wall time
  std::uint64_t keep_bytes = 1ULL << 30;
  std::string topic;  // kafka: refused records are sent there too; empty: they are not
  friend bool operator==(const DeadLettersConfig&, const DeadLettersConfig&) = default;
};

struct Config {
  SourceConfig source;
  StreamsConfig streams;
  JoinConfig join;
  std::vector<FeatureConfig> features;  // sorted by name, names distinct
  ModelConfig model;
  TrainingConfig training;
  SnapshotsConfig snapshots;
  CheckpointsConfig checkpoints;
  StoreConfig store;
  DeadLettersConfig dead_letters;
  friend bool operator==(const Config&, const Config&) = default;
};

// The two groups of semantic keys, each with a hash of its own.
enum class KeyGroup {
  operational,
  join,     // streams, join: kept in the store
  learner,  // features, model, training, snapshots.every, snapshots.full_every: models/<name>/
};

// The group's keys as "section.key" -> value in canonical TOML, defaults included, sorted: what is
// written beside the data, so that another config can be refused with the names that differ. A key
// that is younger than data folders in use is left out at its default, which they had, and those of
// the actions where there are none.
std::map<std::string, std::string> semantic_keys(const Config& config, KeyGroup group);

// XXH3-128 over "key = value\n" of semantic_keys(), in order.
Digest semantic_hash(const Config& config, KeyGroup group);

}  // namespace sluice
