#include "config/recipe.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "config/recipe_nodes.h"
#include "config/rules.h"
#include "config/toml_tree.h"

namespace sluice {
namespace {

using Samples = RecipeTerm::Samples;
using Normalize = RecipeTerm::Normalize;

const std::vector<std::string> kKindWords = {"mlp", "linear", "fm"};  // in the enums' orders
const std::vector<std::string> kSamplesWords = {"all", "clicked", "unclicked", "acted"};
const std::vector<std::string> kNormalizeWords = {"batch", "weights"};
const std::vector<std::string> kRootKeys = {"parameters", "rates", "summary", "terms", "towers"};
const std::vector<std::string> kTowerKeys = {"embeddings", "kind"};
const std::vector<std::string> kTermKeys = {"chance",    "loss",    "name",
                                            "normalize", "samples", "weight"};
constexpr std::size_t kMostOpenRates = 16;  // bounds the stack, as the expressions' own depth does
constexpr const char* kIdentifierAllowed = "1 to 64 letters, digits or '_', the first no digit";

std::string one_of(const std::vector<std::string>& words) {
  std::string text;
  for (std::size_t n = 0; n < words.size(); ++n) {
    text += (n == 0 ? "" : n + 1 == words.size() ? " or " : ", ") + toml_text(words[n]);
  }
  return text;
}

std::string nearest_text(const std::string& name, const std::vector<std::string>& known) {
  const Nearest nearest = nearest_word(name, known);
  return nearest.is_likely ? "; did you mean " + nearest.name + "?"
                           : "; the nearest known one is " + nearest.name;
}

bool is_a_number(const TomlNode& node) {
  return node.kind == TomlNode::Kind::integer || node.kind == TomlNode::Kind::real;
}

double number_of(const TomlNode& node) {
  return node.kind == TomlNode::Kind::real ? node.real : static_cast<double>(node.integer);
}

// Where an expression's byte stands in the file: behind the quote, on the value's line.
Place place_in(const TomlNode& node, std::size_t at) {
  return {node.place.file, node.place.line, node.place.column + 1 + static_cast<int>(at)};
}

class RecipeReader {
 public:
  RecipeReader(const std::string& file, const std::map<std::string, double>& parameters)
      : file_(file),
        given_(parameters),
        builder_([this](const std::string& name, std::size_t at) { return node_of(name, at); }) {}

  ParsedRecipe read(std::string_view text) {
    const auto root = parse_toml(text, file_);
    if (!root) {
      refuse(root.error().place, "", root.error().message);
      return {{}, std::move(problems_)};
    }
    for (const TomlNode& child : root->children) {
      if (!is_one_of(kRootKeys, child.name)) {
        refuse(child.key_place, child.name, unknown_text(child, child.name, kRootKeys));
      }
    }
    read_summary(*root);
    read_parameters(*root);
    read_towers(*root);
    read_rates(*root);
    read_terms(*root);
    if (problems_.empty()) check_reached(*root);
    recipe_.nodes = builder_.nodes();
    recipe_.canonical = canonical();
    std::stable_sort(problems_.begin(), problems_.end(), [](const auto& a, const auto& b) {
      return std::tuple(a.line, a.column) < std::tuple(b.line, b.column);
    });
    return {std::move(recipe_), std::move(problems_)};
  }

 private:
  struct NamedRate {
    const TomlNode* text;
    std::optional<Expression> expression;  // none: it is no expression, which was told
    std::optional<NodeOr> node;            // none: not built yet
    bool is_open = false;                  // it is being built
  };

  static bool is_one_of(const std::vector<std::string>& words, const std::string& word) {
    return std::find(words.begin(), words.end(), word) != words.end();
  }

  void refuse(const Place& place, const std::string& key, std::string message) {
    if (!message.empty()) problems_.push_back(problem_at(place, key, std::move(message)));
  }
  void refuse(const TomlNode& text, const std::string& key, const ExpressionProblem& problem) {
    refuse(place_in(text, problem.at), key, problem.message);
  }

  // The section `name` as a table with at least `least` entries; null where it is none, told.
  const TomlNode* section(const TomlNode& root, const std::string& name, std::size_t least,
                          const char* example) {
    const TomlNode* node = root.find(name);
    if (node == nullptr && least == 0) return nullptr;
    if (node == nullptr || (node->is_table() && node->children.size() < least)) {
      refuse({file_, 0, 0}, name, std::string("is missing; must be a section, as in ") + example);
      return nullptr;
    }
    if (node->is_table()) return node;
    refuse(node->place, name,
           node->shown() + " is not allowed; must be a section, as in " + example);
    return nullptr;
  }

  // Takes a name that is used in expressions; each has one meaning.
  bool take_name(const TomlNode& node, const std::string& key) {
    if (!is_expression_name(node.name)) {
      refuse(node.key_place, key,
             std::string("the name is not allowed; must be ") + kIdentifierAllowed);
      return false;
    }
    const bool is_word = is_one_of(NodeBuilder::label_names(), node.name) ||
                         is_one_of(NodeBuilder::function_names(), node.name);
    if (is_word || !names_.insert(node.name).second) {
      refuse(node.key_place, key,
             is_word ? "the name is a label's or a function's; choose another"
                     : "the name has another meaning already: towers, rates and parameters need "
                       "different ones");
      return false;
    }
    return true;
  }

  void read_summary(const TomlNode& root) {
    const TomlNode* node = root.find("summary");
    if (node == nullptr) return;
    if (node->kind == TomlNode::Kind::text) {
      recipe_.summary = node->text;
    } else {
      refuse(node->place, "summary", node->shown() + " is not allowed; must be a text");
    }
  }

  void read_parameters(const TomlNode& root) {
    const TomlNode* table = section(root, "parameters", 0, "[parameters]\nrate = 0.1");
    for (const TomlNode& node : table == nullptr ? std::vector<TomlNode>() : table->children) {
      const std::string key = "parameters." + node.name;
      if (!take_name(node, key)) continue;
      const bool is_number = is_a_number(node);
      const double value = number_of(node);
      if (!is_number || !std::isfinite(value)) {
        refuse(node.place, key, node.shown() + " is not allowed; must be a number");
        continue;
      }
      const auto given = given_.find(node.name);
      recipe_.defaults[node.name] = value;
      parameters_[node.name] = given == given_.end() ? value : given->second;
    }
    for (const auto& [name, value] : given_) {
      if (parameters_.contains(name)) continue;
      std::vector<std::string> known;
      for (const auto& [own, number] : parameters_) known.push_back(own);
      refuse({file_, 0, 0}, "parameters." + name,
             known.empty() ? "the recipe has no parameters"
                           : "the recipe has no such parameter" + nearest_text(name, known));
    }
  }

  void read_towers(const TomlNode& root) {
    const TomlNode* table =
        section(root, "towers", 1, "[towers] with ctr = { embeddings = \"shared\" }");
    if (table == nullptr) return;
    std::vector<std::string> sets;
    for (const TomlNode& node : table->children) {
      const std::string key = "towers." + node.name;
      if (!take_name(node, key)) continue;
      RecipeTower tower;
      tower.name = node.name;
      std::string embeddings = "shared";
      if (!node.is_table()) {
        refuse(
            node.place, key,
            node.shown() + " is not allowed; must be a table, as in { embeddings = \"shared\" }");
        continue;
      }
      for (const TomlNode& child : node.children) read_tower_key(child, key, tower, embeddings);
      sets.push_back(embeddings);
      recipe_.towers.push_back(std::move(tower));
    }
    if (recipe_.towers.size() > kMostTowers) {
      refuse(table->key_place, "towers",
             "there are more than " + std::to_string(kMostTowers) + " towers");
      recipe_.towers.resize(kMostTowers);
    }
    recipe_.embedding_sets = sets;
    std::sort(recipe_.embedding_sets.begin(), recipe_.embedding_sets.end());
    recipe_.embedding_sets.erase(
        std::unique(recipe_.embedding_sets.begin(), recipe_.embedding_sets.end()),
        recipe_.embedding_sets.end());
    for (std::size_t t = 0; t < recipe_.towers.size(); ++t) {
      recipe_.towers[t].embeddings = static_cast<std::size_t>(
          std::lower_bound(recipe_.embedding_sets.begin(), recipe_.embedding_sets.end(), sets[t]) -
          recipe_.embedding_sets.begin());
    }
  }

  void read_tower_key(const TomlNode& node, const std::string& tower_key, RecipeTower& tower,
                      std::string& embeddings) {
    const std::string key = tower_key + "." + node.name;
    if (node.name == "kind") {
      if (const auto kind = word(node, key, kKindWords)) {
        tower.kind = static_cast<RecipeTower::Kind>(*kind);
      }
    } else if (node.name != "embeddings") {
      refuse(node.key_place, key, "unknown key" + nearest_text(node.name, kTowerKeys));
    } else if (node.kind == TomlNode::Kind::text && is_expression_name(node.text)) {
      embeddings = node.text;
    } else {
      refuse(node.place, key,
             node.shown() + " is not allowed; must be the embedding set's name, " +
                 kIdentifierAllowed);
    }
  }

  // The index of the node's text among `words`.
  std::optional<std::size_t> word(const TomlNode& node, const std::string& key,
                                  const std::vector<std::string>& words) {
    const auto found = std::find(words.begin(), words.end(), node.text);
    if (node.kind == TomlNode::Kind::text && found != words.end()) {
      return static_cast<std::size_t>(found - words.begin());
    }
    std::string message = node.shown() + " is not allowed; must be " + one_of(words);
    if (node.kind == TomlNode::Kind::text) {
      const Nearest nearest = nearest_word(node.text, words);
      if (nearest.is_likely) message += "; did you mean " + toml_text(nearest.name) + "?";
    }
    refuse(node.place, key, std::move(message));
    return std::nullopt;
  }

  // An expression's tree, parameters replaced by their numbers.
  std::optional<Expression> expression(const TomlNode& node, const std::string& key) {
    const bool is_number = is_a_number(node);
    if (node.kind != TomlNode::Kind::text && !is_number) {
      refuse(node.place, key,
             node.shown() + " is not allowed; must be an expression in quotes, or a number");
      return std::nullopt;
    }
    if (is_number) {
      Expression number;
      number.number = number_of(node);
      if (std::isfinite(number.number)) return number;
      refuse(node.place, key, node.shown() + " is no finite number");
      return std::nullopt;
    }
    auto parsed = parse_expression(node.text);
    if (!parsed) {
      refuse(node, key, parsed.error());
      return std::nullopt;
    }
    replace_parameters(*parsed);
    return *std::move(parsed);
  }

  void replace_parameters(Expression& expression) const {
    for (Expression& child : expression.children) replace_parameters(child);
    if (expression.kind != Expression::Kind::name) return;
    const auto found = parameters_.find(expression.name);
    if (found == parameters_.end()) return;
    expression.kind = Expression::Kind::number;
    expression.number = found->second;
    expression.name.clear();
  }

  void read_rates(const TomlNode& root) {
    const TomlNode* table = section(
        root, "rates", 1,
        "[rates] with pctr = \"sigmoid(ctr)\", pcvr = \"...\" and pctcvr = \"pctr * pcvr\"");
    if (table == nullptr) return;
    if (table->children.size() > kMostRates) {
      return refuse(table->key_place, "rates",
                    "there are more than " + std::to_string(kMostRates) + " rates");
    }
    for (const TomlNode& node : table->children) {
      const std::string key = "rates." + node.name;
      if (take_name(node, key)) rates_[node.name] = {&node, expression(node, key), {}, false};
    }
    for (auto& [name, rate] : rates_) build_rate(name, rate, 0);
    const std::pair<const char*, std::uint16_t*> needed[] = {
        {"pctr", &recipe_.pctr}, {"pcvr", &recipe_.pcvr}, {"pctcvr", &recipe_.pctcvr}};
    for (const auto& [name, node] : needed) {
      const auto rate = rates_.find(name);
      if (rate == rates_.end()) {
        refuse(table->key_place, std::string("rates.") + name,
               "is missing; pctr, pcvr and pctcvr are what every recipe predicts");
      } else if (rate->second.node && *rate->second.node) {
        *node = **rate->second.node;
      }
    }
  }

  // Builds a rate once, and what it names before it.
  NodeOr build_rate(const std::string& name, NamedRate& rate, std::size_t at) {
    if (rate.node) return rate.node->has_value() ? *rate.node : told();
    if (!rate.expression) return told();
    if (open_.size() == kMostOpenRates) {
      return tl::unexpected(ExpressionProblem{
          at, "more than " + std::to_string(kMostOpenRates) + " rates rest on each other"});
    }
    rate.is_open = true;
    open_.push_back(name);
    NodeOr node = builder_.build(*rate.expression);
    if (node) node = builder_.to_rate(*node, rate.expression->at);
    open_.pop_back();
    rate.is_open = false;
    if (!node) refuse(*rate.text, "rates." + name, node.error());
    rate.node = node;
    return node ? node : told();
  }

  static NodeOr told() { return tl::unexpected(ExpressionProblem{}); }

  // What a name that is no label stands for.
  NodeOr node_of(const std::string& name, std::size_t at) {
    for (std::size_t t = 0; t < recipe_.towers.size(); ++t) {
      if (recipe_.towers[t].name == name) return builder_.logit(t, at);
    }
    const auto rate = rates_.find(name);
    if (rate != rates_.end() && !rate->second.is_open) return build_rate(name, rate->second, at);
    if (rate != rates_.end()) {
      std::string circle;
      for (auto one = std::find(open_.begin(), open_.end(), name); one != open_.end(); ++one) {
        circle += *one + " needs ";
      }
      return tl::unexpected(ExpressionProblem{at, "the rates go in a circle: " + circle + name});
    }
    if (names_.contains(name)) return told();  // a tower or parameter that was refused
    std::vector<std::string> known = NodeBuilder::label_names();
    for (const RecipeTower& tower : recipe_.towers) known.push_back(tower.name);
    for (const auto& [own, value] : rates_) known.push_back(own);
    for (const auto& [own, value] : parameters_) known.push_back(own);
    return tl::unexpected(ExpressionProblem{at, "unknown name " + toml_text(name) +
                                                    "; there are towers, rates, parameters and the "
                                                    "labels y, action and z" +
                                                    nearest_text(name, known)});
  }

  void read_terms(const TomlNode& root) {
    const TomlNode* list = root.find("terms");
    constexpr const char* kExample = "[[terms]] with name = \"ctr\" and loss = \"bce(y, pctr)\"";
    if (list == nullptr) {
      return refuse({file_, 0, 0}, "terms", std::string("is missing; must be ") + kExample);
    }
    if (list->kind != TomlNode::Kind::list || list->children.empty() ||
        list->children.size() > kMostTerms) {
      return refuse(list->place, "terms",
                    list->shown() + " is not allowed; must be 1 to " + std::to_string(kMostTerms) +
                        " of " + kExample);
    }
    std::set<std::string> term_names;
    for (std::size_t n = 0; n < list->children.size(); ++n) {
      const TomlNode& node = list->children[n];
      if (!node.is_table()) {
        refuse(node.place, "terms", node.shown() + " is not allowed; must be " + kExample);
        continue;
      }
      const TomlNode* name = node.find("name");
      const std::string key = "terms." + (name != nullptr && name->kind == TomlNode::Kind::text
                                              ? name->text
                                              : std::to_string(n + 1));
      if (name == nullptr || name->kind != TomlNode::Kind::text ||
          !is_expression_name(name->text)) {
        refuse(name == nullptr ? node.place : name->place, key + ".name",
               (name == nullptr ? "is missing" : name->shown() + " is not allowed") +
                   std::string("; must be ") + kIdentifierAllowed);
      } else if (!term_names.insert(name->text).second) {
        refuse(name->place, key + ".name", "there is another term of this name");
      }
      read_term(node, key);
    }
  }

  void read_term(const TomlNode& node, const std::string& key) {
    RecipeTerm term;
    TermTexts texts;
    bool has_loss = false;
    for (const TomlNode& child : node.children) {
      const std::string child_key = key + "." + child.name;
      if (child.name == "name") {
        term.name = child.text;
      } else if (child.name == "samples") {
        if (const auto n = word(child, child_key, kSamplesWords)) term.samples = Samples(*n);
      } else if (child.name == "normalize") {
        if (const auto n = word(child, child_key, kNormalizeWords)) term.normalize = Normalize(*n);
      } else if (child.name == "loss") {
        has_loss = true;
        texts.loss = term_expression(child, child_key, term, &RecipeReader::check_loss, term.loss);
      } else if (child.name == "weight") {
        texts.weight =
            term_expression(child, child_key, term, &RecipeReader::check_weight, term.weight);
      } else if (child.name == "chance") {
        texts.chance =
            term_expression(child, child_key, term, &RecipeReader::check_chance, term.chance);
      } else {
        refuse(child.key_place, child_key, "unknown key" + nearest_text(child.name, kTermKeys));
      }
    }
    if (!has_loss) {
      refuse(node.place, key + ".loss", "is missing; must be an expression, as in bce(y, pctr)");
    }
    term.uses_y |= term.samples == Samples::clicked || term.samples == Samples::unclicked;
    term.uses_action |= term.samples == Samples::acted;
    recipe_.terms.push_back(std::move(term));
    texts_.push_back(std::move(texts));
  }

  // Builds one of a term's expressions and has it checked; gives its canonical text.
  std::string term_expression(const TomlNode& text, const std::string& key, RecipeTerm& term,
                              NodeOr (RecipeReader::*check)(std::uint16_t, std::size_t),
                              std::uint16_t& result) {
    const std::optional<Expression> tree = expression(text, key);
    if (!tree) return "";
    NodeOr node = builder_.build(*tree);
    if (node) node = (this->*check)(*node, tree->at);
    if (!node) {
      refuse(text, key, node.error());
      return "";
    }
    result = *node;
    const NodeFacts& facts = builder_.facts(*node);
    term.uses_y |= facts.uses_y;
    term.uses_action |= facts.uses_action;
    term.uses_z |= facts.uses_z;
    return format_expression(*tree);
  }

  NodeOr check_loss(std::uint16_t node, std::size_t at) {
    const NodeOr real = builder_.to_real(node, at);
    if (!real) return real;
    const NodeFacts& facts = builder_.facts(*real);
    std::string message;
    if (facts.reached == 0) {
      message = "the loss passes no gradient to a tower, so that the term would train nothing";
    } else if (facts.may_be_infinite) {
      message = "the loss can be infinite; bound it, as in min(1 / pctr, 15)";
    }
    if (message.empty()) return real;
    return tl::unexpected(ExpressionProblem{at, message});
  }

  NodeOr check_weight(std::uint16_t node, std::size_t at) {
    const NodeOr real = builder_.to_real(node, at);
    if (!real) return real;
    const NodeFacts& facts = builder_.facts(*real);
    if (facts.low >= 0 && !facts.may_be_infinite && facts.high <= 1e100) return real;
    return tl::unexpected(ExpressionProblem{
        at, facts.low < 0 ? "the weight can be negative; bound it from below, as in max(x, 0)"
                          : "the weight has no upper bound; give it one, as in min(1 / pctr, 15)"});
  }

  NodeOr check_chance(std::uint16_t node, std::size_t at) {
    const NodeFacts& facts = builder_.facts(node);
    if (facts.is_rate || (facts.low >= 0 && facts.high <= 1)) return node;
    return tl::unexpected(ExpressionProblem{
        at,
        "the chance can be outside [0, 1]; must be a rate or a number in it, as in "
        "min(0.01 / pctr, 1)"});
  }

  void check_reached(const TomlNode& root) {
    std::uint32_t reached = 0;
    for (const RecipeTerm& term : recipe_.terms) reached |= builder_.facts(term.loss).reached;
    for (std::size_t t = 0; t < recipe_.towers.size(); ++t) {
      if ((reached >> t & 1U) != 0) continue;
      const std::string key = "towers." + recipe_.towers[t].name;
      refuse(root.find_path(key)->key_place, key, "no term's loss reaches this tower");
    }
  }

  std::string canonical() const {
    std::string text = "[towers]\n";
    for (const RecipeTower& tower : recipe_.towers) {
      text += tower.name +
              " = { embeddings = " + toml_text(recipe_.embedding_sets[tower.embeddings]) +
              ", kind = " + toml_text(kKindWords[static_cast<std::size_t>(tower.kind)]) + " }\n";
    }
    text += "\n[rates]\n";
    for (const auto& [name, rate] : rates_) {
      if (!rate.expression) continue;
      text += name + " = " + toml_text(format_expression(*rate.expression)) + "\n";
    }
    for (std::size_t n = 0; n < recipe_.terms.size(); ++n) {
      const RecipeTerm& term = recipe_.terms[n];
      const TermTexts& texts = texts_[n];
      text += "\n[[terms]]\nname = " + toml_text(term.name) + "\n";
      text +=
          "samples = " + toml_text(kSamplesWords[static_cast<std::size_t>(term.samples)]) + "\n";
      if (!texts.chance.empty()) text += "chance = " + toml_text(texts.chance) + "\n";
      if (!texts.weight.empty()) text += "weight = " + toml_text(texts.weight) + "\n";
      text += "loss = " + toml_text(texts.loss) + "\n";
      text +=
          "normalize = " + toml_text(kNormalizeWords[static_cast<std::size_t>(term.normalize)]) +
          "\n";
    }
    return text;
  }

  struct TermTexts {
    std::string loss, weight, chance;
  };

  const std::string& file_;
  const std::map<std::string, double>& given_;
  Recipe recipe_;
  Problems problems_;
  std::map<std::string, double> parameters_;
  std::set<std::string> names_;
  std::map<std::string, NamedRate> rates_;
  std::vector<std::string> open_;  // rates that are being built, outermost first
  std::vector<TermTexts> texts_;
  NodeBuilder builder_;
};

}  // namespace

bool Recipe::uses_action() const {
  return std::any_of(terms.begin(), terms.end(),
                     [](const RecipeTerm& term) { return term.uses_action; });
}

ParsedRecipe parse_recipe(std::string_view text, const std::string& file,
                          const std::map<std::string, double>& parameters) {
  return RecipeReader(file, parameters).read(text);
}

}  // namespace sluice
