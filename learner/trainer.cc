#include "learner/trainer.h"

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "base/check.h"
#include "learner/adam.h"
#include "learner/trainer_impl.h"
#include "learner/vector_math.h"

namespace sluice {

namespace {

constexpr std::size_t kParametersAPiece = 4096;
constexpr std::size_t kRowsAPiece = 256;
constexpr std::size_t kRowSlots = 2;  // Adam's m and v

FinalLabels labels_of(const Sample& sample) {
  return {sample.y, sample.y_final, sample.z, sample.z_final};
}

}  // namespace

std::string kept_key(const Sample& sample) {
  std::string key;
  ByteWriter(key).key_u32(sample.shard);
  return key + sample.impression_id;
}

Learned::Learned(const Config& config)
    : model(Schema(config.features, config.model), kRowSlots),
      dense_m(model.towers().parameters().size()),
      dense_v(dense_m.size()),
      wrong_types(config.features.size()) {
  SLUICE_CHECK(config.model.recipe == "esmm");
  SLUICE_CHECK(config.training.dense.optimizer == OptimizerConfig::Rule::adam);
  SLUICE_CHECK(config.training.embeddings.optimizer == OptimizerConfig::Rule::adam);
  SLUICE_CHECK(config.training.lane > 0);
  SLUICE_CHECK(config.model.precision == ModelConfig::Precision::f32);
}

Trainer::Trainer(const Config& config, Workers& workers)
    : impl_(std::make_unique<Impl>(config, workers)) {}
Trainer::~Trainer() = default;

void Trainer::set_listener(BatchListener listener) {
  impl_->listener = std::move(listener);
}

Status Trainer::offer(Sample sample) {
  SLUICE_CHECK(sample.sequence == next_sequence());
  SLUICE_CHECK(sample.y_final || sample.z_final);
  SLUICE_CHECK(sample.y || !sample.z);
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

// A batch's way: decode, find rows, predict and differentiate, validate, learn.
Status Trainer::Impl::train() {
  const std::vector<Sample> samples = pending.take();
  const std::uint64_t step = learned.steps + 1;
  std::vector<Prediction> predictions(samples.size());

  cut_lanes(samples.size());
  decode_and_gather(samples, step);
  compute_gradients(samples, predictions);
  validate(samples, predictions);
  update_dense(step);
  update_rows(step);

  learned.steps = step;
  learned.trained_sequence = samples.back().sequence;
  learned.tick = floor_to(samples.back().time, config.join.tick);
  for (const Sample& sample : samples) {
    learned.samples_digest = chain_sample(learned.samples_digest, sample);
  }
  if (!listener) return {};
  return listener({samples, predictions, learned.trained_sequence, learned.tick});
}

void Trainer::Impl::cut_lanes(std::size_t samples) {
  const std::size_t lane_samples = config.training.lane;
  const std::size_t inputs = learned.model.schema().inputs();
  lane_count = (samples + lane_samples - 1) / lane_samples;
  if (lanes.size() < lane_count) lanes.resize(lane_count);
  while (decoded.size() < lane_count) decoded.push_back(learned.model.schema().make_decoded());
  for (std::size_t n = 0; n < lane_count; ++n) {
    Lane& lane = lanes[n];
    lane.begin = static_cast<std::uint32_t>(n * lane_samples);
    lane.end = static_cast<std::uint32_t>(std::min((n + 1) * lane_samples, samples));
    lane.columns = padded_to_tiles(lane.end - lane.begin);
    lane.parameter_gradients.resize(learned.dense_m.size());
    lane.x_gradients.resize(inputs * lane.columns);
  }
}

void Trainer::Impl::decode_and_gather(const std::vector<Sample>& samples, std::uint64_t step) {
  const Schema& schema = learned.model.schema();
  workers.run(lane_count, [&](std::size_t n, std::size_t) {
    decoded[n].clear();
    for (std::uint32_t s = lanes[n].begin; s < lanes[n].end; ++s) {
      // An impression's second sample has the same features: only the first is counted.
      const bool is_first = samples[s].y_final;
      SLUICE_CHECK(schema.decode(samples[s].features, s, is_first, decoded[n]));
    }
  });
  // In ESMM every sample has a final term, and both terms reach every table: all rows that are
  // named are trained, so they may be made here.
  const std::span<DecodedSamples> parts(decoded.data(), lane_count);
  workers.run(batch_rows.size(), [&](std::size_t t, std::size_t) {
    batch_rows[t].gather(learned.model.tables()[t], t, parts, step);
  });
  for (const DecodedSamples& part : parts) {
    for (std::size_t f = 0; f < part.wrong_types.size(); ++f) {
      learned.wrong_types[f] += part.wrong_types[f];
    }
  }
}

void Trainer::Impl::compute_gradients(const std::vector<Sample>& samples,
                                      std::vector<Prediction>& predictions) {
  workers.run(lane_count, [&](std::size_t n, std::size_t thread) {
    compute_lane(n, thread_scratch[thread], samples, predictions);
  });
}

void Trainer::Impl::compute_lane(std::size_t n, ThreadScratch& scratch,
                                 const std::vector<Sample>& samples,
                                 std::vector<Prediction>& predictions) {
  Lane& lane = lanes[n];
  const Model& model = learned.model;
  const std::size_t inputs = model.schema().inputs();
  const std::size_t columns = lane.columns;
  scratch.x.resize(inputs * columns);
  scratch.logits.resize(kTowers * columns);
  scratch.logit_gradients.assign(kTowers * columns, 0.0F);  // padding has none
  float* const a = scratch.logits.data();
  float* const b = a + columns;
  float* const a_gradients = scratch.logit_gradients.data();
  float* const b_gradients = a_gradients + columns;

  pool(decoded[n], model.schema().dim(), lane.begin, inputs, columns, scratch.x.data());
  model.towers().forward(scratch.x.data(), columns, scratch.workspace, std::array{a, b});
  const auto batch_samples = static_cast<double>(samples.size());
  for (std::uint32_t s = lane.begin; s < lane.end; ++s) {
    const std::size_t column = s - lane.begin;
    predictions[s] = predict(a[column], b[column]);
    const EsmmLoss loss = esmm_loss(a[column], b[column], labels_of(samples[s]));
    a_gradients[column] = static_cast<float>(loss.ctr_gradient / batch_samples);
    b_gradients[column] = static_cast<float>(loss.cvr_gradient / batch_samples);
  }
  model.towers().backward(scratch.x.data(), columns, scratch.workspace,
                          std::array<const float*, kTowers>{a_gradients, b_gradients},
                          lane.parameter_gradients, lane.x_gradients.data());
}

void Trainer::Impl::validate(const std::vector<Sample>& samples,
                             std::vector<Prediction>& predictions) {
  const FlushDenormals flush;
  for (std::size_t s = 0; s < samples.size(); ++s) {
    const Sample& sample = samples[s];
    if (!sample.y_final) {
      const auto first = learned.kept.find(kept_key(sample));
      SLUICE_CHECK(first != learned.kept.end());
      predictions[s] = first->second;
      learned.kept.erase(first);
    } else if (sample.y && !sample.z_final) {
      SLUICE_CHECK(learned.kept.emplace(kept_key(sample), predictions[s]).second);
    }
    learned.metrics.add(labels_of(sample), predictions[s]);
    learned.window_metrics.add(labels_of(sample), predictions[s]);
  }
}

void Trainer::Impl::update_dense(std::uint64_t step) {
  const AdamStep adam(config.training.dense, step);
  const std::span<float> weights = learned.model.towers().parameters();
  const std::size_t pieces = (weights.size() + kParametersAPiece - 1) / kParametersAPiece;
  workers.run(pieces, [&](std::size_t piece, std::size_t) {
    const std::size_t begin = piece * kParametersAPiece;
    const std::size_t count = std::min(kParametersAPiece, weights.size() - begin);
    std::array<float, kParametersAPiece> gradient;
    std::copy_n(lanes[0].parameter_gradients.data() + begin, count, gradient.data());
    for (std::size_t n = 1; n < lane_count; ++n) {
      add(count, lanes[n].parameter_gradients.data() + begin, gradient.data());
    }
    adam.apply(count, gradient.data(), weights.data() + begin, learned.dense_m.data() + begin,
               learned.dense_v.data() + begin);
  });
}

void Trainer::Impl::update_rows(std::uint64_t step) {
  const AdamStep adam(config.training.embeddings, step);
  const std::size_t dim = learned.model.schema().dim();
  const std::size_t inputs = learned.model.schema().inputs();
  const std::size_t lane_samples = config.training.lane;
  row_pieces.clear();
  for (std::size_t t = 0; t < batch_rows.size(); ++t) {
    for (std::size_t begin = 0; begin < batch_rows[t].size(); begin += kRowsAPiece) {
      row_pieces.push_back({t, begin, std::min(begin + kRowsAPiece, batch_rows[t].size())});
    }
  }
  workers.run(row_pieces.size(), [&](std::size_t p, std::size_t) {
    const RowPiece& piece = row_pieces[p];
    const BatchRows& rows = batch_rows[piece.table];
    EmbeddingTable& table = learned.model.tables()[piece.table];
    std::vector<float> gradient(dim);
    for (std::size_t n = piece.begin; n < piece.end; ++n) {
      std::fill(gradient.begin(), gradient.end(), 0.0F);
      for (const BatchRows::Use& use : rows.uses(n)) {
        const Lane& lane = lanes[use.sample / lane_samples];
        const float* const column =
            lane.x_gradients.data() + (use.sample - lane.begin) * inputs + use.column;
        add_scaled(dim, use.weight, column, gradient.data());
      }
      float* const weights = table.values(rows.row(n));
      adam.apply(dim, gradient.data(), weights, weights + dim, weights + 2 * dim);
    }
  });
}

}  // namespace sluice
