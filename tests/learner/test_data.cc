#include "tests/learner/test_data.h"

#include <algorithm>
#include <array>
#include <map>

#include <gtest/gtest.h>

#include "base/lanes.h"
#include "config/recipe.h"
#include "ingest/features.h"
#include "learner/objective.h"

namespace sluice::testing {

namespace {

using Json = nlohmann::json;
using Type = FeatureConfig::Type;

bool is_id(const Json& value) {
  return value.is_string() || value.is_number_integer();
}

void write_id(const Json& value, FeatureWriter& out) {
  if (value.is_string()) {
    out.id(value.get_ref<const std::string&>());
  } else {
    out.id(value.get<std::int64_t>());
  }
}

bool is_rarely_clicked(const Json& values) {
  const auto value = values.find("d_log");
  return value != values.end() && value->is_number() && value->get<double>() > 0;
}

}  // namespace

std::string encode_features(const std::vector<FeatureConfig>& features, const Json& values) {
  std::string blob;
  FeatureWriter out(blob);
  for (const FeatureConfig& one : features) {
    const Json value = values.value(one.name, Json());
    if (value.is_null()) {
      out.absent();
    } else if (one.type == Type::id && is_id(value)) {
      write_id(value, out);
    } else if (one.type == Type::ids && value.is_array()) {
      out.list(value.size());
      for (const Json& id : value) write_id(id, out);
    } else if (one.type == Type::weighted_ids && value.is_array()) {
      out.weighted(value.size());
      for (const Json& pair : value) {
        write_id(pair.at(0), out);
        out.weight(pair.at(1).get<double>());
      }
    } else if (one.type == Type::number && value.is_number()) {
      out.number(value.get<double>());
    } else {
      out.wrong_type();
    }
  }
  return blob;
}

FeatureConfig feature(std::string name, Type type, std::string table) {
  FeatureConfig result;
  result.path = "features." + name;
  result.table = table.empty() ? name : std::move(table);
  result.name = std::move(name);
  result.type = type;
  return result;
}

OptimizerConfig optimizer_of(const Json& from) {
  using Rule = OptimizerConfig::Rule;
  const std::map<std::string, Rule> rules = {{"adam", Rule::adam},
                                             {"adagrad", Rule::adagrad},
                                             {"ftrl", Rule::ftrl},
                                             {"sgd", Rule::sgd},
                                             {"rowwise_adagrad", Rule::rowwise_adagrad}};
  OptimizerConfig config;
  config.optimizer = rules.at(from.at("optimizer"));
  config.learning_rate = from.at("learning_rate");
  config.beta1 = from.at("beta1");
  config.beta2 = from.at("beta2");
  config.epsilon = from.at("epsilon");
  config.momentum = from.at("momentum");
  config.initial_accumulator = from.at("initial_accumulator");
  config.ftrl_beta = from.at("ftrl_beta");
  config.l1 = from.at("l1");
  config.l2 = from.at("l2");
  config.warmup_steps = from.at("warmup_steps");
  config.clip_norm = from.at("clip_norm");
  return config;
}

std::vector<OptimizerConfig> all_optimizers() {
  std::vector<OptimizerConfig> all;
  using Rule = OptimizerConfig::Rule;
  for (const Rule rule :
       {Rule::adam, Rule::adagrad, Rule::ftrl, Rule::sgd, Rule::sgd, Rule::rowwise_adagrad}) {
    OptimizerConfig config;
    config.optimizer = rule;
    config.learning_rate = 0.02;
    config.l2 = 1e-3;
    config.warmup_steps = 3;
    config.clip_norm = 0.01;
    if (rule == Rule::ftrl) config.l1 = 0.5;
    if (rule == Rule::sgd && !all.empty() && all.back().optimizer == rule) config.momentum = 0;
    if (rule == Rule::adagrad) config.initial_accumulator = 1e-4;
    all.push_back(config);
  }
  return all;
}

Config small_config() {
  Config config;
  config.features = {
      feature("a_id", Type::id, "shared"),       feature("b_ids", Type::ids, "shared"),
      feature("c_weighted", Type::weighted_ids), feature("d_log", Type::number),
      feature("e_edges", Type::number),          feature("f_dense", Type::number)};
  config.features[3].log_buckets = 8;
  config.features[4].edges = {-1.5, 0, 2, 100};
  config.model.embedding_dim = 5;
  config.model.hidden = {11, 7};
  config.model.seed = 5;
  config.training.batch_size = 50;
  config.training.lane = 16;
  config.training.dense.learning_rate = 3e-3;
  config.training.embeddings.learning_rate = 1e-2;
  return config;
}

Prediction esmm_prediction(float a, float b) {
  static const Objective objective(recipe_of(ModelConfig()).value(), 0);
  return objective.predict(std::array{a, b});
}

void group_features(Config& config, const std::vector<std::string>& names) {
  for (FeatureConfig& one : config.features) {
    if (std::find(names.begin(), names.end(), one.name) != names.end()) one.group = "context";
  }
}

SampleStream::SampleStream(const Config& config, std::uint32_t seed)
    : config_(config), random_(seed) {}

Json SampleStream::random_values() {
  const auto number = [&] { return (static_cast<double>(below(2'000'001)) - 1e6) / 1e3; };
  Json values = Json::object();
  for (const FeatureConfig& one : config_.features) {
    if (below(10) == 0) continue;
    if (below(50) == 0) {
      values[one.name] = Json::object();  // a wrong type
      continue;
    }
    const auto id = [&] {
      const std::uint32_t value = below(40) * below(40);
      return value % 3 == 0 ? Json(value) : Json("id" + std::to_string(value));
    };
    switch (one.type) {
      case Type::id:
        values[one.name] = id();
        break;
      case Type::ids:
        values[one.name] = Json::array();
        for (std::uint32_t n = below(5); n > 0; --n) values[one.name].push_back(id());
        break;
      case Type::weighted_ids:
        values[one.name] = Json::array();
        for (std::uint32_t n = below(4); n > 0; --n) {
          values[one.name].push_back({id(), number() / 500});
        }
        break;
      case Type::number:
        values[one.name] = one.is_dense() ? number() / 1000 : number();
        break;
    }
  }
  return values;
}

Json SampleStream::impression_values() {
  Json values = random_values();
  const auto is_grouped = [](const FeatureConfig& one) { return !one.group.empty(); };
  if (std::none_of(config_.features.begin(), config_.features.end(), is_grouped)) return values;
  if (left_on_page_ == 0) {
    page_ = values;
    left_on_page_ = 1 + below(6);
  }
  --left_on_page_;
  for (const FeatureConfig& one : config_.features) {
    if (one.group.empty()) continue;
    values.erase(one.name);
    if (page_.contains(one.name)) values[one.name] = page_[one.name];
  }
  return values;
}

Sample SampleStream::next() {
  time_ += below(4) == 0 ? below(5'000) : 0;
  Sample sample;
  if (!open_.empty() && below(6) == 0) {
    const std::size_t which = below(static_cast<std::uint32_t>(open_.size()));
    sample = open_[which];
    open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(which));
    sample.y_final = false;
    sample.z_final = true;
    sample.z = below(3) == 0;
    if (sample.z) sample.purchase_time = *sample.click_time + 7;
  } else {
    sample.shard = below(2);
    sample.impression_id = "imp" + std::to_string(impressions_++);
    sample.user_id = "u" + std::to_string(below(9));
    sample.item_id = "i" + std::to_string(below(9));
    sample.impression_time = time_ - 60'000;
    const Json values = impression_values();
    sample.features = encode_features(config_.features, values);
    sample.y_final = true;
    sample.y = below(is_rarely_clicked(values) ? 8 : 2) == 0;
    if (sample.y) sample.click_time = sample.impression_time + 5;
    sample.z_final = !sample.y || below(2) == 0;
    sample.z = sample.y && sample.z_final && below(2) == 0;
    if (sample.z) sample.purchase_time = sample.impression_time + 12;
  }
  sample.time = time_;
  sample.sequence = ++sequence_;
  if (!sample.z_final) open_.push_back(sample);
  return sample;
}

std::vector<Sample> SampleStream::take(std::size_t count) {
  std::vector<Sample> samples;
  for (std::size_t n = 0; n < count; ++n) samples.push_back(next());
  return samples;
}

void offer_all(Trainer& trainer, const std::vector<Sample>& samples) {
  for (const Sample& sample : samples) ASSERT_TRUE(trainer.offer(sample).has_value());
}

std::set<std::string> model_digests(Config config, const std::vector<Sample>& samples,
                                    std::span<const Machine> machines) {
  std::set<std::string> digests;
  for (const Machine& machine : machines) {
    config.training.lane = machine.lane;
    Workers workers(machine.threads);
    Trainer trainer(config, workers);
    offer_all(trainer, samples);
    EXPECT_TRUE(trainer.finish().has_value());
    digests.insert(trainer.model_digest().hex());
  }
  return digests;
}

}  // namespace sluice::testing
