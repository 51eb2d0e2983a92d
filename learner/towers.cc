#include "learner/towers.h"

#include <algorithm>

#include "base/check.h"
#include "learner/initial_values.h"

namespace sluice {

std::vector<std::uint64_t> Towers::Array::shape() const {
  if (name.ends_with(".bias")) return {out};
  return {out, in};
}

Towers::Towers(Inputs inputs, std::vector<std::uint64_t> hidden, std::uint64_t seed,
               ModelConfig::Precision precision, const Kernels& kernels)
    : inputs_(inputs), hidden_(std::move(hidden)), precision_(precision), kernels_(&kernels) {
  SLUICE_CHECK(inputs.all() > 0);
  // Without a hidden layer there is no product to share.
  if (hidden_.empty()) inputs_ = {0, inputs.all()};
  for (std::size_t l = 0; l < hidden_.size(); ++l) {
    const std::size_t width = hidden_[l];
    if (l == 0) {
      const std::size_t out = kTowers * width;
      const std::size_t weight = add_layer(inputs_.all(), out);
      if (has_context()) add_part({l, 0, inputs_.context, 0, out, weight, false});
      add_part({l, inputs_.context, inputs_.own, 0, out, weight + inputs_.context * out, true});
      for (std::size_t t = 0; t < kTowers; ++t) {
        name_layer(static_cast<Tower>(t), l, inputs_.all(), weight, out, t * width, width);
      }
      continue;
    }
    const std::size_t below = hidden_[l - 1];
    for (std::size_t t = 0; t < kTowers; ++t) {
      const std::size_t weight = add_layer(below, width);
      add_part({l, t * below, below, t * width, width, weight, true});
      name_layer(static_cast<Tower>(t), l, below, weight, width, 0, width);
    }
  }
  const std::size_t last = hidden_.empty() ? inputs_.all() : hidden_.back();
  for (std::size_t t = 0; t < kTowers; ++t) {
    const std::size_t weight = add_layer(last, 1);
    logits_[t] = {hidden_.empty() ? 0 : t * last, last, weight};
    name_layer(static_cast<Tower>(t), hidden_.size(), last, weight, 1, 0, 1);
  }
  parameters_.reserve(parameter_count_ + kBlockRows);
  // Tower by tower, as a reader would list them.
  std::stable_sort(arrays_.begin(), arrays_.end(), [](const Array& x, const Array& y) {
    return x.name.starts_with("tower.ctr.") && y.name.starts_with("tower.cvr.");
  });
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

void Towers::name_layer(Tower tower, std::size_t number, std::size_t in, std::size_t weight,
                        std::size_t row, std::size_t first_column, std::size_t columns) {
  const std::string prefix = std::string("tower.") + kTowerNames[static_cast<std::size_t>(tower)] +
                             "." + std::to_string(number);
  arrays_.push_back({prefix + ".weight", in, columns, in, weight + first_column, row});
  arrays_.push_back({prefix + ".bias", in, columns, 1, weight + in * row + first_column, row});
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
