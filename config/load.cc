#include "config/load.h"

#include <algorithm>
#include <set>
#include <system_error>
#include <tuple>

#include "base/file.h"
#include "config/recipe.h"
#include "config/rules.h"
#include "config/schema.h"
#include "config/toml_tree.h"

namespace sluice {
namespace {

constexpr const char* kPropertiesKey = "source.properties";

std::string trimmed(const std::string& text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t") + 1 - begin);
}

// "a.b.c" -> a, b, c; the rest of a property's name is one part, as librdkafka's names have dots.
std::vector<std::string> split_override_key(const std::string& key) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (true) {
    const bool is_property = key.compare(0, begin, std::string(kPropertiesKey) + ".") == 0;
    const std::size_t dot = is_property ? std::string::npos : key.find('.', begin);
    parts.push_back(key.substr(begin, dot - begin));
    if (dot == std::string::npos) return parts;
    begin = dot + 1;
  }
}

// An override replaces a property however the file writes its name: quoted or as nested tables.
void remove_property(TomlNode& table, const std::string& name) {
  std::erase_if(table.children, [&](const TomlNode& child) { return child.name == name; });
  for (TomlNode& child : table.children) {
    if (child.is_table() && name.starts_with(child.name + ".")) {
      remove_property(child, name.substr(child.name.size() + 1));
    }
  }
}

void apply_override(const std::string& text, TomlNode& root, Problems& problems) {
  const Place place{kOverrideFile, 0, 0};
  const std::size_t equals = text.find('=');
  const std::string key = trimmed(text.substr(0, equals));
  const std::vector<std::string> parts = split_override_key(key);
  const bool has_empty_part = std::find(parts.begin(), parts.end(), "") != parts.end();
  if (equals == std::string::npos || has_empty_part) {
    problems.push_back(problem_at(place, key, "must have the form section.key=value"));
    return;
  }
  if (parts.size() > kMaxNameParts) {
    problems.push_back(problem_at(place, parts.front() + "...", "unknown key"));
    return;
  }
  TomlNode* node = &root;
  std::string path;
  for (const std::string& part : parts) {
    if (!node->is_table()) {
      problems.push_back(problem_at(place, key, "unknown key; " + path + " is no section"));
      return;
    }
    if (path == kPropertiesKey) remove_property(*node, part);
    path += (path.empty() ? "" : ".") + part;
    TomlNode* child = node->find(part);
    if (child == nullptr) {
      node->children.emplace_back();
      child = &node->children.back();
      child->name = part;
      child->place = child->key_place = place;
    }
    node = child;
  }
  TomlNode value = parse_override_value(trimmed(text.substr(equals + 1)));
  value.name = parts.back();
  *node = std::move(value);
}

// Of keys and of sections.
std::vector<std::string> known_names() {
  std::vector<std::string> names;
  const auto add = [&](const std::string& name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  };
  for (const Key<Config>& key : config_keys()) {
    for (std::size_t dot = key.name.find('.'); dot != std::string::npos;
         dot = key.name.find('.', dot + 1)) {
      add(key.name.substr(0, dot));
    }
    add(key.name);
  }
  return names;
}

// Adds every key and every section that is not one of the `known`.
void find_unknown(const TomlNode& node, const std::string& path,
                  const std::vector<std::string>& known, Problems& problems) {
  for (const TomlNode& child : node.children) {
    const std::string name = path.empty() ? child.name : path + "." + child.name;
    const bool is_known = std::find(known.begin(), known.end(), name) != known.end();
    const bool is_section = std::any_of(known.begin(), known.end(), [&](const std::string& key) {
      return key.starts_with(name + ".");
    });
    if (is_known && !is_section) continue;
    if (is_section && child.is_table()) {
      find_unknown(child, name, known, problems);
    } else if (is_section) {
      problems.push_back(
          problem_at(child.place, name,
                     child.shown() + " is not allowed; must be a section, as in [" + name + "]"));
    } else {
      problems.push_back(problem_at(child.key_place, name, unknown_text(child, name, known)));
    }
  }
}

std::string resolve(const std::string& root, const std::filesystem::path& folder) {
  std::error_code code;
  const fs::path joined = folder / root;
  const fs::path absolute = fs::absolute(joined, code);
  const fs::path resolved = (code ? joined : absolute).lexically_normal();
  return resolved.string();
}

Config read_config(const TomlNode& root, const std::filesystem::path& folder, Problems& problems) {
  Config config;
  for (const Key<Config>& key : config_keys()) {
    const TomlNode* node = root.find_path(key.name);
    if (node == nullptr) continue;
    if (key.type != ValueType::table) {
      if (!key.set(config, *node)) {
        problems.push_back(problem_at(node->place, key.name, refused_value_text(key, *node)));
      }
    } else if (!node->is_table()) {
      problems.push_back(problem_at(
          node->place, key.name,
          node->shown() + " is not allowed; must be a section, as in [" + key.name + "]"));
    } else if (key.name == kPropertiesKey) {
      read_properties(*node, config.source, problems);
    } else {
      read_features(*node, config, problems);
    }
  }
  ServingConfig& serving = config.serving;
  for (const auto& [key, path] : {std::pair("source.root", &config.source.root),
                                  std::pair("serving.token_file", &serving.token_file),
                                  std::pair("serving.certificate", &serving.certificate),
                                  std::pair("serving.key", &serving.key),
                                  std::pair("serving.log_predictions", &serving.log_predictions)}) {
    if (path->empty()) continue;
    const bool is_override = root.find_path(key)->place.is_override();
    *path = resolve(*path, is_override ? fs::path() : folder);
  }
  return config;
}

// The text of the recipe that `name` means; a file is found first.
Result<std::string> recipe_text_of(const RecipeName& name) {
  if (!name.is_file()) return std::string(find_built_in_recipe(name.recipe)->text);
  return RealFileSystem().read(name.recipe);
}

// Finds the recipe, checks it against the config, and leaves its one name or its content there.
void read_recipe(const TomlNode& root, const std::string& file, const std::filesystem::path& folder,
                 Config& config, Problems& problems) {
  constexpr const char* kKey = "model.recipe";
  ModelConfig& model = config.model;
  const TomlNode* const node = root.find_path(kKey);
  const Place place = node == nullptr ? Place{file, 0, 0} : node->place;
  Result<RecipeName> name = parse_recipe_name(model.recipe);
  if (!name) return problems.push_back(problem_at(place, kKey, name.error().message));
  if (name->is_file()) name->recipe = resolve(name->recipe, place.is_override() ? "" : folder);
  const Result<std::string> text = recipe_text_of(*name);
  if (!text) return problems.push_back(problem_at(place, kKey, text.error().message));
  const std::string shown = name->is_file() ? name->recipe : "recipe " + name->recipe;
  ParsedRecipe parsed = parse_recipe(*text, shown, name->parameters);
  for (ConfigProblem& problem : parsed.problems) {
    if (problem.line == 0) {
      problem.message = shown + ": " + problem.key + ": " + problem.message;
      problem = problem_at(place, kKey, problem.message);
    }
    problems.push_back(std::move(problem));
  }
  if (!parsed.problems.empty()) return;
  if (parsed.recipe.uses_action() && !config.streams.has_actions()) {
    problems.push_back(problem_at(place, kKey,
                                  shown + " needs the label action: name the stream of in-shop "
                                          "actions, streams.actions.topic"));
  }
  for (const RecipeTerm& term : parsed.recipe.terms) {
    if (!term.uses_action || !term.uses_z) continue;
    problems.push_back(problem_at(place, kKey,
                                  shown + ": term " + term.name +
                                      " uses both action and z; no sample tells both, where they "
                                      "become final one after the other"));
  }
  if (name->is_file()) {
    model.recipe_text = parsed.recipe.canonical;
  } else {
    std::erase_if(name->parameters, [&](const auto& parameter) {
      return parsed.recipe.defaults.at(parameter.first) == parameter.second;
    });
  }
  model.recipe = format_recipe_name(*name);
}

}  // namespace

std::string ConfigProblem::text() const {
  std::string where = file;
  if (line > 0) where += ":" + std::to_string(line) + ":" + std::to_string(column);
  return where + ": " + (key.empty() ? "" : key + ": ") + message;
}

LoadedConfig parse_config(const std::string& text, const std::string& file,
                          const std::filesystem::path& folder,
                          const std::vector<std::string>& overrides) {
  LoadedConfig loaded;
  Problems& problems = loaded.problems;
  auto root = parse_toml(text, file);
  if (!root) {
    problems.push_back(problem_at(root.error().place, "", root.error().message));
    return loaded;
  }
  for (const std::string& change : overrides) apply_override(change, *root, problems);
  loaded.config = read_config(*root, folder, problems);
  find_unknown(*root, "", known_names(), problems);
  check_rules(*root, file, loaded.config, problems);
  const bool is_refused = std::any_of(problems.begin(), problems.end(), [](const auto& problem) {
    return problem.key == "model.recipe" || problem.key == "model";
  });
  if (!is_refused) read_recipe(*root, file, folder, loaded.config, problems);
  std::stable_sort(problems.begin(), problems.end(), [&](const auto& a, const auto& b) {
    const auto place = [&](const ConfigProblem& problem) {
      const int rank = problem.file == file ? 0 : problem.file == kOverrideFile ? 2 : 1;
      return std::tuple(rank, problem.line, problem.column);
    };
    return place(a) < place(b);
  });
  return loaded;
}

LoadedConfig load_config(const std::filesystem::path& path,
                         const std::vector<std::string>& overrides) {
  RealFileSystem files;
  const Result<std::string> text = files.read(path);
  if (!text) {
    LoadedConfig loaded;
    loaded.problems.push_back({path.string(), 0, 0, "", text.error().message});
    return loaded;
  }
  return parse_config(*text, path.string(), path.parent_path(), overrides);
}

Result<Config> load_config_or_error(const std::filesystem::path& path,
                                    const std::vector<std::string>& overrides) {
  LoadedConfig loaded = load_config(path, overrides);
  if (loaded.problems.empty()) return std::move(loaded.config);
  std::string message;
  for (const ConfigProblem& problem : loaded.problems) {
    message += (message.empty() ? "" : "\n") + problem.text();
  }
  return usage_error(std::move(message));
}

}  // namespace sluice
