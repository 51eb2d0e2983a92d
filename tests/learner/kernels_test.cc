// Every implementation of the products against sums that are written down one by one.
#include "learner/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "base/lanes.h"

namespace sluice {
namespace {

// Values of many sizes, with exact zeros of both signs.
std::vector<float> random_floats(std::size_t count, std::mt19937& random) {
  std::vector<float> values(count);
  for (float& value : values) {
    const auto scale = static_cast<int>(random() % 24) - 16;
    value = std::ldexp(static_cast<float>(random() % 4001) - 2000, scale);
    if (random() % 16 == 0) value = random() % 2 == 0 ? 0.0F : -0.0F;
  }
  return values;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<float> expected_product(const F32Product& p, const std::vector<float>& c) {
  std::vector<float> expected = c;
  for (std::size_t i = 0; i < p.m; ++i) {
    for (std::size_t j = 0; j < p.n; ++j) {
      float sum = p.start.from == nullptr ? 0.0F : p.start.from[i * p.start.row + j];
      for (std::size_t k = 0; k < p.k; ++k) {
        sum = std::fma(p.a[i * p.a_row + k * p.a_column], p.b[k * p.b_row + j], sum);
      }
      expected[i * p.c_row + j] = p.finish == Finish::relu && sum <= 0 ? 0.0F : sum;
    }
  }
  return expected;
}

RC_GTEST_PROP(KernelsProperty, F32IsOneChainOfFusedAdditions, ()) {
  const FlushDenormals flush;
  std::mt19937 random(*rc::gen::arbitrary<std::uint32_t>());
  const auto m = *rc::gen::inRange<std::size_t>(1, 40);
  const auto n = *rc::gen::inRange<std::size_t>(1, 130);
  const auto k = *rc::gen::inRange<std::size_t>(0, 460);
  const bool is_transposed = *rc::gen::arbitrary<bool>();
  const std::vector<float> a = random_floats(m * k + 1, random);
  const std::vector<float> b = random_floats(k * (n + 3) + 1, random);
  const std::vector<float> row = random_floats(n, random);
  const std::vector<float> before = random_floats(m * (n + 5), random);
  const auto start = *rc::gen::inRange(0, 3);
  const auto finish = *rc::gen::element(Finish::none, Finish::relu);
  for (const Kernels* const kernels : usable_kernels()) {
    std::vector<float> c = before;
    F32Product product = {m,
                          n,
                          k,
                          a.data(),
                          is_transposed ? 1 : k,
                          is_transposed ? m : 1,
                          b.data(),
                          n + 3,
                          c.data(),
                          n + 5,
                          {},
                          finish};
    if (start == 1) product.start = {row.data(), 0};
    if (start == 2) product.start = {c.data(), n + 5};
    const std::vector<float> expected = expected_product(product, c);
    kernels->multiply(product);
    RC_ASSERT(same_bits(c, expected));
  }
}

TEST(Kernels, ReluShowsWhatIsNotANumber) {
  for (const Kernels* const kernels : usable_kernels()) {
    const float a = std::numeric_limits<float>::quiet_NaN();
    const float b = 1;
    float c = 5;
    kernels->multiply({1, 1, 1, &a, 1, 1, &b, 1, &c, 1, {}, Finish::relu});
    EXPECT_TRUE(std::isnan(c)) << kernels->name;
  }
}

float widen(Bf16 x) {
  const std::uint32_t bits = std::uint32_t{x} << 16;
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// By the definition: the nearest of the two neighbours, the even one where both are as near.
Bf16 round_to_bf16(float x) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7f800000U) == 0) return static_cast<Bf16>(bits >> 16 & 0x8000U);
  const auto below = static_cast<Bf16>(bits >> 16);
  const auto above = static_cast<Bf16>(below + 1);
  const double from_below = std::abs(double{x} - widen(below));
  const double from_above = std::abs(double{widen(above)} - x);
  if (from_below != from_above) return from_below < from_above ? below : above;
  return below % 2 == 0 ? below : above;
}

struct Blocks {
  std::size_t m, n, k;  // of blocks
  std::vector<Bf16> left, right, left_of_transpose, right_of_transpose;
};

// a [m, k] and b [k, n] as operands, each made from the matrix and from its transpose.
Blocks pack(const Kernels& kernels, const std::vector<float>& a, const std::vector<float>& b,
            std::size_t m, std::size_t n, std::size_t k) {
  std::vector<float> a_transposed(a.size()), b_transposed(b.size());
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t l = 0; l < k; ++l) a_transposed[l * m + i] = a[i * k + l];
  }
  for (std::size_t l = 0; l < k; ++l) {
    for (std::size_t j = 0; j < n; ++j) b_transposed[j * k + l] = b[l * n + j];
  }
  Blocks blocks = {(m + 15) / 16, (n + 15) / 16, (k + 31) / 32, {}, {}, {}, {}};
  const std::size_t step = blocks.k * kBlockElements;
  blocks.left.assign(blocks.m * step, 0x7fc0);
  blocks.left_of_transpose = blocks.left;
  blocks.right.assign(blocks.n * step, 0x7fc0);
  blocks.right_of_transpose = blocks.right;
  kernels.pack_left({a.data(), k, m, k, blocks.left.data(), step});
  kernels.pack_left_transposed(
      {a_transposed.data(), m, k, m, blocks.left_of_transpose.data(), step});
  kernels.pack_right({b.data(), n, k, n, blocks.right.data(), step});
  kernels.pack_right_transposed(
      {b_transposed.data(), k, n, k, blocks.right_of_transpose.data(), step});
  return blocks;
}

RC_GTEST_PROP(KernelsProperty, Bf16OperandsAreTheRoundedValuesInBlocks, ()) {
  std::mt19937 random(*rc::gen::arbitrary<std::uint32_t>());
  const auto m = *rc::gen::inRange<std::size_t>(1, 70);
  const auto n = *rc::gen::inRange<std::size_t>(1, 70);
  const auto k = *rc::gen::inRange<std::size_t>(1, 100);
  const std::vector<float> a = random_floats(m * k, random);
  const std::vector<float> b = random_floats(k * n, random);
  for (const Kernels* const kernels : usable_kernels()) {
    const Blocks blocks = pack(*kernels, a, b, m, n, k);
    RC_ASSERT(blocks.left == blocks.left_of_transpose);
    RC_ASSERT(blocks.right == blocks.right_of_transpose);
    for (std::size_t i = 0; i < 16 * blocks.m; ++i) {
      for (std::size_t l = 0; l < 32 * blocks.k; ++l) {
        const Bf16 wanted = i < m && l < k ? round_to_bf16(a[i * k + l]) : Bf16{0};
        RC_ASSERT(
            blocks.left[(i / 16 * blocks.k + l / 32) * kBlockElements + i % 16 * 32 + l % 32] ==
            wanted);
      }
    }
    for (std::size_t l = 0; l < 32 * blocks.k; ++l) {
      for (std::size_t j = 0; j < 16 * blocks.n; ++j) {
        const Bf16 wanted = l < k && j < n ? round_to_bf16(b[l * n + j]) : Bf16{0};
        RC_ASSERT(blocks.right[(j / 16 * blocks.k + l / 32) * kBlockElements + l % 32 / 2 * 32 +
                               2 * (j % 16) + l % 2] == wanted);
      }
    }
  }
}

// The header's chain, element by element.
RC_GTEST_PROP(KernelsProperty, Bf16IsEvenAndOddChainsOverBlocksOf32, ()) {
  const FlushDenormals flush;
  std::mt19937 random(*rc::gen::arbitrary<std::uint32_t>());
  const auto m = *rc::gen::inRange<std::size_t>(1, 70);
  const auto n = *rc::gen::inRange<std::size_t>(1, 70);
  const auto k = *rc::gen::inRange<std::size_t>(1, 200);
  const std::vector<float> a = random_floats(m * k, random);
  const std::vector<float> b = random_floats(k * n, random);
  const bool has_start = *rc::gen::arbitrary<bool>();
  for (const Kernels* const kernels : usable_kernels()) {
    const Blocks blocks = pack(*kernels, a, b, m, n, k);
    const std::size_t c_row = 16 * blocks.n + 7;
    std::vector<float> c = random_floats(16 * blocks.m * c_row, random);
    const std::vector<float> before = c;
    const std::size_t step = blocks.k * kBlockElements;
    kernels->multiply_bf16({.m_blocks = blocks.m,
                            .n_blocks = blocks.n,
                            .k_blocks = blocks.k,
                            .a = blocks.left.data(),
                            .a_step = step,
                            .b = blocks.right.data(),
                            .b_step = step,
                            .c = c.data(),
                            .c_row = c_row,
                            .start = has_start ? Start{c.data(), c_row} : Start{}});
    for (std::size_t i = 0; i < m; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        float sum = has_start ? before[i * c_row + j] : 0.0F;
        for (std::size_t block = 0; block < k; block += 32) {
          float part[2] = {0, 0};
          for (std::size_t l = block; l < std::min(block + 32, k); ++l) {
            part[l % 2] = std::fma(widen(round_to_bf16(a[i * k + l])),
                                   widen(round_to_bf16(b[l * n + j])), part[l % 2]);
          }
          sum += part[0] + part[1];
        }
        RC_ASSERT(std::memcmp(&sum, &c[i * c_row + j], sizeof sum) == 0);
      }
    }
  }
}

TEST(Kernels, RoundingOfEdgeValues) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> values = {kInfinity, -kInfinity,  1e-40F,      -1e-40F,
                                     3.4e38F,   1.00390625F, 1.01171875F, 0x1p-126F};
  const std::vector<Bf16> wanted = {0x7f80, 0xff80, 0x0000, 0x8000, 0x7f80, 0x3f80, 0x3f82, 0x0080};
  for (const Kernels* const kernels : usable_kernels()) {
    std::vector<Bf16> out(kBlockElements);
    kernels->pack_left({values.data(), values.size(), 1, values.size(), out.data(), 0});
    EXPECT_EQ(std::vector<Bf16>(out.begin(), out.begin() + 8), wanted) << kernels->name;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    kernels->pack_left({&nan, 1, 1, 1, out.data(), 0});
    EXPECT_TRUE(std::isnan(widen(out[0]))) << kernels->name;
  }
}

RC_GTEST_PROP(KernelsProperty, AdamIsItsFormulaElementByElement, ()) {
  const FlushDenormals flush;
  std::mt19937 random(*rc::gen::arbitrary<std::uint32_t>());
  const auto n = *rc::gen::inRange<std::size_t>(1, 60);
  const AdamFactors f = {0.9F, 0.1F, 0.999F, 0.001F, 0.003F, 7.5F, 1e-3F};
  const std::vector<float> g = random_floats(n, random);
  std::vector<float> w = random_floats(n + 1, random), m = random_floats(n + 1, random),
                     v = random_floats(n + 1, random);
  for (float& x : v) x = std::abs(x);
  for (const Kernels* const kernels : usable_kernels()) {
    auto new_w = w, new_m = m, new_v = v;
    RC_ASSERT(kernels->adam(f, n, g.data(), new_w.data(), new_m.data(), new_v.data()));
    for (std::size_t i = 0; i < n; ++i) {
      const float one_m = f.beta1 * m[i] + f.one_minus_beta1 * g[i];
      const float one_v = f.beta2 * v[i] + f.one_minus_beta2 * (g[i] * g[i]);
      RC_ASSERT(new_m[i] == one_m);
      RC_ASSERT(new_v[i] == one_v);
      RC_ASSERT(new_w[i] == w[i] - f.rate * one_m / (std::sqrt(one_v * f.v_factor) + f.epsilon));
    }
    RC_ASSERT(new_w[n] == w[n] && new_m[n] == m[n] && new_v[n] == v[n]);
    // One that is not finite is seen wherever it is.
    const auto at = *rc::gen::inRange<std::size_t>(0, n);
    auto& array = **rc::gen::element(&new_w, &new_m);
    array[at] = *rc::gen::element(std::numeric_limits<float>::infinity(),
                                  -std::numeric_limits<float>::quiet_NaN());
    RC_ASSERT(!kernels->adam(f, n, g.data(), new_w.data(), new_m.data(), new_v.data()));
  }
}

RC_GTEST_PROP(KernelsProperty, UsesAreAddedInTheirOrder, ()) {
  const FlushDenormals flush;
  std::mt19937 random(*rc::gen::arbitrary<std::uint32_t>());
  const auto n = *rc::gen::inRange<std::size_t>(1, 110);
  const std::vector<float> x = random_floats(500, random);
  std::vector<RowUse> uses(*rc::gen::inRange<std::size_t>(0, 9));
  for (RowUse& use : uses) {
    use = {static_cast<std::uint32_t>(random() % (x.size() - n)),
           static_cast<float>(random() % 100) / 7};
  }
  std::vector<float> wanted(n, 0.0F);
  for (const RowUse& use : uses) {
    for (std::size_t i = 0; i < n; ++i) wanted[i] += use.weight * x[use.at + i];
  }
  for (const Kernels* const kernels : usable_kernels()) {
    std::vector<float> out((n + kBlockRows - 1) / kBlockRows * kBlockRows + 1, 5.0F);
    kernels->sum_uses(uses, n, x.data(), out.data());
    RC_ASSERT(out.back() == 5.0F);
    out.resize(n);
    RC_ASSERT(out == wanted);
  }
}

RC_GTEST_PROP(KernelsProperty, LoopsOverElementsAreTheirFormulas, ()) {
  const FlushDenormals flush;
  std::mt19937 random(*rc::gen::arbitrary<std::uint32_t>());
  const auto n = *rc::gen::inRange<std::size_t>(1, 70);
  const std::vector<float> x = random_floats(n, random), h = random_floats(n, random);
  const std::vector<float> before = random_floats(n + 1, random);
  for (const Kernels* const kernels : usable_kernels()) {
    std::vector<float> added = before, cut = before, masked = before, scaled = before;
    kernels->add_scaled(n, 0.75F, x.data(), added.data());
    kernels->relu(n, cut.data());
    kernels->mask(n, h.data(), masked.data());
    kernels->scale_mask(n, 0.75F, x.data(), h.data(), scaled.data());
    for (std::size_t i = 0; i < n; ++i) {
      RC_ASSERT(added[i] == before[i] + 0.75F * x[i]);
      RC_ASSERT(cut[i] == std::max(before[i], 0.0F));
      RC_ASSERT(masked[i] == (h[i] > 0 ? before[i] : 0.0F));
      RC_ASSERT(scaled[i] == (h[i] > 0 ? 0.75F * x[i] : 0.0F));
    }
    for (const auto* const values : {&added, &cut, &masked, &scaled}) {
      RC_ASSERT((*values)[n] == before[n]);
    }
  }
}

RC_GTEST_PROP(KernelsProperty, RowsAreAddedTermByTerm, ()) {
  const FlushDenormals flush;
  std::mt19937 random(*rc::gen::arbitrary<std::uint32_t>());
  const auto n = *rc::gen::inRange<std::size_t>(1, 40);
  const std::vector<float> rows = random_floats(20 * n, random);
  const std::vector<float> before = random_floats(6 * n, random);
  std::vector<RowTerm> terms(*rc::gen::inRange<std::size_t>(0, 30));
  std::vector<float> wanted = before;
  for (RowTerm& term : terms) {
    term = {rows.data() + random() % 20 * n, static_cast<std::uint32_t>(random() % 6 * n),
            static_cast<float>(random() % 100) / 7};
    for (std::size_t i = 0; i < n; ++i) wanted[term.at + i] += term.weight * term.row[i];
  }
  for (const Kernels* const kernels : usable_kernels()) {
    std::vector<float> x = before;
    kernels->add_rows(terms, n, x.data());
    RC_ASSERT(x == wanted);
  }
}

}  // namespace
}  // namespace sluice
