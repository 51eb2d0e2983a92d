// The towers that read one input: each makes one logit of it. Kinds:
//   mlp     hidden layers with ReLU, then the logit's layer. The towers' first layers read the same
//           input and are one matrix, so one product
//   linear  the logit's layer alone, over the input
//   fm      a factorization machine: linear, and Σ_{i<j} <v_i, v_j> over the fields that have
//           vectors, computed as ½·(|Σ_i v_i|² − Σ_i |v_i|²). Dense numbers count in the linear
//           part only
//
// The input's first `context` columns belong to features that the impressions of one request share
// (a config's feature group); the others are an impression's own. The two have a part of the first
// layer each, so that the first one's product is computed once a request. Which columns these are
// is the config's, never the batch's: the order of every sum is the same whoever shares.
//
// Here are the parameters and the copies of them that products read; learner/tower_pass.h computes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/aligned_array.h"
#include "config/config.h"
#include "config/recipe.h"
#include "learner/kernels.h"

namespace sluice {

class Towers {
 public:
  struct Inputs {
    std::size_t context = 0;  // columns that impressions share; they come first
    std::size_t own = 0;
    std::size_t all() const { return context + own; }

    // The fields with vectors: the first of their `dim` columns each, among all. For fm only.
    std::vector<std::size_t> vectors = {};
    std::size_t dim = 0;
  };

  // Initial weights by learner/initial_values.h. `hidden` is that of every mlp. A context is only
  // for mlp towers with hidden layers. `kernels` outlives the object.
  Towers(Inputs inputs, std::vector<RecipeTower> towers, std::vector<std::uint64_t> hidden,
         std::uint64_t seed, ModelConfig::Precision precision = ModelConfig::Precision::f32,
         const Kernels& kernels = best_kernels());

  const Inputs& inputs() const { return inputs_; }
  std::size_t size() const { return logits_.size(); }  // towers
  // Towers with hidden layers, and these layers' widths; none of both or some of both.
  std::size_t deep() const { return deep_; }
  const std::vector<std::uint64_t>& hidden() const { return hidden_; }
  bool is_bf16() const { return precision_ == ModelConfig::Precision::bf16; }
  const Kernels& kernels() const { return *kernels_; }

  // All parameters in one array; gradients and optimizer slots are laid out alike. Whoever changes
  // them calls refresh() before the next pass.
  std::span<float> parameters() { return {parameters_.data(), parameter_count_}; }
  std::span<const float> parameters() const { return {parameters_.data(), parameter_count_}; }

  // One layer's weights ([out, in]) or biases ([out]) inside such an array.
  struct Array {
    std::size_t tower;
    std::string name;  // "tower.ctr.0.weight"
    std::size_t fan_in;
    std::size_t out;
    std::size_t in;      // 1 for biases
    std::size_t offset;  // of element (0, 0)
    std::size_t stride;  // element (o, i) is at offset + i·stride + o
    std::vector<std::uint64_t> shape() const;
  };
  const std::vector<Array>& arrays() const { return arrays_; }
  // Row-major copies, PyTorch's order.
  static std::vector<float> read(const Array& array, std::span<const float> parameters);
  static void write(const Array& array, std::span<const float> values, std::span<float> parameters);

  // One matrix of a hidden layer, [in, out] with `out` together: columns in_begin.. of the layer's
  // input make columns out_begin.. of its output. The first layer has one for the context, where
  // there is one, and one for the own columns, all towers' outputs together; deeper layers have
  // one a tower, in the towers' order.
  struct Part {
    std::size_t layer = 0;
    std::size_t in_begin = 0, in = 0;
    std::size_t out_begin = 0, out = 0;
    std::size_t weight = 0;  // offset of row 0; rows follow each other
    bool has_bias = false;   // in the row after the last
    // Copies: what products read.
    std::size_t transposed_row = 0;
    AlignedArray<float> transposed = {};  // f32: [out, in]
    AlignedArray<Bf16> forward = {};      // bf16: right operand, k = in, n = out
    AlignedArray<Bf16> backward = {};     // bf16: right operand, k = out, n = in
  };
  const std::vector<Part>& parts() const { return parts_; }
  bool has_context() const { return inputs_.context > 0; }

  // The logit layer of a tower: weights at `weight` [in], the bias after them; its input is the
  // columns in_begin.. of the last hidden layer, or the own inputs where the tower has none.
  struct Logit {
    bool is_deep = false;  // reads the last hidden layer
    bool is_fm = false;
    std::size_t in_begin = 0, in = 0;
    std::size_t weight = 0;
  };
  const Logit& logit(std::size_t tower) const { return logits_[tower]; }

  // Brings the copies of rows [begin, end) of a part up to date. `begin` is a multiple of 32, `end`
  // too or the part's last. Different rows may be refreshed by different threads.
  void refresh(std::size_t part, std::size_t begin, std::size_t end);
  void refresh();  // all of them

 private:
  std::size_t add_layer(std::size_t in, std::size_t out);
  void name_layer(std::size_t tower, std::size_t number, std::size_t in, std::size_t weight,
                  std::size_t row, std::size_t first_column, std::size_t columns);
  void add_part(Part part);

  Inputs inputs_;
  std::vector<RecipeTower> towers_;
  std::size_t deep_ = 0;
  std::vector<std::uint64_t> hidden_;
  ModelConfig::Precision precision_;
  const Kernels* kernels_;
  std::vector<Part> parts_;
  std::vector<Logit> logits_;
  std::vector<Array> arrays_;
  std::size_t parameter_count_ = 0;
  AlignedArray<float> parameters_;  // products may read a block beyond the last
};

constexpr std::size_t rounded_up(std::size_t count, std::size_t unit) {
  return (count + unit - 1) / unit * unit;
}

}  // namespace sluice
