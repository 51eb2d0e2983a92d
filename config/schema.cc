#include "config/schema.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "config/key_list.h"
#include "config/recipe.h"
#include "config/schema_units.h"

namespace sluice {
namespace {

constexpr std::size_t kMaxLayers = 16;
constexpr std::size_t kMaxEdges = 4'096;
constexpr int kMaxLogBuckets = 64;

constexpr const char* kPathAllowed =
    "a field's name, with dots from an object to what is inside it";
constexpr const char* kNameAllowed =
    "1 to 64 letters, digits, '_' or '-', the first a letter, digit or '_'";

bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-';
}

bool is_name(const std::string& text) {
  return !text.empty() && text.size() <= 64 && text[0] != '-' &&
         std::all_of(text.begin(), text.end(), is_name_char);
}

bool is_name_or_empty(const std::string& text) {
  return text.empty() || is_name(text);
}

bool is_path(const std::string& text) {
  return !text.empty() && text.front() != '.' && text.back() != '.' &&
         text.find("..") == std::string::npos;
}

bool is_path_or_empty(const std::string& text) {
  return text.empty() || is_path(text);
}

// Kafka's rule, which also keeps a topic's folder inside the root.
bool is_topic(const std::string& text) {
  return !text.empty() && text.size() <= 249 && text != "." && text != ".." &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_name_char(c) || c == '.'; });
}

bool is_topic_or_empty(const std::string& text) {
  return text.empty() || is_topic(text);
}

bool is_broker_list(const std::string& text) {
  return text.empty() ||
         (text.front() != ',' && text.back() != ',' && text.find(",,") == std::string::npos &&
          text.find_first_of(" \t\n") == std::string::npos);
}

void add_source(std::vector<Key<Config>>& keys) {
  KeyList source(keys, "source", KeyGroup::operational, &Config::source);
  source.choice<SourceConfig::Type>("type", &SourceConfig::type, {"files", "kafka"},
                                    "Where the event logs are: log files or Apache Kafka.");
  source.text("root", &SourceConfig::root, "a folder's path",
              "Files: the folder of the logs, <root>/<topic>/<partition>.jsonl[.zst|.gz]. Relative "
              "to the config file; in --set, to the working directory.",
              is_any_text);
  source.text("brokers", &SourceConfig::brokers, "\"host:port,host:port,...\"",
              "Kafka: the brokers to ask first.", is_broker_list);
  Key<Config>& start = source.add("start", ValueType::time, "", {}, {},
                                  "Kafka: where a first start begins in each log.");
  start.allowed = "\"earliest\", \"latest\" or a time";
  source.bind(
      start, &SourceConfig::start,
      [](const TomlNode& node) -> std::optional<std::string> {
        if (!node.is_scalar()) return std::nullopt;
        const bool is_word = node.text == "earliest" || node.text == "latest";
        return is_word || read_time(node) ? std::optional(node.text) : std::nullopt;
      },
      toml_text);
  source.optional_duration(
      "idle_after", &SourceConfig::idle_after, {1, kDay}, "never", "steady time",
      "Live: a partition with nothing new for so long, as the broker or the file's end confirms, "
      "is quiet and holds back the others no more.");
  source.duration("max_delay", &SourceConfig::max_delay, {0, 7 * kDay}, "wall time",
                  "Live: a quiet partition's watermark stays so far behind the wall time; what "
                  "reaches its log later than this may be refused as late_after_quiet.");
  source.size("max_queued_bytes", &SourceConfig::max_queued_bytes, {kKiB, 64 * kGiB},
              "Fetched and not yet read, all partitions together.");
  source.count("read_records", &SourceConfig::read_records, {1, 1e6}, "records",
               "Taken from one partition at a time.");
  source
      .add("properties", ValueType::table, "", {}, {},
           "Kafka: properties of librdkafka, passed on as they are, as in \"security.protocol\" = "
           "\"SASL_SSL\". Those that Sluice sets itself are refused.")
      .entries = [](const Config& config) {
    std::map<std::string, std::string> entries;
    for (const auto& [name, value] : config.source.properties) {
      entries[name] = toml_text(is_secret_property(name) ? kMasked : value);
    }
    return entries;
  };
}

// One stream's own keys, after the shorthand that sets all of them.
void add_stream(std::vector<Key<Config>>& keys, std::size_t stream) {
  KeyList list(keys, std::string("streams.") + kStreamNames[stream], KeyGroup::operational,
               &Config::streams);
  const bool is_actions = static_cast<Stream>(stream) == Stream::actions;
  list.text(
      "topic", [stream](auto& streams) -> auto& { return streams.topic[stream]; },
      std::string(is_actions ? "\"\" or " : "") + "1 to 249 letters, digits, '.', '_' or '-'",
      is_actions
          ? "In-shop actions between click and purchase, as cart and favourite: their topic, or "
            "their folder under source.root. Empty: there are none. Whether there are is semantic."
          : "The stream's topic, or its folder under source.root.",
      is_actions ? is_topic_or_empty : is_topic);
  list.group(KeyGroup::join);
  list.duration(
          "max_out_of_orderness",
          [stream](auto& streams) -> auto& { return streams.max_out_of_orderness[stream]; },
          {0, 30 * kDay}, "event time",
          "How far this stream's records may be out of order; default: that of all streams.")
      .is_of_actions = is_actions;
}

void add_streams(std::vector<Key<Config>>& keys) {
  KeyList streams(keys, "streams", KeyGroup::join, &Config::streams);
  Key<Config>& shorthand = streams.add(
      "max_out_of_orderness", ValueType::duration, "event time", {}, {0, 30 * kDay},
      "How far a partition's records may be out of order: one that is older than the newest before "
      "it by more is refused as late. For every stream that does not set its own.");
  shorthand.is_shorthand = true;
  const auto own = [](Config & config) -> auto& {
    return config.streams.max_out_of_orderness;
  };
  shorthand.set = [own](Config& config, const TomlNode& node) {
    const std::optional<DurationMs> value = read_duration(node);
    if (!value || !is_within({0, 30 * kDay}, static_cast<double>(*value))) return false;
    own(config).fill(*value);
    return true;
  };
  shorthand.get = [](const Config& config) {
    const auto& values = config.streams.max_out_of_orderness;
    return toml_text(format_duration(*std::max_element(values.begin(), values.end())));
  };
  streams.duration(
      "max_ahead", &StreamsConfig::max_ahead, {0, 366 * kDay}, "event time",
      "A record whose event time is further than this after its log time is refused as "
      "future.");
  streams.time("not_before", &StreamsConfig::not_before,
               "Older event times are nonsense (zero, seconds for milliseconds): malformed.");
  streams.size("max_record_bytes", &StreamsConfig::max_record_bytes, {16, 256 * kMiB},
               "Longer records are refused as oversized.");
  streams.count("max_depth", &StreamsConfig::max_depth, {1, 1'000}, "levels",
                "Objects and lists nested deeper than this are malformed.");
  streams.text("log_time", &StreamsConfig::log_time, std::string("\"\" or ") + kPathAllowed,
               "The field that holds a record's log time, in ms; empty: none.", is_path_or_empty);
  streams.text("ts", &StreamsConfig::ts, kPathAllowed, "The field of the event time, in ms.",
               is_path);
  streams.text("event_id", &StreamsConfig::event_id, kPathAllowed, "The field of the event's id.",
               is_path);
  streams.text("impression_id", &StreamsConfig::impression_id, kPathAllowed,
               "The field of the impression's id.", is_path);
  streams.text("user_id", &StreamsConfig::user_id, kPathAllowed, "The field of the user's id.",
               is_path);
  streams.text("item_id", &StreamsConfig::item_id, kPathAllowed, "The field of the item's id.",
               is_path);
  streams
      .text("value", &StreamsConfig::value, kPathAllowed,
            "The field of a purchase's value, a number; read where join.purchase_value is \"sum\".",
            is_path)
      .is_younger_than_data = true;
  for (std::size_t stream = 0; stream < kStreams; ++stream) add_stream(keys, stream);
}

void add_join(std::vector<Key<Config>>& keys) {
  KeyList join(keys, "join", KeyGroup::join, &Config::join);
  join.choice<JoinConfig::Attribution>(
      "attribution", &JoinConfig::attribution, {"impression_id", "user_item"},
      "How a click and a purchase find their impression: by its id, or as the latest open one of "
      "their user and item.");
  join.choice<JoinConfig::AttributedClick>(
          "attributed_click", &JoinConfig::attributed_click, {"first", "last"},
          "Which of an impression's clicks a purchase is measured from: the first, or the last one "
          "inside the click window before the purchase.")
      .is_younger_than_data = true;
  join.duration("click_window", &JoinConfig::click_window, {1, 366 * kDay}, "event time",
                "A click counts that comes sooner than this after its impression.");
  join.duration("conversion_window", &JoinConfig::conversion_window, {1, 366 * kDay}, "event time",
                "A purchase counts that comes sooner than this after its click.");
  join.duration("tick", &JoinConfig::tick, {1, kHour}, "event time",
                "The step in which event time is processed.");
  join.duration("clock_skew", &JoinConfig::clock_skew, {0, kDay}, "event time",
                "A click or purchase may be so much earlier than its impression.");
  join.choice<JoinConfig::PurchaseLabel>(
      "purchase_label", &JoinConfig::purchase_label, {"at_purchase", "at_close"},
      "When the label of a purchased impression is final: at the purchase (not before its click "
      "window closes), or when the conversion window closes.");
  join.choice<JoinConfig::PurchaseValue>(
          "purchase_value", &JoinConfig::purchase_value, {"none", "sum"},
          "What a sample tells of the values of its purchases (streams.value): nothing, or the sum "
          "over all purchases inside the conversion window; \"sum\" needs purchase_label = "
          "\"at_close\".")
      .is_younger_than_data = true;
  join.duration("action_window", &JoinConfig::action_window, {1, 366 * kDay}, "event time",
                "An action counts that comes sooner than this after its click "
                "(streams.actions).")
      .is_of_actions = true;
  join.choice<JoinConfig::ActionLabel>(
          "action_label", &JoinConfig::action_label, {"at_action", "at_close"},
          "When the label of an impression with an action is final: at the action (not before its "
          "click window closes), or when the action window closes.")
      .is_of_actions = true;
}

void add_features(std::vector<Key<Config>>& keys) {
  Key<Config> features;
  features.name = "features";
  features.group = KeyGroup::learner;
  features.type = ValueType::table;
  features.allowed = allowed_text(features.type, {}, {});
  features.description =
      "One entry a feature: where its value lies in the impression, and how it becomes ids.";
  features.entries = [](const Config& config) {
    std::map<std::string, std::string> entries;
    for (const FeatureConfig& feature : config.features) {
      entries[feature.name] = feature_toml(feature);
    }
    return entries;
  };
  keys.push_back(std::move(features));
}

// A built-in's name, or a file, with or without parameters; what it says is checked by
// config/load.cc.
template <class List>
void add_recipe(List& model) {
  std::vector<std::string> names;
  for (const BuiltInRecipe& recipe : built_in_recipes()) names.emplace_back(recipe.name);
  Key<Config>& key = model.add(
      "recipe", ValueType::text, "", names, {},
      "The model: its towers, how the rates follow from them and the loss terms (docs/models.md). "
      "esmm is the Entire Space Multi-Task Model. A file's content counts, not its path.");
  key.allowed = "a recipe's name";
  for (const std::string& name : names) key.allowed += (name == names[0] ? " (" : ", ") + name;
  key.allowed +=
      "), which may have parameters, as in \"aman:rate=0.2\", or the path of a file that ends in "
      ".toml, relative to the config file; in --set, to the working directory";
  model.bind(
      key, &ModelConfig::recipe,
      [](const TomlNode& node) -> std::optional<std::string> {
        if (node.kind != TomlNode::Kind::text) return std::nullopt;
        const Result<RecipeName> name = parse_recipe_name(node.text);
        const bool is_known =
            name && (name->is_file() || find_built_in_recipe(name->recipe) != nullptr);
        return is_known ? std::optional(node.text) : std::nullopt;
      },
      toml_text);
  key.get_meaning = [](const Config& config) {
    const ModelConfig& its = config.model;
    return toml_text(its.recipe_text.empty() ? its.recipe : its.recipe_text);
  };
}

void add_model(std::vector<Key<Config>>& keys) {
  KeyList model(keys, "model", KeyGroup::learner, &Config::model);
  model.text("name", &ModelConfig::name, kNameAllowed, "The model's folder under models/.",
             is_name);
  add_recipe(model);
  model.count("embedding_dim", &ModelConfig::embedding_dim, {1, 1'024}, "numbers a row",
              "Length of an embedding row.");
  Key<Config>& hidden = model.add("hidden", ValueType::counts, "units", {}, {1, 65'536},
                                  "Sizes of each tower's hidden layers, from its input on.");
  model.bind(
      hidden, &ModelConfig::hidden,
      [](const TomlNode& node) -> std::optional<std::vector<std::uint64_t>> {
        const bool is_list = node.kind == TomlNode::Kind::list;
        if (!is_list || node.children.empty() || node.children.size() > kMaxLayers)
          return std::nullopt;
        std::vector<std::uint64_t> sizes;
        for (const TomlNode& item : node.children) {
          const std::optional<std::uint64_t> size = read_count(item);
          if (!size || !is_within({1, 65'536}, static_cast<double>(*size))) return std::nullopt;
          sizes.push_back(*size);
        }
        return sizes;
      },
      [](const std::vector<std::uint64_t>& sizes) {
        std::string text;
        for (const std::uint64_t size : sizes) {
          text += (text.empty() ? "" : ", ") + std::to_string(size);
        }
        return "[" + text + "]";
      });
  model.count("seed", &ModelConfig::seed, {0}, "", "Fixes the initial weights.");
  model.choice<ModelConfig::Precision>(
      "precision", &ModelConfig::precision, {"f32", "bf16"},
      "Number format of the factors in the hidden layers' matrix products; sums, weights and "
      "optimizer state are f32.");
  model.group(KeyGroup::operational);
  model.count("max_rows", &ModelConfig::max_rows, {0, 1e12}, "rows",
              "The learner stops before its embedding tables hold more rows, all together; 0: no "
              "bound.");
  model.size("max_memory", &ModelConfig::max_memory, {0, 1'024 * kGiB},
             "The learner stops before its embedding tables need more memory, all together; 0: no "
             "bound.");
}

// `part` takes a Config to one of its optimizers; `rules` are those allowed, in the order of Rule.
template <class Part>
void add_optimizer(std::vector<Key<Config>>& keys, const char* section,
                   std::vector<std::string> rules, const char* clip_norm, Part part) {
  KeyList optimizer(keys, section, KeyGroup::learner, part);
  optimizer.template choice<OptimizerConfig::Rule>("optimizer", &OptimizerConfig::optimizer,
                                                   std::move(rules), "The update rule.");
  optimizer.real("learning_rate", &OptimizerConfig::learning_rate, {0, 10, true}, "Step size.");
  optimizer.real("beta1", &OptimizerConfig::beta1, {0, 0.999999},
                 "Adam: decay of the gradient's mean, a step.");
  optimizer.real("beta2", &OptimizerConfig::beta2, {0, 0.999999},
                 "Adam: decay of the squared gradient's mean, a step.");
  optimizer.real("epsilon", &OptimizerConfig::epsilon, {1e-30, 1},
                 "Adam and both Adagrads: added to the root that the step is divided by.");
  optimizer.real("momentum", &OptimizerConfig::momentum, {0, 0.999999},
                 "SGD: decay of the sum of gradients, a step.");
  optimizer.real("initial_accumulator", &OptimizerConfig::initial_accumulator, {0, 1e6},
                 "Both Adagrads: where the sum of squared gradients begins.");
  optimizer.real("ftrl_beta", &OptimizerConfig::ftrl_beta, {0, 1e6, true},
                 "FTRL: added to the root of the sum of squared gradients.");
  optimizer.real("l1", &OptimizerConfig::l1, {0, 1e6},
                 "FTRL: lambda1, by which weights become exactly 0.");
  optimizer.real("l2", &OptimizerConfig::l2, {0, 1e6},
                 "FTRL: lambda2; of the others the gradient gets l2 * weight added.");
  optimizer.count("warmup_steps", &OptimizerConfig::warmup_steps, {0, 1e9}, "batches",
                  "The step size grows evenly to learning_rate in the first so many.");
  optimizer.real("clip_norm", &OptimizerConfig::clip_norm, {0, 1e9}, clip_norm);
}

// "A..B, C..D": ascending and apart; empty: none.
std::optional<std::vector<SampleRange>> read_sample_ranges(const TomlNode& node) {
  const std::optional<std::string> text = read_text(node);
  if (!text) return std::nullopt;
  std::vector<SampleRange> ranges;
  std::string_view rest = *text;
  while (!rest.empty()) {
    SampleRange range;
    const char* const end = rest.data() + rest.size();
    const auto first = std::from_chars(rest.data(), end, range.first);
    if (first.ec != std::errc() || !std::string_view(first.ptr, end).starts_with("..")) {
      return std::nullopt;
    }
    const auto last = std::from_chars(first.ptr + 2, end, range.last);
    const std::uint64_t before = ranges.empty() ? 0 : ranges.back().last;
    if (last.ec != std::errc() || range.first <= before || range.last < range.first) {
      return std::nullopt;
    }
    ranges.push_back(range);
    rest = std::string_view(last.ptr, end);
    if (rest.empty()) break;
    const std::size_t comma = rest.starts_with(", ") ? 2 : 1;
    if (rest.front() != ',' || rest.size() == comma) return std::nullopt;
    rest.remove_prefix(comma);
  }
  return ranges;
}

std::string sample_ranges_text(const std::vector<SampleRange>& ranges) {
  std::string text;
  for (const auto& [first, last] : ranges) {
    text += (text.empty() ? "" : ", ") + std::to_string(first) + ".." + std::to_string(last);
  }
  return toml_text(text);
}

void add_training(std::vector<Key<Config>>& keys) {
  KeyList training(keys, "training", KeyGroup::learner, &Config::training);
  training.count("batch_size", &TrainingConfig::batch_size, {1, 1'048'576}, "samples",
                 "A batch is cut after so many.");
  training.optional_duration("batch_span", &TrainingConfig::batch_span, {1, kDay}, "none",
                             "event time",
                             "A batch is also cut before the first sample whose tick is so much "
                             "later than the batch's first; for live streams.");
  Key<Config>& skip = training.add(
      "skip_samples", ValueType::ranges, "sequence numbers", {}, {},
      "Samples that are predicted and counted but not learned: those that spoilt a model, when its "
      "logs are replayed into a new data folder. --skip-samples sets it.");
  skip.is_younger_than_data = true;
  training.bind(skip, &TrainingConfig::skip_samples, read_sample_ranges, sample_ranges_text);
  training.group(KeyGroup::operational);
  training.count(
      "lane", &TrainingConfig::lane, {1, 65'536}, "samples",
      "Samples that one thread computes at a time, rounded up to a multiple of 32; the model "
      "does not depend on it.");
  training.count("threads", &TrainingConfig::threads, {0, 1'024}, "threads",
                 "For computing; 0: one a core. The model does not depend on it.");
  add_optimizer(
      keys, "training.dense", {"adam", "adagrad", "ftrl", "sgd"},
      "A batch's gradient of all layers together is scaled down to this L2 norm; 0: it is not.",
      [](auto& config) -> auto& { return config.training.dense; });
  add_optimizer(
      keys, "training.embeddings", {"adam", "adagrad", "ftrl", "sgd", "rowwise_adagrad"},
      "Each row's gradient of a batch is scaled down to this L2 norm; 0: it is not.",
      [](auto& config) -> auto& { return config.training.embeddings; });
}

void add_published(std::vector<Key<Config>>& keys) {
  KeyList snapshots(keys, "snapshots", KeyGroup::learner, &Config::snapshots);
  snapshots.duration("every", &SnapshotsConfig::every, {1, 3'660 * kDay}, "event time",
                     "A snapshot at the first batch end at or after each multiple of this.");
  snapshots.count(
      "full_every", &SnapshotsConfig::full_every, {1, 1'000}, "snapshots",
      "Every so many is a full one, the others hold the rows that changed since the one "
      "before.");
  snapshots.group(KeyGroup::operational);
  snapshots.count("keep", &SnapshotsConfig::keep, {1, 1e6}, "snapshots",
                  "The newest so many are kept, and what these are deltas to.");
  KeyList gate(
      keys, "snapshots.gate", KeyGroup::operational,
      [](auto& config) -> auto& { return config.snapshots.gate; });
  gate.real("max_auc_drop", &GateConfig::max_auc_drop, {0, 1},
            "A snapshot whose AUC of CTR or CTCVR, over the samples since the one before, is lower "
            "than that of LATEST by more than this does not become LATEST; 1: none is held back.");
  gate.real("calibration_min", &GateConfig::calibration_min, {0, 1},
            "The same where its predicted rates are below the observed ones by this factor; not "
            "above calibration_max.");
  gate.real("calibration_max", &GateConfig::calibration_max, {0, 1e6},
            "The same where they are above by this factor; 0: no bound.");
  gate.count("min_positives", &GateConfig::min_positives, {1, 1e12}, "positives",
             "With fewer since the snapshot before, a task is not judged.");
  KeyList checkpoints(keys, "checkpoints", KeyGroup::operational, &Config::checkpoints);
  checkpoints.count("every", &CheckpointsConfig::every, {1, 1e12}, "samples",
                    "A checkpoint at the first batch end at or after each multiple of this.");
  checkpoints.duration("interval", &CheckpointsConfig::interval, {1, 30 * kDay}, "wall time",
                       "A checkpoint after so long at the latest.");
  checkpoints.count("keep", &CheckpointsConfig::keep, {2, 1e6}, "checkpoints",
                    "The newest so many are kept.");
}

void add_store(std::vector<Key<Config>>& keys) {
  KeyList store(keys, "store", KeyGroup::operational, &Config::store);
  store.duration("commit_interval", &StoreConfig::commit_interval, {1, kHour}, "steady time",
                 "Time between commits.");
  store.count("commit_records", &StoreConfig::commit_records, {1, 1e9}, "records",
              "A commit after so many records at the latest.");
  store.size(
      "memtable_bytes", &StoreConfig::memtable_bytes, {64 * kKiB, 64 * kGiB},
      "RocksDB's write buffers, all together; and a commit after so many bytes at the latest.");
  store.size("block_cache_bytes", &StoreConfig::block_cache_bytes, {0, 1'024 * kGiB},
             "RocksDB's cache of blocks read from disk.");
  store.count("max_learner_lag", &StoreConfig::max_learner_lag, {1, 1e12}, "samples",
              "The join waits when the learner is further behind.");
  KeyList dead_letters(keys, "dead_letters.keep", KeyGroup::operational, &Config::dead_letters);
  dead_letters.duration("time", &DeadLettersConfig::keep_time, {1, 36'600 * kDay}, "wall time",
                        "Refused records are kept for so long.");
  dead_letters.size("size", &DeadLettersConfig::keep_bytes, {0, 1'024 * kGiB},
                    "Of refused records no more than this is kept: the newest.");
  KeyList sent(keys, "dead_letters", KeyGroup::operational, &Config::dead_letters);
  sent.text("topic", &DeadLettersConfig::topic,
            "a topic's name, 1 to 249 letters, digits, '.', '_' or '-'",
            "Kafka: refused records are sent to this topic of source.brokers too, with headers "
            "that say where they came from and why they were refused. Empty: they are not.",
            is_topic_or_empty);
}

std::vector<Key<Config>> make_config_keys() {
  std::vector<Key<Config>> keys;
  add_source(keys);
  add_streams(keys);
  add_join(keys);
  add_features(keys);
  add_model(keys);
  add_training(keys);
  add_published(keys);
  add_store(keys);
  add_serving_keys(keys);
  return keys;
}

std::optional<int> read_log_buckets(const std::string& text) {
  constexpr std::string_view kPrefix = "log:";
  if (!text.starts_with(kPrefix)) return std::nullopt;
  int buckets = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data() + kPrefix.size(), end, buckets);
  const bool is_number = error == std::errc() && rest == end;
  return is_number && buckets >= 1 && buckets <= kMaxLogBuckets ? std::optional(buckets)
                                                                : std::nullopt;
}

bool set_buckets(FeatureConfig& feature, const TomlNode& node) {
  if (node.kind == TomlNode::Kind::text) {
    const std::optional<int> buckets = node.text == "none" ? 0 : read_log_buckets(node.text);
    if (buckets) {
      feature.log_buckets = *buckets;
      feature.edges.clear();
    }
    return buckets.has_value();
  }
  if (node.kind != TomlNode::Kind::list) return false;
  if (node.children.empty() || node.children.size() > kMaxEdges) return false;
  std::vector<double> edges;
  for (const TomlNode& item : node.children) {
    const std::optional<double> edge = read_real(item);
    if (!edge || (!edges.empty() && *edge <= edges.back())) return false;
    edges.push_back(*edge);
  }
  feature.log_buckets = 0;
  feature.edges = std::move(edges);
  return true;
}

std::string get_buckets(const FeatureConfig& feature) {
  if (feature.type != FeatureConfig::Type::number) return "";
  if (feature.log_buckets > 0) return toml_text("log:" + std::to_string(feature.log_buckets));
  if (feature.edges.empty()) return toml_text("none");
  std::string text;
  for (const double edge : feature.edges) text += (text.empty() ? "" : ", ") + format_real(edge);
  return "[" + text + "]";
}

std::vector<Key<FeatureConfig>> make_feature_keys() {
  std::vector<Key<FeatureConfig>> keys;
  KeyList feature(
      keys, "", KeyGroup::learner, [](auto& owner) -> auto& { return owner; });
  feature.text("path", &FeatureConfig::path, kPathAllowed,
               "Where the value lies in the impression, as in \"features.user.country\".", is_path);
  feature.choice<FeatureConfig::Type>(
      "type", &FeatureConfig::type, {"id", "ids", "weighted_ids", "number"},
      "One text or integer; a list of them; a list of them with weights; a number.");
  Key<FeatureConfig>& buckets = feature.add(
      "buckets", ValueType::buckets, "", {}, {},
      "How a number becomes an id: \"log:N\" is sign(v)*floor(N*ln(1+|v|)); a list holds the "
      "buckets' edges; \"none\": it stays a number and has no embedding.");
  buckets.set = set_buckets;
  buckets.get = get_buckets;
  Key<FeatureConfig>& table = feature.text(
      "table", &FeatureConfig::table, kNameAllowed,
      "The embedding table; features of one table share its rows. Default: the feature's name.",
      is_name);
  table.get = [](const FeatureConfig& owner) {
    return owner.is_dense() ? std::string() : toml_text(owner.table);
  };
  Key<FeatureConfig>& group = feature.text(
      "group", &FeatureConfig::group, std::string("\"\" or ") + kNameAllowed,
      "Features with equal values in all impressions of one request name one group, as in "
      "\"context\" for user and query: each combination of their values is computed once a batch. "
      "Their columns come first in the model's input. This version allows one group.",
      is_name_or_empty);
  group.get = [](const FeatureConfig& owner) {
    return owner.group.empty() ? std::string() : toml_text(owner.group);
  };
  return keys;
}

}  // namespace

const std::vector<Key<Config>>& config_keys() {
  static const std::vector<Key<Config>> keys = make_config_keys();
  return keys;
}

const std::vector<Key<FeatureConfig>>& feature_keys() {
  static const std::vector<Key<FeatureConfig>> keys = make_feature_keys();
  return keys;
}

std::string to_string(KeyGroup group) {
  switch (group) {
    case KeyGroup::operational:
      return "operational";
    case KeyGroup::join:
      return "semantic, join";
    case KeyGroup::learner:
      return "semantic, learner";
  }
  return "";
}

std::pair<std::string, std::string> split_key(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  if (dot == std::string::npos) return {"", name};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

std::string feature_toml(const FeatureConfig& feature) {
  std::string text;
  for (const Key<FeatureConfig>& key : feature_keys()) {
    const std::string value = key.get(feature);
    if (!value.empty()) text += (text.empty() ? "" : ", ") + key.name + " = " + value;
  }
  return "{ " + text + " }";
}

bool is_secret_property(const std::string& name) {
  // Paths are no secrets, and one needs to see them.
  if (name.ends_with(".location")) return false;
  for (const char* part :
       {"password", "secret", "token", "key", "jaas", "oauthbearer.config", "credential"}) {
    if (name.find(part) != std::string::npos) return true;
  }
  return false;
}

}  // namespace sluice
