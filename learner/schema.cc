#include "learner/schema.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstring>
#include <limits>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/hash.h"
#include "config/recipe.h"
#include "ingest/features.h"
#include "store/whole_numbers.h"

namespace sluice {

namespace {

using Json = nlohmann::ordered_json;
using Type = FeatureConfig::Type;

// What stands for a recipe's name where it has none; its text is beside it.
constexpr const char* kOwnRecipe = "own";

constexpr std::array<std::pair<Type, const char*>, 4> kTypeNames = {{
    {Type::id, "id"},
    {Type::ids, "ids"},
    {Type::weighted_ids, "weighted_ids"},
    {Type::number, "number"},
}};

// In the order of the enumerators.
constexpr std::array<const char*, 2> kPrecisionNames = {"f32", "bf16"};

// What a config may have (config/schema.cc).
constexpr std::uint64_t kMostDim = 1'024;
constexpr std::uint64_t kMostHidden = 65'536;

std::string log_spec(int per_unit) {
  return "log:" + std::to_string(per_unit);
}

const std::string& table_of(const FeatureConfig& feature) {
  return feature.table.empty() ? feature.name : feature.table;
}

// Saturates: JSON numbers reach further than f32.
float to_float(double value) {
  constexpr double kMax = std::numeric_limits<float>::max();
  return static_cast<float>(std::clamp(value, -kMax, kMax));
}

// The digits of a number below 10^8 without leading zeros: how many. Writes 8 bytes. Lanes of one
// word hold halves of four digits, then pairs, then digits; the first is the lowest.
std::size_t write_decimal(std::uint32_t number, char* out) {
  const std::uint64_t fours = number / 10'000 | std::uint64_t{number % 10'000} << 32;
  const std::uint64_t hundreds = (fours * 10'486 >> 20) & 0x0000'007f'0000'007f;
  const std::uint64_t pairs = hundreds | (fours - 100 * hundreds) << 16;
  const std::uint64_t tens = (pairs * 103 >> 10) & 0x000f'000f'000f'000f;
  const std::uint64_t digits = tens | (pairs - 10 * tens) << 8;
  const int zeros = std::countr_zero(digits | std::uint64_t{1} << 56) / 8;
  const std::uint64_t text = (digits | 0x3030'3030'3030'3030) >> (8 * zeros);
  std::memcpy(out, &text, sizeof text);
  return 8 - static_cast<std::size_t>(zeros);
}

Json feature_json(const FeatureConfig& feature) {
  Json json = {{"name", feature.name}, {"path", feature.path}};
  for (const auto& [type, name] : kTypeNames) {
    if (type == feature.type) json["type"] = name;
  }
  if (!feature.is_dense()) json["table"] = table_of(feature);
  if (!feature.group.empty()) json["group"] = feature.group;
  if (feature.type == Type::number && feature.log_buckets > 0) {
    json["buckets"] = log_spec(feature.log_buckets);
  } else if (!feature.edges.empty()) {
    json["buckets"] = feature.edges;
  }
  return json;
}

// Throws nlohmann::json::exception; Schema::from_json catches it.
Result<FeatureConfig> feature_from_json(const Json& json) {
  FeatureConfig feature;
  feature.name = json.at("name").get<std::string>();
  feature.path = json.at("path").get<std::string>();
  const auto type_name = json.at("type").get<std::string>();
  const auto* const type = std::find_if(kTypeNames.begin(), kTypeNames.end(),
                                        [&](const auto& pair) { return pair.second == type_name; });
  if (type == kTypeNames.end()) {
    return stop_error("schema: feature " + feature.name + " has the unknown type " + type_name);
  }
  feature.type = type->first;
  feature.table = json.value("table", feature.name);
  feature.group = json.value("group", std::string());
  if (const auto buckets = json.find("buckets"); buckets != json.end()) {
    if (buckets->is_array()) {
      feature.edges = buckets->get<std::vector<double>>();
    } else {
      const auto spec = buckets->get<std::string>();
      const char* const end = spec.data() + spec.size();
      const bool is_log = spec.starts_with("log:");
      if (!is_log || std::from_chars(spec.data() + 4, end, feature.log_buckets).ptr != end ||
          feature.log_buckets <= 0) {
        return stop_error("schema: feature " + feature.name + " has the unknown buckets " + spec);
      }
    }
  }
  return feature;
}

// Only the products of first layers have a part that impressions can share.
bool shares_contexts(const ModelConfig& model, const Recipe& recipe) {
  return !model.hidden.empty() &&
         std::all_of(recipe.towers.begin(), recipe.towers.end(),
                     [](const RecipeTower& tower) { return tower.kind == RecipeTower::Kind::mlp; });
}

// The tag of a feature's values when they are there and of its type.
bool is_tag_of(Type type, FeatureTag tag) {
  switch (type) {
    case Type::id:
      return tag == FeatureTag::integer || tag == FeatureTag::text;
    case Type::ids:
      return tag == FeatureTag::list;
    case Type::weighted_ids:
      return tag == FeatureTag::weighted;
    case Type::number:
      return tag == FeatureTag::number;
  }
  return false;
}

}  // namespace

void DecodedSamples::clear() {
  for (auto& list : terms) list.clear();
  for (auto& list : keys) list.clear();
  dense.clear();
  std::fill(wrong_types.begin(), wrong_types.end(), 0);
  std::fill(absent.begin(), absent.end(), 0);
}

void DecodedSamples::copy_terms() {
  for (std::size_t set = 1; set < terms.size(); ++set) terms[set] = terms.front();
}

Schema::Schema(std::vector<FeatureConfig> features, ModelConfig model)
    : Schema(std::move(features), model, recipe_of(model).value(), LogEdges{}) {}

Schema::Schema(std::vector<FeatureConfig> features, ModelConfig model, Recipe recipe,
               LogEdges log_edges)
    : model_(std::move(model)), recipe_(std::move(recipe)), log_edges_(std::move(log_edges)) {
  SLUICE_CHECK(!features.empty());
  std::set<std::string> tables;
  for (FeatureConfig& feature : features) {
    if (feature.is_dense()) continue;
    feature.table = table_of(feature);
    tables.insert(feature.table);
  }
  tables_.assign(tables.begin(), tables.end());
  SLUICE_CHECK(tables_.size() <= std::numeric_limits<std::uint16_t>::max());
  for (const std::string& table : tables_) table_seeds_.push_back(hash64(table));
  for (FeatureConfig& feature : features) {
    SLUICE_CHECK(fields_.empty() || fields_.back().feature.name < feature.name);
    Field field;
    field.is_context = !feature.group.empty();
    field.width = feature.is_dense() ? 1 : dim();
    std::size_t& columns = field.is_context ? inputs_.context : inputs_.own;
    field.column = columns;
    columns += field.width;
    if (!feature.is_dense()) {
      field.table = static_cast<std::size_t>(
          std::lower_bound(tables_.begin(), tables_.end(), feature.table) - tables_.begin());
    }
    if (feature.type == Type::number && feature.log_buckets > 0) {
      const int spec = feature.log_buckets;
      if (!log_edges_.contains(spec)) log_edges_[spec] = Buckets::log_edges(spec);
      field.buckets.emplace(true, log_edges_[spec]);
    } else if (!feature.edges.empty()) {
      field.buckets.emplace(false, feature.edges);
    }
    field.feature = std::move(feature);
    fields_.push_back(std::move(field));
  }
  if (!shares_contexts(model_, recipe_)) {
    for (Field& field : fields_) {
      if (!std::exchange(field.is_context, false)) field.column += inputs_.context;
    }
    inputs_ = {0, inputs_.all()};
  }
  inputs_.dim = dim();
  for (const Field& field : fields_) {
    if (!field.feature.is_dense() && !field.is_context) inputs_.vectors.push_back(field.column);
  }
}

Json Schema::json() const {
  Json features = Json::array();
  for (const Field& field : fields_) features.push_back(feature_json(field.feature));
  Json edges = Json::object();
  for (const auto& [per_unit, list] : log_edges_) edges[log_spec(per_unit)] = list;
  Json model = Json::object();
  model["recipe"] = model_.recipe_text.empty() ? model_.recipe : kOwnRecipe;
  if (!model_.recipe_text.empty()) model["recipe_text"] = model_.recipe_text;
  model["embedding_dim"] = model_.embedding_dim;
  model["hidden"] = model_.hidden;
  model["seed"] = model_.seed;
  model["precision"] = kPrecisionNames[static_cast<std::size_t>(model_.precision)];
  return {{"model", model}, {"features", features}, {"bucket_edges", edges}};
}

Result<Schema> Schema::from_json(const Json& json) try {
  const Json& model_json = json.at("model");
  ModelConfig model;
  model.recipe = model_json.at("recipe").get<std::string>();
  model.recipe_text = model_json.value("recipe_text", std::string());
  Result<Recipe> recipe = recipe_of(model);
  if (!recipe) return stop_error("schema: " + recipe.error().message);
  SLUICE_ASSIGN(model.embedding_dim, unsigned_at(model_json, "embedding_dim"));
  SLUICE_ASSIGN(model.hidden, unsigned_list_at(model_json, "hidden"));
  SLUICE_ASSIGN(model.seed, unsigned_at(model_json, "seed"));
  const auto precision_name = model_json.at("precision").get<std::string>();
  const auto* const precision =
      std::find(kPrecisionNames.begin(), kPrecisionNames.end(), precision_name);
  const auto is_within = [](std::uint64_t size, std::uint64_t most) {
    return 0 < size && size <= most;
  };
  if (precision == kPrecisionNames.end() || !is_within(model.embedding_dim, kMostDim) ||
      !std::all_of(model.hidden.begin(), model.hidden.end(),
                   [&](std::uint64_t size) { return is_within(size, kMostHidden); })) {
    return stop_error(
        "schema: this build reads models of precision f32 or bf16 only, with an embedding_dim from "
        "1 to " +
        std::to_string(kMostDim) + " and hidden layers from 1 to " + std::to_string(kMostHidden));
  }
  model.precision = static_cast<ModelConfig::Precision>(precision - kPrecisionNames.begin());
  std::vector<FeatureConfig> features;
  LogEdges log_edges;
  for (const Json& item : json.at("features")) {
    SLUICE_ASSIGN(FeatureConfig feature, feature_from_json(item));
    if (!features.empty() && features.back().name >= feature.name) {
      return stop_error("schema: the features are not in the order of their names");
    }
    if (feature.log_buckets > 0) {
      log_edges[feature.log_buckets] =
          json.at("bucket_edges").at(log_spec(feature.log_buckets)).get<std::vector<double>>();
    }
    features.push_back(std::move(feature));
  }
  if (features.empty()) return stop_error("schema: it has no feature");
  return Schema(std::move(features), std::move(model), *std::move(recipe), std::move(log_edges));
} catch (const nlohmann::json::exception& error) {
  return stop_error(std::string("schema: the JSON is not one of this format: ") + error.what());
}

std::vector<FeatureConfig> Schema::features() const {
  std::vector<FeatureConfig> features;
  for (const Field& field : fields_) features.push_back(field.feature);
  return features;
}

std::uint64_t Schema::row_key(std::size_t table, std::string_view text) const {
  return hash64(text, table_seeds_[table]);
}

// The branches of to_chars() are hard to predict; ids of up to eight digits need none.
std::uint64_t Schema::row_key(std::size_t table, std::int64_t value) const {
  std::array<char, 24> text;
  if (0 <= value && value < 100'000'000) {
    const std::size_t size = write_decimal(static_cast<std::uint32_t>(value), text.data());
    return row_key(table, std::string_view(text.data(), size));
  }
  const char* const end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return row_key(table, std::string_view(text.data(), static_cast<std::size_t>(end - text.data())));
}

DecodedSamples Schema::make_decoded() const {
  DecodedSamples decoded;
  decoded.terms.resize(recipe_.embedding_sets.size());
  decoded.wrong_types.resize(fields_.size());
  decoded.absent.resize(fields_.size());
  return decoded;
}

// Reads what follows a value's tag and adds it to `out`, if there is one. False where it is none of
// the field's values.
bool Schema::read_value(FeatureReader& reader, const Field& field, FeatureTag tag, std::uint32_t at,
                        DecodedSamples* out) const {
  const auto table = static_cast<std::uint16_t>(field.table);
  const auto column = at + static_cast<std::uint32_t>(field.column);
  if (!reader.ok() || !is_tag_of(field.feature.type, tag)) return false;
  if (tag == FeatureTag::number) {
    const double value = reader.number();
    if (out == nullptr) return true;
    if (field.buckets) {
      const std::uint64_t key = row_key(field.table, field.buckets->bucket(value));
      out->add(key, table, column, 1.0F);
    } else {
      out->dense.push_back({column, to_float(value)});
    }
    return true;
  }
  const bool is_list = tag == FeatureTag::list || tag == FeatureTag::weighted;
  const std::size_t count = is_list ? reader.count() : 1;
  for (std::size_t n = 0; n < count && reader.ok(); ++n) {
    const FeatureTag id_tag = is_list ? reader.tag() : tag;
    if (!is_tag_of(Type::id, id_tag)) return false;
    const std::int64_t integer = id_tag == FeatureTag::integer ? reader.integer() : 0;
    const std::string_view text = id_tag == FeatureTag::text ? reader.text() : std::string_view();
    const float weight = tag == FeatureTag::weighted ? to_float(reader.number()) : 1.0F;
    if (out == nullptr) continue;
    const std::uint64_t key =
        id_tag == FeatureTag::integer ? row_key(field.table, integer) : row_key(field.table, text);
    out->add(key, table, column, weight);
  }
  return true;
}

bool Schema::decode(std::string_view blob, std::uint32_t at, bool is_counted, DecodedSamples& out,
                    Digest& context) const {
  FeatureReader reader(blob);
  std::string context_values;
  for (std::size_t f = 0; f < fields_.size(); ++f) {
    const Field& field = fields_[f];
    const std::size_t before = reader.remaining();
    const FeatureTag tag = reader.tag();
    if (tag == FeatureTag::wrong_type) {
      if (is_counted) ++out.wrong_types[f];
    } else if (tag == FeatureTag::absent && reader.ok()) {
      if (is_counted) ++out.absent[f];
    } else {
      if (!read_value(reader, field, tag, at, field.is_context ? nullptr : &out)) return false;
    }
    if (field.is_context) {
      context_values.append(blob, blob.size() - before, before - reader.remaining());
    }
  }
  // Each value says where it ends, so that other values never have the same bytes together.
  context = inputs_.context == 0 ? Digest() : hash128(context_values);
  return reader.ok() && reader.at_end();
}

void Schema::decode_context(std::string_view blob, std::uint32_t at, DecodedSamples& out) const {
  FeatureReader reader(blob);
  for (const Field& field : fields_) {
    const FeatureTag tag = reader.tag();
    if (tag == FeatureTag::wrong_type || tag == FeatureTag::absent) continue;
    SLUICE_CHECK(read_value(reader, field, tag, at, field.is_context ? &out : nullptr));
  }
}

}  // namespace sluice
