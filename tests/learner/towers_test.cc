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
#include "learner/tower_pass.h"

namespace sluice {
namespace {

using Precision = ModelConfig::Precision;

std::vector<float> random_floats(std::size_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values(count);
  for (float& value : values) {
    value = (static_cast<float>(random() % 20'001) - 10'000) / 10'000;
  }
  return values;
}

// Fills the inputs of the lane [begin, end) from x, [samples, inputs.own].
void fill_lane(TowerPass& pass, std::size_t inputs, const float* x, std::size_t begin,
               std::size_t end, std::size_t thread) {
  float* const lane = pass.input(begin, thread);
  for (std::size_t s = begin; s < end; ++s) {
    std::copy_n(x + s * inputs, inputs, lane + (s - begin) * pass.input_row());
  }
}

// The logits of samples [0, n) of x ([n, inputs]), `shift` foreign samples before and `more` after.
std::array<std::vector<float>, kTowers> logits_of(const Towers& towers, const float* x,
                                                  std::size_t n, std::size_t shift = 0,
                                                  std::size_t more = 0, std::size_t lane = 64) {
  const std::size_t inputs = towers.inputs().own;
  const std::size_t samples = shift + n + more;
  std::vector<float> all = random_floats(inputs * samples, 99);
  std::copy_n(x, inputs * n, all.data() + shift * inputs);
  TowerPass pass(towers, 1);
  pass.begin(samples, 0, {}, lane);
  for (std::size_t begin = 0; begin < samples; begin += lane) {
    const std::size_t end = std::min(begin + lane, samples);
    fill_lane(pass, inputs, all.data(), begin, end, 0);
    pass.forward(begin, end, 0);
  }
  const auto cut = [&](Tower tower) {
    return std::vector<float>(pass.logits(tower) + shift, pass.logits(tower) + shift + n);
  };
  return {cut(Tower::ctr), cut(Tower::cvr)};
}

bool same_bits(float a, float b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

const Kernels& any_kernels() {
  return *usable_kernels()[*rc::gen::inRange<std::size_t>(0, usable_kernels().size())];
}

RC_GTEST_PROP(TowersProperty, ASamplesLogitsAreTheSameBitsInAnyBatchAndOnAnyKernels, ()) {
  const auto inputs = *rc::gen::inRange<std::size_t>(1, 80);
  const auto hidden = *rc::gen::container<std::vector<std::uint64_t>>(
      *rc::gen::inRange<std::size_t>(0, 4), rc::gen::inRange<std::uint64_t>(1, 60));
  const auto seed = *rc::gen::arbitrary<std::uint64_t>();
  const auto precision = *rc::gen::element(Precision::f32, Precision::bf16);
  const Towers towers({0, inputs}, hidden, seed, precision);
  const Towers others({0, inputs}, hidden, seed, precision, any_kernels());
  const auto samples = *rc::gen::inRange<std::size_t>(1, 100);
  const std::vector<float> x =
      random_floats(inputs * samples, *rc::gen::arbitrary<std::uint32_t>());
  const auto together = logits_of(towers, x.data(), samples);
  for (std::size_t s = 0; s < samples; ++s) {
    const auto alone =
        logits_of(others, x.data() + s * inputs, 1, *rc::gen::inRange<std::size_t>(0, 70),
                  *rc::gen::inRange<std::size_t>(0, 70), 32);
    RC_ASSERT(same_bits(alone[0][0], together[0][s]));
    RC_ASSERT(same_bits(alone[1][0], together[1][s]));
  }
}

// The sizes in use: sums over 360 and more inputs are cut into several runs inside a product.
RC_GTEST_PROP(TowersProperty, RealSizesGiveTheSameBitsInAnyBatch, ()) {
  using Widths = std::vector<std::uint64_t>;
  const auto inputs = *rc::gen::element<std::size_t>(360, 468, 611);
  const auto hidden =
      *rc::gen::elementOf(std::vector<Widths>{{200, 80}, {360, 200, 80}, {201, 83}, {1, 300}});
  const Towers towers({0, inputs}, hidden, 1, *rc::gen::element(Precision::f32, Precision::bf16));
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

// Laid out as the parameters; every one of them once.
std::vector<float> weight_gradients(const Towers& towers, TowerPass& pass) {
  std::vector<float> gradients(towers.parameters().size(), 1e30F);
  for (const TowerPass::Piece& piece : pass.pieces()) {
    std::size_t row = 0;
    const float* const gradient = pass.weight_gradient(piece, 0, row);
    for (std::size_t r = 0; r < piece.rows(); ++r) {
      for (std::size_t k = 0; k < piece.row; ++k) {
        float& at = gradients[piece.offset + r * piece.row + k];
        EXPECT_EQ(at, 1e30F);
        at = gradient[r * row + k];
      }
    }
  }
  return gradients;
}

// A batch of samples, some of which share a context; labels in turn.
struct TestBatch {
  static constexpr std::array<FinalLabels, 4> kLabels = {{{false, true, false, true},
                                                          {true, true, true, true},
                                                          {true, true, false, false},
                                                          {true, false, false, true}}};
  Towers::Inputs inputs;
  std::size_t count;
  double divisor;                              // of the loss: the samples
  std::vector<std::uint32_t> context_of = {};  // by sample
  std::vector<float> own = {}, shared = {};    // [samples, own], [contexts, context]
  std::vector<std::uint32_t> samples = {}, begins = {};

  TestBatch(Towers::Inputs its_inputs, std::size_t contexts, std::size_t its_count = 12)
      : inputs(its_inputs), count(its_count), divisor(static_cast<double>(its_count)) {
    own = random_floats(inputs.own * count, 3);
    shared = random_floats(inputs.context * contexts, 4);
    if (inputs.context == 0) return;
    for (std::uint32_t s = 0; s < count; ++s) {
      context_of.push_back(static_cast<std::uint32_t>(s * 5 % contexts));
    }
    list_samples(contexts);
  }
  void list_samples(std::size_t contexts) {
    samples.clear();
    begins.assign(1, 0);
    for (std::uint32_t c = 0; c < contexts; ++c) {
      for (std::uint32_t s = 0; s < count; ++s) {
        if (context_of[s] == c) samples.push_back(s);
      }
      begins.push_back(static_cast<std::uint32_t>(samples.size()));
    }
  }
  // Sample s as a batch of its own, its loss divided as here.
  TestBatch alone(std::size_t s) const {
    TestBatch one(inputs, 1, 1);
    one.divisor = divisor;
    one.first_label = s;
    std::copy_n(own.data() + s * inputs.own, inputs.own, one.own.data());
    if (inputs.context == 0) return one;
    std::copy_n(shared.data() + context_of[s] * inputs.context, inputs.context, one.shared.data());
    return one;
  }
  std::size_t first_label = 0;
  std::size_t contexts() const { return begins.empty() ? 0 : begins.size() - 1; }
  FinalLabels labels(std::size_t s) const { return kLabels[(first_label + s) % kLabels.size()]; }

  void train(TowerPass& pass, std::size_t lane = kLaneUnit) const {
    pass.begin(count, contexts(), context_of, lane);
    for (std::size_t begin = 0; begin < contexts(); begin += lane) {
      const std::size_t end = std::min(begin + lane, contexts());
      for (std::size_t c = begin; c < end; ++c) {
        std::copy_n(shared.data() + c * inputs.context, inputs.context,
                    pass.context_input(begin, 0) + (c - begin) * pass.context_row());
      }
      pass.forward_contexts(begin, end, 0);
    }
    for (std::size_t begin = 0; begin < count; begin += lane) {
      const std::size_t end = std::min(begin + lane, count);
      fill_lane(pass, inputs.own, own.data(), begin, end, 0);
      pass.forward(begin, end, 0);
      for (std::size_t s = begin; s < end; ++s) {
        const EsmmLoss at =
            esmm_loss(pass.logits(Tower::ctr)[s], pass.logits(Tower::cvr)[s], labels(s));
        pass.logit_gradients(Tower::ctr)[s] = static_cast<float>(at.ctr_gradient / divisor);
        pass.logit_gradients(Tower::cvr)[s] = static_cast<float>(at.cvr_gradient / divisor);
      }
      pass.backward(begin, end, 0);
    }
    for (std::size_t begin = 0; begin < contexts(); begin += lane) {
      pass.backward_contexts(begin, std::min(begin + lane, contexts()), 0, samples, begins);
    }
  }
};

void check_gradients(Towers::Inputs inputs, const std::vector<std::uint64_t>& hidden,
                     std::size_t contexts = 0) {
  Towers towers(inputs, hidden, 5);
  const TestBatch batch(inputs, contexts);
  TowerPass pass(towers, 1);
  batch.train(pass);
  const std::vector<float> gradients = weight_gradients(towers, pass);

  DoubleNetwork network(towers, hidden.size() + 1);
  std::vector<double> own(batch.own.begin(), batch.own.end());
  std::vector<double> shared(batch.shared.begin(), batch.shared.end());
  const auto loss = [&] {
    double sum = 0;
    for (std::size_t s = 0; s < batch.count; ++s) {
      std::vector<double> input;
      if (contexts > 0) {
        const double* const row = shared.data() + batch.context_of[s] * inputs.context;
        input.assign(row, row + inputs.context);
      }
      input.insert(input.end(), own.data() + s * inputs.own, own.data() + (s + 1) * inputs.own);
      sum += esmm_loss(network.logit(Tower::ctr, input), network.logit(Tower::cvr, input),
                       batch.labels(s))
                 .loss;
    }
    return sum / batch.divisor;
  };
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
  for (std::size_t k = 0; k < own.size(); ++k) {
    const float computed =
        pass.input_gradients()[k / inputs.own * pass.input_row() + k % inputs.own];
    EXPECT_NEAR(computed, central_difference(own[k]), 2e-6) << "own " << k;
  }
  for (std::size_t k = 0; k < shared.size(); ++k) {
    const float computed =
        pass.input_gradients()[pass.first_context_gradient() +
                               k / inputs.context * pass.context_row() + k % inputs.context];
    EXPECT_NEAR(computed, central_difference(shared[k]), 2e-6) << "context " << k;
  }
}

TEST(Towers, GradientsAreCentralDifferences) {
  check_gradients({0, 7}, {9, 5});
  check_gradients({0, 13}, {6});
  check_gradients({0, 4}, {8, 7, 6});
  check_gradients({0, 5}, {});
}

TEST(Towers, GradientsWithASharedContextAreCentralDifferences) {
  check_gradients({6, 4}, {9, 5}, 5);
  check_gradients({3, 1}, {6}, 1);
  check_gradients({2, 3}, {8, 7, 6}, 12);
  check_gradients({6, 0}, {9, 5}, 5);  // every feature is of the group
}

// Who shares a context with whom changes no bit of a sample's logits.
TEST(Towers, ASharedContextGivesTheLogitsOfOneOfItsOwn) {
  for (const Precision precision : {Precision::f32, Precision::bf16}) {
    const Towers towers({70, 45}, {33, 21}, 5, precision);
    const TestBatch shared({70, 45}, 3);
    TestBatch apart({70, 45}, shared.count);
    for (std::size_t s = 0; s < shared.count; ++s) {
      std::copy_n(shared.shared.data() + shared.context_of[s] * 70, 70,
                  apart.shared.data() + apart.context_of[s] * 70);
    }
    TowerPass one(towers, 1), other(towers, 1);
    shared.train(one);
    apart.train(other);
    for (const Tower tower : {Tower::ctr, Tower::cvr}) {
      EXPECT_EQ(std::memcmp(one.logits(tower), other.logits(tower), shared.count * sizeof(float)),
                0);
    }
  }
}

// Of the weights, then of the inputs.
std::vector<float> all_gradients(const Towers& towers, const TestBatch& batch, std::size_t lane) {
  TowerPass pass(towers, 1);
  batch.train(pass, lane);
  std::vector<float> gradients = weight_gradients(towers, pass);
  for (std::size_t s = 0; s < batch.count; ++s) {
    const float* const row = pass.input_gradients() + s * pass.input_row();
    gradients.insert(gradients.end(), row, row + batch.inputs.own);
  }
  for (std::size_t c = 0; c < batch.contexts(); ++c) {
    const float* const row =
        pass.input_gradients() + pass.first_context_gradient() + c * pass.context_row();
    gradients.insert(gradients.end(), row, row + batch.inputs.context);
  }
  return gradients;
}

// Logits and all gradients: the same bits on every instruction set that this CPU has, in lanes of
// any size. The slowest kernels are compared with sums one by one in kernels_test.cc.
RC_GTEST_PROP(TowersProperty, AllKernelsAndLanesGiveTheSameGradients, ()) {
  const Towers::Inputs inputs = {*rc::gen::inRange<std::size_t>(0, 40),
                                 *rc::gen::inRange<std::size_t>(0, 70)};
  RC_PRE(inputs.all() > 0);
  const auto hidden = *rc::gen::container<std::vector<std::uint64_t>>(
      *rc::gen::inRange<std::size_t>(1, 4), rc::gen::inRange<std::uint64_t>(1, 60));
  const auto precision = *rc::gen::element(Precision::f32, Precision::bf16);
  const TestBatch batch(inputs, *rc::gen::inRange<std::size_t>(1, 80),
                        *rc::gen::inRange<std::size_t>(1, 150));
  std::vector<float> wanted;
  for (const Kernels* const kernels : usable_kernels()) {
    const Towers towers(inputs, hidden, 3, precision, *kernels);
    for (const std::size_t lane : {1, 2, 10}) {
      const std::vector<float> computed = all_gradients(towers, batch, lane * kLaneUnit);
      if (wanted.empty()) wanted = computed;
      RC_ASSERT(std::memcmp(wanted.data(), computed.data(), wanted.size() * sizeof(float)) == 0);
    }
  }
}

// Inside, a batch is summed in runs of some hundred samples, and weights in pieces of some hundred
// rows: nothing is left out between them.
TEST(Towers, GradientsOfALargeBatchAreTheSumOfItsSamples) {
  struct Case {
    Precision precision;
    Towers::Inputs inputs;
  };
  // In bf16 what a context's samples give is rounded as a sum.
  for (const auto& [precision, inputs] :
       {Case{Precision::f32, {0, 210}}, Case{Precision::f32, {200, 70}},
        Case{Precision::bf16, {0, 210}}}) {
    const Towers towers(inputs, {210, 9}, 5, precision);
    const TestBatch batch(inputs, 40, 300);
    TowerPass pass(towers, 1);
    batch.train(pass, 2 * kLaneUnit);
    const std::vector<float> computed = weight_gradients(towers, pass);
    std::vector<double> sums(computed.size());
    for (std::size_t s = 0; s < batch.count; ++s) {
      batch.alone(s).train(pass);
      const std::vector<float> one = weight_gradients(towers, pass);
      for (std::size_t k = 0; k < sums.size(); ++k) sums[k] += one[k];
    }
    double most = 0;
    for (std::size_t k = 0; k < sums.size(); ++k) {
      most = std::max(most, std::abs(sums[k]));
      ASSERT_NEAR(computed[k], sums[k], 1e-6) << k;
    }
    EXPECT_GT(most, 1e-2);
  }
}

// bf16 keeps 8 bits of each factor: gradients are near those of f32, and not the same.
TEST(Towers, GradientsInBf16AreNearThoseInF32) {
  const TestBatch batch({20, 30}, 4);
  std::vector<std::vector<float>> gradients;
  for (const Precision precision : {Precision::f32, Precision::bf16}) {
    const Towers towers({20, 30}, {40, 24}, 5, precision);
    TowerPass pass(towers, 1);
    batch.train(pass);
    gradients.push_back(weight_gradients(towers, pass));
  }
  double difference = 0, norm = 0;
  for (std::size_t k = 0; k < gradients[0].size(); ++k) {
    difference += std::pow(double{gradients[0][k]} - gradients[1][k], 2);
    norm += std::pow(double{gradients[0][k]}, 2);
  }
  EXPECT_LT(std::sqrt(difference / norm), 0.02);
  EXPECT_GT(std::sqrt(difference / norm), 1e-5);
}

// A ReLU that made 0 of it would hide a model that has diverged.
TEST(Towers, WhatIsNotANumberReachesTheLogits) {
  for (const Precision precision : {Precision::f32, Precision::bf16}) {
    const Towers towers({0, 7}, {9, 5}, 5, precision);
    std::vector<float> x = random_floats(7 * 3, 1);
    x[7 + 2] = std::numeric_limits<float>::quiet_NaN();  // of the second sample
    for (const std::vector<float>& logits : logits_of(towers, x.data(), 3)) {
      EXPECT_TRUE(std::isfinite(logits[0]));
      EXPECT_TRUE(std::isnan(logits[1]));
      EXPECT_TRUE(std::isfinite(logits[2]));
    }
  }
}

TEST(Towers, ArraysCoverTheParametersOnce) {
  Towers towers({0, 7}, {9, 5}, 5);
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
