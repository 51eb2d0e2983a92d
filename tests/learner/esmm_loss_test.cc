#include "tests/learner/esmm_loss.h"

#include <cmath>
#include <memory>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "base/lanes.h"

namespace sluice {
namespace {

using Real = long double;  // exponents far beyond e^±1400

// The textbook loss and gradients, from p, 1−p, q and 1−q that are each computed without loss.
struct Reference {
  Real loss = 0, ctr_gradient = 0, cvr_gradient = 0;

  Reference(Real a, Real b, const FinalLabels& labels, const EsmmWeights& weights) {
    const Real p = 1 / (1 + std::exp(-a)), not_p = 1 / (1 + std::exp(a));
    const Real q = 1 / (1 + std::exp(-b)), not_q = 1 / (1 + std::exp(b));
    const Real neither = not_p + p * not_q;  // 1 − p·q
    if (labels.y_final) {
      loss += weights.ctr * std::log1p(std::exp(labels.y ? -a : a));  // −log p, −log(1−p)
      ctr_gradient += weights.ctr * (labels.y ? -not_p : p);
    }
    if (labels.z_final && labels.z) {
      loss += weights.ctcvr * (std::log1p(std::exp(-a)) + std::log1p(std::exp(-b)));
      ctr_gradient -= weights.ctcvr * not_p;
      cvr_gradient -= weights.ctcvr * not_q;
    } else if (labels.z_final) {
      // log(1+x) where the sum itself would lose what is small.
      loss -= weights.ctcvr * (p * q < 0.5L ? std::log1p(-p * q) : std::log(neither));
      ctr_gradient += weights.ctcvr * p * q * not_p / neither;
      cvr_gradient += weights.ctcvr * p * q * not_q / neither;
    }
  }
};

constexpr FinalLabels kAllLabels[] = {
    {false, true, false, true}, {true, true, false, true},  {true, true, true, true},
    {true, true, false, false}, {true, false, false, true}, {true, false, true, true},
};

void expect_relative(double value, Real wanted, double error, const char* what) {
  ASSERT_TRUE(std::isfinite(value)) << what;
  // What lies below the smallest normal double counts as zero (denormals are flushed).
  const Real tiny = 3e-308L;
  EXPECT_LE(std::abs(value - wanted), error * std::abs(wanted) + tiny) << what;
}

void expect_reference(double a, double b, double error) {
  const EsmmWeights weights = {0.75, 1.5};
  for (const FinalLabels& labels : kAllLabels) {
    SCOPED_TRACE(::testing::Message() << "a " << a << " b " << b << " y " << labels.y << " z "
                                      << labels.z << " z_final " << labels.z_final);
    const EsmmLoss loss = esmm_loss(a, b, labels, weights);
    const Reference wanted(a, b, labels, weights);
    expect_relative(loss.loss, wanted.loss, error, "loss");
    expect_relative(loss.ctr_gradient, wanted.ctr_gradient, error, "ctr_gradient");
    expect_relative(loss.cvr_gradient, wanted.cvr_gradient, error, "cvr_gradient");
  }
}

TEST(EsmmLoss, HoldsItsErrorsAtModerateAndExtremeLogits) {
  for (const bool flushed : {false, true}) {
    const auto flush = flushed ? std::make_unique<FlushDenormals>() : nullptr;
    for (const double a : {-700.0, -40.0, -3.0, 0.0, 0.5, 40.0, 700.0}) {
      for (const double b : {-700.0, -40.0, -1.5, 0.0, 2.0, 40.0, 700.0}) {
        const bool extreme = std::abs(a) == 700 || std::abs(b) == 700;
        expect_reference(a, b, extreme ? 1e-3 : 1e-5);
      }
    }
  }
}

TEST(EsmmLoss, KnownValues) {
  const double log2 = std::log(2.0);
  EXPECT_DOUBLE_EQ(esmm_loss(0, 0, {true, true, true, true}).loss, 3 * log2);
  EXPECT_DOUBLE_EQ(esmm_loss(0, 0, {false, true, false, true}).loss, log2 - std::log(0.75));
  EXPECT_DOUBLE_EQ(esmm_loss(0, 0, {true, false, false, true}).ctr_gradient, 1.0 / 6);
  EXPECT_DOUBLE_EQ(esmm_loss(0, 0, {true, false, false, true}).cvr_gradient, 1.0 / 6);
  // 1 − p·q ≈ 2·e^−40 where both rates are nearly one.
  EXPECT_NEAR(log_no_conversion(40, 40), log2 - 40, 1e-12);
  EXPECT_NEAR(log_no_conversion(700, 700), log2 - 700, 1e-12);
  EXPECT_NEAR(ctcvr_logit(40, 700), 40, 1e-12);
  EXPECT_NEAR(ctcvr_logit(-40, -700), -740, 1e-12);
  // Nothing final, nothing learned.
  EXPECT_EQ(esmm_loss(1, 2, {true, false, false, false}).loss, 0);
  EXPECT_EQ(esmm_loss(1, 2, {true, false, false, false}).ctr_gradient, 0);
  // A sample without final z leaves the CVR tower alone.
  EXPECT_EQ(esmm_loss(1, 2, {true, true, false, false}).cvr_gradient, 0);
}

TEST(EsmmLoss, StaysFiniteBeyondTheRangeOfExp) {
  for (const double a : {-3e38, -1e4, 1e4, 3e38}) {
    for (const double b : {-3e38, -1e4, 1e4, 3e38}) {
      for (const FinalLabels& labels : kAllLabels) {
        const EsmmLoss loss = esmm_loss(a, b, labels);
        EXPECT_TRUE(std::isfinite(loss.loss));
        EXPECT_TRUE(std::isfinite(loss.ctr_gradient));
        EXPECT_TRUE(std::isfinite(loss.cvr_gradient));
      }
    }
  }
}

RC_GTEST_PROP(EsmmLossProperty, GradientsAreCentralDifferences, ()) {
  const double a = *rc::gen::inRange(-8000, 8000) / 1000.0;
  const double b = *rc::gen::inRange(-8000, 8000) / 1000.0;
  const EsmmWeights weights = {*rc::gen::inRange(0, 30) / 10.0, *rc::gen::inRange(0, 30) / 10.0};
  const FinalLabels labels =
      *rc::gen::elementOf(std::vector<FinalLabels>(std::begin(kAllLabels), std::end(kAllLabels)));
  const auto loss = [&](double x, double y) { return esmm_loss(x, y, labels, weights).loss; };
  const double h = 1e-5;
  const EsmmLoss at = esmm_loss(a, b, labels, weights);
  RC_ASSERT(std::abs(at.ctr_gradient - (loss(a + h, b) - loss(a - h, b)) / (2 * h)) < 1e-8);
  RC_ASSERT(std::abs(at.cvr_gradient - (loss(a, b + h) - loss(a, b - h)) / (2 * h)) < 1e-8);
}

}  // namespace
}  // namespace sluice
