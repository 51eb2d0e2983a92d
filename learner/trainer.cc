#include "learner/trainer.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <optional>

#include "base/bytes.h"
#include "base/check.h"
#include "learner/trainer_impl.h"

namespace sluice {

namespace {

constexpr std::size_t kRowsAPiece = 256;

FinalLabels labels_of(const Sample& sample) {
  return {sample.y, sample.y_final, sample.z, sample.z_final};
}

constexpr const char* kNotFiniteAdvice =
    "; the model has diverged, or a dense number or a weight of an id is too large: give that "
    "feature buckets, lower the learning rates or set clip_norm, and replay into a new data folder";

// One of which only the action became final has no term in ESMM: it trains nothing.
bool has_term(const Sample& sample) {
  return sample.y_final || sample.z_final;
}

std::string sample_text(const Sample& sample) {
  return "sample " + std::to_string(sample.sequence) + " (impression " + sample.impression_id + ")";
}

}  // namespace

std::string kept_key(const Sample& sample) {
  std::string key;
  ByteWriter(key).key_u32(sample.shard);
  return key + sample.impression_id;
}

Learned::Learned(const Config& config)
    : model(Schema(config.features, config.model), slots_of(config.training.embeddings)),
      dense_slots(slots_of(config.training.dense)),
      wrong_types(config.features.size()),
      absent(config.features.size()) {
  SLUICE_CHECK(config.model.recipe == "esmm");
  SLUICE_CHECK(config.training.lane > 0);
  const std::span<const float> weights = model.towers().parameters();
  for (const Slot& slot : dense_slots) {
    SLUICE_CHECK(!slot.per_row);
    slot.begin(weights.size(), weights.data(), dense_state.emplace_back(weights.size()).data());
  }
}

Trainer::Trainer(const Config& config, Workers& workers)
    : impl_(std::make_unique<Impl>(config, workers)) {}
Trainer::~Trainer() = default;

void Trainer::set_listener(BatchListener listener) {
  impl_->listener = std::move(listener);
}

Status Trainer::offer(Sample sample) {
  SLUICE_CHECK(sample.sequence == next_sequence());
  SLUICE_CHECK(sample.y_final || sample.action_final || sample.z_final);
  SLUICE_CHECK(sample.y || (!sample.action && !sample.z));
  SLUICE_CHECK(sample.value == 0 || (sample.z && sample.z_final));
  if (impl_->pending.ends_before(sample)) SLUICE_TRY(impl_->train());
  impl_->pending.add(std::move(sample));
  return impl_->pending.is_full() ? impl_->train() : Status();
}

Status Trainer::pass(TimeMs frontier) {
  return impl_->pending.is_passed_by(frontier) ? impl_->train() : Status();
}

Status Trainer::finish() {
  return impl_->pending.empty() ? Status() : impl_->train();
}

std::uint64_t Trainer::next_sequence() const {
  return impl_->learned.trained_sequence + impl_->pending.size() + 1;
}
std::uint64_t Trainer::trained_sequence() const {
  return impl_->learned.trained_sequence;
}
Digest Trainer::samples_digest() const {
  return impl_->learned.samples_digest;
}
nlohmann::ordered_json Trainer::metrics() const {
  return impl_->learned.metrics.json();
}
nlohmann::ordered_json Trainer::window_metrics() const {
  return impl_->learned.window_metrics.json();
}

// A batch's way: decode, find rows, predict and differentiate, validate and learn. Each step's
// pieces are independent; what they write does not depend on who computes them, nor how they are
// cut. What is not finite ends it before anyone is told of the batch, so that nothing of it is
// published.
Status Trainer::Impl::train() {
  past = std::exchange(samples, pending.take());
  const std::uint64_t step = learned.steps + 1;
  predictions.resize(samples.size());

  decode();
  decode_contexts();
  gather(step);
  SLUICE_TRY(check_bounds());
  forward_contexts();
  compute_lanes();
  backward_contexts();
  SLUICE_TRY(check_logits());
  SLUICE_TRY(update(step));

  learned.steps = step;
  learned.trained_sequence = samples.back().sequence;
  learned.tick = floor_to(samples.back().time, config.join.tick);
  if (!listener) return {};
  return listener({samples, predictions, learned.trained_sequence, learned.tick});
}

std::vector<Trainer::Impl::Lane> Trainer::Impl::lanes_of(std::size_t rows) const {
  const std::size_t most = rounded_up(config.training.lane, kLaneUnit);
  std::vector<Lane> result;
  for (std::size_t begin = 0; begin < rows; begin += most) {
    result.push_back({begin, std::min(begin + most, rows)});
  }
  return result;
}

void Trainer::Impl::decode() {
  constexpr std::size_t kAhead = 4;
  const Schema& schema = learned.model.schema();
  lanes = lanes_of(samples.size());
  while (own.size() < lanes.size()) own.push_back(schema.make_decoded());
  context_digests.resize(samples.size());
  workers.run(lanes.size(), [&](std::size_t n, std::size_t) {
    free_past(n);
    own[n].clear();
    for (std::size_t s = lanes[n].begin; s < lanes[n].end; ++s) {
      if (s + kAhead < lanes[n].end) {
        const std::string& next = samples[s + kAhead].features;
        __builtin_prefetch(next.data());
        __builtin_prefetch(next.data() + next.size());
      }
      if (!has_term(samples[s])) {  // its prediction is kept, its rows are not to be touched
        context_digests[s] = Digest();
        continue;
      }
      // An impression's second sample has the same features: only the first is counted.
      const bool is_first = samples[s].y_final;
      const auto at = static_cast<std::uint32_t>(s * pass.input_row());
      SLUICE_CHECK(schema.decode(samples[s].features, at, is_first, own[n], context_digests[s]));
    }
  });
  for (std::size_t n = 0; n < lanes.size(); ++n) {
    for (std::size_t f = 0; f < learned.wrong_types.size(); ++f) {
      learned.wrong_types[f] += own[n].wrong_types[f];
      learned.absent[f] += own[n].absent[f];
    }
  }
}

// One lane's share of the samples before: freeing thousands of texts takes its time, on any thread.
void Trainer::Impl::free_past(std::size_t lane) {
  const std::size_t end = past.size() * (lane + 1) / lanes.size();
  for (std::size_t s = past.size() * lane / lanes.size(); s < end; ++s) past[s] = Sample();
}

void Trainer::Impl::decode_contexts() {
  const Schema& schema = learned.model.schema();
  contexts.clear();
  if (schema.inputs().context > 0) contexts.assign(context_digests);
  context_lanes = lanes_of(contexts.size());
  while (shared.size() < context_lanes.size()) shared.push_back(schema.make_decoded());
  pass.begin(samples.size(), contexts.size(), contexts.of_sample(),
             rounded_up(config.training.lane, kLaneUnit));
  const std::size_t first = pass.first_context_gradient();
  workers.run(context_lanes.size(), [&](std::size_t n, std::size_t) {
    shared[n].clear();
    for (std::size_t c = context_lanes[n].begin; c < context_lanes[n].end; ++c) {
      const Sample& sample = samples[contexts.first_sample(c)];
      if (!has_term(sample)) continue;
      schema.decode_context(sample.features,
                            static_cast<std::uint32_t>(first + c * pass.context_row()), shared[n]);
    }
  });
}

// In ESMM both terms reach every table: all rows that decoded samples name are trained, so they may
// be made here.
void Trainer::Impl::gather(std::uint64_t step) {
  std::vector<DecodedSamples*> decoded;
  for (std::size_t n = 0; n < lanes.size(); ++n) decoded.push_back(&own[n]);
  for (std::size_t n = 0; n < context_lanes.size(); ++n) decoded.push_back(&shared[n]);
  workers.run(batch_rows.size(), [&](std::size_t part, std::size_t thread) {
    batch_rows[part].gather(learned.model.tables(), part, decoded, step, gather_scratch[thread]);
  });
}

void Trainer::Impl::forward_contexts() {
  const std::size_t row = pass.context_row();
  workers.run(context_lanes.size(), [&](std::size_t n, std::size_t thread) {
    const auto [begin, end] = context_lanes[n];
    float* const x = pass.context_input(begin, thread);
    std::fill_n(x, (end - begin) * row, 0.0F);
    pool(shared[n], learned.model.schema().dim(),
         static_cast<std::uint32_t>(pass.first_context_gradient() + begin * row), x);
    pass.forward_contexts(begin, end, thread);
  });
}

void Trainer::Impl::compute_lanes() {
  const std::size_t row = pass.input_row();
  const auto batch_samples = static_cast<double>(samples.size());
  workers.run(lanes.size(), [&](std::size_t n, std::size_t thread) {
    const auto [begin, end] = lanes[n];
    float* const x = pass.input(begin, thread);
    std::fill_n(x, (end - begin) * row, 0.0F);
    pool(own[n], learned.model.schema().dim(), static_cast<std::uint32_t>(begin * row), x);
    pass.forward(begin, end, thread);
    const float* const a = pass.logits(Tower::ctr);
    const float* const b = pass.logits(Tower::cvr);
    for (std::size_t s = begin; s < end; ++s) {
      const Rate p = rate_of(a[s]);
      const Rate q = rate_of(b[s]);
      predictions[s] = predict(a[s], b[s], p, q);
      const LossGradients gradients = esmm_gradients(a[s], b[s], p, q, labels_of(samples[s]));
      pass.logit_gradients(Tower::ctr)[s] = static_cast<float>(gradients.ctr / batch_samples);
      pass.logit_gradients(Tower::cvr)[s] = static_cast<float>(gradients.cvr / batch_samples);
    }
    pass.backward(begin, end, thread);
  });
}

void Trainer::Impl::backward_contexts() {
  workers.run(context_lanes.size(), [&](std::size_t n, std::size_t thread) {
    pass.backward_contexts(context_lanes[n].begin, context_lanes[n].end, thread, contexts.samples(),
                           contexts.begins());
  });
}

// The loss is finite for finite logits.
Status Trainer::Impl::check_logits() const {
  for (std::size_t s = 0; s < samples.size(); ++s) {
    const Prediction& prediction = predictions[s];
    if (std::isfinite(prediction.ctr_logit) && std::isfinite(prediction.cvr_logit)) continue;
    return stop_error(sample_text(samples[s]) + ": its logits are not finite (CTR " +
                      std::to_string(prediction.ctr_logit) + ", CVR " +
                      std::to_string(prediction.cvr_logit) + ")" + kNotFiniteAdvice);
  }
  return {};
}

// All that changes what was learned; the pieces touch different things.
Status Trainer::Impl::update(std::uint64_t step) {
  const OptimizerStep dense_step(config.training.dense, step);
  const OptimizerStep row_step(config.training.embeddings, step);
  const float scale = dense_step.clips() ? dense_clip_scale(dense_step) : 1.0F;
  const auto& weight_pieces = pass.pieces();
  std::vector<RowPiece> row_pieces;
  for (std::size_t part = 0; part < batch_rows.size(); ++part) {
    const std::size_t rows = batch_rows[part].size();
    for (std::size_t begin = 0; begin < rows; begin += kRowsAPiece) {
      row_pieces.push_back({part, begin, std::min(begin + kRowsAPiece, rows)});
    }
  }
  std::atomic<bool> layers_are_finite = true;
  std::vector<std::optional<std::size_t>> wrong_rows(row_pieces.size());
  // The largest first, so that the threads end together.
  workers.run(1 + weight_pieces.size() + row_pieces.size(), [&](std::size_t n, std::size_t thread) {
    if (n == 0) {
      validate();
    } else if (n <= weight_pieces.size()) {
      if (!update_weights(weight_pieces[n - 1], thread, dense_step, scale)) {
        layers_are_finite = false;
      }
    } else {
      n -= 1 + weight_pieces.size();
      wrong_rows[n] = update_rows(row_pieces[n], row_step);
    }
  });
  for (std::size_t n = 0; n < row_pieces.size(); ++n) {
    if (wrong_rows[n]) return not_finite_row(row_pieces[n], *wrong_rows[n]);
  }
  if (layers_are_finite) return {};
  return stop_error("samples " + std::to_string(samples.front().sequence) + " to " +
                    std::to_string(samples.back().sequence) +
                    ": the layers are not finite after the update by this batch" +
                    kNotFiniteAdvice);
}

void Trainer::Impl::validate() {
  for (std::size_t s = 0; s < samples.size(); ++s) {
    const Sample& sample = samples[s];
    learned.samples_digest = chain_sample(learned.samples_digest, sample);
    if (!sample.y_final) {
      const auto first = learned.kept.find(kept_key(sample));
      SLUICE_CHECK(first != learned.kept.end());
      predictions[s] = first->second;
      if (is_last_sample(sample)) learned.kept.erase(first);
    } else if (sample.y && !is_last_sample(sample)) {
      SLUICE_CHECK(learned.kept.emplace(kept_key(sample), predictions[s]).second);
    }
    const ProgressiveMetrics::Judged judged(labels_of(sample), predictions[s]);
    learned.metrics.add(judged);
    learned.window_metrics.add(judged);
  }
}

// The norm is known only when the whole gradient is, which is therefore kept.
float Trainer::Impl::dense_clip_scale(const OptimizerStep& optimizer) {
  dense_gradient.resize(learned.model.towers().parameters().size());
  workers.run(pass.pieces().size(), [&](std::size_t n, std::size_t thread) {
    const TowerPass::Piece& piece = pass.pieces()[n];
    std::size_t row = 0;
    const float* const gradient = pass.weight_gradient(piece, thread, row);
    for (std::size_t r = 0; r < piece.rows(); ++r) {
      std::copy_n(gradient + r * row, piece.row,
                  dense_gradient.data() + piece.offset + r * piece.row);
    }
  });
  return optimizer.clip_scale(sum_of_squares(dense_gradient.size(), dense_gradient.data()));
}

// False where what was updated is not finite.
bool Trainer::Impl::update_weights(const TowerPass::Piece& piece, std::size_t thread,
                                   const OptimizerStep& optimizer, float scale) {
  const std::size_t count = piece.rows() * piece.row;
  std::size_t gradient_row = piece.row;
  float* gradient = nullptr;
  if (optimizer.clips()) {
    gradient = dense_gradient.data() + piece.offset;
    for (std::size_t k = 0; k < count; ++k) gradient[k] *= scale;
  } else {
    gradient = pass.weight_gradient(piece, thread, gradient_row);
  }
  Towers& towers = learned.model.towers();
  float* const weights = towers.parameters().data() + piece.offset;
  std::array<float*, kMaxSlots> slots = {};
  for (std::size_t n = 0; n < learned.dense_state.size(); ++n) {
    slots[n] = learned.dense_state[n].data() + piece.offset;
  }
  bool is_finite = true;
  for (std::size_t r = 0; r < piece.rows(); ++r) {
    const std::size_t at = r * piece.row;
    const auto of_row = [at](float* values) { return values == nullptr ? values : values + at; };
    is_finite &= optimizer.apply(piece.row, gradient + r * gradient_row, weights + at,
                                 of_row(slots[0]), of_row(slots[1]));
  }
  if (piece.part < towers.parts().size()) towers.refresh(piece.part, piece.begin, piece.end);
  return is_finite;
}

// The first row that is not finite afterwards.
std::optional<std::size_t> Trainer::Impl::update_rows(const RowPiece& piece,
                                                      const OptimizerStep& optimizer) {
  constexpr std::size_t kAhead = 8;
  const RowLayout& layout = learned.model.tables()[0].layout();  // of all tables
  const std::size_t floats = layout.floats();
  const BatchRows& rows = batch_rows[piece.part];
  const auto sum_uses = learned.model.towers().kernels().sum_uses;
  std::optional<std::size_t> wrong;
  std::vector<float> gradient(rounded_up(layout.dim, kBlockRows));
  for (std::size_t n = piece.begin; n < piece.end; ++n) {
    if (n + kAhead < piece.end) {
      const auto* const next = reinterpret_cast<const std::byte*>(rows.row(n + kAhead));
      for (std::size_t at = 0; at < floats * sizeof(float); at += 64) {
        __builtin_prefetch(next + at, 1);
      }
      __builtin_prefetch(pass.input_gradients() + rows.uses(n + kAhead).front().at);
    }
    sum_uses(rows.uses(n), layout.dim, pass.input_gradients(), gradient.data());
    if (!optimizer.apply_row(layout.dim, gradient.data(), rows.row(n)->values()) && !wrong) {
      wrong = n;
    }
  }
  return wrong;
}

Status Trainer::Impl::not_finite_row(const RowPiece& piece, std::size_t row) const {
  const BatchRows& rows = batch_rows[piece.part];
  const std::size_t at = rows.uses(row).front().at;
  const auto& tables = learned.model.tables();
  const auto table = std::find_if(tables.begin(), tables.end(), [&](const EmbeddingTable& one) {
    return one.find(rows.row(row)->key) == rows.row(row);
  });
  SLUICE_CHECK(table != tables.end());
  const std::size_t first_context = pass.first_context_gradient();
  const std::size_t s = at < first_context
                            ? at / pass.input_row()
                            : contexts.first_sample((at - first_context) / pass.context_row());
  return stop_error(sample_text(samples[s]) + ": a row of table " + table->name() +
                    " that it names is not finite after its update" + kNotFiniteAdvice);
}

// Before the machine runs out of memory, or the next batch is published.
Status Trainer::Impl::check_bounds() const {
  const ModelConfig& model = config.model;
  if (model.max_rows == 0 && model.max_memory == 0) return {};
  std::uint64_t rows = 0;
  std::uint64_t bytes = 0;
  for (const EmbeddingTable& table : learned.model.tables()) {
    rows += table.rows();
    bytes += table.bytes();
  }
  const auto stop = [&](const char* key, std::uint64_t bound, std::uint64_t has, const char* unit) {
    return stop_error("the embedding tables have " + std::to_string(has) + " " + unit +
                      ", more than model." + key + " = " + std::to_string(bound) +
                      "; nothing of it was kept: raise the bound and start again, which goes on "
                      "behind the last checkpoint, or replay into a new data folder with fewer or "
                      "coarser features");
  };
  if (model.max_rows != 0 && rows > model.max_rows) {
    return stop("max_rows", model.max_rows, rows, "rows");
  }
  if (model.max_memory != 0 && bytes > model.max_memory) {
    return stop("max_memory", model.max_memory, bytes, "bytes");
  }
  return {};
}

}  // namespace sluice
