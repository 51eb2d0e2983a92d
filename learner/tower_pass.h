// Forward and backward through the towers for the samples of one batch, and the gradients of their
// weights. Rows are samples (or contexts: distinct values of the columns that impressions share).
//
// Operation, in this order; each line's calls are independent of each other and may run on any
// threads, with a thread number of its own:
//   begin()                                  sizes everything
//   context_input() filled, forward_contexts()   a lane of contexts
//   input() filled, forward()                    a lane of samples; input() belongs to the thread
//   backward()                                   the same lane, on the same thread
//   backward_contexts()                          a lane of contexts
//   weight_gradient()                            one piece of the weights
// A lane is a run of rows that begins at a multiple of 32. No bit depends on how lanes are cut: a
// row's values depend on the row alone, and a weight's gradient is one chain over all samples of
// the batch in their order (learner/kernels.h).
//
// bf16: the operands of all products but the logit layers' are rounded to bf16; sums, biases,
// ReLU and its gradient are f32.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_array.h"
#include "learner/towers.h"

namespace sluice {

inline constexpr std::size_t kLaneUnit = 32;

class TowerPass {
 public:
  // What scores only keeps nothing for the way back: forward() is all that it may be asked for.
  enum class Use { train, score };

  // `threads`: how many thread numbers there are. `towers` outlives the pass.
  TowerPass(const Towers& towers, std::size_t threads, Use use = Use::train);

  // `lane` is the most rows of a lane, a multiple of kLaneUnit. `context_of` is each sample's
  // context in [0, contexts), empty without contexts; it must stay until the next begin().
  void begin(std::size_t samples, std::size_t contexts, std::span<const std::uint32_t> context_of,
             std::size_t lane);

  // Where the inputs of the lane that begins at row `begin` are written, row by row `input_row()`
  // apart; what was there is undefined.
  std::size_t input_row() const { return x_row_; }
  std::size_t context_row() const { return context_x_row_; }
  float* input(std::size_t begin, std::size_t thread);
  float* context_input(std::size_t begin, std::size_t thread);

  void forward_contexts(std::size_t begin, std::size_t end, std::size_t thread);
  // Sets logits[tower][begin..end).
  void forward(std::size_t begin, std::size_t end, std::size_t thread);
  std::size_t towers() const { return towers_.size(); }
  const float* logits(std::size_t tower) const { return logits_[tower].data(); }
  // The gradients of the loss by the logits, to be written before backward().
  float* logit_gradients(std::size_t tower) { return logit_gradients_[tower].data(); }
  void backward(std::size_t begin, std::size_t end, std::size_t thread);
  // `samples_of` lists each context's samples in their order: those of context c are
  // samples[begins[c] .. begins[c + 1]).
  void backward_contexts(std::size_t begin, std::size_t end, std::size_t thread,
                         std::span<const std::uint32_t> samples,
                         std::span<const std::uint32_t> begins);

  // The gradients of the inputs: samples' rows, then contexts' rows.
  const float* input_gradients() const { return x_gradients_.data(); }
  std::size_t first_context_gradient() const { return rounded_up(samples_, kLaneUnit) * x_row_; }

  // Rows [begin, end) of a part's weights, or a tower's logit layer: what one call differentiates.
  struct Piece {
    std::size_t part = 0;  // parts().size() + t: the logit layer of tower t
    std::size_t begin = 0, end = 0;
    bool has_bias = false;   // row `end` is the biases'
    std::size_t offset = 0;  // of the first row in the parameters
    std::size_t row = 0;     // parameters a row
    std::size_t rows() const { return end - begin + (has_bias ? 1 : 0); }
  };
  const std::vector<Piece>& pieces() const { return pieces_; }
  // The gradient of all of a piece's rows; row r is at the result + r·gradient_row. Valid until the
  // thread's next call.
  float* weight_gradient(const Piece& piece, std::size_t thread, std::size_t& gradient_row);

 private:
  // Rounded operands of the products that sum over samples, all of the batch.
  struct Operands {
    AlignedArray<Bf16> left;   // the transpose of a part's input and a row of ones
    AlignedArray<Bf16> right;  // the gradients of its output
  };
  struct Scratch {
    AlignedArray<float> x;    // the lane's inputs, where they are not kept
    AlignedArray<float> sum;  // of a sample's vectors
    std::vector<AlignedArray<float>> hidden, deltas;
    AlignedArray<Bf16> left;
    AlignedArray<float> gradient;
  };

  void begin_backward(std::size_t lane);
  std::size_t width(std::size_t layer) const { return towers_.deep() * towers_.hidden()[layer]; }
  // A layer's rows from `begin` on: the batch's in f32, the lane's in bf16 where no later step
  // reads them.
  float* hidden(std::size_t layer, std::size_t begin, Scratch& scratch);
  float* delta(std::size_t layer, std::size_t begin, Scratch& scratch);
  std::size_t depth_blocks(const Towers::Part& part) const;
  bool is_context(const Towers::Part& part) const;

  Start start_of(const Towers::Part& part, std::size_t begin, std::size_t rows, float* out);
  struct RoundedWeights {
    const Bf16* blocks;  // right operand, k = in, n = out
    std::size_t in, out;
  };
  void rounded_product(const float* in, std::size_t in_row, std::size_t rows,
                       const RoundedWeights& weights, float* out, std::size_t out_row, Start start,
                       Scratch& scratch);
  void product(const Towers::Part& part, const float* in, std::size_t in_row, std::size_t rows,
               float* out, std::size_t out_row, Start start, Finish finish, Scratch& scratch);
  void product_backward(const Towers::Part& part, const float* delta, std::size_t delta_row,
                        std::size_t rows, float* out, std::size_t out_row, Scratch& scratch);
  void keep_left(std::size_t part, const float* in, std::size_t in_row, std::size_t begin,
                 std::size_t end);
  void keep_right(std::size_t part, const float* delta, std::size_t row, std::size_t begin,
                  std::size_t end);
  bool keeps_inputs() const;
  void logits_forward(const float* x, std::size_t begin, std::size_t end, Scratch& scratch);
  void sum_vectors(const float* x, float* sum) const;
  void layers_backward(std::size_t begin, std::size_t end, float* dx, Scratch& scratch);
  void deep_logits_backward(const float* last, std::size_t begin, std::size_t end, float* delta);
  void other_logits_backward(const float* x, std::size_t begin, std::size_t end, float* dx,
                             Scratch& scratch);
  void bf16_gradient(const Piece& piece, float* gradient, std::size_t gradient_row);
  void cut_pieces();

  const Towers& towers_;
  bool is_training_;
  std::size_t samples_ = 0, contexts_ = 0;
  std::span<const std::uint32_t> context_of_;
  std::vector<Scratch> scratch_;
  std::size_t x_row_, context_x_row_;
  std::vector<std::size_t> rows_;  // floats from row to row, by layer
  AlignedArray<float> x_, context_x_, context_z_, context_delta_, x_gradients_;
  std::vector<AlignedArray<float>> hidden_, deltas_;           // by layer
  std::vector<Operands> operands_;                             // by part
  std::vector<AlignedArray<float>> logits_, logit_gradients_;  // by tower
  std::vector<Piece> pieces_;
};

}  // namespace sluice
