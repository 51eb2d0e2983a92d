// A recipe says, as data, what a model is: its towers and which embedding set each reads, how pCTR,
// pCVR and pCTCVR follow from the towers' logits, and the loss as a sum of terms over samples
// (docs/models.md). It is a TOML text: one of the built-in files config/recipes/*.toml, which are
// part of the program, or a user's own file of the same form. Parsing checks everything that can be
// known without data; what comes out is a list of operations in which every operand stands before
// its user. learner/objective.h evaluates and differentiates it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "config/config.h"
#include "config/load.h"

namespace sluice {

inline constexpr std::size_t kMostTowers = 16;
inline constexpr std::size_t kMostRates = 64;
inline constexpr std::size_t kMostTerms = 32;
inline constexpr std::size_t kMostNodes = 256;

// One operation. A rate is a probability that is kept as p and 1 − p; a real is a double.
struct RecipeNode {
  enum class Op : std::uint8_t {
    // reals
    number,    // `number`
    label,     // of the sample, 0 or 1
    logit,     // of tower a
    value,     // p of rate a
    log,       // log p of rate a
    add,       // a + b, reals as are the next ones
    subtract,  // a − b
    multiply,  // a · b
    divide,    // a / b
    negate,    // −a
    absolute,  // |a|
    square,    // a²
    min,       // of a and b
    max,       // of a and b
    softplus,  // log(1 + e^a)
    bce,       // −t·log p − (1−t)·log(1−p), t the real a (0 or 1), p the rate b
    // rates
    sigmoid,     // σ(a), a real
    constant,    // `number`, above 0 and below 1
    complement,  // 1 − a
    product,     // a · b
    mix,         // c·a + (1 − c)·b
    ratio,       // a / b, at most 1
    stop_real,   // a, through which no gradient passes
    stop_rate,   // the same of a rate
  };
  enum class Label : std::uint8_t { y, action, z };

  Op op = Op::number;
  Label label = Label::y;
  std::uint16_t a = 0, b = 0, c = 0;  // indexes of nodes, of logit: of a tower
  double number = 0;
  friend bool operator==(const RecipeNode&, const RecipeNode&) = default;
};

struct RecipeTower {
  // mlp: the hidden layers of model.hidden. linear: none. fm: linear, and the inner products of the
  // fields' vectors, each pair once.
  enum class Kind : std::uint8_t { mlp, linear, fm };
  std::string name;
  std::size_t embeddings = 0;  // index into Recipe::embedding_sets
  Kind kind = Kind::mlp;
  friend bool operator==(const RecipeTower&, const RecipeTower&) = default;
};

struct RecipeTerm {
  enum class Samples : std::uint8_t { all, clicked, unclicked, acted };
  // What the sum of weight · loss is divided by: the batch's samples, or the sum of the weights.
  enum class Normalize : std::uint8_t { batch, weights };
  static constexpr std::uint16_t kNone = 0xffff;

  std::string name;
  Samples samples = Samples::all;
  Normalize normalize = Normalize::batch;
  std::uint16_t loss = 0;        // a node; a real
  std::uint16_t weight = kNone;  // a node; a real, finite and not negative; none: 1
  std::uint16_t chance = kNone;  // a node; a rate or a real in [0, 1]; none: 1
  // The labels that it uses, those of `samples` included; their last to become final trains it.
  bool uses_y = false, uses_action = false, uses_z = false;
  friend bool operator==(const RecipeTerm&, const RecipeTerm&) = default;
};

struct Recipe {
  std::string summary;                           // one sentence
  std::vector<std::string> embedding_sets;       // sorted by name
  std::vector<RecipeTower> towers;               // sorted by name: the order of logits everywhere
  std::vector<RecipeNode> nodes;                 // operands before their users
  std::uint16_t pctr = 0, pcvr = 0, pctcvr = 0;  // nodes; rates
  std::vector<RecipeTerm> terms;                 // in the text's order, at least one
  std::map<std::string, double> defaults;        // of the text's [parameters]
  // The text in canonical form, parameters filled in, without the summary: parses to an equal
  // recipe, and is equal for texts that differ in spaces, comments or the order of keys only.
  std::string canonical;

  bool uses_action() const;  // some term does: needs the stream of actions
};

// Either a recipe or why the text is none, problems sorted by place.
struct ParsedRecipe {
  Recipe recipe;  // meaningful only when `problems` is empty
  std::vector<ConfigProblem> problems;
};

// `parameters` replace defaults of the text's [parameters]; others are refused.
ParsedRecipe parse_recipe(std::string_view text, const std::string& file,
                          const std::map<std::string, double>& parameters = {});

struct BuiltInRecipe {
  std::string_view name;
  std::string_view text;
};
// Sorted by name.
const std::vector<BuiltInRecipe>& built_in_recipes();

const BuiltInRecipe* find_built_in_recipe(std::string_view name);  // null: none

// "aman", "aman:rate=0.2", "own.toml:a=1,b=2": which recipe, and parameters that it is given.
struct RecipeName {
  std::string recipe;  // a built-in's name, or a path that ends in .toml
  std::map<std::string, double> parameters;
  bool is_file() const { return recipe.ends_with(".toml"); }
};
Result<RecipeName> parse_recipe_name(const std::string& text);
std::string format_recipe_name(const RecipeName& name);

// The recipe of a loaded config or of a snapshot: of model.recipe_text, or where that is empty the
// built-in that model.recipe names. An error says that this build has no such recipe.
Result<Recipe> recipe_of(const ModelConfig& model);

}  // namespace sluice
