#include "learner/towers.h"

#include <algorithm>

#include <Eigen/Core>

#include "base/check.h"
#include "learner/initial_values.h"
#include "learner/vector_math.h"

namespace sluice {

namespace {

using Stride = Eigen::OuterStride<>;
using Matrix = Eigen::Map<Eigen::MatrixXf, Eigen::Unaligned, Stride>;
using ConstMatrix = Eigen::Map<const Eigen::MatrixXf, Eigen::Unaligned, Stride>;

Eigen::Index index(std::size_t value) {
  return static_cast<Eigen::Index>(value);
}

// [rows, columns] at `data`, column by column `stride` apart.
ConstMatrix matrix(const float* data, std::size_t rows, std::size_t columns, std::size_t stride) {
  return {data, index(rows), index(columns), Stride(index(stride))};
}
Matrix matrix(float* data, std::size_t rows, std::size_t columns, std::size_t stride) {
  return {data, index(rows), index(columns), Stride(index(stride))};
}

// The order of additions inside a product follows the cache sizes that the library believes in, so
// they are constants here and not the machine's.
void pin_cache_sizes() {
  static const bool done = [] {
    Eigen::setCpuCacheSizes(32 << 10, 512 << 10, 4 << 20);
    return true;
  }();
  static_cast<void>(done);
}

// Σ over the columns, in their order.
void sum_columns(const float* data, std::size_t rows, std::size_t columns, std::size_t stride,
                 float* out) {
  std::fill_n(out, rows, 0.0F);
  for (std::size_t s = 0; s < columns; ++s) add(rows, data + s * stride, out);
}

}  // namespace

std::vector<std::uint64_t> Towers::Array::shape() const {
  if (name.ends_with(".bias")) return {out};
  return {out, in};
}

Towers::Towers(std::size_t inputs, std::vector<std::uint64_t> hidden, std::uint64_t seed)
    : inputs_(inputs), hidden_(std::move(hidden)), deeper_(kTowers) {
  SLUICE_CHECK(inputs > 0);
  pin_cache_sizes();
  if (!hidden_.empty()) first_ = add_layer(inputs, kTowers * hidden_[0]);
  for (std::size_t t = 0; t < kTowers; ++t) {
    const auto tower = static_cast<Tower>(t);
    if (!hidden_.empty()) name_layer(tower, 0, first_, t * hidden_[0], hidden_[0]);
    for (std::size_t l = 1; l < hidden_.size(); ++l) {
      deeper_[t].push_back(add_layer(hidden_[l - 1], hidden_[l]));
      name_layer(tower, l, deeper_[t].back(), 0, hidden_[l]);
    }
    logit_[t] = add_layer(hidden_.empty() ? inputs : hidden_.back(), 1);
    name_layer(tower, hidden_.size(), logit_[t], 0, 1);
  }
  for (const Array& array : arrays_) {
    std::vector<float> values(array.out * array.in);
    initialize_layer(seed, array.name, array.fan_in, values);
    write(array, values, parameters_);
  }
}

Towers::Layer Towers::add_layer(std::size_t in, std::size_t out) {
  SLUICE_CHECK(out > 0);
  const std::size_t begin = parameters_.size();
  parameters_.resize(begin + out * in + out);
  return {in, out, begin, begin + out * in};
}

void Towers::name_layer(Tower tower, std::size_t number, const Layer& layer, std::size_t first_row,
                        std::size_t rows) {
  const std::string prefix = std::string("tower.") + kTowerNames[static_cast<std::size_t>(tower)] +
                             "." + std::to_string(number);
  arrays_.push_back(
      {prefix + ".weight", layer.in, rows, layer.in, layer.weight + first_row, layer.out});
  arrays_.push_back({prefix + ".bias", layer.in, rows, 1, layer.bias + first_row, layer.out});
}

std::vector<float> Towers::read(const Array& array, std::span<const float> parameters) {
  std::vector<float> values;
  values.reserve(array.out * array.in);
  for (std::size_t o = 0; o < array.out; ++o) {
    for (std::size_t i = 0; i < array.in; ++i) {
      values.push_back(parameters[array.offset + i * array.stride + o]);
    }
  }
  return values;
}

void Towers::write(const Array& array, std::span<const float> values, std::span<float> parameters) {
  SLUICE_CHECK(values.size() == array.out * array.in);
  for (std::size_t o = 0; o < array.out; ++o) {
    for (std::size_t i = 0; i < array.in; ++i) {
      parameters[array.offset + i * array.stride + o] = values[o * array.in + i];
    }
  }
}

void Towers::forward(const float* x, std::size_t columns, TowerWorkspace& workspace,
                     std::span<float* const, kTowers> logits) const {
  SLUICE_CHECK(columns > 0 && columns % kTile == 0);
  const float* const p = parameters_.data();
  workspace.hidden.resize(hidden_.size());
  const float* input = x;
  std::size_t input_rows = 0;  // of one tower inside `input`; 0: both read the same rows
  std::size_t input_stride = inputs_;
  for (std::size_t l = 0; l < hidden_.size(); ++l) {
    const std::size_t width = hidden_[l];
    const std::size_t stride = kTowers * width;
    workspace.hidden[l].resize(stride * columns);
    float* const h = workspace.hidden[l].data();
    if (l == 0) {
      matrix(h, stride, columns, stride).noalias() =
          matrix(p + first_.weight, stride, inputs_, stride) * matrix(x, inputs_, columns, inputs_);
      for (std::size_t s = 0; s < columns; ++s) {
        add_bias_relu(stride, p + first_.bias, h + s * stride);
      }
    } else {
      for (std::size_t t = 0; t < kTowers; ++t) {
        const Layer& layer = deeper_[t][l - 1];
        matrix(h + t * width, width, columns, stride).noalias() =
            matrix(p + layer.weight, layer.out, layer.in, layer.out) *
            matrix(input + t * input_rows, layer.in, columns, input_stride);
        for (std::size_t s = 0; s < columns; ++s) {
          add_bias_relu(width, p + layer.bias, h + t * width + s * stride);
        }
      }
    }
    input = h;
    input_rows = width;
    input_stride = stride;
  }
  for (std::size_t t = 0; t < kTowers; ++t) {
    const Layer& layer = logit_[t];
    for (std::size_t s = 0; s < columns; ++s) {
      logits[t][s] = dot(layer.in, p + layer.weight, input + t * input_rows + s * input_stride) +
                     p[layer.bias];
    }
  }
}

// Adds the logit layer's gradients, sample by sample; input_gradients gets one tower's rows of
// [input_stride, columns] added.
void Towers::backward_logit(Tower tower, const float* input, std::size_t input_stride,
                            std::size_t columns, const float* logit_gradients, float* gradients,
                            float* input_gradients) const {
  const Layer& layer = logit_[static_cast<std::size_t>(tower)];
  std::fill_n(gradients + layer.weight, layer.in + 1, 0.0F);  // the bias follows the weights
  for (std::size_t s = 0; s < columns; ++s) {
    const float d = logit_gradients[s];
    add_scaled(layer.in, d, input + s * input_stride, gradients + layer.weight);
    gradients[layer.bias] += d;
    add_scaled(layer.in, d, parameters_.data() + layer.weight, input_gradients + s * input_stride);
  }
}

void Towers::backward(const float* x, std::size_t columns, TowerWorkspace& workspace,
                      std::span<const float* const, kTowers> logit_gradients,
                      std::span<float> parameter_gradients, float* x_gradients) const {
  SLUICE_CHECK(parameter_gradients.size() == parameters_.size());
  const float* const p = parameters_.data();
  float* const g = parameter_gradients.data();
  const std::size_t layers = hidden_.size();
  workspace.gradients.resize(layers);
  for (std::size_t l = 0; l < layers; ++l) {
    workspace.gradients[l].resize(kTowers * hidden_[l] * columns);
  }
  const auto activations = [&](std::size_t l) { return workspace.hidden[l].data(); };
  const auto deltas = [&](std::size_t l) { return workspace.gradients[l].data(); };

  const std::size_t last_width = layers == 0 ? 0 : hidden_.back();
  const std::size_t last_stride = layers == 0 ? inputs_ : kTowers * last_width;
  const float* const last = layers == 0 ? x : activations(layers - 1);
  float* const last_delta = layers == 0 ? x_gradients : deltas(layers - 1);
  std::fill_n(last_delta, last_stride * columns, 0.0F);
  for (std::size_t t = 0; t < kTowers; ++t) {
    backward_logit(static_cast<Tower>(t), last + t * last_width, last_stride, columns,
                   logit_gradients[t], g, last_delta + t * last_width);
  }
  if (layers == 0) return;
  mask_relu(last_stride * columns, last, last_delta);

  for (std::size_t l = layers - 1; l > 0; --l) {
    const std::size_t width = hidden_[l];
    const std::size_t stride = kTowers * width;
    const std::size_t below = hidden_[l - 1];
    const std::size_t below_stride = kTowers * below;
    for (std::size_t t = 0; t < kTowers; ++t) {
      const Layer& layer = deeper_[t][l - 1];
      const float* const delta = deltas(l) + t * width;
      const auto d = matrix(delta, width, columns, stride);
      const float* const h = activations(l - 1) + t * below;
      matrix(g + layer.weight, width, below, width).noalias() =
          d * matrix(h, below, columns, below_stride).transpose();
      sum_columns(delta, width, columns, stride, g + layer.bias);
      matrix(deltas(l - 1) + t * below, below, columns, below_stride).noalias() =
          matrix(p + layer.weight, width, below, width).transpose() * d;
    }
    mask_relu(below_stride * columns, activations(l - 1), deltas(l - 1));
  }
  const std::size_t stride = first_.out;
  const float* const delta = deltas(0);
  const auto d = matrix(delta, stride, columns, stride);
  matrix(g + first_.weight, stride, inputs_, stride).noalias() =
      d * matrix(x, inputs_, columns, inputs_).transpose();
  sum_columns(delta, stride, columns, stride, g + first_.bias);
  matrix(x_gradients, inputs_, columns, inputs_).noalias() =
      matrix(p + first_.weight, stride, inputs_, stride).transpose() * d;
}

}  // namespace sluice
