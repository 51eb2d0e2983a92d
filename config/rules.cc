#include "config/rules.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

namespace sluice {
namespace {

struct RefusedProperty {
  std::string_view name;
  const char* reason;
};
constexpr const char* kOwnPositions = "Sluice keeps its positions in its store";
constexpr const char* kOwnBrokers = "set source.brokers instead";
constexpr std::array<RefusedProperty, 11> kRefusedProperties = {{
    {"auto.offset.reset", "it would skip lost records without a word; set source.start instead"},
    {"enable.auto.commit", kOwnPositions},
    {"auto.commit.enable", kOwnPositions},
    {"auto.commit.interval.ms", kOwnPositions},
    {"enable.auto.offset.store", kOwnPositions},
    {"isolation.level", "Sluice reads committed records only"},
    {"check.crcs", "Sluice always checks them"},
    {"enable.partition.eof", "Sluice needs it to see a log's end"},
    {"bootstrap.servers", kOwnBrokers},
    {"metadata.broker.list", kOwnBrokers},
    {"queued.max.messages.kbytes", "set source.max_queued_bytes instead"},
}};

void read_property(const std::string& name, const TomlNode& node, SourceConfig& source,
                   Problems& problems) {
  const std::string key = "source.properties." + name;
  const auto refuse = [&](const Place& place, std::string message) {
    problems.push_back(problem_at(place, key, std::move(message)));
  };
  for (const RefusedProperty& refused : kRefusedProperties) {
    if (name == refused.name) {
      return refuse(node.key_place, std::string("may not be set: ") + refused.reason);
    }
  }
  const bool is_secret = is_secret_property(name);
  if (!node.is_scalar() || node.kind == TomlNode::Kind::date) {
    const std::string shown = is_secret ? kMasked : node.shown();
    return refuse(node.place, shown + " is not allowed; must be a text, a number, true or false");
  }
  if (is_secret && node.text == kMasked) {
    return refuse(node.place, "the secret is masked; put the real one in its place");
  }
  if (!source.properties.emplace(name, node.text).second) {
    refuse(node.key_place, "is there twice, with and without quotes");
  }
}

// TOML makes tables of security.protocol without quotes; librdkafka has one name with dots.
void read_property_table(const std::string& prefix, const TomlNode& table, SourceConfig& source,
                         Problems& problems) {
  for (const TomlNode& child : table.children) {
    const std::string name = prefix + child.name;
    if (child.is_table()) {
      read_property_table(name + ".", child, source, problems);
    } else {
      read_property(name, child, source, problems);
    }
  }
}

bool is_feature_name(const std::string& name) {
  FeatureConfig scratch;
  TomlNode node;
  node.kind = TomlNode::Kind::text;
  node.text = name;
  const auto& keys = feature_keys();
  const auto table =
      std::find_if(keys.begin(), keys.end(), [](const auto& key) { return key.name == "table"; });
  return table->set(scratch, node);
}

const Key<FeatureConfig>* find_feature_key(const std::string& name) {
  for (const Key<FeatureConfig>& key : feature_keys()) {
    if (key.name == name) return &key;
  }
  return nullptr;
}

// Reads one entry; a problem in one key does not hide those of the others.
void read_feature(const TomlNode& node, Config& config, Problems& problems) {
  const std::string prefix = "features." + node.name;
  if (!is_feature_name(node.name)) {
    problems.push_back(
        problem_at(node.key_place, prefix,
                   "the name is not allowed; must be " + find_feature_key("table")->allowed));
    return;
  }
  if (!node.is_table()) {
    problems.push_back(
        problem_at(node.place, prefix,
                   node.shown() + " is not allowed; must be a table, as in { path = \"features." +
                       node.name + "\", type = \"id\" }"));
    return;
  }
  FeatureConfig feature;
  feature.name = feature.table = node.name;
  const std::size_t problems_before = problems.size();
  std::vector<std::string> known;
  for (const Key<FeatureConfig>& key : feature_keys()) known.push_back(prefix + "." + key.name);
  for (const TomlNode& child : node.children) {
    const std::string name = prefix + "." + child.name;
    const Key<FeatureConfig>* key = find_feature_key(child.name);
    if (key == nullptr) {
      problems.push_back(problem_at(child.key_place, name, unknown_text(child, name, known)));
    } else if (!key->set(feature, child)) {
      problems.push_back(problem_at(child.place, name, refused_value_text(*key, child)));
    }
  }
  if (problems.size() == problems_before) {
    const TomlNode* buckets = node.find("buckets");
    const TomlNode* table = node.find("table");
    if (node.find("path") == nullptr) {
      problems.push_back(problem_at(node.place, prefix + ".path",
                                    "is missing; must be " + find_feature_key("path")->allowed));
    }
    if (buckets != nullptr && feature.type != FeatureConfig::Type::number) {
      problems.push_back(problem_at(buckets->key_place, prefix + ".buckets",
                                    "is for features of type \"number\" only"));
    } else if (table != nullptr && feature.is_dense()) {
      problems.push_back(problem_at(table->key_place, prefix + ".table",
                                    "a number without buckets has no embedding, so no table"));
    }
  }
  config.features.push_back(std::move(feature));
}

using Rule = OptimizerConfig::Rule;

// Which optimizers have a key; one that is not listed is of all.
struct OptimizerKey {
  const char* name;
  std::vector<Rule> of;
};

const std::vector<OptimizerKey>& optimizer_keys() {
  static const std::vector<OptimizerKey> keys = {
      {"beta1", {Rule::adam}},
      {"beta2", {Rule::adam}},
      {"epsilon", {Rule::adam, Rule::adagrad, Rule::rowwise_adagrad}},
      {"momentum", {Rule::sgd}},
      {"initial_accumulator", {Rule::adagrad, Rule::rowwise_adagrad}},
      {"ftrl_beta", {Rule::ftrl}},
      {"l1", {Rule::ftrl}},
  };
  return keys;
}

const Key<Config>& config_key(const std::string& name) {
  const auto& keys = config_keys();
  return *std::find_if(keys.begin(), keys.end(), [&](const auto& key) { return key.name == name; });
}

// What is said of a key that another optimizer has; empty where the value may stay.
std::string other_optimizers_key(const Config& config, const std::string& section, Rule optimizer,
                                 const OptimizerKey& key) {
  if (std::find(key.of.begin(), key.of.end(), optimizer) != key.of.end()) return "";
  const Key<Config>& value = config_key(section + "." + key.name);
  const std::string at_default = value.get(Config());
  const std::string now = value.get(config);
  if (now == at_default) return "";
  const std::vector<std::string>& words = config_key(section + ".optimizer").words;
  std::string owners;
  for (const Rule owner : key.of) {
    const auto word = static_cast<std::size_t>(owner);
    if (word < words.size()) owners += (owners.empty() ? "" : " or ") + toml_text(words[word]);
  }
  return now + " is not allowed with optimizer = " +
         toml_text(words[static_cast<std::size_t>(optimizer)]) + "; must be " + at_default +
         ", the default, or optimizer be " + owners;
}

// The place of the key, or of the nearest section around it.
Place place_near(const TomlNode& root, const std::string& file, const std::string& key) {
  for (std::string name = key; !name.empty(); name = split_key(name).first) {
    if (const TomlNode* node = root.find_path(name)) return node->key_place;
  }
  return {file, 0, 0};
}

}  // namespace

namespace {

// `require(holds, key, what is said where it does not)`.
template <class Require>
void check_operation(const Config& config, const Require& require) {
  const ServingConfig& serving = config.serving;
  require(serving.certificate.empty() || !serving.key.empty(), "serving.certificate",
          "needs serving.key too: TLS takes both");
  require(serving.key.empty() || !serving.certificate.empty(), "serving.key",
          "needs serving.certificate too: TLS takes both");
  require(serving.token_env.empty() || serving.token_file.empty(), "serving.token_file",
          "is not allowed beside serving.token_env: there is one token, from the one or the other");
  const GateConfig& gate = config.snapshots.gate;
  require(gate.calibration_max == 0 || gate.calibration_min <= gate.calibration_max,
          "snapshots.gate.calibration_min",
          config_key("snapshots.gate.calibration_min").get(config) +
              " is not allowed; must be at most snapshots.gate.calibration_max, " +
              config_key("snapshots.gate.calibration_max").get(config) +
              ", as nothing else would be within both");
}

}  // namespace

std::string unknown_text(const TomlNode& node, const std::string& name,
                         const std::vector<std::string>& known) {
  const Nearest nearest = nearest_key(name, known);
  return std::string("unknown ") + (node.is_table() ? "section" : "key") +
         (nearest.is_likely ? "; did you mean " + nearest.name + "?"
                            : "; the nearest known one is " + nearest.name);
}

void read_properties(const TomlNode& table, SourceConfig& source, Problems& problems) {
  read_property_table("", table, source, problems);
}

void read_features(const TomlNode& table, Config& config, Problems& problems) {
  for (const TomlNode& child : table.children) read_feature(child, config, problems);
  std::sort(config.features.begin(), config.features.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
}

void check_rules(const TomlNode& root, const std::string& file, const Config& config,
                 Problems& problems) {
  std::set<std::string> named;
  for (const ConfigProblem& problem : problems) named.insert(problem.key);
  const auto require = [&](bool holds, const std::string& key, const std::string& message) {
    if (holds || named.contains(key)) return;
    problems.push_back(problem_at(place_near(root, file, key), key, message));
  };

  const SourceConfig& source = config.source;
  if (!named.contains("source") && !named.contains("source.type")) {
    require(source.type != SourceConfig::Type::files || !source.root.empty(), "source.root",
            "is missing; source.type = \"files\" needs the folder of the logs");
    require(source.type != SourceConfig::Type::kafka || !source.brokers.empty(), "source.brokers",
            "is missing; source.type = \"kafka\" needs \"host:port,...\"");
  }
  const std::string& dead_topic = config.dead_letters.topic;
  require(dead_topic.empty() || source.type == SourceConfig::Type::kafka, "dead_letters.topic",
          "needs source.type = \"kafka\"; `sluice dead-letters` reads them without a topic");
  for (std::size_t stream = 0; stream < kStreams; ++stream) {
    require(dead_topic.empty() || dead_topic != config.streams.topic[stream], "dead_letters.topic",
            toml_text(dead_topic) + " is the topic of streams." + kStreamNames[stream] +
                "; refused records need their own");
  }
  check_operation(config, require);
  const JoinConfig& join = config.join;
  require(!join.sums_values() || join.purchase_label == JoinConfig::PurchaseLabel::at_close ||
              named.contains("join.purchase_label"),
          "join.purchase_value",
          "\"sum\" needs join.purchase_label = \"at_close\": the sum is complete only when the "
          "conversion window closes");
  const JoinConfig defaults;
  for (const auto& [key, is_default] :
       {std::pair("join.action_window", join.action_window == defaults.action_window),
        std::pair("join.action_label", join.action_label == defaults.action_label)}) {
    require(is_default || config.streams.has_actions(), key,
            "needs streams.actions.topic; without it there are no actions");
  }
  // The learner numbers a batch's inputs, and those of its contexts, with 32 bits.
  constexpr std::uint64_t kMostNumbers = 1ULL << 31;
  constexpr std::uint64_t kRowPadding = 64;
  std::uint64_t inputs = kRowPadding;
  for (const FeatureConfig& feature : config.features) {
    inputs += feature.is_dense() ? 1 : config.model.embedding_dim;
  }
  require(config.training.batch_size <= kMostNumbers / inputs, "training.batch_size",
          std::to_string(config.training.batch_size) + " is too large for " +
              std::to_string(inputs - kRowPadding) + " inputs a sample; must be at most " +
              std::to_string(kMostNumbers / inputs) + " with these features and embedding_dim");
  const TomlNode* features = root.find("features");
  require(features != nullptr && !features->children.empty(), "features",
          "at least one feature is needed, as in country = { path = \"features.user.country\", "
          "type = \"id\" }");
  for (std::size_t stream = 1; stream < kStreams; ++stream) {
    for (std::size_t other = 0; other < stream; ++other) {
      require(config.streams.topic[stream] != config.streams.topic[other],
              std::string("streams.") + kStreamNames[stream] + ".topic",
              toml_text(config.streams.topic[stream]) + " is the topic of streams." +
                  kStreamNames[other] + " too; each stream needs its own");
    }
  }
  const FeatureConfig* grouped = nullptr;
  for (const FeatureConfig& feature : config.features) {
    if (feature.group.empty()) continue;
    if (grouped == nullptr) grouped = &feature;
    require(feature.group == grouped->group, "features." + feature.name + ".group",
            toml_text(feature.group) + " is not allowed; must be " + toml_text(grouped->group) +
                " as of features." + grouped->name +
                ", or \"\": there is one group in this version");
  }
  const auto check_optimizer = [&](const std::string& section, const OptimizerConfig& optimizer) {
    if (named.contains(section + ".optimizer")) return;
    for (const OptimizerKey& key : optimizer_keys()) {
      const std::string said = other_optimizers_key(config, section, optimizer.optimizer, key);
      require(said.empty(), section + "." + key.name, said);
    }
  };
  check_optimizer("training.dense", config.training.dense);
  check_optimizer("training.embeddings", config.training.embeddings);
}

}  // namespace sluice
