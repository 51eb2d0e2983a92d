// Adam (arXiv:1412.6980, algorithm 1 with its own ε), for dense parameters and rows alike:
//   m = β1·m + (1−β1)·g,  v = β2·v + (1−β2)·g²,  w −= lr·m̂ / (√v̂ + ε),
//   m̂ = m / (1−β1^t),  v̂ = v / (1−β2^t),  t the learner's step, also for a row that is new.
// Element-wise in f32: every operation is one IEEE rounding, so the bits do not depend on how the
// compiler vectorizes. The factors of a step are made in double by multiplications and divisions
// alone and then rounded to f32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "config/config.h"

namespace sluice {

// base^exponent by squaring; multiplications only, so equal on every libm.
double integer_power(double base, std::uint64_t exponent);

class AdamStep {
 public:
  // `step` counts from 1.
  AdamStep(const OptimizerConfig& config, std::uint64_t step);

  // One update of n parameters; the arrays do not overlap.
  void apply(std::size_t n, const float* gradient, float* weight, float* m, float* v) const;

 private:
  void one(float gradient, float& weight, float& m, float& v) const;

  float beta1_, one_minus_beta1_;
  float beta2_, one_minus_beta2_;
  float rate_;      // lr / (1−β1^t)
  float v_factor_;  // 1 / (1−β2^t)
  float epsilon_;
};

}  // namespace sluice
