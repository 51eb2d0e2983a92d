#include "config/recipe_expression.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "base/result.h"
#include "config/toml_tree.h"

namespace sluice {
namespace {

using Kind = Expression::Kind;
using Parsed = tl::expected<Expression, ExpressionProblem>;

constexpr std::size_t kMostDepth = 32;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool is_identifier_char(char c) {
  return is_name_start(c) || is_digit(c);
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Parsed whole() {
    Parsed result = sum(0);
    if (result && next() != '\0') return unexpected("");
    return result;
  }

 private:
  // The next character that is no space; 0 at the end.
  char next() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  tl::unexpected<ExpressionProblem> problem(std::size_t at, std::string message) const {
    return tl::unexpected(ExpressionProblem{at, std::move(message)});
  }

  // `wanted` completes "..., where ... belongs"; empty: an operator or the end.
  tl::unexpected<ExpressionProblem> unexpected(const std::string& wanted) {
    const char c = next();
    const std::string belongs =
        ", where " + (wanted.empty() ? "an operator or the end" : wanted) + " belongs";
    if (c == '\0') return problem(at_, "the expression ends" + belongs);
    std::size_t end = at_ + 1;
    if (is_identifier_char(c)) {
      while (end < text_.size() && is_identifier_char(text_[end])) ++end;
    } else {
      while (end < text_.size() && (static_cast<unsigned char>(text_[end]) & 0xc0) == 0x80) ++end;
    }
    return problem(at_, toml_text(text_.substr(at_, end - at_)) + " stands" + belongs);
  }

  // Operands of operators of one rank, taken together from the left.
  template <class Operand>
  Parsed chain(std::size_t depth, char first, Kind first_kind, char second, Kind second_kind,
               Operand operand) {
    Parsed left = operand(depth);
    while (left) {
      const char c = next();
      if (c != first && c != second) break;
      Expression both;
      both.kind = c == first ? first_kind : second_kind;
      both.at = at_++;
      Parsed right = operand(depth);
      if (!right) return right;
      both.children.push_back(*std::move(left));
      both.children.push_back(*std::move(right));
      left = std::move(both);
    }
    return left;
  }

  Parsed sum(std::size_t depth) {
    return chain(depth, '+', Kind::add, '-', Kind::subtract,
                 [this](std::size_t inner) { return product(inner); });
  }

  Parsed product(std::size_t depth) {
    return chain(depth, '*', Kind::multiply, '/', Kind::divide,
                 [this](std::size_t inner) { return factor(inner + 1); });
  }

  Parsed factor(std::size_t depth) {
    const char c = next();
    if (depth > kMostDepth) {
      return problem(at_, "more than " + std::to_string(kMostDepth) + " expressions in each other");
    }
    if (c == '-') return negated(depth);
    if (is_digit(c) || c == '.') return number();
    if (is_name_start(c)) return name(depth);
    if (c != '(') return unexpected("a number, a name or (");
    ++at_;
    Parsed inner = sum(depth);
    if (inner && next() != ')') return unexpected("an operator or )");
    ++at_;
    return inner;
  }

  // The minus of a number is the number's.
  Parsed negated(std::size_t depth) {
    Expression result;
    result.kind = Kind::negate;
    result.at = at_++;
    Parsed inner = factor(depth + 1);
    if (!inner) return inner;
    if (inner->kind == Kind::number) {
      inner->number = -inner->number;
      inner->at = result.at;
      return inner;
    }
    result.children.push_back(*std::move(inner));
    return result;
  }

  Parsed number() {
    Expression result;
    result.at = at_;
    const char* const begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), result.number);
    at_ += static_cast<std::size_t>(end - begin);
    const bool is_whole =
        at_ == text_.size() || (!is_identifier_char(text_[at_]) && text_[at_] != '.');
    if (error == std::errc() && is_whole && std::isfinite(result.number)) return result;
    return problem(result.at, "not a number that is written as 0.5, 2 or 1e-3");
  }

  Parsed name(std::size_t depth) {
    Expression result;
    result.kind = Kind::name;
    result.at = at_;
    while (at_ < text_.size() && is_identifier_char(text_[at_])) ++at_;
    result.name = text_.substr(result.at, at_ - result.at);
    if (next() != '(') return result;
    result.kind = Kind::call;
    do {
      ++at_;
      Parsed argument = sum(depth);
      if (!argument) return argument;
      result.children.push_back(*std::move(argument));
    } while (next() == ',');
    if (next() != ')') return unexpected("an operator, a comma or )");
    ++at_;
    return result;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

enum Rank : int { kSum, kProduct, kFactor };

void format(const Expression& expression, Rank least, std::string& out) {
  const auto binary = [&](const char* sign, Rank rank) {
    if (rank < least) out += '(';
    format(expression.children[0], rank, out);
    out += sign;
    format(expression.children[1], static_cast<Rank>(rank + 1), out);
    if (rank < least) out += ')';
  };
  switch (expression.kind) {
    case Kind::number:
      out += format_expression_number(expression.number);
      return;
    case Kind::name:
      out += expression.name;
      return;
    case Kind::call:
      out += expression.name + '(';
      for (std::size_t n = 0; n < expression.children.size(); ++n) {
        if (n > 0) out += ", ";
        format(expression.children[n], kSum, out);
      }
      out += ')';
      return;
    case Kind::negate:
      out += '-';
      return format(expression.children[0], kFactor, out);
    case Kind::add:
      return binary(" + ", kSum);
    case Kind::subtract:
      return binary(" - ", kSum);
    case Kind::multiply:
      return binary(" * ", kProduct);
    case Kind::divide:
      return binary(" / ", kProduct);
  }
}

}  // namespace

tl::expected<Expression, ExpressionProblem> parse_expression(std::string_view text) {
  if (text.size() <= kMostExpressionBytes) return Parser(text).whole();
  return tl::unexpected(
      ExpressionProblem{0, "longer than " + std::to_string(kMostExpressionBytes) +
                               " bytes: name parts of it in [rates], or make it several terms"});
}

std::string format_expression(const Expression& expression) {
  std::string text;
  format(expression, kSum, text);
  return text;
}

std::string format_expression_number(double number) {
  std::string text = format_real(number);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text;
}

bool is_expression_name(std::string_view text) {
  return !text.empty() && text.size() <= 64 && is_name_start(text[0]) &&
         std::all_of(text.begin(), text.end(), is_identifier_char);
}

}  // namespace sluice
