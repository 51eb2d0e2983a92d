// The ESMM loss (arXiv:1804.07931) of one sample, in double, from the towers' logits a (CTR) and b
// (CVR): p = σ(a), q = σ(b),
//   ctr_weight·BCE(y, p) where y is final + ctcvr_weight·BCE(z, p·q) where z is final.
// Computed in logs, so that it and its gradients are finite for every finite logit: with
// sp = softplus, log p = −sp(−a), log(1−p) = −sp(a), and
//   L0 = log(1 − p·q) = logaddexp(−sp(a), −sp(−a) − sp(b)),
// where p·q is small the equal log1p(−e^(log p + log q)), as the sum would then lose p·q beside 1.
// Pure functions; relative errors at most 1e-5 at logits of ±40 and 1e-3 at ±700.
#pragma once

#include "learner/prediction.h"

namespace sluice {

// The weights of the recipe's terms.
struct EsmmWeights {
  double ctr = 1;
  double ctcvr = 1;
};

// A sample's labels and which of them it trains.
struct FinalLabels {
  bool y = false;
  bool y_final = false;
  bool z = false;
  bool z_final = false;
};

struct EsmmLoss {
  double loss = 0;
  double ctr_gradient = 0;  // d loss / d a
  double cvr_gradient = 0;  // d loss / d b
};

EsmmLoss esmm_loss(double a, double b, const FinalLabels& labels, const EsmmWeights& weights = {});

double softplus(double x);                     // log(1 + e^x)
double sigmoid(double x);                      // exp(−sp(−x))
double log_no_conversion(double a, double b);  // L0
double ctcvr_logit(double a, double b);        // log(p·q) − log(1 − p·q)

Prediction predict(float ctr_logit, float cvr_logit);

}  // namespace sluice
