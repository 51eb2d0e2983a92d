// kernels.h with AVX2 and FMA: what every CPU has that Sluice runs on.
#include <immintrin.h>

#include "learner/kernels_impl.h"

namespace sluice {
namespace {

struct Avx2 {
  static constexpr std::size_t kWidth = 8;
  static constexpr int kTileRows = 4;
  using Float = __m256;
  using Mask = __m256i;

  static Float zero() { return _mm256_setzero_ps(); }
  static Float broadcast(float x) { return _mm256_set1_ps(x); }
  static Float broadcast_bits(std::uint32_t bits) {
    return _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(bits)));
  }
  static Float load(const float* p) { return _mm256_loadu_ps(p); }
  static Float load(const float* p, Mask mask) { return _mm256_maskload_ps(p, mask); }
  static void store(float* p, Float x) { _mm256_storeu_ps(p, x); }
  static void store(float* p, Mask mask, Float x) { _mm256_maskstore_ps(p, mask, x); }
  static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float sub(Float a, Float b) { return _mm256_sub_ps(a, b); }
  static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float div(Float a, Float b) { return _mm256_div_ps(a, b); }
  static Float sqrt(Float x) { return _mm256_sqrt_ps(x); }
  static bool is_zero(Float x) {
    return _mm256_movemask_ps(_mm256_cmp_ps(x, zero(), _CMP_NEQ_UQ)) == 0;
  }
  static Float relu(Float x) { return _mm256_and_ps(x, _mm256_cmp_ps(x, zero(), _CMP_NLE_UQ)); }
  static Float where_positive(Float h, Float x) {
    return _mm256_and_ps(x, _mm256_cmp_ps(h, zero(), _CMP_GT_OQ));
  }
  static Mask mask(std::size_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }

  // 8 pairs of bf16 as the f32 of their first and of their second halves.
  static void load_pairs(const Bf16* p, Float& even, Float& odd) {
    const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    even = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    odd = _mm256_castsi256_ps(
        _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000U))));
  }

  struct Block {  // 16 floats
    Float low, high;
  };
  static Block zero_block() { return {zero(), zero()}; }
  static Block load_block(const float* p) { return {load(p), load(p + kWidth)}; }
  static Block load_block(const float* p, std::size_t n) {
    if (n <= kWidth) return {load(p, mask(n)), zero()};
    return {load(p), load(p + kWidth, mask(n - kWidth))};
  }

  // bf16 in the lower half of each 32 bits.
  static __m256i round(Float x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i exponent = _mm256_and_si256(bits, _mm256_set1_epi32(0x7f800000));
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_srli_epi32(
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    const __m256i denormal = _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256());
    const __m256i sign = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x8000));
    rounded = _mm256_blendv_epi8(rounded, sign, denormal);
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
    return _mm256_blendv_epi8(rounded, quiet, is_nan);
  }
  static void store_row(Bf16* out, const Block& first, const Block& second) {
    for (const Block* block : {&first, &second}) {
      const __m256i packed = _mm256_packus_epi32(round(block->low), round(block->high));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),
                          _mm256_permute4x64_epi64(packed, _MM_SHUFFLE(3, 1, 2, 0)));
      out += kBlockRows;
    }
  }
  static void store_pairs(Bf16* out, const Block& even, const Block& odd) {
    const auto pair = [](Float a, Float b) {
      return _mm256_or_si256(round(a), _mm256_slli_epi32(round(b), 16));
    };
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), pair(even.low, odd.low));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + kBlockRows), pair(even.high, odd.high));
  }
  static void transpose_pairs(const Bf16* pairs, Bf16* out) {
    for (std::size_t i = 0; i < kBlockRows; ++i) {
      for (std::size_t j = 0; j < kBlockRows; ++j) {
        std::memcpy(out + j * kBlockDepth + 2 * i, pairs + i * kBlockDepth + 2 * j, 4);
      }
    }
  }
};

}  // namespace

extern const Kernels kAvx2Kernels;
constinit const Kernels kAvx2Kernels = kernels_of<Avx2>("avx2", multiply_bf16<Avx2>);

}  // namespace sluice
