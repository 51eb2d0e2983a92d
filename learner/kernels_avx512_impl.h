// The vector type of kernels_impl.h with AVX-512 (F, BW, DQ, VL). kNativeRounding: AVX512_BF16 too.
#pragma once

#include <immintrin.h>

#include "learner/kernels_impl.h"

namespace sluice {
namespace {

struct Avx512 {
  static constexpr std::size_t kWidth = 16;
  static constexpr int kTileRows = 8;
  using Float = __m512;
  using Mask = __mmask16;

  static Float zero() { return _mm512_setzero_ps(); }
  static Float broadcast(float x) { return _mm512_set1_ps(x); }
  static Float broadcast_bits(std::uint32_t bits) {
    return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(bits)));
  }
  static Float load(const float* p) { return _mm512_loadu_ps(p); }
  static Float load(const float* p, Mask mask) { return _mm512_maskz_loadu_ps(mask, p); }
  static void store(float* p, Float x) { _mm512_storeu_ps(p, x); }
  static void store(float* p, Mask mask, Float x) { _mm512_mask_storeu_ps(p, mask, x); }
  static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float sub(Float a, Float b) { return _mm512_sub_ps(a, b); }
  static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float div(Float a, Float b) { return _mm512_div_ps(a, b); }
  static Float sqrt(Float x) { return _mm512_sqrt_ps(x); }
  static bool is_zero(Float x) { return _mm512_cmp_ps_mask(x, zero(), _CMP_NEQ_UQ) == 0; }
  static Float relu(Float x) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, zero(), _CMP_NLE_UQ), x);
  }
  static Float where_positive(Float h, Float x) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(h, zero(), _CMP_GT_OQ), x);
  }
  static Mask mask(std::size_t n) { return static_cast<Mask>((1U << n) - 1U); }

  // 16 pairs of bf16 as the f32 of their first and of their second halves.
  static void load_pairs(const Bf16* p, Float& even, Float& odd) {
    const __m512i pairs = _mm512_loadu_si512(p);
    even = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    odd = _mm512_castsi512_ps(
        _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000U))));
  }

  using Block = __m512;
  static Block zero_block() { return zero(); }
  static Block load_block(const float* p) { return load(p); }
  static Block load_block(const float* p, std::size_t n) { return load(p, mask(n)); }

#ifdef __AVX512BF16__
  // Both, one after the other.
  static __m512i round(Float first, Float second) {
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
  }
#else
  static __m256i round(Float x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i upper = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
    __m512i rounded = _mm512_srli_epi32(
        _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    const Mask denormal = _mm512_testn_epi32_mask(bits, _mm512_set1_epi32(0x7f800000));
    rounded = _mm512_mask_and_epi32(rounded, denormal, upper, _mm512_set1_epi32(0x8000));
    const Mask is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    rounded = _mm512_mask_or_epi32(rounded, is_nan, upper, _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(rounded);
  }
  static __m512i round(Float first, Float second) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(round(first)), round(second), 1);
  }
#endif
  static void store_row(Bf16* out, Block first, Block second) {
    _mm512_storeu_si512(out, round(first, second));
  }
  static void store_pairs(Bf16* out, Block even, Block odd) {
    alignas(64) static constexpr std::uint16_t kInterleave[32] = {
        0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    _mm512_storeu_si512(out,
                        _mm512_permutexvar_epi16(_mm512_load_si512(kInterleave), round(even, odd)));
  }
  static void transpose_pairs(const Bf16* pairs, Bf16* out) {
    __m512i x[16], y[16];
    for (int i = 0; i < 16; ++i) x[i] = _mm512_load_si512(pairs + i * 32);
    for (int i = 0; i < 16; i += 2) {
      y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
      y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
      x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
      x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
      x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
      x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
    // x[4q + c] holds, in its lane l, column 4l + c of rows 4q to 4q + 3.
    for (int c = 0; c < 4; ++c) {
      const __m512i a = _mm512_shuffle_i32x4(x[c], x[4 + c], 0x88);
      const __m512i b = _mm512_shuffle_i32x4(x[c], x[4 + c], 0xdd);
      const __m512i d = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0x88);
      const __m512i e = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0xdd);
      _mm512_storeu_si512(out + c * 32, _mm512_shuffle_i32x4(a, d, 0x88));
      _mm512_storeu_si512(out + (4 + c) * 32, _mm512_shuffle_i32x4(b, e, 0x88));
      _mm512_storeu_si512(out + (8 + c) * 32, _mm512_shuffle_i32x4(a, d, 0xdd));
      _mm512_storeu_si512(out + (12 + c) * 32, _mm512_shuffle_i32x4(b, e, 0xdd));
    }
  }
};

}  // namespace
}  // namespace sluice
