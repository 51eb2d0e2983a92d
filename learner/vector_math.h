// Element-wise loops over f32 arrays. Every element is the same few IEEE operations, so the bits do
// not depend on where an array lies or on how the compiler vectorizes; the blocks of a constant
// size only let it.
#pragma once

#include <cstddef>

namespace sluice {

inline constexpr std::size_t kVectorWidth = 8;

// y += scale · x. The arrays do not overlap.
inline void add_scaled(std::size_t n, float scale, const float* __restrict x, float* __restrict y) {
  std::size_t i = 0;
  for (; i + kVectorWidth <= n; i += kVectorWidth) {
    for (std::size_t k = i; k < i + kVectorWidth; ++k) y[k] += scale * x[k];
  }
  for (; i < n; ++i) y[i] += scale * x[i];
}

// y += x.
inline void add(std::size_t n, const float* __restrict x, float* __restrict y) {
  std::size_t i = 0;
  for (; i + kVectorWidth <= n; i += kVectorWidth) {
    for (std::size_t k = i; k < i + kVectorWidth; ++k) y[k] += x[k];
  }
  for (; i < n; ++i) y[i] += x[i];
}

// z = max(z, 0); what is not a number stays so, for the logits to show it.
inline void relu(std::size_t n, float* __restrict z) {
  const auto one = [](float value) { return !(value <= 0.0F) ? value : 0.0F; };
  std::size_t i = 0;
  for (; i + kVectorWidth <= n; i += kVectorWidth) {
    for (std::size_t k = i; k < i + kVectorWidth; ++k) z[k] = one(z[k]);
  }
  for (; i < n; ++i) z[i] = one(z[i]);
}

// y = scale · x where the activation h is above 0, else 0.
inline void scale_relu(std::size_t n, float scale, const float* __restrict x,
                       const float* __restrict h, float* __restrict y) {
  std::size_t i = 0;
  for (; i + kVectorWidth <= n; i += kVectorWidth) {
    for (std::size_t k = i; k < i + kVectorWidth; ++k) y[k] = h[k] > 0.0F ? scale * x[k] : 0.0F;
  }
  for (; i < n; ++i) y[i] = h[i] > 0.0F ? scale * x[i] : 0.0F;
}

// The gradient of ReLU: d = 0 where the activation h is 0.
inline void mask_relu(std::size_t n, const float* __restrict h, float* __restrict d) {
  std::size_t i = 0;
  for (; i + kVectorWidth <= n; i += kVectorWidth) {
    for (std::size_t k = i; k < i + kVectorWidth; ++k) d[k] = h[k] > 0.0F ? d[k] : 0.0F;
  }
  for (; i < n; ++i) d[i] = h[i] > 0.0F ? d[i] : 0.0F;
}

// Every element is finite. x − x is 0 of those and not a number of the others.
inline bool all_finite(std::size_t n, const float* x) {
  float part[kVectorWidth] = {};
  std::size_t i = 0;
  for (; i + kVectorWidth <= n; i += kVectorWidth) {
    for (std::size_t k = 0; k < kVectorWidth; ++k) part[k] += x[i + k] - x[i + k];
  }
  for (; i < n; ++i) part[0] += x[i] - x[i];
  float sum = 0;
  for (const float one : part) sum += one;
  return sum == 0.0F;
}

// Σ x·y: eight partial sums over i mod 8, added in pairs, then the tail in order.
inline float dot(std::size_t n, const float* x, const float* y) {
  float part[kVectorWidth] = {};
  std::size_t i = 0;
  for (; i + kVectorWidth <= n; i += kVectorWidth) {
    for (std::size_t k = 0; k < kVectorWidth; ++k) part[k] += x[i + k] * y[i + k];
  }
  float sum =
      ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
  for (; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

}  // namespace sluice
