#include "learner/towers.h"

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <random>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "learner/esmm_loss.h"

namespace sluice {
namespace {

std::vector<float> random_floats(std::size_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values(count);
  for (float& value : values) {
    value = (static_cast<float>(random() % 20'001) - 10'000) / 10'000;
  }
  return values;
}

// The logits of samples [0, n) of x ([inputs, n]), which may begin at any column of the tiles.
std::array<std::vector<float>, kTowers> logits_of(const Towers& towers, const float* x,
                                                  std::size_t n, std::size_t shift = 0,
                                                  std::size_t tiles_more = 0) {
  const std::size_t columns = padded_to_tiles(shift + n) + tiles_more * kTile;
  std::vector<float> padded = random_floats(towers.inputs() * columns, 99);  // foreign neighbours
  std::copy_n(x, towers.inputs() * n, padded.data() + shift * towers.inputs());
  std::vector<float> a(columns), b(columns);
  TowerWorkspace workspace;
  towers.forward(padded.data(), columns, workspace, std::array{a.data(), b.data()});
  const auto cut = [&](const std::vector<float>& all) {
    return std::vector<float>(all.begin() + static_cast<std::ptrdiff_t>(shift),
                              all.begin() + static_cast<std::ptrdiff_t>(shift + n));
  };
  return {cut(a), cut(b)};
}

bool same_bits(float a, float b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

void check_same_bits(const Towers& towers, std::size_t samples, std::uint32_t seed,
                     const std::vector<std::size_t>& shifts, std::size_t tiles_more) {
  const std::size_t inputs = towers.inputs();
  const std::vector<float> x = random_floats(inputs * samples, seed);
  const auto together = logits_of(towers, x.data(), samples);
  for (std::size_t s = 0; s < samples; ++s) {
    const std::size_t shift = shifts[s % shifts.size()];
    const auto alone = logits_of(towers, x.data() + s * inputs, 1, shift, tiles_more);
    RC_ASSERT(same_bits(alone[0][0], together[0][s]));
    RC_ASSERT(same_bits(alone[1][0], together[1][s]));
  }
}

RC_GTEST_PROP(TowersProperty, ASamplesLogitsAreTheSameBitsInAnyBatch, ()) {
  const auto inputs = *rc::gen::inRange<std::size_t>(1, 80);
  const auto hidden = *rc::gen::container<std::vector<std::uint64_t>>(
      *rc::gen::inRange<std::size_t>(0, 4), rc::gen::inRange<std::uint64_t>(1, 60));
  const Towers towers(inputs, hidden, *rc::gen::arbitrary<std::uint64_t>());
  const auto samples = *rc::gen::inRange<std::size_t>(1, 100);
  const auto shifts =
      *rc::gen::container<std::vector<std::size_t>>(3, rc::gen::inRange<std::size_t>(0, 70));
  check_same_bits(towers, samples, *rc::gen::arbitrary<std::uint32_t>(), shifts,
                  *rc::gen::inRange<std::size_t>(0, 3));
}

// The sizes in use: sums over 360 and more inputs are cut into several runs inside a product.
RC_GTEST_PROP(TowersProperty, RealSizesGiveTheSameBitsInAnyBatch, ()) {
  using Widths = std::vector<std::uint64_t>;
  const auto inputs = *rc::gen::element<std::size_t>(360, 468, 611);
  const auto hidden =
      *rc::gen::elementOf(std::vector<Widths>{{200, 80}, {360, 200, 80}, {201, 83}, {1, 300}});
  const Towers towers(inputs, hidden, 1);
  const auto samples = *rc::gen::inRange<std::size_t>(1, 140);
  const auto shift = *rc::gen::inRange<std::size_t>(0, 200);
  const std::vector<float> x = random_floats(inputs * samples, 5);
  const auto together = logits_of(towers, x.data(), samples);
  const auto shifted = logits_of(towers, x.data(), samples, shift);
  const auto s = *rc::gen::inRange<std::size_t>(0, samples);
  const auto alone = logits_of(towers, x.data() + s * inputs, 1);
  for (std::size_t t = 0; t < kTowers; ++t) {
    RC_ASSERT(std::memcmp(together[t].data(), shifted[t].data(), samples * sizeof(float)) == 0);
    RC_ASSERT(same_bits(together[t][s], alone[t][0]));
  }
}

// The network in double, from named arrays.
class DoubleNetwork {
 public:
  DoubleNetwork(const Towers& towers, std::size_t layers) : layers_(layers) {
    for (const Towers::Array& array : towers.arrays()) {
      const std::vector<float> values = Towers::read(array, towers.parameters());
      arrays_[array.name] = {values.begin(), values.end()};
    }
  }

  std::map<std::string, std::vector<double>>& arrays() { return arrays_; }

  double logit(Tower tower, std::vector<double> h) const {
    for (std::size_t l = 0; l < layers_; ++l) {
      const std::string name = std::string("tower.") +
                               kTowerNames[static_cast<std::size_t>(tower)] + "." +
                               std::to_string(l);
      const std::vector<double>& weight = arrays_.at(name + ".weight");
      std::vector<double> out = arrays_.at(name + ".bias");
      for (std::size_t o = 0; o < out.size(); ++o) {
        for (std::size_t i = 0; i < h.size(); ++i) out[o] += weight[o * h.size() + i] * h[i];
        if (l + 1 < layers_) out[o] = std::max(out[o], 0.0);
      }
      h = out;
    }
    return h[0];
  }

 private:
  std::size_t layers_;
  std::map<std::string, std::vector<double>> arrays_;
};

void check_gradients(std::size_t inputs, const std::vector<std::uint64_t>& hidden) {
  constexpr std::size_t kSamples = 12;
  const std::array<FinalLabels, 4> labels = {{{false, true, false, true},
                                              {true, true, true, true},
                                              {true, true, false, false},
                                              {true, false, false, true}}};
  Towers towers(inputs, hidden, 5);
  const std::size_t columns = padded_to_tiles(kSamples);
  std::vector<float> x(inputs * columns);
  const std::vector<float> values = random_floats(inputs * kSamples, 3);
  std::copy(values.begin(), values.end(), x.begin());
  DoubleNetwork network(towers, hidden.size() + 1);
  std::vector<double> x_double(x.begin(), x.end());
  const auto loss = [&] {
    double sum = 0;
    for (std::size_t s = 0; s < kSamples; ++s) {
      const auto* const begin = x_double.data() + s * inputs;
      const std::vector<double> input(begin, begin + inputs);
      sum += esmm_loss(network.logit(Tower::ctr, input), network.logit(Tower::cvr, input),
                       labels[s % labels.size()])
                 .loss;
    }
    return sum / kSamples;
  };

  std::vector<float> a(columns), b(columns), a_gradients(columns), b_gradients(columns);
  TowerWorkspace workspace;
  towers.forward(x.data(), columns, workspace, std::array{a.data(), b.data()});
  for (std::size_t s = 0; s < kSamples; ++s) {
    const EsmmLoss at = esmm_loss(a[s], b[s], labels[s % labels.size()]);
    a_gradients[s] = static_cast<float>(at.ctr_gradient / kSamples);
    b_gradients[s] = static_cast<float>(at.cvr_gradient / kSamples);
  }
  // Overwritten, not added to.
  std::vector<float> gradients(towers.parameters().size(), 1e30F);
  std::vector<float> x_gradients(inputs * columns, 1e30F);
  towers.backward(x.data(), columns, workspace,
                  std::array<const float*, kTowers>{a_gradients.data(), b_gradients.data()},
                  gradients, x_gradients.data());

  const auto central_difference = [&](double& at) {
    constexpr double kStep = 1e-6;
    const double middle = at;
    at = middle + kStep;
    const double above = loss();
    at = middle - kStep;
    const double below = loss();
    at = middle;
    return (above - below) / (2 * kStep);
  };
  for (const Towers::Array& array : towers.arrays()) {
    const std::vector<float> computed = Towers::read(array, gradients);
    std::vector<double>& parameters = network.arrays().at(array.name);
    for (std::size_t k = 0; k < parameters.size(); ++k) {
      EXPECT_NEAR(computed[k], central_difference(parameters[k]), 2e-6) << array.name << " " << k;
    }
  }
  for (std::size_t k = 0; k < x_double.size(); ++k) {
    const double wanted = k < inputs * kSamples ? central_difference(x_double[k]) : 0;
    EXPECT_NEAR(x_gradients[k], wanted, 2e-6) << "x " << k;
  }
}

TEST(Towers, GradientsAreCentralDifferences) {
  check_gradients(7, {9, 5});
  check_gradients(13, {6});
  check_gradients(4, {8, 7, 6});
  check_gradients(5, {});
}

// A ReLU that made 0 of it would hide a model that has diverged.
TEST(Towers, WhatIsNotANumberReachesTheLogits) {
  const Towers towers(7, {9, 5}, 5);
  std::vector<float> x = random_floats(7 * 3, 1);
  x[7 + 2] = std::numeric_limits<float>::quiet_NaN();  // of the second sample
  for (const std::vector<float>& logits : logits_of(towers, x.data(), 3)) {
    EXPECT_TRUE(std::isfinite(logits[0]));
    EXPECT_TRUE(std::isnan(logits[1]));
    EXPECT_TRUE(std::isfinite(logits[2]));
  }
}

TEST(Towers, ArraysCoverTheParametersOnce) {
  Towers towers(7, {9, 5}, 5);
  std::vector<float> seen(towers.parameters().size(), 0.0F);
  for (const Towers::Array& array : towers.arrays()) {
    std::vector<float> counts = Towers::read(array, seen);
    for (float& count : counts) count += 1;
    Towers::write(array, counts, seen);
  }
  EXPECT_EQ(seen, std::vector<float>(seen.size(), 1.0F));
  EXPECT_EQ(towers.arrays().size(), 2U * 3 * 2);
  EXPECT_EQ(towers.arrays()[0].shape(), (std::vector<std::uint64_t>{9, 7}));
  EXPECT_EQ(towers.arrays()[1].shape(), (std::vector<std::uint64_t>{9}));
}

}  // namespace
}  // namespace sluice
