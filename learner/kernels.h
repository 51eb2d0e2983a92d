// The learner's matrix products and its loops over rows: one interface, and one implementation for
// each instruction set that this CPU may have. All of them give the same bits, because the order of
// every sum is fixed here and not by the width of a vector:
//
//   f32   c = fma(a[i,k], b[k,j], c) for k = 0, 1, 2, ..., beginning with the start's value; one
//         chain for each element of C. An element depends on its row of A, its column of B and its
//         start alone.
//   bf16  the same chain over blocks of 32: with even and odd partial sums of a block,
//           e = fma(a[i,2p], b[2p,j], e), o = fma(a[i,2p+1], b[2p+1,j], o), p = 0 .. 15, from 0,
//           c = c + (e + o),
//         all in f32: what TDPBF16PS computes (Intel SDM), here on any CPU with FMA.
//
// Thread-safe. Denormal floats must count as zero on the calling thread (base/lanes.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sluice {

// What a chain begins with: 0, or element (i, j) at from[i·row + j] (row 0: one row for all).
// `from` may be C itself.
struct Start {
  const float* from = nullptr;
  std::size_t row = 0;
};
enum class Finish { none, relu };  // relu: max(c, 0); what is not a number stays so

// C[m, n] = start + A[m, k] · B[k, n]; A, B and C do not overlap.
struct F32Product {
  std::size_t m = 0, n = 0, k = 0;
  const float* a = nullptr;  // element (i, l) at a[i·a_row + l·a_column]
  std::size_t a_row = 0, a_column = 1;
  const float* b = nullptr;  // element (l, j) at b[l·b_row + j]
  std::size_t b_row = 0;
  float* c = nullptr;  // element (i, j) at c[i·c_row + j]
  std::size_t c_row = 0;
  Start start;
  Finish finish = Finish::none;
};

// bf16: the upper half of an f32, rounded to nearest, ties to even; denormals become zero.
using Bf16 = std::uint16_t;

// Operands in bf16 lie in blocks of 512 elements (1 KB), so that a product reads them in sequence:
//   left   [m/16, k/32] blocks of [16 rows][32 columns]
//   right  [n/16, k/32] blocks of [16 pairs of rows][16 columns][2]
// padded with zeros. m and n are counted in blocks of 16, k in blocks of 32. Which blocks follow
// each other is the caller's choice.
inline constexpr std::size_t kBlockRows = 16;
inline constexpr std::size_t kBlockDepth = 32;
inline constexpr std::size_t kBlockElements = kBlockRows * kBlockDepth;

struct Bf16Product {
  std::size_t m_blocks = 0, n_blocks = 0, k_blocks = 0;
  const Bf16* a = nullptr;  // left; block (i, l) at a + i·a_step + l·a_depth
  std::size_t a_step = 0, a_depth = kBlockElements;
  const Bf16* b = nullptr;  // right; block (j, l) at b + j·b_step + l·b_depth
  std::size_t b_step = 0, b_depth = kBlockElements;
  float* c = nullptr;  // element (i, j) at c[i·c_row + j]; [16·m_blocks, 16·n_blocks]
  std::size_t c_row = 0;
  Start start;
};

// An f32 matrix [rows, columns], element (i, j) at x[i·row + j], made
// into bf16 blocks. Rows and columns beyond count as 0.
struct Packing {
  const float* x = nullptr;
  std::size_t row = 0;
  std::size_t rows = 0;
  std::size_t columns = 0;
  Bf16* out = nullptr;
  std::size_t out_step = 0;                // elements from a block to the next along m or n
  std::size_t out_depth = kBlockElements;  // and along k
};

// The factors of a step of Adam (learner/optimizer.h has the formula), element by element:
//   m = beta1·m + (1−beta1)·g,  v = beta2·v + (1−beta2)·(g·g),
//   w = w − rate·m / (√(v·v_factor) + epsilon),  each operation rounded by itself.
struct AdamFactors {
  float beta1 = 0, one_minus_beta1 = 0;
  float beta2 = 0, one_minus_beta2 = 0;
  float rate = 0, v_factor = 0, epsilon = 0;
};

// The products with a row's few numbers: out[n] = Σ weight · x[at .. at + n), in the order of the
// uses, beginning with 0; no operation is fused.
struct RowUse {
  std::uint32_t at = 0;
  float weight = 1;
};

// The row that a use is of.
struct RowTerm {
  const float* row = nullptr;
  std::uint32_t at = 0;
  float weight = 1;
};

struct Kernels {
  const char* name;  // "avx2", "avx512", "amx"
  void (*multiply)(const F32Product&);
  void (*multiply_bf16)(const Bf16Product&);
  // x as the left operand: m = rows, k = columns.
  void (*pack_left)(const Packing&);
  // x as the right operand: k = rows, n = columns.
  void (*pack_right)(const Packing&);
  // The transpose of x as an operand: left, m = columns, k = rows; right, k = columns, n = rows.
  void (*pack_left_transposed)(const Packing&);
  void (*pack_right_transposed)(const Packing&);
  // One update of n weights; false where one of w, m and v is not finite afterwards. The arrays do
  // not overlap.
  bool (*adam)(const AdamFactors&, std::size_t n, const float* g, float* w, float* m, float* v);
  // `out` has room for n rounded up to kBlockRows; a whole vector that was stored is read back
  // sooner than a part of one.
  void (*sum_uses)(std::span<const RowUse> uses, std::size_t n, const float* x, float* out);
  // x[at .. at + n) += weight · row, term by term.
  void (*add_rows)(std::span<const RowTerm> terms, std::size_t n, float* x);
  // y += scale · x; z = relu(z); d = 0 where not h > 0; y = scale · x where h > 0, else 0.
  void (*add_scaled)(std::size_t n, float scale, const float* x, float* y);
  void (*relu)(std::size_t n, float* z);
  void (*mask)(std::size_t n, const float* h, float* d);
  void (*scale_mask)(std::size_t n, float scale, const float* x, const float* h, float* y);
};

// Those that this CPU can run, the slowest first; never empty.
std::span<const Kernels* const> usable_kernels();
inline const Kernels& best_kernels() {
  return *usable_kernels().back();
}

}  // namespace sluice
