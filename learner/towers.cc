#include "learner/towers.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "learner/initial_values.h"

namespace sluice {

std::vector<std::uint64_t> Towers::Array::shape() const {
  if (name.ends_with(".bias")) return {out};
  return {out, in};
}

Towers::Towers(Inputs inputs, std::vector<RecipeTower> towers, std::vector<std::uint64_t> hidden,
               std::uint64_t seed, ModelConfig::Precision precision, const Kernels& kernels)
    : inputs_(std::move(inputs)),
      towers_(std::move(towers)),
      hidden_(std::move(hidden)),
      precision_(precision),
      kernels_(&kernels) {
  SLUICE_CHECK(inputs_.all() > 0 && !towers_.empty());
  std::vector<std::size_t> deep;
  for (std::size_t t = 0; t < towers_.size(); ++t) {
    if (towers_[t].kind == RecipeTower::Kind::mlp && !hidden_.empty()) deep.push_back(t);
  }
  deep_ = deep.size();
  if (deep.empty()) hidden_.clear();
  SLUICE_CHECK(!has_context() || deep_ == towers_.size());
  for (std::size_t l = 0; l < hidden_.size(); ++l) {
    const std::size_t width = hidden_[l];
    if (l == 0) {
      const std::size_t out = deep_ * width;
      const std::size_t weight = add_layer(inputs_.all(), out);
      if (has_context()) add_part({l, 0, inputs_.context, 0, out, weight, false});
      add_part({l, inputs_.context, inputs_.own, 0, out, weight + inputs_.context * out, true});
      for (std::size_t d = 0; d < deep_; ++d) {
        name_layer(deep[d], l, inputs_.all(), weight, out, d * width, width);
      }
      continue;
    }
    const std::size_t below = hidden_[l - 1];
    for (std::size_t d = 0; d < deep_; ++d) {
      const std::size_t weight = add_layer(below, width);
      add_part({l, d * below, below, d * width, width, weight, true});
      name_layer(deep[d], l, below, weight, width, 0, width);
    }
  }
  std::size_t last_column = 0;
  for (std::size_t t = 0; t < towers_.size(); ++t) {
    Logit logit;
    logit.is_deep = towers_[t].kind == RecipeTower::Kind::mlp && !hidden_.empty();
    logit.is_fm = towers_[t].kind == RecipeTower::Kind::fm;
    logit.in = logit.is_deep ? hidden_.back() : inputs_.all();
    logit.in_begin = logit.is_deep ? std::exchange(last_column, last_column + logit.in) : 0;
    logit.weight = add_layer(logit.in, 1);
    name_layer(t, logit.is_deep ? hidden_.size() : 0, logit.in, logit.weight, 1, 0, 1);
    logits_.push_back(logit);
  }
  parameters_.reserve(parameter_count_ + kBlockRows);
  // Tower by tower, as a reader would list them.
  std::stable_sort(arrays_.begin(), arrays_.end(),
                   [](const Array& x, const Array& y) { return x.tower < y.tower; });
  for (const Array& array : arrays_) {
    std::vector<float> values(array.out * array.in);
    initialize_layer(seed, array.name, array.fan_in, values);
    write(array, values, parameters());
  }
  refresh();
}

// Makes room for [in, out] and a row of biases after it; where the weights begin.
std::size_t Towers::add_layer(std::size_t in, std::size_t out) {
  SLUICE_CHECK(out > 0);
  const std::size_t begin = parameter_count_;
  parameter_count_ += (in + 1) * out;
  return begin;
}

void Towers::name_layer(std::size_t tower, std::size_t number, std::size_t in, std::size_t weight,
                        std::size_t row, std::size_t first_column, std::size_t columns) {
  const std::string prefix = "tower." + towers_[tower].name + "." + std::to_string(number);
  arrays_.push_back({tower, prefix + ".weight", in, columns, in, weight + first_column, row});
  const std::size_t bias = weight + in * row + first_column;
  arrays_.push_back({tower, prefix + ".bias", in, columns, 1, bias, row});
}

void Towers::add_part(Part part) {
  if (is_bf16()) {
    part.forward.reserve(rounded_up(part.in, kBlockDepth) * rounded_up(part.out, kBlockRows));
    part.backward.reserve(rounded_up(part.out, kBlockDepth) * rounded_up(part.in, kBlockRows));
  } else {
    part.transposed_row = rounded_up(part.in, kBlockRows);
    part.transposed.reserve(part.out * part.transposed_row);
  }
  parts_.push_back(std::move(part));
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

void Towers::refresh(std::size_t number, std::size_t begin, std::size_t end) {
  Part& part = parts_[number];
  SLUICE_CHECK(begin % kBlockDepth == 0 && end <= part.in);
  const float* const rows = parameters_.data() + part.weight + begin * part.out;
  if (is_bf16()) {
    const std::size_t forward_step = rounded_up(part.in, kBlockDepth) * kBlockRows;
    const std::size_t backward_step = rounded_up(part.out, kBlockDepth) * kBlockRows;
    kernels_->pack_right({rows, part.out, end - begin, part.out,
                          part.forward.data() + begin / kBlockDepth * kBlockElements,
                          forward_step});
    kernels_->pack_right_transposed({rows, part.out, end - begin, part.out,
                                     part.backward.data() + begin / kBlockRows * backward_step,
                                     backward_step});
    return;
  }
  // Square by square: both sides stay in the first cache.
  constexpr std::size_t kSide = 16;
  float* const out = part.transposed.data() + begin;
  for (std::size_t i = 0; i < end - begin; i += kSide) {
    for (std::size_t o = 0; o < part.out; ++o) {
      for (std::size_t k = i; k < std::min(i + kSide, end - begin); ++k) {
        out[o * part.transposed_row + k] = rows[k * part.out + o];
      }
    }
  }
}

void Towers::refresh() {
  for (std::size_t p = 0; p < parts_.size(); ++p) refresh(p, 0, parts_[p].in);
}

}  // namespace sluice
