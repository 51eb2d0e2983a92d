// From a recipe's expressions to its list of operations: what each name means, whether it is a
// rate or a real, and what of its values is known without data. Used by config/recipe.cc only.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "config/recipe.h"
#include "config/recipe_expression.h"

namespace sluice {

// What holds for a node whatever the data.
struct NodeFacts {
  bool is_rate = false;
  // A real's bounds; every real is finite, or else +infinity where it says so.
  double low = 0, high = 0;
  bool may_be_infinite = false;
  // A rate's p may be exactly 1, or 0, so that log(1−p), or log p, is −infinity.
  bool may_be_one = false, may_be_zero = false;
  bool uses_y = false, uses_action = false, uses_z = false;
  std::uint32_t reached = 0;  // towers to which it passes a gradient, as bits
};

using NodeOr = tl::expected<std::uint16_t, ExpressionProblem>;

class NodeBuilder {
 public:
  // `name_of` gives the node of a name that is no label.
  using Names = std::function<NodeOr(const std::string& name, std::size_t at)>;
  explicit NodeBuilder(Names names) : names_(std::move(names)) {}

  NodeOr build(const Expression& expression);
  NodeOr number(double value, std::size_t at);
  NodeOr logit(std::size_t tower, std::size_t at);
  // The node itself, or a rate of a number between 0 and 1.
  NodeOr to_rate(std::uint16_t node, std::size_t at);
  // The node itself, or a rate's value.
  NodeOr to_real(std::uint16_t node, std::size_t at);

  const NodeFacts& facts(std::uint16_t node) const { return facts_[node]; }
  const std::vector<RecipeNode>& nodes() const { return nodes_; }

  static const std::vector<std::string>& label_names();
  static const std::vector<std::string>& function_names();

 private:
  // What the functions below take: nodes already built, and where they stand.
  struct Operand {
    std::uint16_t node;
    std::size_t at;
  };
  NodeOr add(const RecipeNode& node, const NodeFacts& facts, std::size_t at);
  NodeOr call(const Expression& expression);
  NodeOr negate(const Operand& a, std::size_t at);
  NodeOr arithmetic(Expression::Kind kind, const Operand& a, const Operand& b, std::size_t at);
  NodeOr unary_real(RecipeNode::Op op, const Operand& a, std::size_t at);
  NodeOr binary_real(RecipeNode::Op op, const Operand& a, const Operand& b, std::size_t at);
  NodeOr divide(const Operand& a, const Operand& b, std::size_t at);
  NodeOr product(const Operand& a, const Operand& b, std::size_t at);
  NodeOr complement(const Operand& a, std::size_t at);
  NodeOr sigmoid(const Operand& a, std::size_t at);
  NodeOr mix(const Operand& weight, const Operand& a, const Operand& b, std::size_t at);
  NodeOr ratio(const Operand& a, const Operand& b, std::size_t at);
  NodeOr stop(const Operand& a, std::size_t at);
  NodeOr log(const Operand& a, std::size_t at);
  NodeOr bce(const Operand& label, const Operand& rate, std::size_t at);
  // A finite real.
  NodeOr finite(const Operand& a);
  // Facts that follow from the operands'.
  NodeFacts joined(std::initializer_list<std::uint16_t> operands) const;
  bool is_number(std::uint16_t node, double value) const;
  bool is_number_between_0_and_1(std::uint16_t node) const;

  Names names_;
  std::vector<RecipeNode> nodes_;
  std::vector<NodeFacts> facts_;
};

}  // namespace sluice
