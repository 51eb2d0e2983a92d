// The expressions of a recipe as texts and as trees (docs/models.md, "Expressions"):
//   sum     := product (('+' | '-') product)*
//   product := factor (('*' | '/') factor)*
//   factor  := '-' factor | number | name | name '(' sum (',' sum)* ')' | '(' sum ')'
// What the names mean is config/recipe_nodes.h's.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

namespace sluice {

struct Expression {
  enum class Kind { number, name, call, negate, add, subtract, multiply, divide };
  Kind kind = Kind::number;
  double number = 0;
  std::string name;                  // of a name or a called function
  std::vector<Expression> children;  // operands or arguments
  std::size_t at = 0;                // where its name, number or operator stands, in bytes
};

struct ExpressionProblem {
  std::size_t at = 0;
  std::string message;  // empty: it was told where it began
};

inline constexpr std::size_t kMostExpressionBytes = 1'000;

tl::expected<Expression, ExpressionProblem> parse_expression(std::string_view text);

// One text for all that parse to equal trees: single spaces, no parentheses that are not needed.
std::string format_expression(const Expression& expression);

// A name that may stand in expressions: a letter, then letters, digits or '_'.
bool is_expression_name(std::string_view text);

// A number as an expression has it, without ".0" where it is whole.
std::string format_expression_number(double number);

}  // namespace sluice
