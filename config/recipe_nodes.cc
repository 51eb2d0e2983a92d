#include "config/recipe_nodes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/check.h"
#include "config/suggest.h"
#include "config/toml_tree.h"

namespace sluice {
namespace {

using Op = RecipeNode::Op;
using Kind = Expression::Kind;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

tl::unexpected<ExpressionProblem> problem(std::size_t at, std::string message) {
  return tl::unexpected(ExpressionProblem{at, std::move(message)});
}

RecipeNode node_of(Op op, std::uint16_t a = 0, std::uint16_t b = 0, std::uint16_t c = 0) {
  RecipeNode node;
  node.op = op;
  node.a = a;
  node.b = b;
  node.c = c;
  return node;
}

// Of a product or quotient of bounds, of which one may be infinite.
void set_corners(NodeFacts& facts, std::initializer_list<double> corners) {
  facts.low = kInfinity;
  facts.high = -kInfinity;
  for (const double corner : corners) {
    const double known = std::isnan(corner) ? 0 : corner;  // 0 · infinity, infinity / infinity
    facts.low = std::min(facts.low, known);
    facts.high = std::max(facts.high, known);
  }
}

struct Function {
  const char* name;
  std::size_t arguments;
  const char* form;
};
constexpr Function kFunctions[] = {
    {"abs", 1, "abs(x)"},
    {"bce", 2, "bce(label, rate)"},
    {"clip", 3, "clip(x, low, high)"},
    {"log", 1, "log(rate)"},
    {"max", 2, "max(x, y)"},
    {"min", 2, "min(x, y)"},
    {"mix", 3, "mix(weight, a, b)"},
    {"ratio", 2, "ratio(a, b)"},
    {"sigmoid", 1, "sigmoid(x)"},
    {"softplus", 1, "softplus(x)"},
    {"square", 1, "square(x)"},
    {"stop", 1, "stop(x)"},
};

constexpr const char* kNeedsRate =
    "a rate is needed here, and this is a number that need not lie between 0 and 1; rates come "
    "from sigmoid(x), 1 - rate, rate * rate, mix(weight, a, b) for weight*a + (1-weight)*b, and "
    "ratio(a, b)";

}  // namespace

const std::vector<std::string>& NodeBuilder::label_names() {
  static const std::vector<std::string> names = {"y", "action", "z"};  // in the order of Label
  return names;
}

const std::vector<std::string>& NodeBuilder::function_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> result;
    for (const Function& function : kFunctions) result.emplace_back(function.name);
    return result;
  }();
  return names;
}

NodeOr NodeBuilder::add(const RecipeNode& node, const NodeFacts& facts, std::size_t at) {
  // Equal operations on equal operands are one.
  const auto found = std::find(nodes_.begin(), nodes_.end(), node);
  if (found != nodes_.end()) return static_cast<std::uint16_t>(found - nodes_.begin());
  if (nodes_.size() == kMostNodes) {
    return problem(at, "the recipe has more than " + std::to_string(kMostNodes) + " operations");
  }
  nodes_.push_back(node);
  facts_.push_back(facts);
  return static_cast<std::uint16_t>(nodes_.size() - 1);
}

NodeFacts NodeBuilder::joined(std::initializer_list<std::uint16_t> operands) const {
  NodeFacts facts;
  for (const std::uint16_t operand : operands) {
    const NodeFacts& its = facts_[operand];
    facts.uses_y |= its.uses_y;
    facts.uses_action |= its.uses_action;
    facts.uses_z |= its.uses_z;
    facts.reached |= its.reached;
  }
  return facts;
}

bool NodeBuilder::is_number(std::uint16_t node, double value) const {
  return nodes_[node].op == Op::number && nodes_[node].number == value;
}

bool NodeBuilder::is_number_between_0_and_1(std::uint16_t node) const {
  return nodes_[node].op == Op::number && nodes_[node].number > 0 && nodes_[node].number < 1;
}

NodeOr NodeBuilder::number(double value, std::size_t at) {
  RecipeNode node = node_of(Op::number);
  node.number = value;
  NodeFacts facts;
  facts.low = facts.high = value;
  return add(node, facts, at);
}

NodeOr NodeBuilder::logit(std::size_t tower, std::size_t at) {
  NodeFacts facts;
  facts.low = -kInfinity;
  facts.high = kInfinity;
  facts.reached = 1U << tower;
  return add(node_of(Op::logit, static_cast<std::uint16_t>(tower)), facts, at);
}

NodeOr NodeBuilder::to_rate(std::uint16_t node, std::size_t at) {
  if (facts_[node].is_rate) return node;
  if (nodes_[node].op != Op::number) return problem(at, kNeedsRate);
  if (!is_number_between_0_and_1(node)) {
    return problem(at, "a rate is needed here: a number must be above 0 and below 1");
  }
  RecipeNode constant = node_of(Op::constant);
  constant.number = nodes_[node].number;
  NodeFacts facts;
  facts.is_rate = true;
  return add(constant, facts, at);
}

NodeOr NodeBuilder::to_real(std::uint16_t node, std::size_t at) {
  if (!facts_[node].is_rate) return node;
  NodeFacts facts = joined({node});
  facts.high = 1;
  return add(node_of(Op::value, node), facts, at);
}

NodeOr NodeBuilder::finite(const Operand& a) {
  const NodeOr real = to_real(a.node, a.at);
  if (real && facts_[*real].may_be_infinite) {
    return problem(a.at,
                   "this can be infinite, as a rate can be 0 to all digits; bound it first, "
                   "as in min(1 / pctr, 15)");
  }
  return real;
}

NodeOr NodeBuilder::build(const Expression& expression) {
  switch (expression.kind) {
    case Kind::number:
      return number(expression.number, expression.at);
    case Kind::name: {
      const auto& labels = label_names();
      const auto label = std::find(labels.begin(), labels.end(), expression.name);
      if (label == labels.end()) return names_(expression.name, expression.at);
      RecipeNode node = node_of(Op::label);
      node.label = static_cast<RecipeNode::Label>(label - labels.begin());
      NodeFacts facts;
      facts.high = 1;
      facts.uses_y = node.label == RecipeNode::Label::y;
      facts.uses_action = node.label == RecipeNode::Label::action;
      facts.uses_z = node.label == RecipeNode::Label::z;
      return add(node, facts, expression.at);
    }
    case Kind::call:
      return call(expression);
    default:
      break;
  }
  const NodeOr a = build(expression.children[0]);
  if (!a) return a;
  const Operand left = {*a, expression.children[0].at};
  if (expression.kind == Kind::negate) return negate(left, expression.at);
  const NodeOr b = build(expression.children[1]);
  if (!b) return b;
  return arithmetic(expression.kind, left, {*b, expression.children[1].at}, expression.at);
}

NodeOr NodeBuilder::negate(const Operand& a, std::size_t at) {
  const NodeOr real = finite(a);
  if (!real) return real;
  NodeFacts facts = joined({*real});
  facts.low = -facts_[*real].high;
  facts.high = -facts_[*real].low;
  return add(node_of(Op::negate, *real), facts, at);
}

NodeOr NodeBuilder::arithmetic(Kind kind, const Operand& a, const Operand& b, std::size_t at) {
  const auto is_factor = [&](std::uint16_t node) {
    return facts_[node].is_rate || is_number_between_0_and_1(node);
  };
  const bool has_rate = facts_[a.node].is_rate || facts_[b.node].is_rate;
  switch (kind) {
    case Kind::add:
      return binary_real(Op::add, a, b, at);
    case Kind::subtract:
      if (is_number(a.node, 1) && facts_[b.node].is_rate) return complement(b, at);
      return binary_real(Op::subtract, a, b, at);
    case Kind::multiply:
      if (has_rate && is_factor(a.node) && is_factor(b.node)) return product(a, b, at);
      return binary_real(Op::multiply, a, b, at);
    default:
      return divide(a, b, at);
  }
}

NodeOr NodeBuilder::binary_real(Op op, const Operand& a, const Operand& b, std::size_t at) {
  const bool takes_infinity = op == Op::min || op == Op::max;
  const NodeOr left = takes_infinity ? to_real(a.node, a.at) : finite(a);
  if (!left) return left;
  const NodeOr right = takes_infinity ? to_real(b.node, b.at) : finite(b);
  if (!right) return right;
  const NodeFacts& x = facts_[*left];
  const NodeFacts& y = facts_[*right];
  NodeFacts facts = joined({*left, *right});
  switch (op) {
    case Op::add:
      facts.low = x.low + y.low;
      facts.high = x.high + y.high;
      break;
    case Op::subtract:
      facts.low = x.low - y.high;
      facts.high = x.high - y.low;
      break;
    case Op::multiply:
      set_corners(facts, {x.low * y.low, x.low * y.high, x.high * y.low, x.high * y.high});
      break;
    case Op::min:
      facts.low = std::min(x.low, y.low);
      facts.high = std::min(x.high, y.high);
      facts.may_be_infinite = x.may_be_infinite && y.may_be_infinite;
      break;
    default:
      SLUICE_CHECK(op == Op::max);
      facts.low = std::max(x.low, y.low);
      facts.high = std::max(x.high, y.high);
      facts.may_be_infinite = x.may_be_infinite || y.may_be_infinite;
  }
  return add(node_of(op, *left, *right), facts, at);
}

NodeOr NodeBuilder::divide(const Operand& a, const Operand& b, std::size_t at) {
  const NodeOr above = finite(a);
  if (!above) return above;
  const NodeOr below = finite(b);
  if (!below) return below;
  const NodeFacts& x = facts_[*above];
  const NodeFacts& y = facts_[*below];
  NodeFacts facts = joined({*above, *below});
  if (y.low < 0 && y.high >= 0) return problem(at, "this may divide by 0");
  if (y.low == 0) {
    if (y.high == 0) return problem(at, "this divides by 0");
    if (x.low <= 0) {
      return problem(at,
                     "this may be 0 / 0, as a rate can be 0 to all digits; bound the quotient "
                     "first, as in z * min(1 / pctr, 15)");
    }
    facts.low = x.low / y.high;
    facts.high = kInfinity;
    facts.may_be_infinite = true;
  } else {
    set_corners(facts, {x.low / y.low, x.low / y.high, x.high / y.low, x.high / y.high});
  }
  return add(node_of(Op::divide, *above, *below), facts, at);
}

NodeOr NodeBuilder::unary_real(Op op, const Operand& a, std::size_t at) {
  const NodeOr real = finite(a);
  if (!real) return real;
  const NodeFacts& x = facts_[*real];
  NodeFacts facts = joined({*real});
  const bool has_zero = x.low <= 0 && x.high >= 0;
  const double nearest = has_zero ? 0 : std::min(std::abs(x.low), std::abs(x.high));
  const double farthest = std::max(std::abs(x.low), std::abs(x.high));
  switch (op) {
    case Op::absolute:
      facts.low = nearest;
      facts.high = farthest;
      break;
    case Op::square:
      facts.low = nearest * nearest;
      facts.high = farthest * farthest;
      break;
    default:
      SLUICE_CHECK(op == Op::softplus);
      facts.low = 0;
      facts.high = x.high > 0 ? x.high + 1 : 1;
  }
  return add(node_of(op, *real), facts, at);
}

NodeOr NodeBuilder::product(const Operand& a, const Operand& b, std::size_t at) {
  const NodeOr left = to_rate(a.node, a.at);
  if (!left) return left;
  const NodeOr right = to_rate(b.node, b.at);
  if (!right) return right;
  NodeFacts facts = joined({*left, *right});
  facts.is_rate = true;
  facts.may_be_zero = facts_[*left].may_be_zero || facts_[*right].may_be_zero;
  if (facts_[*left].may_be_one && facts_[*right].may_be_one) {
    return problem(at, "both may be exactly 1, as ratio() is; a product of them is not supported");
  }
  return add(node_of(Op::product, *left, *right), facts, at);
}

NodeOr NodeBuilder::complement(const Operand& a, std::size_t at) {
  NodeFacts facts = joined({a.node});
  facts.is_rate = true;
  facts.may_be_one = facts_[a.node].may_be_zero;
  facts.may_be_zero = facts_[a.node].may_be_one;
  return add(node_of(Op::complement, a.node), facts, at);
}

NodeOr NodeBuilder::sigmoid(const Operand& a, std::size_t at) {
  if (facts_[a.node].is_rate) {
    return problem(a.at, "sigmoid() takes a tower or another number, and this is a rate already");
  }
  const NodeOr real = finite(a);
  if (!real) return real;
  NodeFacts facts = joined({*real});
  facts.is_rate = true;
  return add(node_of(Op::sigmoid, *real), facts, at);
}

NodeOr NodeBuilder::mix(const Operand& weight, const Operand& a, const Operand& b, std::size_t at) {
  std::uint16_t rates[3] = {};
  const Operand* const operands[] = {&a, &b, &weight};
  for (std::size_t n = 0; n < 3; ++n) {
    const NodeOr rate = to_rate(operands[n]->node, operands[n]->at);
    if (!rate) return rate;
    if (facts_[*rate].may_be_one || facts_[*rate].may_be_zero) {
      return problem(operands[n]->at,
                     "this may be exactly 0 or 1, as ratio() is, and mix() takes "
                     "rates between them only");
    }
    rates[n] = *rate;
  }
  NodeFacts facts = joined({rates[0], rates[1], rates[2]});
  facts.is_rate = true;
  return add(node_of(Op::mix, rates[0], rates[1], rates[2]), facts, at);
}

NodeOr NodeBuilder::ratio(const Operand& a, const Operand& b, std::size_t at) {
  const NodeOr above = to_rate(a.node, a.at);
  if (!above) return above;
  const NodeOr below = to_rate(b.node, b.at);
  if (!below) return below;
  if (facts_[*above].may_be_zero || facts_[*below].may_be_zero) {
    return problem(at, "one of these may be exactly 0, as 1 - ratio() is");
  }
  NodeFacts facts = joined({*above, *below});
  facts.is_rate = true;
  facts.may_be_one = true;
  return add(node_of(Op::ratio, *above, *below), facts, at);
}

NodeOr NodeBuilder::stop(const Operand& a, std::size_t at) {
  NodeFacts facts = facts_[a.node];
  facts.reached = 0;
  return add(node_of(facts.is_rate ? Op::stop_rate : Op::stop_real, a.node), facts, at);
}

NodeOr NodeBuilder::log(const Operand& a, std::size_t at) {
  const NodeOr rate = to_rate(a.node, a.at);
  if (!rate) return rate;
  if (facts_[*rate].may_be_zero) {
    return problem(at, "the rate may be exactly 0, as 1 - ratio() is, and its log -infinity");
  }
  NodeFacts facts = joined({*rate});
  facts.low = -kInfinity;
  return add(node_of(Op::log, *rate), facts, at);
}

NodeOr NodeBuilder::bce(const Operand& label, const Operand& rate, std::size_t at) {
  const bool is_label = nodes_[label.node].op == Op::label;
  if (!is_label && !is_number(label.node, 0) && !is_number(label.node, 1)) {
    return problem(label.at, "bce() takes a label first: y, action, z, 0 or 1");
  }
  const NodeOr p = to_rate(rate.node, rate.at);
  if (!p) return p;
  const bool may_be_one = facts_[*p].may_be_one && !is_number(label.node, 1);
  const bool may_be_zero = facts_[*p].may_be_zero && !is_number(label.node, 0);
  if (may_be_one || may_be_zero) {
    return problem(rate.at, std::string("the rate may be exactly ") + (may_be_one ? "1" : "0") +
                                ", as ratio() is cut to 1, and its loss infinite; train the rates "
                                "that it is made of");
  }
  NodeFacts facts = joined({label.node, *p});
  facts.high = kInfinity;
  return add(node_of(Op::bce, label.node, *p), facts, at);
}

NodeOr NodeBuilder::call(const Expression& expression) {
  const std::string& name = expression.name;
  const std::size_t at = expression.at;
  const auto function = std::find_if(std::begin(kFunctions), std::end(kFunctions),
                                     [&](const Function& one) { return one.name == name; });
  if (function == std::end(kFunctions)) {
    const Nearest nearest = nearest_word(name, function_names());
    return problem(at, "unknown function " + toml_text(name) +
                           (nearest.is_likely ? "; did you mean " : "; the nearest known one is ") +
                           nearest.name + (nearest.is_likely ? "?" : ""));
  }
  if (expression.children.size() != function->arguments) {
    return problem(at, std::string("it has ") + std::to_string(expression.children.size()) +
                           " arguments; must be " + function->form);
  }
  std::vector<Operand> operands;
  for (const Expression& child : expression.children) {
    const NodeOr node = build(child);
    if (!node) return node;
    operands.push_back({*node, child.at});
  }
  const Operand& a = operands.front();
  if (name == "bce") return bce(a, operands[1], at);
  if (name == "log") return log(a, at);
  if (name == "sigmoid") return sigmoid(a, at);
  if (name == "stop") return stop(a, at);
  if (name == "mix") return mix(a, operands[1], operands[2], at);
  if (name == "ratio") return ratio(a, operands[1], at);
  if (name == "abs") return unary_real(Op::absolute, a, at);
  if (name == "square") return unary_real(Op::square, a, at);
  if (name == "softplus") return unary_real(Op::softplus, a, at);
  if (name == "min") return binary_real(Op::min, a, operands[1], at);
  if (name == "max") return binary_real(Op::max, a, operands[1], at);
  SLUICE_CHECK(name == "clip");
  const NodeOr above = binary_real(Op::max, a, operands[1], at);
  if (!above) return above;
  return binary_real(Op::min, {*above, at}, operands[2], at);
}

}  // namespace sluice
