#include "tests/learner/esmm_loss.h"

#include <algorithm>
#include <cmath>

namespace sluice {

namespace {

double log_add_exp(double x, double y) {
  return std::max(x, y) + std::log1p(std::exp(-std::abs(x - y)));
}

// Of the CTCVR term where z = 0, in logs.
LossGradients no_conversion_gradients(double a, double b) {
  const LogRate p = log_rate_of(a);
  const LogRate q = log_rate_of(b);
  const double l0 = log_no_conversion(p, q);
  return {std::exp(p.yes + q.yes + p.no - l0), std::exp(p.yes + q.yes + q.no - l0)};
}

}  // namespace

LogRate log_rate_of(double logit) {
  const double rest = std::log1p(std::exp(-std::abs(logit)));
  return {-(std::max(-logit, 0.0) + rest), -(std::max(logit, 0.0) + rest)};
}

Rate rate_of(double logit) {
  const double e = std::exp(-std::abs(logit));
  const double larger = 1 / (1 + e);
  return logit >= 0 ? Rate{larger, e * larger} : Rate{e * larger, larger};
}

double log_no_conversion(const LogRate& p, const LogRate& q) {
  const double log_conversion = p.yes + q.yes;
  if (log_conversion < -0.7) return std::log1p(-std::exp(log_conversion));
  return log_add_exp(p.no, p.yes + q.no);
}

double log_no_conversion(double a, double b) {
  return log_no_conversion(log_rate_of(a), log_rate_of(b));
}

double ctcvr_logit(double a, double b) {
  const LogRate p = log_rate_of(a);
  const LogRate q = log_rate_of(b);
  return p.yes + q.yes - log_no_conversion(p, q);
}

LossGradients esmm_gradients(double a, double b, const Rate& p, const Rate& q,
                             const FinalLabels& labels, const EsmmWeights& weights) {
  constexpr double kSmallest = 1e-280;
  LossGradients result;
  if (labels.y_final) result.ctr = weights.ctr * (labels.y ? -p.no : p.yes);
  if (labels.z_final && labels.z) {
    result.ctr += weights.ctcvr * -p.no;
    result.cvr = weights.ctcvr * -q.no;
  } else if (labels.z_final) {
    const double neither = p.no + p.yes * q.no;  // 1 − p·q
    const double ratio = p.yes * q.yes / neither;
    const LossGradients gradients = neither > kSmallest ? LossGradients{ratio * p.no, ratio * q.no}
                                                        : no_conversion_gradients(a, b);
    result.ctr += weights.ctcvr * gradients.ctr;
    result.cvr = weights.ctcvr * gradients.cvr;
  }
  return result;
}

EsmmLoss esmm_loss(double a, double b, const FinalLabels& labels, const EsmmWeights& weights) {
  const LogRate p = log_rate_of(a);
  const LogRate q = log_rate_of(b);
  const LossGradients gradients = esmm_gradients(a, b, rate_of(a), rate_of(b), labels, weights);
  EsmmLoss result = {0, gradients.ctr, gradients.cvr};
  if (labels.y_final) result.loss -= weights.ctr * (labels.y ? p.yes : p.no);
  if (labels.z_final) {
    result.loss -= weights.ctcvr * (labels.z ? p.yes + q.yes : log_no_conversion(p, q));
  }
  return result;
}

}  // namespace sluice
