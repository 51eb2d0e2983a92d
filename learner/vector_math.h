// Element-wise loops over f32 arrays. Every element is the same few IEEE operations, so the bits do
// not depend on where an array lies or on how the compiler vectorizes; the blocks of a constant
// size only let it.
#pragma once

#include <cstddef>

namespace sluice {

inline constexpr std::size_t kVectorWidth = 8;

// y += x.
inline void add(std::size_t n, const float* __restrict x, float* __restrict y) {
  std::size_t i = 0;
  for (; i + kVectorWidth <= n; i += kVectorWidth) {
    for (std::size_t k = i; k < i + kVectorWidth; ++k) y[k] += x[k];
  }
  for (; i < n; ++i) y[i] += x[i];
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
