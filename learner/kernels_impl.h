// The products of kernels.h over a vector type V; included once by each kernels_<set>.cc, which is
// compiled for its instruction set. Everything has internal linkage and nothing of the standard
// library is called that is not inlined, so that no code for a newer CPU ends up where an older one
// may run it.
//
// V: kWidth floats; Float, Mask; zero(), broadcast(x), load(p), store(p, x), the arithmetic by
// name, mask(n) of the first n, load(p, mask), store(p, mask, x); and for bf16 the pairs of
// kernels.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "learner/kernels.h"

namespace sluice {
namespace {

#define SLUICE_INLINE inline __attribute__((always_inline))

// kRows rows and kVectors vectors of C, held in registers over a run of the depth.
template <class V, int kRows, int kVectors, bool kTail>
SLUICE_INLINE void tile(const F32Product& p, std::size_t i, std::size_t j, std::size_t k_begin,
                        std::size_t k_end, const Start& start, bool relu, typename V::Mask tail) {
  typename V::Float c[kRows][kVectors];
  float* const out = p.c + i * p.c_row + j;
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      const bool masked = kTail && v == kVectors - 1;
      if (start.from == nullptr) {
        c[r][v] = V::zero();
        continue;
      }
      const float* const at =
          start.from + (i + static_cast<std::size_t>(r)) * start.row + j + v * V::kWidth;
      c[r][v] = masked ? V::load(at, tail) : V::load(at);
    }
  }
  const float* a = p.a + i * p.a_row + k_begin * p.a_column;
  const float* b = p.b + k_begin * p.b_row + j;
  for (std::size_t k = k_begin; k < k_end; ++k) {
    typename V::Float x[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const bool masked = kTail && v == kVectors - 1;
      x[v] = masked ? V::load(b + v * V::kWidth, tail) : V::load(b + v * V::kWidth);
    }
    for (int r = 0; r < kRows; ++r) {
      const typename V::Float y = V::broadcast(a[static_cast<std::size_t>(r) * p.a_row]);
      for (int v = 0; v < kVectors; ++v) c[r][v] = V::fma(y, x[v], c[r][v]);
    }
    a += p.a_column;
    b += p.b_row;
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      if (relu) c[r][v] = V::relu(c[r][v]);
      const bool masked = kTail && v == kVectors - 1;
      float* const at = out + static_cast<std::size_t>(r) * p.c_row + v * V::kWidth;
      if (masked) {
        V::store(at, tail, c[r][v]);
      } else {
        V::store(at, c[r][v]);
      }
    }
  }
}

// A run of rows in the largest steps that fit.
template <class V, int kRows, int kVectors, bool kTail>
SLUICE_INLINE void column_panel(const F32Product& p, std::size_t& i, std::size_t j,
                                std::size_t k_begin, std::size_t k_end, const Start& start,
                                bool relu, typename V::Mask tail) {
  for (; i + kRows <= p.m; i += kRows) {
    tile<V, kRows, kVectors, kTail>(p, i, j, k_begin, k_end, start, relu, tail);
  }
}

template <class V, int kVectors, bool kTail>
__attribute__((noinline)) void panel(const F32Product& p, std::size_t j, std::size_t k_begin,
                                     std::size_t k_end, const Start& start, bool relu,
                                     typename V::Mask tail) {
  std::size_t i = 0;
  column_panel<V, V::kTileRows, kVectors, kTail>(p, i, j, k_begin, k_end, start, relu, tail);
  column_panel<V, V::kTileRows / 2, kVectors, kTail>(p, i, j, k_begin, k_end, start, relu, tail);
  column_panel<V, 1, kVectors, kTail>(p, i, j, k_begin, k_end, start, relu, tail);
}

template <class V, bool kTail>
void panel_of(std::size_t vectors, const F32Product& p, std::size_t j, std::size_t k_begin,
              std::size_t k_end, const Start& start, bool relu, typename V::Mask tail) {
  switch (vectors) {
    case 1:
      return panel<V, 1, kTail>(p, j, k_begin, k_end, start, relu, tail);
    case 2:
      return panel<V, 2, kTail>(p, j, k_begin, k_end, start, relu, tail);
    default:
      return panel<V, 3, kTail>(p, j, k_begin, k_end, start, relu, tail);
  }
}

constexpr std::size_t pieces_of(std::size_t count, std::size_t most) {
  return (count + most - 1) / most;
}

// Panels of up to three vectors of columns; the depth is cut so that a panel of B stays in the
// first cache while all rows of A pass by, and the rows of A in the second. A cut goes on from what
// C holds: the chain is the same.
template <class V>
void multiply(const F32Product& p) {
  constexpr std::size_t kMostVectors = 3;
  constexpr std::size_t kMostDepth = 192;
  const std::size_t vectors = pieces_of(p.n, V::kWidth);
  const std::size_t panels = pieces_of(vectors, kMostVectors);
  const std::size_t cuts = p.k == 0 ? 1 : pieces_of(p.k, kMostDepth);
  const std::size_t last = p.n % V::kWidth;
  for (std::size_t cut = 0; cut < cuts; ++cut) {
    const std::size_t k_begin = p.k * cut / cuts;
    const std::size_t k_end = p.k * (cut + 1) / cuts;
    const Start start = cut > 0 ? Start{p.c, p.c_row} : p.start;
    const bool relu = cut + 1 == cuts && p.finish == Finish::relu;
    for (std::size_t n = 0; n < panels; ++n) {
      const std::size_t begin = vectors * n / panels;
      const std::size_t count = vectors * (n + 1) / panels - begin;
      const std::size_t j = begin * V::kWidth;
      if (n + 1 == panels && last != 0) {
        panel_of<V, true>(count, p, j, k_begin, k_end, start, relu, V::mask(last));
      } else {
        panel_of<V, false>(count, p, j, k_begin, k_end, start, relu, V::mask(V::kWidth));
      }
    }
  }
}

// Some rows of one block of C, over the whole depth.
template <class V, int kRows>
SLUICE_INLINE void bf16_rows(const Bf16Product& p, std::size_t i_block, std::size_t row,
                             std::size_t j_block, std::size_t j) {
  typename V::Float c[kRows];
  float* const out = p.c + (i_block * kBlockRows + row) * p.c_row + j_block * kBlockRows + j;
  for (int r = 0; r < kRows; ++r) {
    if (p.start.from == nullptr) {
      c[r] = V::zero();
      continue;
    }
    const std::size_t at = i_block * kBlockRows + row + static_cast<std::size_t>(r);
    c[r] = V::load(p.start.from + at * p.start.row + j_block * kBlockRows + j);
  }
  for (std::size_t l = 0; l < p.k_blocks; ++l) {
    const Bf16* const a = p.a + i_block * p.a_step + l * p.a_depth + row * kBlockDepth;
    const Bf16* const b = p.b + j_block * p.b_step + l * p.b_depth + 2 * j;
    typename V::Float even[kRows], odd[kRows];
    for (int r = 0; r < kRows; ++r) even[r] = odd[r] = V::zero();
    for (std::size_t pair = 0; pair < kBlockDepth / 2; ++pair) {
      typename V::Float b_even, b_odd;
      V::load_pairs(b + pair * 2 * kBlockRows, b_even, b_odd);
      for (int r = 0; r < kRows; ++r) {
        std::uint32_t both;
        std::memcpy(&both, a + static_cast<std::size_t>(r) * kBlockDepth + 2 * pair, sizeof both);
        even[r] = V::fma(V::broadcast_bits(both << 16), b_even, even[r]);
        odd[r] = V::fma(V::broadcast_bits(both & 0xffff0000U), b_odd, odd[r]);
      }
    }
    for (int r = 0; r < kRows; ++r) c[r] = V::add(c[r], V::add(even[r], odd[r]));
  }
  for (int r = 0; r < kRows; ++r) V::store(out + static_cast<std::size_t>(r) * p.c_row, c[r]);
}

template <class V>
void multiply_bf16(const Bf16Product& p) {
  constexpr std::size_t kRows = 4;
  for (std::size_t j_block = 0; j_block < p.n_blocks; ++j_block) {
    for (std::size_t i_block = 0; i_block < p.m_blocks; ++i_block) {
      for (std::size_t j = 0; j < kBlockRows; j += V::kWidth) {
        for (std::size_t row = 0; row < kBlockRows; row += kRows) {
          bf16_rows<V, kRows>(p, i_block, row, j_block, j);
        }
      }
    }
  }
}

// 16 columns of one row from column j on, as much of them as there are.
template <class V>
SLUICE_INLINE typename V::Block block_row(const Packing& p, std::size_t i, std::size_t j) {
  if (i >= p.rows) return V::zero_block();
  const float* const at = p.x + i * p.row + j;
  return j + kBlockRows <= p.columns ? V::load_block(at) : V::load_block(at, p.columns - j);
}

// 32 columns of row i from column j on, rounded.
template <class V>
SLUICE_INLINE void store_rounded(const Packing& p, std::size_t i, std::size_t j, Bf16* out) {
  const bool has_upper = j + kBlockRows < p.columns;
  V::store_row(out, block_row<V>(p, i, j),
               has_upper ? block_row<V>(p, i, j + kBlockRows) : V::zero_block());
}

template <class V>
void pack_left(const Packing& p) {
  if (p.columns == 0) return;  // `out` may be null
  for (std::size_t i = 0; i < pieces_of(p.rows, kBlockRows) * kBlockRows; ++i) {
    Bf16* const out = p.out + i / kBlockRows * p.out_step + i % kBlockRows * kBlockDepth;
    for (std::size_t j = 0; j < p.columns; j += kBlockDepth) {
      store_rounded<V>(p, i, j, out + j / kBlockDepth * p.out_depth);
    }
  }
}

template <class V>
void pack_right(const Packing& p) {
  for (std::size_t j = 0; j < p.columns; j += kBlockRows) {
    Bf16* const out = p.out + j / kBlockRows * p.out_step;
    for (std::size_t i = 0; i < pieces_of(p.rows, kBlockDepth) * kBlockDepth; i += 2) {
      V::store_pairs(out + i / kBlockDepth * p.out_depth + i % kBlockDepth * kBlockRows,
                     block_row<V>(p, i, j), block_row<V>(p, i + 1, j));
    }
  }
}

template <class V>
void pack_left_transposed(const Packing& p) {
  alignas(64) Bf16 pairs[kBlockElements];
  for (std::size_t j = 0; j < p.columns; j += kBlockRows) {
    Bf16* const out = p.out + j / kBlockRows * p.out_step;
    for (std::size_t i = 0; i < p.rows; i += kBlockDepth) {
      for (std::size_t pair = 0; pair < kBlockDepth / 2; ++pair) {
        V::store_pairs(pairs + pair * kBlockDepth, block_row<V>(p, i + 2 * pair, j),
                       block_row<V>(p, i + 2 * pair + 1, j));
      }
      V::transpose_pairs(pairs, out + i / kBlockDepth * p.out_depth);
    }
  }
}

template <class V>
void pack_right_transposed(const Packing& p) {
  alignas(64) Bf16 rows[kBlockElements];
  for (std::size_t i = 0; i < p.rows; i += kBlockRows) {
    Bf16* const out = p.out + i / kBlockRows * p.out_step;
    for (std::size_t j = 0; j < p.columns; j += kBlockDepth) {
      for (std::size_t r = 0; r < kBlockRows; ++r) {
        store_rounded<V>(p, i + r, j, rows + r * kBlockDepth);
      }
      V::transpose_pairs(rows, out + j / kBlockDepth * p.out_depth);
    }
  }
}

// One weight's step; adam() below does the same by vectors.
SLUICE_INLINE void adam_one(const AdamFactors& f, float g, float& w, float& m, float& v,
                            float& difference) {
  m = f.beta1 * m + f.one_minus_beta1 * g;
  v = f.beta2 * v + f.one_minus_beta2 * (g * g);
  w -= f.rate * m / (__builtin_sqrtf(v * f.v_factor) + f.epsilon);
  difference += (w - w) + (m - m) + (v - v);
}

// A vector's root and quotient cost as much for two elements as for all: few are done one by one.
template <class V>
bool adam(const AdamFactors& f, std::size_t n, const float* g, float* w, float* m, float* v) {
  constexpr std::size_t kFew = 4;
  typename V::Float difference = V::zero();  // x − x is 0 where x is finite
  std::size_t i = 0;
  for (; i + kFew < n; i += V::kWidth) {
    const typename V::Mask mask = V::mask(n - i < V::kWidth ? n - i : V::kWidth);
    const typename V::Float gradient = V::load(g + i, mask);
    const typename V::Float new_m = V::add(V::mul(V::broadcast(f.beta1), V::load(m + i, mask)),
                                           V::mul(V::broadcast(f.one_minus_beta1), gradient));
    const typename V::Float new_v =
        V::add(V::mul(V::broadcast(f.beta2), V::load(v + i, mask)),
               V::mul(V::broadcast(f.one_minus_beta2), V::mul(gradient, gradient)));
    const typename V::Float root = V::sqrt(V::mul(new_v, V::broadcast(f.v_factor)));
    const typename V::Float step =
        V::div(V::mul(V::broadcast(f.rate), new_m), V::add(root, V::broadcast(f.epsilon)));
    const typename V::Float new_w = V::sub(V::load(w + i, mask), step);
    V::store(m + i, mask, new_m);
    V::store(v + i, mask, new_v);
    V::store(w + i, mask, new_w);
    for (const typename V::Float& x : {new_w, new_m, new_v}) {
      difference = V::add(difference, V::sub(x, x));
    }
  }
  float rest = 0;
  for (; i < n; ++i) adam_one(f, g[i], w[i], m[i], v[i], rest);
  return V::is_zero(difference) && rest == 0;
}

template <class V, int kVectors>
SLUICE_INLINE void sum_vectors(std::span<const RowUse> uses, std::size_t n, const float* x,
                               float* out) {
  const typename V::Mask tail = V::mask(n - (kVectors - 1) * V::kWidth);
  typename V::Float sum[kVectors];
  for (int v = 0; v < kVectors; ++v) sum[v] = V::zero();
  for (const RowUse* use = uses.data(); use != uses.data() + uses.size(); ++use) {
    const typename V::Float weight = V::broadcast(use->weight);
    const float* const at = x + use->at;
    for (int v = 0; v < kVectors; ++v) {
      const typename V::Float value =
          v + 1 < kVectors ? V::load(at + v * V::kWidth) : V::load(at + v * V::kWidth, tail);
      sum[v] = V::add(sum[v], V::mul(weight, value));
    }
  }
  for (int v = 0; v < kVectors; ++v) V::store(out + v * V::kWidth, sum[v]);
}

template <class V>
void sum_uses(std::span<const RowUse> uses, std::size_t n, const float* x, float* out) {
  for (std::size_t j = 0; j < n;) {
    const std::size_t vectors = pieces_of(n - j, V::kWidth);
    const float* const from = x + j;
    if (vectors == 1) {
      sum_vectors<V, 1>(uses, n - j, from, out + j);
    } else if (vectors == 2) {
      sum_vectors<V, 2>(uses, n - j, from, out + j);
    } else {
      sum_vectors<V, 3>(uses, n - j < 3 * V::kWidth ? n - j : 3 * V::kWidth, from, out + j);
    }
    j += 3 * V::kWidth;
  }
}

// one(i, mask) for each vector of n elements.
template <class V, class One>
SLUICE_INLINE void for_vectors(std::size_t n, const One& one) {
  std::size_t i = 0;
  for (; i + V::kWidth <= n; i += V::kWidth) one(i, V::mask(V::kWidth));
  if (i < n) one(i, V::mask(n - i));
}

// Most rows are in no near cache: the next ones are asked for.
template <class V>
void add_rows(std::span<const RowTerm> terms, std::size_t n, float* x) {
  constexpr std::ptrdiff_t kAhead = 8;
  const RowTerm* const end = terms.data() + terms.size();
  for (const RowTerm* term = terms.data(); term != end; ++term) {
    if (end - term > kAhead) {
      __builtin_prefetch(term[kAhead].row);
      __builtin_prefetch(term[kAhead].row + n - 1);
    }
    const typename V::Float weight = V::broadcast(term->weight);
    float* const to = x + term->at;
    for_vectors<V>(n, [&](std::size_t i, typename V::Mask mask) {
      const typename V::Float product = V::mul(weight, V::load(term->row + i, mask));
      V::store(to + i, mask, V::add(V::load(to + i, mask), product));
    });
  }
}

template <class V>
void add_scaled(std::size_t n, float scale, const float* x, float* y) {
  for_vectors<V>(n, [&](std::size_t i, typename V::Mask mask) {
    const typename V::Float product = V::mul(V::broadcast(scale), V::load(x + i, mask));
    V::store(y + i, mask, V::add(V::load(y + i, mask), product));
  });
}

template <class V>
void relu(std::size_t n, float* z) {
  for_vectors<V>(n, [&](std::size_t i, typename V::Mask mask) {
    V::store(z + i, mask, V::relu(V::load(z + i, mask)));
  });
}

template <class V>
void mask(std::size_t n, const float* h, float* d) {
  for_vectors<V>(n, [&](std::size_t i, typename V::Mask mask) {
    V::store(d + i, mask, V::where_positive(V::load(h + i, mask), V::load(d + i, mask)));
  });
}

template <class V>
void scale_mask(std::size_t n, float scale, const float* x, const float* h, float* y) {
  for_vectors<V>(n, [&](std::size_t i, typename V::Mask mask) {
    const typename V::Float product = V::mul(V::broadcast(scale), V::load(x + i, mask));
    V::store(y + i, mask, V::where_positive(V::load(h + i, mask), product));
  });
}

template <class V>
constexpr Kernels kernels_of(const char* name, void (*bf16)(const Bf16Product&)) {
  return {name,
          multiply<V>,
          bf16,
          pack_left<V>,
          pack_right<V>,
          pack_left_transposed<V>,
          pack_right_transposed<V>,
          adam<V>,
          sum_uses<V>,
          add_rows<V>,
          add_scaled<V>,
          relu<V>,
          mask<V>,
          scale_mask<V>};
}

}  // namespace
}  // namespace sluice
