// The two towers of ESMM: one network each for the logits of CTR (a) and CVR (b), over one shared
// input. Hidden layers with ReLU, then one logit without. The towers' first layers read the same
// input and are one matrix, so one product.
//
// Matrices are column-major with a sample a column. Products run over tiles of kTile samples, the
// last padded with zeros, in the library's general product. With the number of columns a multiple
// of the tile every column passes the same kernel with the same order of additions, so a sample's
// logits do not depend on its neighbours or its place (tests/learner checks it).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sluice {

inline constexpr std::size_t kTile = 32;  // samples
constexpr std::size_t padded_to_tiles(std::size_t samples) {
  return (samples + kTile - 1) / kTile * kTile;
}

enum class Tower : std::uint8_t { ctr, cvr };
inline constexpr std::size_t kTowers = 2;
inline constexpr const char* kTowerNames[kTowers] = {"ctr", "cvr"};

// What one lane's passes need; one for each thread, reused.
struct TowerWorkspace {
  std::vector<std::vector<float>> hidden;     // by layer: [2·width, columns], ctr's rows first
  std::vector<std::vector<float>> gradients;  // the same shapes
};

class Towers {
 public:
  // Initial weights by learner/initial_values.h.
  Towers(std::size_t inputs, std::vector<std::uint64_t> hidden, std::uint64_t seed);

  std::size_t inputs() const { return inputs_; }

  // All parameters in one array; gradients and optimizer slots are laid out alike.
  std::span<float> parameters() { return parameters_; }
  std::span<const float> parameters() const { return parameters_; }

  // One layer's weights ([out, in]) or biases ([out]) inside such an array.
  struct Array {
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

  // x: [inputs, columns]; logits: one array of [columns] a tower. `columns` is a multiple of kTile.
  void forward(const float* x, std::size_t columns, TowerWorkspace& workspace,
               std::span<float* const, kTowers> logits) const;

  // After forward() with the same x and workspace: the gradients of a loss whose gradients by the
  // logits are given. parameter_gradients (laid out as parameters()) and x_gradients
  // ([inputs, columns]) are overwritten.
  void backward(const float* x, std::size_t columns, TowerWorkspace& workspace,
                std::span<const float* const, kTowers> logit_gradients,
                std::span<float> parameter_gradients, float* x_gradients) const;

 private:
  struct Layer {
    std::size_t in = 0;
    std::size_t out = 0;
    std::size_t weight = 0;  // offset of a column-major [out, in]
    std::size_t bias = 0;
  };
  Layer add_layer(std::size_t in, std::size_t out);
  void name_layer(Tower tower, std::size_t number, const Layer& layer, std::size_t first_row,
                  std::size_t rows);
  void backward_logit(Tower tower, const float* input, std::size_t input_stride,
                      std::size_t columns, const float* logit_gradients, float* gradients,
                      float* input_gradients) const;

  std::size_t inputs_;
  std::vector<std::uint64_t> hidden_;
  Layer first_;                             // both towers'; unused where there is no hidden layer
  std::vector<std::vector<Layer>> deeper_;  // [tower][layer − 1]
  Layer logit_[kTowers];
  std::vector<Array> arrays_;
  std::vector<float> parameters_;
};

}  // namespace sluice
