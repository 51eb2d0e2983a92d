#include "learner/adam.h"

#include <cmath>

#include "base/check.h"

namespace sluice {

double integer_power(double base, std::uint64_t exponent) {
  double result = 1.0;
  for (; exponent != 0; exponent >>= 1) {
    if ((exponent & 1) != 0) result *= base;
    base *= base;
  }
  return result;
}

AdamStep::AdamStep(const OptimizerConfig& config, std::uint64_t step)
    : beta1_(static_cast<float>(config.beta1)),
      one_minus_beta1_(static_cast<float>(1.0 - config.beta1)),
      beta2_(static_cast<float>(config.beta2)),
      one_minus_beta2_(static_cast<float>(1.0 - config.beta2)),
      rate_(static_cast<float>(config.learning_rate / (1.0 - integer_power(config.beta1, step)))),
      v_factor_(static_cast<float>(1.0 / (1.0 - integer_power(config.beta2, step)))),
      epsilon_(static_cast<float>(config.epsilon)) {
  SLUICE_CHECK(step > 0);
}

inline void AdamStep::one(float gradient, float& weight, float& m, float& v) const {
  m = beta1_ * m + one_minus_beta1_ * gradient;
  v = beta2_ * v + one_minus_beta2_ * (gradient * gradient);
  weight -= rate_ * m / (std::sqrt(v * v_factor_) + epsilon_);
}

void AdamStep::apply(std::size_t n, const float* __restrict gradient, float* __restrict weight,
                     float* __restrict m, float* __restrict v) const {
  constexpr std::size_t kWidth = 8;  // a count known to the compiler, so that it vectorizes
  std::size_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    for (std::size_t k = i; k < i + kWidth; ++k) one(gradient[k], weight[k], m[k], v[k]);
  }
  for (; i < n; ++i) one(gradient[i], weight[i], m[i], v[i]);
}

}  // namespace sluice
