#include "learner/tower_pass.h"

#include <algorithm>

#include "base/check.h"
#include "learner/vector_math.h"

namespace sluice {

namespace {

constexpr Bf16 kBf16One = 0x3f80;
constexpr std::size_t kPieceRows = 192;  // a multiple of 32
constexpr std::size_t kSamplesAtOnce = 128;
constexpr float kOne = 1.0F;

// A row is padded so that it begins at a cache line; in bf16 a product writes whole blocks of 16
// columns from any part's first one on.
std::size_t row_floats(std::size_t columns) {
  return rounded_up(columns + kBlockRows, kBlockRows);
}

}  // namespace

TowerPass::TowerPass(const Towers& towers, std::size_t threads, Use use)
    : towers_(towers),
      is_training_(use == Use::train),
      scratch_(threads),
      x_row_(row_floats(towers.inputs().own)),
      context_x_row_(row_floats(towers.inputs().context)),
      hidden_(towers.hidden().size()),
      deltas_(towers.hidden().size()),
      operands_(towers.parts().size()),
      logits_(towers.size()),
      logit_gradients_(towers.size()) {
  for (std::size_t l = 0; l < hidden_.size(); ++l) rows_.push_back(row_floats(width(l)));
  for (Scratch& scratch : scratch_) {
    scratch.sum.reserve(towers.inputs().dim);
    scratch.hidden.resize(hidden_.size());
    scratch.deltas.resize(deltas_.size());
  }
  cut_pieces();
}

void TowerPass::cut_pieces() {
  const auto& parts = towers_.parts();
  for (std::size_t p = 0; p < parts.size(); ++p) {
    std::size_t begin = 0;
    do {  // the biases have a piece also where there are no own columns
      const std::size_t end = std::min(begin + kPieceRows, parts[p].in);
      pieces_.push_back({p, begin, end, parts[p].has_bias && end == parts[p].in,
                         parts[p].weight + begin * parts[p].out, parts[p].out});
      begin = end;
    } while (begin < parts[p].in);
  }
  for (std::size_t t = 0; t < towers_.size(); ++t) {
    const Towers::Logit& logit = towers_.logit(t);
    pieces_.push_back({parts.size() + t, 0, logit.in, true, logit.weight, 1});
  }
}

bool TowerPass::is_context(const Towers::Part& part) const {
  return part.layer == 0 && !part.has_bias;
}

// Blocks of 32 rows that a part's weight gradient sums over.
std::size_t TowerPass::depth_blocks(const Towers::Part& part) const {
  return rounded_up(is_context(part) ? contexts_ : samples_, kBlockDepth) / kBlockDepth;
}

void TowerPass::begin(std::size_t samples, std::size_t contexts,
                      std::span<const std::uint32_t> context_of, std::size_t lane) {
  SLUICE_CHECK(samples > 0 && lane > 0 && lane % kLaneUnit == 0);
  SLUICE_CHECK(context_of.size() == (towers_.has_context() ? samples : 0));
  samples_ = samples;
  contexts_ = contexts;
  context_of_ = context_of;
  const std::size_t rows = rounded_up(samples, kLaneUnit);
  const std::size_t context_rows = rounded_up(contexts, kLaneUnit);
  const bool is_bf16 = towers_.is_bf16();
  const std::size_t layers = hidden_.size();
  for (std::size_t t = 0; t < towers_.size(); ++t) logits_[t].reserve(rows);
  if (towers_.has_context()) {
    context_x_.reserve(context_rows * context_x_row_);
    context_z_.reserve(context_rows * rows_[0]);
  }
  // What steps after a lane's read: all in f32; in bf16 what is summed in f32 over samples.
  if (keeps_inputs()) x_.reserve(rows * x_row_);
  for (std::size_t l = 0; l < layers; ++l) {
    if (!is_bf16 || l + 1 == layers) hidden_[l].reserve(rows * rows_[l]);
  }
  for (Scratch& scratch : scratch_) {
    if (!keeps_inputs()) scratch.x.reserve(lane * x_row_);
    if (!is_bf16) continue;
    for (std::size_t l = 0; l < layers; ++l) scratch.hidden[l].reserve(lane * rows_[l]);
  }
  if (is_training_) begin_backward(lane);
}

void TowerPass::begin_backward(std::size_t lane) {
  const std::size_t rows = rounded_up(samples_, kLaneUnit);
  const std::size_t context_rows = rounded_up(contexts_, kLaneUnit);
  const bool is_bf16 = towers_.is_bf16();
  const std::size_t layers = hidden_.size();
  x_gradients_.reserve(rows * x_row_ + context_rows * context_x_row_);
  for (std::size_t t = 0; t < towers_.size(); ++t) logit_gradients_[t].reserve(rows);
  if (towers_.has_context()) context_delta_.reserve(context_rows * rows_[0]);
  for (std::size_t l = 0; l < layers; ++l) {
    if (!is_bf16 || (l == 0 && towers_.has_context())) deltas_[l].reserve(rows * rows_[l]);
  }
  if (!is_bf16) return;
  for (Scratch& scratch : scratch_) {
    for (std::size_t l = 0; l < layers; ++l) scratch.deltas[l].reserve(lane * rows_[l]);
  }
  for (std::size_t p = 0; p < operands_.size(); ++p) {
    const Towers::Part& part = towers_.parts()[p];
    const std::size_t depth = depth_blocks(part) * kBlockDepth;
    operands_[p].left.reserve(rounded_up(part.in + 1, kBlockRows) * depth);
    operands_[p].right.reserve(rounded_up(part.out, kBlockRows) * depth);
  }
}

// The inputs' products with what a later step has: all in f32; in bf16 those of the logit layers
// that read the inputs.
bool TowerPass::keeps_inputs() const {
  return !towers_.is_bf16() || towers_.deep() < towers_.size();
}

float* TowerPass::input(std::size_t begin, std::size_t thread) {
  return keeps_inputs() ? x_.data() + begin * x_row_ : scratch_[thread].x.data();
}

float* TowerPass::context_input(std::size_t begin, std::size_t) {
  return context_x_.data() + begin * context_x_row_;
}

float* TowerPass::hidden(std::size_t layer, std::size_t begin, Scratch& scratch) {
  const bool keeps = !towers_.is_bf16() || layer + 1 == hidden_.size();
  return keeps ? hidden_[layer].data() + begin * rows_[layer] : scratch.hidden[layer].data();
}

float* TowerPass::delta(std::size_t layer, std::size_t begin, Scratch& scratch) {
  const bool keeps = !towers_.is_bf16() || (layer == 0 && towers_.has_context());
  return keeps ? deltas_[layer].data() + begin * rows_[layer] : scratch.deltas[layer].data();
}

// out = start + in · weights, for `rows` rows; rounded to bf16 on the way.
void TowerPass::rounded_product(const float* in, std::size_t in_row, std::size_t rows,
                                const RoundedWeights& weights, float* out, std::size_t out_row,
                                Start start, Scratch& scratch) {
  const Kernels& kernels = towers_.kernels();
  const std::size_t depth = rounded_up(weights.in, kBlockDepth);
  scratch.left.reserve(rounded_up(rows, kLaneUnit) * depth);
  kernels.pack_left({in, in_row, rows, weights.in, scratch.left.data(), depth * kBlockRows});
  kernels.multiply_bf16({.m_blocks = rounded_up(rows, kBlockRows) / kBlockRows,
                         .n_blocks = rounded_up(weights.out, kBlockRows) / kBlockRows,
                         .k_blocks = depth / kBlockDepth,
                         .a = scratch.left.data(),
                         .a_step = depth * kBlockRows,
                         .b = weights.blocks,
                         .b_step = depth * kBlockRows,
                         .c = out,
                         .c_row = out_row,
                         .start = start});
}

// out = start + in · weights.
void TowerPass::product(const Towers::Part& part, const float* in, std::size_t in_row,
                        std::size_t rows, float* out, std::size_t out_row, Start start,
                        Finish finish, Scratch& scratch) {
  const Kernels& kernels = towers_.kernels();
  if (!towers_.is_bf16()) {
    const float* const weights = towers_.parameters().data() + part.weight;
    kernels.multiply(
        {rows, part.out, part.in, in, in_row, 1, weights, part.out, out, out_row, start, finish});
    return;
  }
  rounded_product(in, in_row, rows, {part.forward.data(), part.in, part.out}, out, out_row, start,
                  scratch);
  if (finish == Finish::relu) {
    for (std::size_t r = 0; r < rows; ++r) kernels.relu(part.out, out + r * out_row);
  }
}

// out = delta · weightsᵀ.
void TowerPass::product_backward(const Towers::Part& part, const float* delta,
                                 std::size_t delta_row, std::size_t rows, float* out,
                                 std::size_t out_row, Scratch& scratch) {
  if (!towers_.is_bf16()) {
    towers_.kernels().multiply({rows,
                                part.in,
                                part.out,
                                delta,
                                delta_row,
                                1,
                                part.transposed.data(),
                                part.transposed_row,
                                out,
                                out_row,
                                {},
                                Finish::none});
    return;
  }
  rounded_product(delta, delta_row, rows, {part.backward.data(), part.out, part.in}, out, out_row,
                  {}, scratch);
}

// Elements from one block of 32 samples to the next, of an operand of so many rows or columns: what
// a lane writes lies together.
std::size_t depth_step(std::size_t count) {
  return rounded_up(count, kBlockRows) * kBlockDepth;
}

// The rows of a part's input as an operand of its weight gradient, with a row of ones for the bias.
void TowerPass::keep_left(std::size_t p, const float* in, std::size_t in_row, std::size_t begin,
                          std::size_t end) {
  const Towers::Part& part = towers_.parts()[p];
  const std::size_t depth = depth_step(part.in + 1);
  Bf16* const out = operands_[p].left.data() + begin / kBlockDepth * depth;
  towers_.kernels().pack_left_transposed(
      {in, in_row, end - begin, part.in, out, kBlockElements, depth});
  if (!part.has_bias) return;
  Bf16* const ones =
      out + part.in / kBlockRows * kBlockElements + part.in % kBlockRows * kBlockDepth;
  for (std::size_t s = 0; s < rounded_up(end - begin, kBlockDepth); ++s) {
    ones[s / kBlockDepth * depth + s % kBlockDepth] = s < end - begin ? kBf16One : Bf16{0};
  }
}

void TowerPass::keep_right(std::size_t p, const float* delta, std::size_t row, std::size_t begin,
                           std::size_t end) {
  const Towers::Part& part = towers_.parts()[p];
  const std::size_t depth = depth_step(part.out);
  towers_.kernels().pack_right({delta, row, end - begin, part.out,
                                operands_[p].right.data() + begin / kBlockDepth * depth,
                                kBlockElements, depth});
}

void TowerPass::forward_contexts(std::size_t begin, std::size_t end, std::size_t thread) {
  const Towers::Part& part = towers_.parts()[0];
  const float* const x = context_x_.data() + begin * context_x_row_;
  const float* const bias =
      towers_.parameters().data() + part.weight + towers_.inputs().all() * part.out;
  product(part, x, context_x_row_, end - begin, context_z_.data() + begin * rows_[0], rows_[0],
          {bias, 0}, Finish::none, scratch_[thread]);
  if (is_training_ && towers_.is_bf16()) keep_left(0, x, context_x_row_, begin, end);
}

// What the rows of a part's output begin with: the biases, or what their contexts made of them.
Start TowerPass::start_of(const Towers::Part& part, std::size_t begin, std::size_t rows,
                          float* out) {
  if (part.layer > 0 || !towers_.has_context()) {
    return {towers_.parameters().data() + part.weight + part.in * part.out, 0};
  }
  const std::size_t row = rows_[0];
  for (std::size_t r = 0; r < rows; ++r) {
    std::copy_n(context_z_.data() + context_of_[begin + r] * row, part.out, out + r * row);
  }
  return {out, row};
}

void TowerPass::forward(std::size_t begin, std::size_t end, std::size_t thread) {
  Scratch& scratch = scratch_[thread];
  const float* in = input(begin, thread);
  std::size_t in_row = x_row_;
  for (std::size_t p = 0; p < operands_.size(); ++p) {
    const Towers::Part& part = towers_.parts()[p];
    if (is_context(part)) continue;
    if (part.layer > 0) {
      in = hidden(part.layer - 1, begin, scratch) + part.in_begin;
      in_row = rows_[part.layer - 1];
    }
    float* const out = hidden(part.layer, begin, scratch) + part.out_begin;
    product(part, in, in_row, end - begin, out, rows_[part.layer],
            start_of(part, begin, end - begin, out), Finish::relu, scratch);
    if (is_training_ && towers_.is_bf16()) keep_left(p, in, in_row, begin, end);
  }
  logits_forward(input(begin, thread), begin, end, scratch);
}

void TowerPass::logits_forward(const float* x, std::size_t begin, std::size_t end,
                               Scratch& scratch) {
  const float* const last = hidden_.empty() ? nullptr : hidden(hidden_.size() - 1, begin, scratch);
  for (std::size_t t = 0; t < towers_.size(); ++t) {
    const Towers::Logit& logit = towers_.logit(t);
    const float* const weights = towers_.parameters().data() + logit.weight;
    const float* const rows = logit.is_deep ? last + logit.in_begin : x;
    const std::size_t row = logit.is_deep ? rows_.back() : x_row_;
    for (std::size_t s = begin; s < end; ++s) {
      const float* const in = rows + (s - begin) * row;
      logits_[t].data()[s] = dot(logit.in, weights, in) + weights[logit.in];
    }
    if (!logit.is_fm) continue;
    const Towers::Inputs& inputs = towers_.inputs();
    for (std::size_t s = begin; s < end; ++s) {
      const float* const in = x + (s - begin) * x_row_;
      sum_vectors(in, scratch.sum.data());
      float squares = 0;
      for (const std::size_t v : inputs.vectors) squares += dot(inputs.dim, in + v, in + v);
      const float* const sum = scratch.sum.data();
      logits_[t].data()[s] += 0.5F * (dot(inputs.dim, sum, sum) - squares);
    }
  }
}

void TowerPass::sum_vectors(const float* x, float* sum) const {
  const Towers::Inputs& inputs = towers_.inputs();
  std::fill_n(sum, inputs.dim, 0.0F);
  for (const std::size_t v : inputs.vectors) add(inputs.dim, x + v, sum);
}

// delta = the logits' gradients times their weights, over the rows of `last`.
void TowerPass::deep_logits_backward(const float* last, std::size_t begin, std::size_t end,
                                     float* delta) {
  const Kernels& kernels = towers_.kernels();
  for (std::size_t s = begin; s < end; ++s) {
    float* const out = delta + (s - begin) * rows_.back();
    const float* const h = last + (s - begin) * rows_.back();
    for (std::size_t t = 0; t < towers_.size(); ++t) {
      const Towers::Logit& logit = towers_.logit(t);
      if (!logit.is_deep) continue;
      kernels.scale_mask(logit.in, logit_gradients_[t].data()[s],
                         towers_.parameters().data() + logit.weight, h + logit.in_begin,
                         out + logit.in_begin);
    }
  }
}

// dx += the gradients by the inputs of the logits that read them.
void TowerPass::other_logits_backward(const float* x, std::size_t begin, std::size_t end, float* dx,
                                      Scratch& scratch) {
  const Kernels& kernels = towers_.kernels();
  const Towers::Inputs& inputs = towers_.inputs();
  for (std::size_t s = begin; s < end; ++s) {
    float* const out = dx + (s - begin) * x_row_;
    const float* const in = x + (s - begin) * x_row_;
    for (std::size_t t = 0; t < towers_.size(); ++t) {
      const Towers::Logit& logit = towers_.logit(t);
      if (logit.is_deep) continue;
      const float d = logit_gradients_[t].data()[s];
      kernels.add_scaled(logit.in, d, towers_.parameters().data() + logit.weight, out);
      if (!logit.is_fm) continue;
      sum_vectors(in, scratch.sum.data());
      for (const std::size_t v : inputs.vectors) {
        kernels.add_scaled(inputs.dim, d, scratch.sum.data(), out + v);
        kernels.add_scaled(inputs.dim, -d, in + v, out + v);
      }
    }
  }
}

void TowerPass::backward(std::size_t begin, std::size_t end, std::size_t thread) {
  Scratch& scratch = scratch_[thread];
  const std::size_t rows = end - begin;
  float* const dx = x_gradients_.data() + begin * x_row_;
  if (hidden_.empty()) {
    for (std::size_t r = 0; r < rows; ++r) std::fill_n(dx + r * x_row_, towers_.inputs().own, 0.0F);
  } else {
    layers_backward(begin, end, dx, scratch);
  }
  if (towers_.deep() < towers_.size()) {
    other_logits_backward(input(begin, thread), begin, end, dx, scratch);
  }
}

void TowerPass::layers_backward(std::size_t begin, std::size_t end, float* dx, Scratch& scratch) {
  const std::size_t rows = end - begin;
  const std::size_t last = hidden_.size() - 1;
  deep_logits_backward(hidden(last, begin, scratch), begin, end, delta(last, begin, scratch));
  const Kernels& kernels = towers_.kernels();
  const std::size_t own = towers_.has_context() ? 1 : 0;  // the first layer's part
  for (std::size_t l = last; l > 0; --l) {
    // In this order: in bf16 what a tower's product writes beyond its columns is the next one's.
    for (std::size_t d = 0; d < towers_.deep(); ++d) {
      const std::size_t p = own + 1 + towers_.deep() * (l - 1) + d;
      const Towers::Part& part = towers_.parts()[p];
      const float* const above = delta(l, begin, scratch) + part.out_begin;
      float* const below = delta(l - 1, begin, scratch) + part.in_begin;
      const float* const h = hidden(l - 1, begin, scratch) + part.in_begin;
      if (towers_.is_bf16()) keep_right(p, above, rows_[l], begin, end);
      product_backward(part, above, rows_[l], rows, below, rows_[l - 1], scratch);
      for (std::size_t r = 0; r < rows; ++r) {
        kernels.mask(part.in, h + r * rows_[l - 1], below + r * rows_[l - 1]);
      }
    }
  }
  const float* const d = delta(0, begin, scratch);
  if (towers_.is_bf16()) keep_right(own, d, rows_[0], begin, end);
  product_backward(towers_.parts()[own], d, rows_[0], rows, dx, x_row_, scratch);
}

void TowerPass::backward_contexts(std::size_t begin, std::size_t end, std::size_t thread,
                                  std::span<const std::uint32_t> samples,
                                  std::span<const std::uint32_t> begins) {
  const Towers::Part& part = towers_.parts()[0];
  float* const sums = context_delta_.data() + begin * rows_[0];
  for (std::size_t c = begin; c < end; ++c) {
    float* const sum = sums + (c - begin) * rows_[0];
    std::fill_n(sum, part.out, 0.0F);
    for (std::uint32_t n = begins[c]; n < begins[c + 1]; ++n) {
      add(part.out, deltas_[0].data() + samples[n] * rows_[0], sum);
    }
  }
  if (towers_.is_bf16()) keep_right(0, sums, rows_[0], begin, end);
  product_backward(part, sums, rows_[0], end - begin,
                   x_gradients_.data() + first_context_gradient() + begin * context_x_row_,
                   context_x_row_, scratch_[thread]);
}

// Some hundred samples at a time: what they need and the gradients stay in the second cache.
void TowerPass::bf16_gradient(const Piece& piece, float* gradient, std::size_t gradient_row) {
  constexpr std::size_t kBlocksAtOnce = 8;
  const Towers::Part& part = towers_.parts()[piece.part];
  const Operands& operands = operands_[piece.part];
  Bf16Product product = {.m_blocks = rounded_up(piece.rows(), kBlockRows) / kBlockRows,
                         .n_blocks = rounded_up(part.out, kBlockRows) / kBlockRows,
                         .a_step = kBlockElements,
                         .a_depth = depth_step(part.in + 1),
                         .b_step = kBlockElements,
                         .b_depth = depth_step(part.out),
                         .c = gradient,
                         .c_row = gradient_row,
                         .start = {}};
  const std::size_t blocks = depth_blocks(part);
  for (std::size_t l = 0; l < blocks; l += kBlocksAtOnce) {
    product.k_blocks = std::min(kBlocksAtOnce, blocks - l);
    product.a =
        operands.left.data() + l * product.a_depth + piece.begin / kBlockRows * kBlockElements;
    product.b = operands.right.data() + l * product.b_depth;
    towers_.kernels().multiply_bf16(product);
    product.start = {gradient, gradient_row};
  }
}

float* TowerPass::weight_gradient(const Piece& piece, std::size_t thread,
                                  std::size_t& gradient_row) {
  const Kernels& kernels = towers_.kernels();
  AlignedArray<float>& gradient = scratch_[thread].gradient;
  const std::size_t parts = operands_.size();
  gradient_row = rounded_up(piece.row, kBlockRows);
  if (piece.part >= parts) {  // a logit layer: [1, in] and its bias
    const std::size_t t = piece.part - parts;
    const bool is_deep = towers_.logit(t).is_deep;
    const float* const last = is_deep ? hidden_.back().data() : x_.data();
    const std::size_t row = is_deep ? rows_.back() : x_row_;
    const float* const d = logit_gradients_[t].data();
    gradient_row = 1;
    gradient.reserve(piece.end + 1);
    kernels.multiply({1,
                      piece.end,
                      samples_,
                      d,
                      0,
                      1,
                      last + towers_.logit(t).in_begin,
                      row,
                      gradient.data(),
                      piece.end,
                      {},
                      Finish::none});
    kernels.multiply(
        {1, 1, samples_, &kOne, 0, 0, d, 1, gradient.data() + piece.end, 1, {}, Finish::none});
    return gradient.data();
  }
  const Towers::Part& part = towers_.parts()[piece.part];
  gradient.reserve(rounded_up(piece.rows(), kBlockRows) * gradient_row);
  if (towers_.is_bf16()) {
    bf16_gradient(piece, gradient.data(), gradient_row);
    return gradient.data();
  }
  const bool of_contexts = is_context(part);
  const std::size_t count = of_contexts ? contexts_ : samples_;
  const std::size_t d_row = rows_[part.layer];
  const std::size_t in_row = of_contexts       ? context_x_row_
                             : part.layer == 0 ? x_row_
                                               : rows_[part.layer - 1];
  const float* const in = of_contexts       ? context_x_.data()
                          : part.layer == 0 ? x_.data()
                                            : hidden_[part.layer - 1].data() + part.in_begin;
  const float* const d =
      of_contexts ? context_delta_.data() : deltas_[part.layer].data() + part.out_begin;
  const std::size_t rows = piece.end - piece.begin;
  // The biases' sums pass by while the gradients are in the cache.
  for (std::size_t s = 0; s < count; s += kSamplesAtOnce) {
    const std::size_t some = std::min(kSamplesAtOnce, count - s);
    const Start start = s == 0 ? Start{} : Start{gradient.data(), gradient_row};
    kernels.multiply({rows, part.out, some, in + piece.begin + s * in_row, 1, in_row, d + s * d_row,
                      d_row, gradient.data(), gradient_row, start, Finish::none});
    if (!piece.has_bias) continue;
    float* const bias = gradient.data() + rows * gradient_row;
    kernels.multiply({1, part.out, some, &kOne, 0, 0, d + s * d_row, d_row, bias, gradient_row,
                      s == 0 ? Start{} : Start{bias, 0}, Finish::none});
  }
  return gradient.data();
}

}  // namespace sluice
