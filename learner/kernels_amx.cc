// kernels.h with AMX: products in bf16 by tiles of 16 x 32, the rest by AVX-512.
#include "learner/kernels_avx512_impl.h"

namespace sluice {
namespace {

// Eight tiles of 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

constexpr std::size_t kBlockStride = 64;  // bytes from one row of a block to the next

// Tiles 0 to 3 are C, [2, 2] blocks; 4 and 5 are A's, 6 and 7 are B's.
template <bool kTwoRows, bool kTwoColumns>
void amx_blocks(const Bf16Product& p, std::size_t i, std::size_t j) {
  float* const c = p.c + i * kBlockRows * p.c_row + j * kBlockRows;
  float* const c_below = c + kBlockRows * p.c_row;
  const std::size_t c_stride = p.c_row * sizeof(float);
  if (p.start.from != nullptr) {
    const float* const from = p.start.from + i * kBlockRows * p.start.row + j * kBlockRows;
    const float* const from_below = from + kBlockRows * p.start.row;
    const std::size_t stride = p.start.row * sizeof(float);
    _tile_loadd(0, from, stride);
    if (kTwoColumns) _tile_loadd(1, from + kBlockRows, stride);
    if (kTwoRows) _tile_loadd(2, from_below, stride);
    if (kTwoRows && kTwoColumns) _tile_loadd(3, from_below + kBlockRows, stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const Bf16* a = p.a + i * p.a_step;
  const Bf16* b = p.b + j * p.b_step;
  for (std::size_t l = 0; l < p.k_blocks; ++l) {
    _tile_loadd(4, a, kBlockStride);
    _tile_loadd(6, b, kBlockStride);
    _tile_dpbf16ps(0, 4, 6);
    if (kTwoColumns) {
      _tile_loadd(7, b + p.b_step, kBlockStride);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (kTwoRows) {
      _tile_loadd(5, a + p.a_step, kBlockStride);
      _tile_dpbf16ps(2, 5, 6);
    }
    if (kTwoRows && kTwoColumns) _tile_dpbf16ps(3, 5, 7);
    a += p.a_depth;
    b += p.b_depth;
  }
  _tile_stored(0, c, c_stride);
  if (kTwoColumns) _tile_stored(1, c + kBlockRows, c_stride);
  if (kTwoRows) _tile_stored(2, c_below, c_stride);
  if (kTwoRows && kTwoColumns) _tile_stored(3, c_below + kBlockRows, c_stride);
}

template <bool kTwoColumns>
void amx_columns(const Bf16Product& p, std::size_t j) {
  std::size_t i = 0;
  for (; i + 2 <= p.m_blocks; i += 2) amx_blocks<true, kTwoColumns>(p, i, j);
  if (i < p.m_blocks) amx_blocks<false, kTwoColumns>(p, i, j);
}

void amx_multiply(const Bf16Product& p) {
  const TileConfig config;
  _tile_loadconfig(&config);
  std::size_t j = 0;
  for (; j + 2 <= p.n_blocks; j += 2) amx_columns<true>(p, j);
  if (j < p.n_blocks) amx_columns<false>(p, j);
  _tile_release();
}

}  // namespace

extern const Kernels kAmxKernels;
constinit const Kernels kAmxKernels = kernels_of<Avx512>("amx", amx_multiply);

}  // namespace sluice
