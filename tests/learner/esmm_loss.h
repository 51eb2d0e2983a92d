// The ESMM loss (arXiv:1804.07931) of one sample, in double, from the towers' logits a (CTR) and b
// (CVR): p = σ(a), q = σ(b),
//   ctr_weight·BCE(y, p) where y is final + ctcvr_weight·BCE(z, p·q) where z is final.
// Loss in logs, so that it is finite for every finite logit: with sp = softplus, log p = −sp(−a),
// log(1−p) = −sp(a), and
//   L0 = log(1 − p·q) = logaddexp(−sp(a), −sp(−a) − sp(b)),
// where p·q is small the equal log1p(−e^(log p + log q)), as the sum would then lose p·q beside 1.
// Gradients from p, 1−p, q and 1−q, each computed without loss, and 1 − p·q = (1−p) + p·(1−q), a
// sum of what is not negative; where that is too small for a double, in logs too. Pure functions;
// relative errors at most 1e-5 at logits of ±40 and 1e-3 at ±700.
// What the recipe esmm must give, bit for bit (objective_test.cc).
#pragma once

#include "learner/labels.h"

namespace sluice {

// The weights of the recipe's terms.
struct EsmmWeights {
  double ctr = 1;
  double ctcvr = 1;
};

struct EsmmLoss {
  double loss = 0;
  double ctr_gradient = 0;  // d loss / d a
  double cvr_gradient = 0;  // d loss / d b
};

EsmmLoss esmm_loss(double a, double b, const FinalLabels& labels, const EsmmWeights& weights = {});

// σ(x) and 1 − σ(x).
struct Rate {
  double yes = 0;
  double no = 0;
};
Rate rate_of(double logit);

struct LossGradients {
  double ctr = 0;  // d loss / d a
  double cvr = 0;  // d loss / d b
};
// Of esmm_loss(), with p = rate_of(a) and q = rate_of(b).
LossGradients esmm_gradients(double a, double b, const Rate& p, const Rate& q,
                             const FinalLabels& labels, const EsmmWeights& weights = {});

// log σ(x) and log(1 − σ(x)).
struct LogRate {
  double yes = 0;
  double no = 0;
};
LogRate log_rate_of(double logit);
double log_no_conversion(const LogRate& p, const LogRate& q);  // L0

double log_no_conversion(double a, double b);  // L0
double ctcvr_logit(double a, double b);        // log(p·q) − log(1 − p·q)

}  // namespace sluice
