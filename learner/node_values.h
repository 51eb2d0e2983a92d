// The rates of a recipe as the objective has them: each of p, 1 − p, their logs and the logit of a
// formula of its own, so that none is the difference of two near numbers (docs/models.md, "How it
// is computed"). Used by learner/objective.cc only.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace sluice {

// Where two factors are multiplied that may be below this, it is done in logs.
inline constexpr double kSmallestOfTwo = 1e-140;

// A rate: p, 1 − p, their logs and the logit, each without loss. A real: p alone.
struct NodeValue {
  double p, no, log_p, log_no, logit;
};

inline double log_add_exp(double x, double y) {
  return std::max(x, y) + std::log1p(std::exp(-std::abs(x - y)));
}

// log(1 − e^x), x < 0: the second form where e^x is no longer near 1.
inline double log_one_minus_exp(double x) {
  return x > -0.7 ? std::log(-std::expm1(x)) : std::log1p(-std::exp(x));
}

inline double softplus(double x) {
  return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
}

inline NodeValue sigmoid_value(double x) {
  const double e = std::exp(-std::abs(x));
  const double larger = 1 / (1 + e);
  const double rest = std::log1p(e);
  const double log_p = -(std::max(-x, 0.0) + rest);
  const double log_no = -(std::max(x, 0.0) + rest);
  if (x >= 0) return {larger, e * larger, log_p, log_no, x};
  return {e * larger, larger, log_p, log_no, x};
}

inline NodeValue constant_value(double p) {
  const double log_p = std::log(p);
  const double log_no = std::log1p(-p);
  return {p, 1 - p, log_p, log_no, log_p - log_no};
}

// Where a·b is small the sum would lose it beside 1.
inline NodeValue product_value(const NodeValue& a, const NodeValue& b) {
  const double log_p = a.log_p + b.log_p;
  const double log_no =
      log_p < -0.7 ? std::log1p(-std::exp(log_p)) : log_add_exp(a.log_no, a.log_p + b.log_no);
  return {a.p * b.p, a.no + a.p * b.no, log_p, log_no, log_p - log_no};
}

// The smaller of p and 1−p has an exact log; that of the other follows from it.
inline NodeValue mix_value(const NodeValue& a, const NodeValue& b, const NodeValue& weight) {
  NodeValue m = {};
  m.p = weight.p * a.p + weight.no * b.p;
  m.no = weight.p * a.no + weight.no * b.no;
  m.log_p = log_add_exp(weight.log_p + a.log_p, weight.log_no + b.log_p);
  m.log_no = log_add_exp(weight.log_p + a.log_no, weight.log_no + b.log_no);
  if (m.log_p < m.log_no) {
    m.log_no = log_one_minus_exp(m.log_p);
  } else {
    m.log_p = log_one_minus_exp(m.log_no);
  }
  m.logit = m.log_p - m.log_no;
  return m;
}

inline NodeValue ratio_value(const NodeValue& a, const NodeValue& b) {
  const double log_p = a.log_p - b.log_p;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (log_p >= 0) return {1, 0, 0, -kInfinity, kInfinity};
  const double log_no = log_one_minus_exp(log_p);
  return {std::exp(log_p), -std::expm1(log_p), log_p, log_no, log_p - log_no};
}

// Of the log of what is at most 1: where logs are so large that their rounding is above 1, too.
inline double exp_of_share(double log_share) {
  return std::exp(std::min(log_share, 0.0));
}

// d logit(m) / d logit(a), m = weight·a + (1 − weight)·b.
inline double mix_factor(const NodeValue& weight, const NodeValue& a, const NodeValue& m) {
  if (std::min({m.p, m.no, weight.p, a.p, a.no}) > kSmallestOfTwo) {
    return (weight.p * a.p / m.p) * (a.no / m.no);
  }
  return exp_of_share(weight.log_p + a.log_p + a.log_no - m.log_p - m.log_no);
}

// d logit(m) / d logit(weight): weight·(1 − weight)·(a − b) / (m·(1 − m)), where
// a − b = a·(1 − b)·(1 − e^(logit b − logit a)), which loses nothing where a and b are near.
inline double mix_weight_factor(const NodeValue& weight, const NodeValue& a, const NodeValue& b,
                                const NodeValue& m) {
  if (a.logit == b.logit) return 0;
  const bool is_more = a.logit > b.logit;
  const NodeValue& high = is_more ? a : b;
  const NodeValue& low = is_more ? b : a;
  const double apart = -std::expm1(low.logit - high.logit);
  const double size =
      apart * std::exp(weight.log_p + weight.log_no + high.log_p + low.log_no - m.log_p - m.log_no);
  return is_more ? size : -size;
}

}  // namespace sluice
