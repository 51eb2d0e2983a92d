// sluice check: every problem of a config at once, or all that it says.
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <system_error>
#include <vector>

#include <CLI/CLI.hpp>

#include "app/verbs.h"
#include "base/check.h"
#include "config/load.h"
#include "config/recipe.h"
#include "config/toml_tree.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

struct CheckOptions {
  std::string config;
  std::vector<std::string> overrides;
  bool effective = false;
  bool recipe = false;
  bool schema = false;
};

void print(std::FILE* stream, const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stream);
}

// The numbers that the names in a topic's folder begin with: 3 of "3.jsonl.zst" and of "3/".
std::set<std::string> partitions_in(const fs::path& topic_folder) {
  std::set<std::string> partitions;
  std::error_code code;
  for (fs::directory_iterator it(topic_folder, code), end; !code && it != end; it.increment(code)) {
    const std::string name = it->path().filename().string();
    std::size_t digits = 0;
    while (digits < name.size() && std::isdigit(static_cast<unsigned char>(name[digits]))) ++digits;
    const bool is_whole = digits == name.size() || name.compare(digits, 6, ".jsonl") == 0;
    if (digits == 0 || !is_whole) continue;
    const std::size_t zeros = std::min(name.find_first_not_of('0'), digits - 1);
    partitions.insert(name.substr(zeros, digits - zeros));
  }
  return partitions;
}

// What a start would stumble over, as far as a look at the folders tells. The config itself is
// valid: its logs may come later or lie on another machine.
std::vector<std::string> log_warnings(const Config& config) {
  std::vector<std::string> warnings;
  if (config.source.type != SourceConfig::Type::files) return warnings;
  std::set<std::string> first;
  for (std::size_t stream = 0; stream < config.streams.count(); ++stream) {
    const fs::path folder = fs::path(config.source.root) / config.streams.topic[stream];
    const std::set<std::string> partitions = partitions_in(folder);
    if (partitions.empty()) {
      warnings.push_back("streams." + std::string(kStreamNames[stream]) + ".topic: there are no " +
                         "logs in " + folder.string());
    } else if (first.empty()) {
      first = partitions;
    } else if (partitions != first) {
      warnings.push_back("streams." + std::string(kStreamNames[stream]) + ".topic: " +
                         folder.string() + " has other partitions than the streams before it");
    }
  }
  return warnings;
}

std::string summary(const Config& config) {
  const bool is_kafka = config.source.type == SourceConfig::Type::kafka;
  std::set<std::string> tables;
  std::size_t dense = 0;
  for (const FeatureConfig& feature : config.features) {
    if (feature.is_dense()) {
      ++dense;
    } else {
      tables.insert(feature.table);
    }
  }
  std::string text = "  source    ";
  text += is_kafka ? "kafka at " + config.source.brokers : "files in " + config.source.root;
  text += "\n  streams   ";
  for (std::size_t stream = 0; stream < config.streams.count(); ++stream) {
    text += std::string(stream == 0 ? "" : ", ") + kStreamNames[stream] + " (" +
            config.streams.topic[stream] + ", out of order by at most " +
            format_duration(config.streams.max_out_of_orderness[stream]) + ")";
  }
  text += "\n  join      click window " + format_duration(config.join.click_window) +
          ", conversion window " + format_duration(config.join.conversion_window);
  if (config.streams.has_actions()) {
    text += ", action window " + format_duration(config.join.action_window);
  }
  text += ", tick " + format_duration(config.join.tick);
  text += "\n  features  " + std::to_string(config.features.size()) + ": " +
          std::to_string(config.features.size() - dense) + " with embeddings in " +
          std::to_string(tables.size()) + " tables, " + std::to_string(dense) + " dense";
  text += "\n  model     " + config.model.name + ": " + config.model.recipe + ", rows of " +
          std::to_string(config.model.embedding_dim) + ", hidden layers";
  for (const std::uint64_t size : config.model.hidden) text += " " + std::to_string(size);
  return text + "\n";
}

// A file of its own that means the same, to begin another one with.
std::string recipe_toml(const Config& config) {
  const Result<Recipe> recipe = recipe_of(config.model);
  SLUICE_CHECK(recipe.has_value());  // it was loaded
  if (recipe->summary.empty()) return recipe->canonical;
  return "summary = " + toml_text(recipe->summary) + "\n\n" + recipe->canonical;
}

int check(const CheckOptions& options) {
  if (options.schema) {
    print(stdout, config_json_schema());
    return 0;
  }
  if (options.config.empty()) {
    print(stderr, "sluice check: CONFIG is missing; name a file, or ask for --schema\n");
    return 2;
  }
  const LoadedConfig loaded = load_config(options.config, options.overrides);
  for (const ConfigProblem& problem : loaded.problems) print(stderr, problem.text() + "\n");
  if (!loaded.problems.empty()) return 2;
  for (const std::string& warning : log_warnings(loaded.config)) {
    print(stderr, "warning: " + warning + "\n");
  }
  print(stdout, options.effective ? effective_toml(loaded.config)
                : options.recipe  ? recipe_toml(loaded.config)
                                  : options.config + " is valid\n" + summary(loaded.config));
  return 0;
}

}  // namespace

void add_check(CLI::App& root, int& exit_code) {
  CLI::App* verb = root.add_subcommand("check", "Names every problem of a config at once");
  const auto options = std::make_shared<CheckOptions>();
  verb->add_option("CONFIG", options->config, "The config file");
  verb->add_option("--set", options->overrides, "section.key=value; may be repeated")
      ->allow_extra_args(false);
  CLI::Option* const effective =
      verb->add_flag("--effective", options->effective,
                     "Prints the whole config as TOML, with every default; secrets are masked");
  verb->add_flag("--recipe", options->recipe,
                 "Prints the model's recipe as TOML, to begin one of your own (docs/models.md)")
      ->excludes(effective);
  verb->add_flag("--schema", options->schema, "Prints the JSON Schema of config files");
  verb->callback([options, &exit_code] { exit_code = check(*options); });
}

}  // namespace sluice
