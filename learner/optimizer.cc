#include "learner/optimizer.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "learner/vector_math.h"

namespace sluice {

namespace {

using Rule = OptimizerConfig::Rule;

constexpr std::size_t kWidth = 8;  // a count known to the compiler, so that it vectorizes

// one(gradient, weight, slots...) of each element. Inlined into another function, the promise that
// the arrays do not overlap would be lost, and with it the vectors.
template <class One, class... Slots>
[[gnu::noinline]] void for_each(std::size_t n, One one, const float* __restrict gradient,
                                float* __restrict weight, Slots* __restrict... slots) {
  std::size_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    for (std::size_t k = i; k < i + kWidth; ++k) one(gradient[k], weight[k], slots[k]...);
  }
  for (; i < n; ++i) one(gradient[i], weight[i], slots[i]...);
}

// The same with l2 · weight added to the gradients; adding 0 · weight would only cost time.
template <class One, class... Slots>
void for_each_decayed(std::size_t n, float l2, One one, const float* gradient, float* weight,
                      Slots*... slots) {
  if (l2 == 0.0F) return for_each(n, one, gradient, weight, slots...);
  const auto decayed = [one, l2](float g, float& w, auto&... s) { one(g + l2 * w, w, s...); };
  for_each(n, decayed, gradient, weight, slots...);
}

double warmed_up(const OptimizerConfig& config, std::uint64_t step) {
  if (step >= config.warmup_steps) return 1.0;
  return static_cast<double>(step) / static_cast<double>(config.warmup_steps);
}

double rate_of(const OptimizerConfig& config, std::uint64_t step) {
  const double rate = config.learning_rate * warmed_up(config, step);
  return config.optimizer == Rule::adam ? rate / (1.0 - integer_power(config.beta1, step)) : rate;
}

}  // namespace

double integer_power(double base, std::uint64_t exponent) {
  double result = 1.0;
  for (; exponent != 0; exponent >>= 1) {
    if ((exponent & 1) != 0) result *= base;
    base *= base;
  }
  return result;
}

double sum_of_squares(std::size_t n, const float* x) {
  const auto square = [x](std::size_t i) { return double{x[i]} * double{x[i]}; };
  double part[kWidth] = {};
  std::size_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    for (std::size_t k = 0; k < kWidth; ++k) part[k] += square(i + k);
  }
  double sum =
      ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
  for (; i < n; ++i) sum += square(i);
  return sum;
}

// ---- slots

void Slot::begin(std::size_t n, const float* weights, float* out) const {
  for (std::size_t i = 0; i < n; ++i) out[i] = initial + initial_by_weight * weights[i];
}

std::vector<Slot> slots_of(const OptimizerConfig& config) {
  const auto accumulator = static_cast<float>(config.initial_accumulator);
  switch (config.optimizer) {
    case Rule::adam:
      return {{.name = "adam_m"}, {.name = "adam_v"}};
    case Rule::adagrad:
      return {{.name = "adagrad_sum", .initial = accumulator}};
    case Rule::rowwise_adagrad:
      return {{.name = "rowwise_adagrad_sum", .per_row = true, .initial = accumulator}};
    case Rule::sgd:
      if (config.momentum == 0) return {};
      return {{.name = "momentum"}};
    case Rule::ftrl: {
      const auto by_weight = static_cast<float>(-config.ftrl_beta / config.learning_rate);
      return {{.name = "ftrl_z", .initial_by_weight = by_weight}, {.name = "ftrl_n"}};
    }
  }
  return {};
}

std::size_t RowLayout::slot_offset(std::size_t slot) const {
  std::size_t offset = dim;
  for (std::size_t n = 0; n < slot; ++n) offset += slot_floats(n);
  return offset;
}

void RowLayout::begin_slots(float* row) const {
  for (std::size_t n = 0; n < slots.size(); ++n) {
    slots[n].begin(slot_floats(n), row, row + slot_offset(n));
  }
}

// ---- steps

OptimizerStep::OptimizerStep(const OptimizerConfig& config, std::uint64_t step)
    : rule_(config.optimizer),
      adam_{static_cast<float>(config.beta1),
            static_cast<float>(1.0 - config.beta1),
            static_cast<float>(config.beta2),
            static_cast<float>(1.0 - config.beta2),
            static_cast<float>(rate_of(config, step)),
            static_cast<float>(1.0 / (1.0 - integer_power(config.beta2, step))),
            static_cast<float>(config.epsilon)},
      rate_(adam_.rate),
      epsilon_(adam_.epsilon),
      momentum_(static_cast<float>(config.momentum)),
      l1_(static_cast<float>(config.l1)),
      l2_(static_cast<float>(config.l2)),
      ftrl_beta_(static_cast<float>(config.ftrl_beta)),
      ftrl_inverse_alpha_(static_cast<float>(1.0 / config.learning_rate)),
      ftrl_gradient_scale_(static_cast<float>(warmed_up(config, step))),
      clip_norm_(config.clip_norm) {
  SLUICE_CHECK(step > 0);
}

float OptimizerStep::clip_scale(double norm_squared) const {
  if (!clips() || norm_squared <= clip_norm_ * clip_norm_) return 1.0F;
  return static_cast<float>(clip_norm_ / std::sqrt(norm_squared));
}

bool OptimizerStep::apply(std::size_t n, const float* gradient, float* weight, float* slot0,
                          float* slot1) const {
  // By far the most used: it has a kernel of its own, which looks at what it stores.
  if (rule_ == Rule::adam && l2_ == 0.0F) {
    return best_kernels().adam(adam_, n, gradient, weight, slot0, slot1);
  }
  apply_rule(n, gradient, weight, slot0, slot1);
  return all_finite(n, weight) && (slot0 == nullptr || all_finite(n, slot0)) &&
         (slot1 == nullptr || all_finite(n, slot1));
}

void OptimizerStep::apply_rule(std::size_t n, const float* gradient, float* weight, float* slot0,
                               float* slot1) const {
  switch (rule_) {
    case Rule::adam: {
      const auto one = [f = adam_](float g, float& w, float& m, float& v) {
        m = f.beta1 * m + f.one_minus_beta1 * g;
        v = f.beta2 * v + f.one_minus_beta2 * (g * g);
        w -= f.rate * m / (std::sqrt(v * f.v_factor) + f.epsilon);
      };
      return for_each_decayed(n, l2_, one, gradient, weight, slot0, slot1);
    }
    case Rule::adagrad: {
      const auto one = [rate = rate_, epsilon = epsilon_](float g, float& w, float& sum) {
        sum += g * g;
        w -= rate * g / (std::sqrt(sum) + epsilon);
      };
      return for_each_decayed(n, l2_, one, gradient, weight, slot0);
    }
    case Rule::sgd: {
      if (momentum_ == 0.0F) {
        const auto one = [rate = rate_](float g, float& w) { w -= rate * g; };
        return for_each_decayed(n, l2_, one, gradient, weight);
      }
      const auto one = [rate = rate_, momentum = momentum_](float g, float& w, float& m) {
        m = momentum * m + g;
        w -= rate * m;
      };
      return for_each_decayed(n, l2_, one, gradient, weight, slot0);
    }
    case Rule::ftrl: {
      const auto one = [l1 = l1_, l2 = l2_, beta = ftrl_beta_, inverse_alpha = ftrl_inverse_alpha_,
                        scale = ftrl_gradient_scale_](float g, float& w, float& z, float& sum) {
        const float root_before = std::sqrt(sum);
        sum += g * g;
        const float root = std::sqrt(sum);
        z += scale * g - (root - root_before) * inverse_alpha * w;
        // So that a z that is not a number gives such a weight.
        const float beyond = std::abs(z) - l1;
        const float shrunk = !(beyond <= 0.0F) ? beyond : 0.0F;
        w = 0.0F - std::copysign(shrunk, z) / ((beta + root) * inverse_alpha + l2);
      };
      return for_each(n, one, gradient, weight, slot0, slot1);
    }
    case Rule::rowwise_adagrad:
      break;
  }
  SLUICE_CHECK(false);  // needs a row
}

bool OptimizerStep::apply_row(std::size_t dim, float* gradient, float* row) const {
  if (clips()) {
    const float scale = clip_scale(sum_of_squares(dim, gradient));
    if (scale != 1.0F) std::for_each_n(gradient, dim, [scale](float& g) { g *= scale; });
  }
  float* const slots = row + dim;
  switch (rule_) {
    case Rule::rowwise_adagrad:
      apply_rowwise_adagrad(dim, gradient, row, slots);
      return all_finite(dim + 1, row);
    case Rule::adam:
    case Rule::ftrl:
      return apply(dim, gradient, row, slots, slots + dim);
    case Rule::adagrad:
      return apply(dim, gradient, row, slots, nullptr);
    case Rule::sgd:
      return apply(dim, gradient, row, momentum_ == 0.0F ? nullptr : slots, nullptr);
  }
  return false;
}

void OptimizerStep::apply_rowwise_adagrad(std::size_t dim, float* gradient, float* weight,
                                          float* sum) const {
  if (l2_ != 0.0F) {
    for (std::size_t i = 0; i < dim; ++i) gradient[i] += l2_ * weight[i];
  }
  *sum += static_cast<float>(sum_of_squares(dim, gradient) / static_cast<double>(dim));
  const float rate = rate_ / (std::sqrt(*sum) + epsilon_);
  const auto one = [rate](float g, float& w) { w -= rate * g; };
  for_each(dim, one, gradient, weight);
}

}  // namespace sluice
