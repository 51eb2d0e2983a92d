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

constexpr const char* kNotFiniteAdvice =
    "; the model has diverged, or a dense number or a weight of an id is too large: give that "
    "feature buckets, lower the learning rates or set clip_norm, and replay into a new data folder";

std::string sample_text(const Sample& sample) {
  return "sample " + std::to_string(sample.sequence) + " (impression " + sample.impression_id + ")";
}

}  // namespace

FinalLabels labels_of(const SampleLabels& sample) {
  FinalLabels labels;
  labels.y = sample.y;
  labels.y_final = sample.y_final;
  labels.z = sample.z;
  labels.z_final = sample.z_final;
  labels.z_was_final = sample.z_earlier;
  labels.action = sample.action;
  labels.action_final = sample.action_final;
  labels.action_was_final = !sample.action_final && !sample.action_later;
  return labels;
}

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
  SLUICE_CHECK(config.training.lane > 0);
  for (const EmbeddingSet& set : model.sets()) {
    const std::span<const float> weights = set.towers.parameters();
    auto& state = dense_state.emplace_back();
    for (const Slot& slot : dense_slots) {
      SLUICE_CHECK(!slot.per_row);
      slot.begin(weights.size(), weights.data(), state.emplace_back(weights.size()).data());
    }
  }
}

void Trainer::Impl::make_passes() {
  passes.clear();
  weight_pieces.clear();
  for (const EmbeddingSet& set : learned.model.sets()) {
    passes.push_back({TowerPass(set.towers, workers.threads())});
    for (const TowerPass::Piece& piece : passes.back().towers.pieces()) {
      weight_pieces.push_back({passes.size() - 1, piece});
    }
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

const Objective& Trainer::objective() const {
  return impl_->learned.model.objective();
}

std::uint64_t Trainer::cut_ratios() const {
  return impl_->learned.cut_ratios;
}

// A batch's way: decode, find rows, predict and differentiate, validate and learn. Each step's
// pieces are independent; what they write does not depend on who computes them, nor how they are
// cut. What is not finite ends it before anyone is told of the batch, so that nothing of it is
// published.
Status Trainer::Impl::train() {
  past = std::exchange(samples, pending.take());
  const std::uint64_t step = learned.steps + 1;
  predictions.resize(samples.size());
  logits.resize(samples.size() * learned.model.places().size());
  reached.resize(samples.size());

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
  return listener({samples, predictions, logits, learned.trained_sequence, learned.tick});
}

std::vector<Trainer::Impl::Lane> Trainer::Impl::lanes_of(std::size_t rows) const {
  const std::size_t most = rounded_up(config.training.lane, kLaneUnit);
  std::vector<Lane> result;
  for (std::size_t begin = 0; begin < rows; begin += most) {
    result.push_back({begin, std::min(begin + most, rows)});
  }
  return result;
}

bool Trainer::Impl::is_learned(const Sample& sample) const {
  const auto& skipped = config.training.skip_samples;
  return std::none_of(skipped.begin(), skipped.end(),
                      [&](const SampleRange& range) { return range.holds(sample.sequence); });
}

void Trainer::Impl::decode() {
  constexpr std::size_t kAhead = 4;
  const Schema& schema = learned.model.schema();
  const Objective& objective = learned.model.objective();
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
      // An impression's second sample has the same features: only the first is counted.
      const bool is_first = samples[s].y_final;
      const auto at = static_cast<std::uint32_t>(s * passes[0].towers.input_row());
      const TowerSet towers = is_learned(samples[s]) ? objective.reached(labels_of(samples[s]),
                                                                         samples[s].impression_id)
                                                     : 0;
      reached[s] = static_cast<std::uint16_t>(objective.embedding_sets(towers));
      own[n].reached = reached[s];
      SLUICE_CHECK(schema.decode(samples[s].features, at, is_first, own[n], context_digests[s]));
    }
    own[n].copy_terms();
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
  for (SetPass& set : passes) {
    set.towers.begin(samples.size(), contexts.size(), contexts.of_sample(),
                     rounded_up(config.training.lane, kLaneUnit));
  }
  const TowerPass& pass = passes[0].towers;
  const std::size_t first = pass.first_context_gradient();
  workers.run(context_lanes.size(), [&](std::size_t n, std::size_t) {
    shared[n].clear();
    for (std::size_t c = context_lanes[n].begin; c < context_lanes[n].end; ++c) {
      shared[n].reached = 0;
      for (std::uint32_t k = contexts.begins()[c]; k < contexts.begins()[c + 1]; ++k) {
        shared[n].reached |= reached[contexts.samples()[k]];
      }
      schema.decode_context(samples[contexts.first_sample(c)].features,
                            static_cast<std::uint32_t>(first + c * pass.context_row()), shared[n]);
    }
    shared[n].copy_terms();
  });
}

// Rows that the batch trains are made before it is predicted: they have their initial values.
void Trainer::Impl::gather(std::uint64_t step) {
  std::vector<DecodedSamples*> decoded;
  for (std::size_t n = 0; n < lanes.size(); ++n) decoded.push_back(&own[n]);
  for (std::size_t n = 0; n < context_lanes.size(); ++n) decoded.push_back(&shared[n]);
  workers.run(passes.size() * EmbeddingTable::kParts, [&](std::size_t n, std::size_t thread) {
    const std::size_t set = n / EmbeddingTable::kParts;
    const std::size_t part = n % EmbeddingTable::kParts;
    passes[set].rows[part].gather(set, learned.model.sets()[set].tables, part, decoded, step,
                                  gather_scratch[thread]);
  });
}

void Trainer::Impl::forward_contexts() {
  const std::size_t dim = learned.model.schema().dim();
  workers.run(context_lanes.size(), [&](std::size_t n, std::size_t thread) {
    const auto [begin, end] = context_lanes[n];
    for (std::size_t set = 0; set < passes.size(); ++set) {
      TowerPass& pass = passes[set].towers;
      const std::size_t row = pass.context_row();
      float* const x = pass.context_input(begin, thread);
      std::fill_n(x, (end - begin) * row, 0.0F);
      pool(shared[n], set, dim,
           static_cast<std::uint32_t>(pass.first_context_gradient() + begin * row), x);
      pass.forward_contexts(begin, end, thread);
    }
  });
}

void Trainer::Impl::forward(std::size_t n, std::size_t thread) {
  const auto [begin, end] = lanes[n];
  for (std::size_t set = 0; set < passes.size(); ++set) {
    TowerPass& pass = passes[set].towers;
    const std::size_t row = pass.input_row();
    float* const x = pass.input(begin, thread);
    std::fill_n(x, (end - begin) * row, 0.0F);
    pool(own[n], set, learned.model.schema().dim(), static_cast<std::uint32_t>(begin * row), x);
    pass.forward(begin, end, thread);
  }
  const auto& places = learned.model.places();
  for (std::size_t t = 0; t < places.size(); ++t) {
    const float* const of_tower = passes[places[t].set].towers.logits(places[t].tower);
    for (std::size_t s = begin; s < end; ++s) logits_of(s)[t] = of_tower[s];
  }
}

// What is divided by a sum over the batch needs all of its logits first; the sum is in the samples'
// order.
TermDivisors Trainer::Impl::term_divisors() {
  const Objective& objective = learned.model.objective();
  if (!objective.needs_weight_sums()) return objective.divisors(samples.size(), {});
  workers.run(lanes.size(), [&](std::size_t n, std::size_t thread) { forward(n, thread); });
  std::vector<double> sums(objective.terms());
  for (std::size_t s = 0; s < samples.size(); ++s) {
    if (!is_learned(samples[s])) continue;
    objective.add_weights(logits_of(s), labels_of(samples[s]), samples[s].impression_id, sums);
  }
  return objective.divisors(samples.size(), sums);
}

void Trainer::Impl::compute_lanes() {
  const TermDivisors divisors = term_divisors();
  workers.run(lanes.size(), [&](std::size_t n, std::size_t thread) {
    const auto [begin, end] = lanes[n];
    forward(n, thread);
    for (std::size_t s = begin; s < end; ++s) differentiate(s, divisors);
    for (SetPass& set : passes) set.towers.backward(begin, end, thread);
  });
}

void Trainer::Impl::differentiate(std::size_t sample, const TermDivisors& divisors) {
  std::array<double, kMostTowers> gradients = {};
  const auto& places = learned.model.places();
  if (is_learned(samples[sample])) {
    learned.model.objective().gradients(
        logits_of(sample), labels_of(samples[sample]), samples[sample].impression_id, divisors,
        std::span(gradients).first(places.size()), predictions[sample]);
  } else {
    predictions[sample] = learned.model.objective().predict(logits_of(sample));
  }
  for (std::size_t t = 0; t < places.size(); ++t) {
    passes[places[t].set].towers.logit_gradients(places[t].tower)[sample] =
        static_cast<float>(gradients[t]);
  }
}

void Trainer::Impl::backward_contexts() {
  workers.run(context_lanes.size(), [&](std::size_t n, std::size_t thread) {
    for (SetPass& set : passes) {
      set.towers.backward_contexts(context_lanes[n].begin, context_lanes[n].end, thread,
                                   contexts.samples(), contexts.begins());
    }
  });
}

// The loss is finite for finite logits.
Status Trainer::Impl::check_logits() const {
  const auto& towers = learned.model.schema().recipe().towers;
  const auto wrong =
      std::find_if(logits.begin(), logits.end(), [](float logit) { return !std::isfinite(logit); });
  if (wrong == logits.end()) return {};
  const auto at = static_cast<std::size_t>(wrong - logits.begin());
  return stop_error(sample_text(samples[at / towers.size()]) + ": the logit of tower " +
                    towers[at % towers.size()].name + " is not finite (" + std::to_string(*wrong) +
                    ")" + kNotFiniteAdvice);
}

// All that changes what was learned; the pieces touch different things.
Status Trainer::Impl::update(std::uint64_t step) {
  const OptimizerStep dense_step(config.training.dense, step);
  const OptimizerStep row_step(config.training.embeddings, step);
  const float scale = dense_step.clips() ? dense_clip_scale(dense_step) : 1.0F;
  std::vector<RowPiece> row_pieces;
  for (std::size_t set = 0; set < passes.size(); ++set) {
    for (std::size_t part = 0; part < EmbeddingTable::kParts; ++part) {
      const std::size_t rows = passes[set].rows[part].size();
      for (std::size_t begin = 0; begin < rows; begin += kRowsAPiece) {
        row_pieces.push_back({set, part, begin, std::min(begin + kRowsAPiece, rows)});
      }
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
    const std::span<float> its_logits = logits_of(s);
    learned.samples_digest = chain_sample(learned.samples_digest, sample);
    if (!sample.y_final) {
      const auto first = learned.kept.find(kept_key(sample));
      SLUICE_CHECK(first != learned.kept.end());
      std::copy(first->second.begin(), first->second.end(), its_logits.begin());
      predictions[s] = learned.model.objective().predict(its_logits);
      if (is_last_sample(sample)) learned.kept.erase(first);
    } else if (sample.y && !is_last_sample(sample)) {
      std::vector<float> kept(its_logits.begin(), its_logits.end());
      SLUICE_CHECK(learned.kept.emplace(kept_key(sample), std::move(kept)).second);
    }
    if (sample.y_final && predictions[s].cut_ratios > 0) ++learned.cut_ratios;
    learned.metrics.add(labels_of(sample), predictions[s]);
    learned.window_metrics.add(labels_of(sample), predictions[s]);
  }
}

// The norm is known only when the whole gradient is, which is therefore kept.
float Trainer::Impl::dense_clip_scale(const OptimizerStep& optimizer) {
  for (std::size_t set = 0; set < passes.size(); ++set) {
    passes[set].dense_gradient.resize(learned.model.sets()[set].towers.parameters().size());
  }
  workers.run(weight_pieces.size(), [&](std::size_t n, std::size_t thread) {
    const auto& [set, piece] = weight_pieces[n];
    std::size_t row = 0;
    const float* const gradient = passes[set].towers.weight_gradient(piece, thread, row);
    for (std::size_t r = 0; r < piece.rows(); ++r) {
      std::copy_n(gradient + r * row, piece.row,
                  passes[set].dense_gradient.data() + piece.offset + r * piece.row);
    }
  });
  double squares = 0;
  for (const SetPass& set : passes) {
    squares += sum_of_squares(set.dense_gradient.size(), set.dense_gradient.data());
  }
  return optimizer.clip_scale(squares);
}

// False where what was updated is not finite.
bool Trainer::Impl::update_weights(const WeightPiece& weight_piece, std::size_t thread,
                                   const OptimizerStep& optimizer, float scale) {
  const auto& [set, piece] = weight_piece;
  const std::size_t count = piece.rows() * piece.row;
  std::size_t gradient_row = piece.row;
  float* gradient = nullptr;
  if (optimizer.clips()) {
    gradient = passes[set].dense_gradient.data() + piece.offset;
    for (std::size_t k = 0; k < count; ++k) gradient[k] *= scale;
  } else {
    gradient = passes[set].towers.weight_gradient(piece, thread, gradient_row);
  }
  Towers& towers = learned.model.sets()[set].towers;
  float* const weights = towers.parameters().data() + piece.offset;
  std::array<float*, kMaxSlots> slots = {};
  for (std::size_t n = 0; n < learned.dense_slots.size(); ++n) {
    slots[n] = learned.dense_state[set][n].data() + piece.offset;
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
  const EmbeddingSet& set = learned.model.sets()[piece.set];
  const RowLayout& layout = set.tables[0].layout();  // of all tables
  const std::size_t floats = layout.floats();
  const BatchRows& rows = passes[piece.set].rows[piece.part];
  const float* const input_gradients = passes[piece.set].towers.input_gradients();
  const auto sum_uses = set.towers.kernels().sum_uses;
  std::optional<std::size_t> wrong;
  std::vector<float> gradient(rounded_up(layout.dim, kBlockRows));
  for (std::size_t n = piece.begin; n < piece.end; ++n) {
    if (n + kAhead < piece.end && rows.row(n + kAhead) != nullptr) {
      const auto* const next = reinterpret_cast<const std::byte*>(rows.row(n + kAhead));
      for (std::size_t at = 0; at < floats * sizeof(float); at += 64) {
        __builtin_prefetch(next + at, 1);
      }
      __builtin_prefetch(input_gradients + rows.uses(n + kAhead).front().at);
    }
    if (rows.row(n) == nullptr) continue;
    sum_uses(rows.uses(n), layout.dim, input_gradients, gradient.data());
    if (!optimizer.apply_row(layout.dim, gradient.data(), rows.row(n)->values()) && !wrong) {
      wrong = n;
    }
  }
  return wrong;
}

Status Trainer::Impl::not_finite_row(const RowPiece& piece, std::size_t row) const {
  const auto& [pass, parts, gradient] = passes[piece.set];
  const BatchRows& rows = parts[piece.part];
  const std::size_t at = rows.uses(row).front().at;
  const auto& tables = learned.model.sets()[piece.set].tables;
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
  for (const EmbeddingSet& set : learned.model.sets()) {
    for (const EmbeddingTable& table : set.tables) {
      rows += table.rows();
      bytes += table.bytes();
    }
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
