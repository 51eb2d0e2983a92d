// The update rules, for dense parameters and embedding rows alike. w is a weight, g its gradient, t
// the learner's step from 1 (also for a row that is new), lr = learning_rate·min(1,
// t/warmup_steps):
//   adam             m = β1·m + (1−β1)·g,  v = β2·v + (1−β2)·g²,  w −= lr·m̂ / (√v̂ + ε),
//                    m̂ = m / (1−β1^t),  v̂ = v / (1−β2^t)
//   adagrad          s += g²,  w −= lr·g / (√s + ε)
//   rowwise_adagrad  s += mean of g² over the row,  w −= lr/(√s + ε)·g; one s a row
//   sgd              m = μ·m + g,  w −= lr·m; μ = 0 has no m
//   ftrl             z += r·g − (√(n + g²) − √n)/α·w,  n += g²,
//                    w = 0 where |z| ≤ λ1, else −(z − sign(z)·λ1) / ((β + √n)/α + λ2)
// Sources: Kingma and Ba, arXiv:1412.6980, algorithm 1 with its own ε; Duchi, Hazan and Singer,
// JMLR 12 (2011), the diagonal form; FBGEMM's row-wise Adagrad; PyTorch's SGD; McMahan et al., "Ad
// click prediction: a view from the trenches", KDD 2013, algorithm 1.
//
// Of ftrl α is learning_rate and r = lr/α, so that a warm-up scales the step and nothing that was
// learned before. z begins at −β/α·w: a weight begins at its initial value and not at 0, where all
// units of a layer would be equal. Without λ1 and λ2 the rule is w −= lr·g / (β + √n).
// Before a rule, clip_norm scales g down to that L2 norm (of a row, or of all dense parameters);
// then g += l2·w, but of ftrl l2 is λ2. s begins at initial_accumulator, by default 0 as in PyTorch
// and FBGEMM: gradients here are divided by the batch's size, and TensorFlow's 0.1 would outweigh
// them for very many batches.
//
// Element-wise in f32: every operation is one IEEE rounding, so the bits do not depend on how the
// compiler vectorizes or where an array lies. The factors of a step are made in double by
// multiplications and divisions alone and then rounded to f32. Sums of squares are in double.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "config/config.h"
#include "learner/kernels.h"

namespace sluice {

// base^exponent by squaring; multiplications only, so equal on every libm.
double integer_power(double base, std::uint64_t exponent);

// Σ x²: eight partial sums over the index mod 8, added in pairs, then the tail in order.
double sum_of_squares(std::size_t n, const float* x);

// One array of optimizer state: a number for each weight, or one for each row. It begins at
// initial + initial_by_weight · weight.
struct Slot {
  const char* name;  // of its tensors: adam_m, adam_v, adagrad_sum, rowwise_adagrad_sum, momentum,
                     // ftrl_z, ftrl_n
  bool per_row = false;
  float initial = 0;
  float initial_by_weight = 0;  // 0 where per_row

  void begin(std::size_t n, const float* weights, float* out) const;
};

// In the order of OptimizerStep's arguments; at most kMaxSlots.
inline constexpr std::size_t kMaxSlots = 2;
std::vector<Slot> slots_of(const OptimizerConfig& config);

// A row in memory: weights [dim], then each slot, [dim] or one number.
struct RowLayout {
  std::size_t dim = 0;
  std::vector<Slot> slots;  // none: a row that is only read

  std::size_t slot_floats(std::size_t slot) const { return slots[slot].per_row ? 1 : dim; }
  std::size_t slot_offset(std::size_t slot) const;
  std::size_t floats() const { return slot_offset(slots.size()); }
  void begin_slots(float* row) const;  // by the row's weights
};

// One step of one group of parameters; const calls may run together.
class OptimizerStep {
 public:
  // `step` counts from 1.
  OptimizerStep(const OptimizerConfig& config, std::uint64_t step);

  // One update of n parameters, not clipped; not for per-row slots. The arrays do not overlap; a
  // slot that the rule does not have may be null. False where a weight or a slot is not finite
  // afterwards.
  bool apply(std::size_t n, const float* gradient, float* weight, float* slot0, float* slot1) const;
  // One update of a row (RowLayout), its gradient clipped; `gradient` is overwritten. The same.
  bool apply_row(std::size_t dim, float* gradient, float* row) const;

  // What a gradient of that squared norm is multiplied by: 1 where it is not clipped.
  bool clips() const { return clip_norm_ > 0; }
  float clip_scale(double norm_squared) const;

 private:
  void apply_rule(std::size_t n, const float* gradient, float* weight, float* slot0,
                  float* slot1) const;
  void apply_rowwise_adagrad(std::size_t dim, float* gradient, float* weight, float* sum) const;

  OptimizerConfig::Rule rule_;
  AdamFactors adam_;
  float rate_;      // lr; of adam lr / (1−β1^t)
  float epsilon_;   // ε
  float momentum_;  // μ
  float l1_;        // λ1
  float l2_;        // λ2, or the l2 of the other rules
  float ftrl_beta_;
  float ftrl_inverse_alpha_;   // 1/α
  float ftrl_gradient_scale_;  // r
  double clip_norm_;
};

}  // namespace sluice
