#include "learner/towers.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <random>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "learner/tower_pass.h"

namespace sluice {
namespace {

using Precision = ModelConfig::Precision;

using Kind = RecipeTower::Kind;

const std::vector<RecipeTower> kTwo = {{"ctr"}, {"cvr"}};
const RecipeTower kLinear = {"linear", 0, Kind::linear};
const RecipeTower kFm = {"fm", 0, Kind::fm};
// What may stand beside hidden layers, and what may stand alone.
const std::vector<std::vector<RecipeTower>> kDeepLists = {
    kTwo, {{"one"}}, {{"a"}, {"b"}, {"c"}, {"d"}, {"e"}}};
const std::vector<std::vector<RecipeTower>> kOtherLists = {
    {kFm}, {kFm, kLinear}, {kFm, {"ctr"}, {"cvr"}, kLinear}, {{"ctr"}, kLinear, {"cvr"}, kFm}};

// `fields` vectors of 3 columns with a dense number before each, and one at the end.
Towers::Inputs fm_inputs(std::size_t fields) {
  Towers::Inputs inputs = {0, 4 * fields + 1};
  for (std::size_t f = 0; f < fields; ++f) inputs.vectors.push_back(4 * f + 1);
  inputs.dim = 3;
  return inputs;
}

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
std::vector<std::vector<float>> logits_of(const Towers& towers, const float* x, std::size_t n,
                                          std::size_t shift = 0, std::size_t more = 0,
                                          std::size_t lane = 64) {
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
  std::vector<std::vector<float>> logits;
  for (std::size_t t = 0; t < towers.size(); ++t) {
    logits.emplace_back(pass.logits(t) + shift, pass.logits(t) + shift + n);
  }
  return logits;
}

bool same_bits(float a, float b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

const Kernels& any_kernels() {
  return *usable_kernels()[*rc::gen::inRange<std::size_t>(0, usable_kernels().size())];
}

RC_GTEST_PROP(TowersProperty, ASamplesLogitsAreTheSameBitsInAnyBatchAndOnAnyKernels, ()) {
  const Towers::Inputs shape = fm_inputs(*rc::gen::inRange<std::size_t>(0, 20));
  const std::size_t inputs = shape.own;
  const auto list = *rc::gen::elementOf(*rc::gen::arbitrary<bool>() ? kDeepLists : kOtherLists);
  const auto hidden = *rc::gen::container<std::vector<std::uint64_t>>(
      *rc::gen::inRange<std::size_t>(0, 4), rc::gen::inRange<std::uint64_t>(1, 60));
  const auto seed = *rc::gen::arbitrary<std::uint64_t>();
  const auto precision = *rc::gen::element(Precision::f32, Precision::bf16);
  const Towers towers(shape, list, hidden, seed, precision);
  const Towers others(shape, list, hidden, seed, precision, any_kernels());
  const auto samples = *rc::gen::inRange<std::size_t>(1, 100);
  const std::vector<float> x =
      random_floats(inputs * samples, *rc::gen::arbitrary<std::uint32_t>());
  const auto together = logits_of(towers, x.data(), samples);
  for (std::size_t s = 0; s < samples; ++s) {
    const auto alone =
        logits_of(others, x.data() + s * inputs, 1, *rc::gen::inRange<std::size_t>(0, 70),
                  *rc::gen::inRange<std::size_t>(0, 70), 32);
    for (std::size_t t = 0; t < list.size(); ++t) {
      RC_ASSERT(same_bits(alone[t][0], together[t][s]));
    }
  }
}

// The sizes in use: sums over 360 and more inputs are cut into several runs inside a product.
RC_GTEST_PROP(TowersProperty, RealSizesGiveTheSameBitsInAnyBatch, ()) {
  using Widths = std::vector<std::uint64_t>;
  const auto inputs = *rc::gen::element<std::size_t>(360, 468, 611);
  const auto hidden =
      *rc::gen::elementOf(std::vector<Widths>{{200, 80}, {360, 200, 80}, {201, 83}, {1, 300}});
  const Towers towers({0, inputs}, kTwo, hidden, 1,
                      *rc::gen::element(Precision::f32, Precision::bf16));
  const auto samples = *rc::gen::inRange<std::size_t>(1, 140);
  const auto shift = *rc::gen::inRange<std::size_t>(0, 200);
  const std::vector<float> x = random_floats(inputs * samples, 5);
  const auto together = logits_of(towers, x.data(), samples);
  const auto shifted = logits_of(towers, x.data(), samples, shift);
  const auto s = *rc::gen::inRange<std::size_t>(0, samples);
  const auto alone = logits_of(towers, x.data() + s * inputs, 1);
  for (std::size_t t = 0; t < 2; ++t) {
    RC_ASSERT(std::memcmp(together[t].data(), shifted[t].data(), samples * sizeof(float)) == 0);
    RC_ASSERT(same_bits(together[t][s], alone[t][0]));
  }
}

// The network in double, from named arrays.
class DoubleNetwork {
 public:
  DoubleNetwork(const Towers& towers, std::vector<RecipeTower> list, std::size_t layers)
      : inputs_(towers.inputs()), list_(std::move(list)), layers_(layers) {
    for (const Towers::Array& array : towers.arrays()) {
      const std::vector<float> values = Towers::read(array, towers.parameters());
      arrays_[array.name] = {values.begin(), values.end()};
    }
  }

  std::map<std::string, std::vector<double>>& arrays() { return arrays_; }

  double logit(std::size_t tower, const std::vector<double>& x) const {
    const auto& [name, embeddings, kind] = list_[tower];
    const std::size_t layers = kind == Kind::mlp ? layers_ : 1;
    std::vector<double> h = x;
    for (std::size_t l = 0; l < layers; ++l) {
      const std::string layer = "tower." + name + "." + std::to_string(l);
      const std::vector<double>& weight = arrays_.at(layer + ".weight");
      std::vector<double> out = arrays_.at(layer + ".bias");
      for (std::size_t o = 0; o < out.size(); ++o) {
        for (std::size_t i = 0; i < h.size(); ++i) out[o] += weight[o * h.size() + i] * h[i];
        if (l + 1 < layers) out[o] = std::max(out[o], 0.0);
      }
      h = out;
    }
    return kind == Kind::fm ? h[0] + inner_products(x) : h[0];
  }

 private:
  // Each pair of vectors once, by the definition.
  double inner_products(const std::vector<double>& x) const {
    double sum = 0;
    for (const std::size_t v : inputs_.vectors) {
      for (const std::size_t w : inputs_.vectors) {
        for (std::size_t j = 0; v < w && j < inputs_.dim; ++j) sum += x[v + j] * x[w + j];
      }
    }
    return sum;
  }

  Towers::Inputs inputs_;
  std::vector<RecipeTower> list_;
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

// A batch of samples, some of which share a context. Its loss is the mean over the samples of
// Σ over towers of ±softplus(±logit), the signs in turn, and nothing of every seventh logit.
struct TestBatch {
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
    one.first_sign = first_sign + s;
    std::copy_n(own.data() + s * inputs.own, inputs.own, one.own.data());
    if (inputs.context == 0) return one;
    std::copy_n(shared.data() + context_of[s] * inputs.context, inputs.context, one.shared.data());
    return one;
  }
  std::size_t first_sign = 0;
  std::size_t contexts() const { return begins.empty() ? 0 : begins.size() - 1; }
  double sign(std::size_t s, std::size_t tower) const {
    const std::size_t n = first_sign + s + 5 * tower;
    if (n % 7 == 0) return 0;
    return n % 3 == 0 ? 1 : -1;
  }
  double loss(std::size_t s, std::size_t tower, double logit) const {
    return std::log1p(std::exp(sign(s, tower) * logit));
  }
  double gradient(std::size_t s, std::size_t tower, double logit) const {
    return sign(s, tower) / (1 + std::exp(-sign(s, tower) * logit));
  }

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
      for (std::size_t t = 0; t < pass.towers(); ++t) {
        for (std::size_t s = begin; s < end; ++s) {
          pass.logit_gradients(t)[s] =
              static_cast<float>(gradient(s, t, pass.logits(t)[s]) / divisor);
        }
      }
      pass.backward(begin, end, 0);
    }
    for (std::size_t begin = 0; begin < contexts(); begin += lane) {
      pass.backward_contexts(begin, std::min(begin + lane, contexts()), 0, samples, begins);
    }
  }
};

void check_gradients(const Towers::Inputs& inputs, const std::vector<RecipeTower>& list,
                     const std::vector<std::uint64_t>& hidden, std::size_t contexts = 0) {
  Towers towers(inputs, list, hidden, 5);
  const TestBatch batch(inputs, contexts);
  TowerPass pass(towers, 1);
  batch.train(pass);
  const std::vector<float> gradients = weight_gradients(towers, pass);

  DoubleNetwork network(towers, list, hidden.size() + 1);
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
      for (std::size_t t = 0; t < list.size(); ++t) {
        sum += batch.loss(s, t, network.logit(t, input));
      }
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
  for (const std::vector<RecipeTower>& list : kDeepLists) {
    check_gradients({0, 7}, list, {9, 5});
    check_gradients({0, 13}, list, {6});
    check_gradients({0, 4}, list, {8, 7, 6});
    check_gradients({0, 5}, list, {});
  }
}

TEST(Towers, GradientsOfOtherKindsAreCentralDifferences) {
  for (const std::vector<RecipeTower>& list : kOtherLists) {
    for (const std::size_t fields : {0, 1, 4}) {
      check_gradients(fm_inputs(fields), list, {9, 5});
      check_gradients(fm_inputs(fields), list, {});
    }
  }
}

TEST(Towers, GradientsWithASharedContextAreCentralDifferences) {
  for (const std::vector<RecipeTower>& list : kDeepLists) {
    check_gradients({6, 4}, list, {9, 5}, 5);
    check_gradients({3, 1}, list, {6}, 1);
    check_gradients({2, 3}, list, {8, 7, 6}, 12);
    check_gradients({6, 0}, list, {9, 5}, 5);  // every feature is of the group
  }
}

// Who shares a context with whom changes no bit of a sample's logits.
TEST(Towers, ASharedContextGivesTheLogitsOfOneOfItsOwn) {
  for (const Precision precision : {Precision::f32, Precision::bf16}) {
    const Towers towers({70, 45}, kTwo, {33, 21}, 5, precision);
    const TestBatch shared({70, 45}, 3);
    TestBatch apart({70, 45}, shared.count);
    for (std::size_t s = 0; s < shared.count; ++s) {
      std::copy_n(shared.shared.data() + shared.context_of[s] * 70, 70,
                  apart.shared.data() + apart.context_of[s] * 70);
    }
    TowerPass one(towers, 1), other(towers, 1);
    shared.train(one);
    apart.train(other);
    for (const std::size_t tower : {0, 1}) {
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
  const bool is_deep = *rc::gen::arbitrary<bool>();
  const Towers::Inputs inputs = is_deep ? Towers::Inputs{*rc::gen::inRange<std::size_t>(0, 40),
                                                         *rc::gen::inRange<std::size_t>(0, 70)}
                                        : fm_inputs(*rc::gen::inRange<std::size_t>(0, 20));
  RC_PRE(inputs.all() > 0);
  const auto list = *rc::gen::elementOf(is_deep ? kDeepLists : kOtherLists);
  const auto hidden = *rc::gen::container<std::vector<std::uint64_t>>(
      *rc::gen::inRange<std::size_t>(is_deep ? 1 : 0, 4), rc::gen::inRange<std::uint64_t>(1, 60));
  const auto precision = *rc::gen::element(Precision::f32, Precision::bf16);
  const TestBatch batch(inputs, *rc::gen::inRange<std::size_t>(1, 80),
                        *rc::gen::inRange<std::size_t>(1, 150));
  std::vector<float> wanted;
  for (const Kernels* const kernels : usable_kernels()) {
    const Towers towers(inputs, list, hidden, 3, precision, *kernels);
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
    const Towers towers(inputs, kTwo, {210, 9}, 5, precision);
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
    const Towers towers({20, 30}, kTwo, {40, 24}, 5, precision);
    TowerPass pass(towers, 1);
    batch.train(pass);
    gradients.push_back(weight_gradients(towers, pass));
  }
  double difference = 0, norm = 0;
  for (std::size_t k = 0; k < gradients[0].size(); ++k) {
    difference += std::pow(double{gradients[0][k]} - gradients[1][k], 2);
    norm += std::pow(double{gradients[0][k]}, 2);
  }
  EXPECT_LT(std::sqrt(difference / norm), 0.05);
  EXPECT_GT(std::sqrt(difference / norm), 1e-5);
}

// A ReLU that made 0 of it would hide a model that has diverged.
TEST(Towers, WhatIsNotANumberReachesTheLogits) {
  for (const Precision precision : {Precision::f32, Precision::bf16}) {
    const Towers towers({0, 7}, kTwo, {9, 5}, 5, precision);
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
  Towers towers({0, 7}, kTwo, {9, 5}, 5);
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
