// Which recipe a config names, and with which parameters.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "config/recipe.h"
#include "config/recipe_expression.h"
#include "config/toml_tree.h"

namespace sluice {

Result<RecipeName> parse_recipe_name(const std::string& text) {
  RecipeName name;
  const std::size_t colon = text.ends_with(".toml") ? std::string::npos : text.rfind(':');
  name.recipe = text.substr(0, colon);
  if (name.recipe.empty()) return usage_error("the recipe has no name");
  for (std::size_t begin = colon; begin < text.size();) {
    const std::size_t end = std::min(text.find(',', ++begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    const std::size_t equals = std::min(part.find('='), part.size());
    double value = 0;
    const char* const number = part.data() + std::min(equals + 1, part.size());
    const auto [rest, error] = std::from_chars(number, part.data() + part.size(), value);
    const std::string parameter = part.substr(0, equals);
    if (!is_expression_name(parameter) || error != std::errc() ||
        rest != part.data() + part.size() || !std::isfinite(value) ||
        !name.parameters.emplace(parameter, value).second) {
      return usage_error(toml_text(part) +
                         " is no parameter; must be name=number, each name once, with commas "
                         "between them, as in \"aman:rate=0.2\"");
    }
    begin = end;
  }
  return name;
}

std::string format_recipe_name(const RecipeName& name) {
  std::string text = name.recipe;
  for (const auto& [parameter, value] : name.parameters) {
    text += (text.size() == name.recipe.size() ? ":" : ",") + parameter + "=" +
            format_expression_number(value);
  }
  return text;
}

const BuiltInRecipe* find_built_in_recipe(std::string_view name) {
  for (const BuiltInRecipe& recipe : built_in_recipes()) {
    if (recipe.name == name) return &recipe;
  }
  return nullptr;
}

Result<Recipe> recipe_of(const ModelConfig& model) {
  RecipeName name;
  std::string_view text = model.recipe_text;
  if (text.empty()) {
    SLUICE_ASSIGN(name, parse_recipe_name(model.recipe));
    const BuiltInRecipe* const built_in = find_built_in_recipe(name.recipe);
    if (built_in == nullptr) {
      return stop_error("this build has no recipe " + toml_text(name.recipe));
    }
    text = built_in->text;
  }
  ParsedRecipe parsed = parse_recipe(text, "recipe", name.parameters);
  if (!parsed.problems.empty()) {
    return stop_error("this build cannot run the recipe: " + parsed.problems.front().text());
  }
  return std::move(parsed.recipe);
}

}  // namespace sluice
