#include "learner/esmm_loss.h"

#include <algorithm>
#include <cmath>

namespace sluice {

namespace {

double log_add_exp(double x, double y) {
  return std::max(x, y) + std::log1p(std::exp(-std::abs(x - y)));
}

}  // namespace

double softplus(double x) {
  return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
}

double sigmoid(double x) {
  return std::exp(-softplus(-x));
}

double log_no_conversion(double a, double b) {
  const double log_conversion = -softplus(-a) - softplus(-b);
  if (log_conversion < -0.7) return std::log1p(-std::exp(log_conversion));
  return log_add_exp(-softplus(a), -softplus(-a) - softplus(b));
}

double ctcvr_logit(double a, double b) {
  return -softplus(-a) - softplus(-b) - log_no_conversion(a, b);
}

EsmmLoss esmm_loss(double a, double b, const FinalLabels& labels, const EsmmWeights& weights) {
  const double not_p = softplus(a);  // −log(1−p)
  const double p = softplus(-a);     // −log p
  EsmmLoss result;
  if (labels.y_final) {
    result.loss += weights.ctr * (labels.y ? p : not_p);
    result.ctr_gradient += weights.ctr * (labels.y ? -std::exp(-not_p) : std::exp(-p));
  }
  if (labels.z_final) {
    const double not_q = softplus(b);
    const double q = softplus(-b);
    if (labels.z) {
      result.loss += weights.ctcvr * (p + q);
      result.ctr_gradient += weights.ctcvr * -std::exp(-not_p);
      result.cvr_gradient += weights.ctcvr * -std::exp(-not_q);
    } else {
      const double l0 = log_no_conversion(a, b);
      result.loss += weights.ctcvr * -l0;
      result.ctr_gradient += weights.ctcvr * std::exp(-p - q - not_p - l0);
      result.cvr_gradient += weights.ctcvr * std::exp(-p - q - not_q - l0);
    }
  }
  return result;
}

Prediction predict(float ctr_logit, float cvr_logit) {
  Prediction prediction;
  prediction.ctr_logit = ctr_logit;
  prediction.cvr_logit = cvr_logit;
  prediction.pctr = sigmoid(ctr_logit);
  prediction.pcvr = sigmoid(cvr_logit);
  prediction.pctcvr = prediction.pctr * prediction.pcvr;
  return prediction;
}

}  // namespace sluice
