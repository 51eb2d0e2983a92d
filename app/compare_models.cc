#include "app/compare_models.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include "config/load.h"
#include "config/toml_tree.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLongestName = 64;  // as model.name may be

std::string setting(const std::string& key, const std::string& value) {
  return key + "=" + value;
}

// One config once, with what this recipe and seed say beside it.
Result<ComparedModel> load_model(const ComparedConfigs& asked, const fs::path& path,
                                 const std::string& recipe, std::uint64_t seed) {
  std::vector<std::string> overrides = asked.overrides;
  if (!recipe.empty()) overrides.push_back(setting("model.recipe", toml_text(recipe)));
  if (seed != 0) overrides.push_back(setting("model.seed", std::to_string(seed)));
  ComparedModel model;
  model.path = path;
  SLUICE_ASSIGN(model.config, load_config_or_error(path, overrides));
  std::string& name = model.config.model.name;
  if (!recipe.empty()) {
    // Of several configs with the same recipes each keeps its own name in front.
    name = asked.configs.size() > 1 ? name + "-" + model_name_of(recipe) : model_name_of(recipe);
  }
  model.group = name;
  if (seed != 0) name += "-seed" + std::to_string(seed);
  return model;
}

// The same logs are meant: two spellings of one folder are one.
std::string place_of(const Config& config) {
  if (config.source.type == SourceConfig::Type::kafka) return config.source.brokers;
  std::error_code code;
  const fs::path canonical = fs::weakly_canonical(config.source.root, code);
  return code ? config.source.root : canonical.string();
}

std::map<std::string, std::string> source_keys(const Config& config) {
  std::map<std::string, std::string> keys = {
      {config.source.type == SourceConfig::Type::kafka ? "source.brokers" : "source.root",
       place_of(config)}};
  for (std::size_t stream = 0; stream < kStreams; ++stream) {
    keys["streams." + std::string(kStreamNames[stream]) + ".topic"] = config.streams.topic[stream];
  }
  return keys;
}

// "; join.tick is 1 s, 2 s here" of each key whose values differ.
std::string differences(const std::map<std::string, std::string>& first,
                        const std::map<std::string, std::string>& other) {
  std::string text;
  for (const auto& [key, value] : first) {
    const auto found = other.find(key);
    if (found == other.end()) {
      text += "; it has no " + key;
    } else if (found->second != value) {
      text += "; " + key + " is " + found->second + ", not " + value;
    }
  }
  for (const auto& [key, value] : other) {
    if (!first.contains(key)) text += "; only it has " + key;
  }
  return text;
}

Error refusal(const ComparedModel& first, const ComparedModel& model, const std::string& rule,
              const std::string& what) {
  return usage_error(model.path.string() + " cannot be compared with " + first.path.string() +
                     " over one join: " + rule + what);
}

Status check_same_join(const ComparedModel& first, const ComparedModel& model) {
  const std::string source = differences(source_keys(first.config), source_keys(model.config));
  if (!source.empty()) return refusal(first, model, "both must read the same logs", source);
  const std::string join = differences(semantic_keys(first.config, KeyGroup::join),
                                       semantic_keys(model.config, KeyGroup::join));
  if (!join.empty()) return refusal(first, model, "[streams] and [join] must say the same", join);
  return {};
}

std::string meaning_of(const FeatureConfig& feature) {
  constexpr const char* kTypes[] = {"id", "ids", "weighted_ids", "number"};
  return feature.path + ", " + kTypes[static_cast<std::size_t>(feature.type)];
}

// The sample log holds the value of a name once, for all models that have the feature.
Status check_features(const std::vector<ComparedModel>& models) {
  std::map<std::string, std::pair<const ComparedModel*, std::string>> first;  // by name
  for (const ComparedModel& model : models) {
    for (const FeatureConfig& feature : model.config.features) {
      const std::string meaning = meaning_of(feature);
      const auto& [other, wanted] = first.try_emplace(feature.name, &model, meaning).first->second;
      if (wanted == meaning) continue;
      return refusal(*other, model,
                     "features of one name must have the same path and type (tables, buckets and "
                     "groups may differ)",
                     "; features." + feature.name + " is " + meaning + ", not " + wanted);
    }
  }
  return {};
}

Status check_names(const std::vector<ComparedModel>& models) {
  std::set<std::string> names;
  for (const ComparedModel& model : models) {
    const std::string& name = model.config.model.name;
    if (!names.insert(name).second) {
      return usage_error("two models are named " + name + "; give each config its own model.name");
    }
    if (name.size() > kLongestName) {
      return usage_error("the model's name " + name + " is too long; it must be at most " +
                         std::to_string(kLongestName) + " bytes: give a shorter model.name");
    }
  }
  return {};
}

}  // namespace

std::vector<std::string> split_recipes(std::string_view text) {
  std::vector<std::string> recipes;
  while (!text.empty()) {
    const std::string piece(text.substr(0, text.find(',')));
    text.remove_prefix(std::min(text.size(), piece.size() + 1));
    const bool is_parameter =
        piece.find('=') != std::string::npos && piece.find(':') == std::string::npos;
    if (is_parameter && !recipes.empty()) {
      recipes.back() += "," + piece;
    } else if (!piece.empty()) {
      recipes.push_back(piece);
    }
  }
  return recipes;
}

std::string model_name_of(std::string_view recipe) {
  std::string_view parameters = recipe.substr(std::min(recipe.size(), recipe.find(':')));
  recipe.remove_suffix(parameters.size());
  if (const auto slash = recipe.rfind('/'); slash != recipe.npos) recipe.remove_prefix(slash + 1);
  if (recipe.ends_with(".toml")) recipe.remove_suffix(5);
  std::string name;
  for (const char c : std::string(recipe) + std::string(parameters)) {
    const bool is_plain = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
    name += is_plain ? c : '-';
  }
  return name;
}

Result<std::vector<ComparedModel>> load_compared_models(const ComparedConfigs& asked) {
  std::vector<std::string> recipes = split_recipes(asked.recipes);
  if (recipes.empty()) recipes = {""};
  std::vector<ComparedModel> models;
  for (const fs::path& path : asked.configs) {
    for (const std::string& recipe : recipes) {
      for (std::uint64_t seed = asked.seeds == 0 ? 0 : 1; seed <= asked.seeds; ++seed) {
        SLUICE_ASSIGN(ComparedModel model, load_model(asked, path, recipe, seed));
        if (!models.empty()) {
          SLUICE_TRY(check_same_join(models.front(), model));
        }
        models.push_back(std::move(model));
      }
    }
  }
  SLUICE_TRY(check_features(models));
  SLUICE_TRY(check_names(models));
  if (models.size() < 2) {
    return usage_error(
        "a comparison needs two models or more: name another config, --recipes or "
        "--seeds");
  }
  return models;
}

std::vector<FeatureConfig> logged_features(const std::vector<ComparedModel>& models) {
  std::map<std::string, FeatureConfig> features;
  for (const ComparedModel& model : models) {
    for (const FeatureConfig& feature : model.config.features) {
      FeatureConfig logged;
      logged.name = logged.table = feature.name;
      logged.path = feature.path;
      logged.type = feature.type;
      features.try_emplace(feature.name, std::move(logged));
    }
  }
  std::vector<FeatureConfig> sorted;
  for (auto& [name, feature] : features) sorted.push_back(std::move(feature));
  return sorted;
}

std::vector<std::string> differing_keys(const std::vector<ComparedModel>& models) {
  std::map<std::string, std::set<std::string>> values;
  for (const ComparedModel& model : models) {
    for (const auto& [key, value] : semantic_keys(model.config, KeyGroup::learner)) {
      values[key].insert(value);
    }
  }
  std::vector<std::string> keys;
  for (const auto& [key, different] : values) {
    std::size_t having = 0;
    for (const ComparedModel& model : models) {
      having += semantic_keys(model.config, KeyGroup::learner).count(key);
    }
    if (key != "model.name" && (different.size() > 1 || having < models.size())) {
      keys.push_back(key);
    }
  }
  return keys;
}

}  // namespace sluice
