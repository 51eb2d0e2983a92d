#include "learner/adam.h"

#include <cmath>

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(Adam, FollowsTheFormulaInDouble) {
  const OptimizerConfig config{OptimizerConfig::Rule::adam, 0.02, 0.8, 0.97,
                               1e-3};  // an ε large enough to see
  constexpr std::size_t kCount = 19;   // blocks and a tail
  std::vector<float> w(kCount), m(kCount), v(kCount), g(kCount);
  std::vector<double> wd(kCount), md(kCount), vd(kCount);
  for (std::size_t i = 0; i < kCount; ++i) wd[i] = w[i] = static_cast<float>(i) / 16 - 0.5F;
  // Steps 5 to 8: a row that is new starts with the learner's bias correction, not its own.
  for (std::uint64_t step = 5; step <= 8; ++step) {
    for (std::size_t i = 0; i < kCount; ++i) {
      g[i] = std::sin(static_cast<float>(i * step)) / static_cast<float>(step);
      md[i] = config.beta1 * md[i] + (1 - config.beta1) * g[i];
      vd[i] = config.beta2 * vd[i] + (1 - config.beta2) * g[i] * g[i];
      const auto t = static_cast<double>(step);
      const double m_hat = md[i] / (1 - std::pow(config.beta1, t));
      const double v_hat = vd[i] / (1 - std::pow(config.beta2, t));
      wd[i] -= config.learning_rate * m_hat / (std::sqrt(v_hat) + config.epsilon);
    }
    AdamStep(config, step).apply(kCount, g.data(), w.data(), m.data(), v.data());
  }
  for (std::size_t i = 0; i < kCount; ++i) {
    EXPECT_NEAR(w[i], wd[i], 1e-6) << i;
    EXPECT_NEAR(m[i], md[i], 1e-7) << i;
    EXPECT_NEAR(v[i], vd[i], 1e-7) << i;
  }
}

TEST(Adam, TheSameBitsWhereverAnElementLies) {
  const AdamStep adam(OptimizerConfig{}, 3);
  constexpr std::size_t kCount = 29;
  std::vector<float> g(kCount), w(kCount), m(kCount), v(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    g[i] = std::cos(static_cast<float>(i));
    m[i] = std::sin(static_cast<float>(i));
    v[i] = 0.1F + m[i] * m[i];
  }
  auto w1 = w, m1 = m, v1 = v;
  adam.apply(kCount, g.data(), w.data(), m.data(), v.data());
  for (std::size_t i = 0; i < kCount; ++i) adam.apply(1, &g[i], &w1[i], &m1[i], &v1[i]);
  EXPECT_EQ(w, w1);
  EXPECT_EQ(m, m1);
  EXPECT_EQ(v, v1);
}

TEST(Adam, IntegerPower) {
  EXPECT_EQ(integer_power(0.9, 0), 1.0);
  EXPECT_EQ(integer_power(2, 62), 0x1p62);
  for (const std::uint64_t n : {1ULL, 2ULL, 7ULL, 1000ULL, 123'456ULL}) {
    EXPECT_NEAR(integer_power(0.9999, n), std::pow(0.9999, static_cast<double>(n)), 1e-13) << n;
  }
}

}  // namespace
}  // namespace sluice
