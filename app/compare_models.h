// Which models a comparison is of: configs, each with several recipes and seeds, that may follow
// one join.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "config/config.h"

namespace sluice {

struct ComparedModel {
  Config config;                    // model.name is its folder and its name in tables
  std::filesystem::path path = {};  // of the config
  std::string group;  // the name without the seed: models of one group differ in the seed alone
};

struct ComparedConfigs {
  std::vector<std::filesystem::path> configs;
  std::vector<std::string> overrides;  // of every config: section.key=value
  std::string recipes;                 // "esmm,base": each config once with each; empty: its own
  std::uint64_t seeds = 0;             // model.seed = 1..n; 0: the config's own
};

// In the order of configs, then recipes, then seeds; names distinct. A usage error where a config
// is none, or cannot follow the first one's join, or means another feature by a name: it names what
// differs.
Result<std::vector<ComparedModel>> load_compared_models(const ComparedConfigs& asked);

// What the sample log of these models holds: the features of all, in the order of their names, with
// path and type alone. Of one config these are its own.
std::vector<FeatureConfig> logged_features(const std::vector<ComparedModel>& models);

// "esmm,aman:rate=0.2,gamma=1,base" -> "esmm", "aman:rate=0.2,gamma=1", "base": what has a value
// and no colon belongs to the recipe before it.
std::vector<std::string> split_recipes(std::string_view text);

// A model's name of a recipe's: "own/esmm.toml:a=1" -> "esmm-a-1".
std::string model_name_of(std::string_view recipe);

// The keys in which two models differ beside their names, as "section.key": the learner's semantic
// keys, defaults included.
std::vector<std::string> differing_keys(const std::vector<ComparedModel>& models);

}  // namespace sluice
