#include "learner/scoring_model.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/lanes.h"
#include "learner/model_tensors.h"

namespace sluice {

namespace {

constexpr std::size_t kAtOnce = 4 * kLaneUnit;

// Before memory is taken for the towers, since anything may stand in a manifest: whether they need
// some more numbers than the tensors have. Which tensor is too small is said when it is read. As
// doubles, which do not overflow.
Status check_tower_sizes(const Schema& schema, const Tensors& tensors) {
  double needed = 0;
  for (const RecipeTower& tower : schema.recipe().towers) {
    auto in = static_cast<double>(schema.inputs().all());
    for (const std::uint64_t out : schema.model().hidden) {
      if (tower.kind != RecipeTower::Kind::mlp) break;
      needed += (in + 1) * static_cast<double>(out);
      in = static_cast<double>(out);
    }
    needed += in + 1;
  }
  double there = 0;
  for (const auto& [name, tensor] : tensors) {
    if (name.starts_with("tower.")) there += static_cast<double>(tensor.bytes.size()) / 4;
  }
  constexpr double kSome = 1e6;
  if (needed <= there + kSome) return {};
  return stop_error("the towers' tensors are smaller than the model that the manifest describes");
}

}  // namespace

ScoringModel::ScoringModel(std::shared_ptr<const Schema> schema,
                           std::shared_ptr<const Objective> objective)
    : schema_(std::move(schema)),
      objective_(std::move(objective)),
      places_(tower_places(schema_->recipe())) {}

// Fills the sets: `table_of` makes each table of the rows that the tensors have of it.
template <class F>
Status ScoringModel::read(const Tensors& tensors, const F& table_of) {
  SLUICE_TRY(check_tower_sizes(*schema_, tensors));
  std::vector<Towers> towers = make_towers(*schema_);
  for (std::size_t set = 0; set < towers.size(); ++set) {
    SLUICE_TRY(read_tower_tensors(tensors, "", towers[set], towers[set].parameters()));
    towers[set].refresh();
    std::vector<ServedTable> tables;
    for (std::size_t t = 0; t < schema_->tables().size(); ++t) {
      const std::string name = table_name(schema_->recipe(), set, schema_->tables()[t]);
      SLUICE_ASSIGN(const RowsView rows, view_table_tensors(tensors, name, schema_->dim()));
      tables.push_back(table_of(set, t, name, rows));
    }
    sets_.push_back({std::move(tables), std::move(towers[set])});
  }
  return {};
}

Result<ScoringModel> ScoringModel::from_snapshot(const nlohmann::ordered_json& json,
                                                 const Tensors& tensors) {
  SLUICE_ASSIGN(Schema of, Schema::from_json(json));
  const auto schema = std::make_shared<const Schema>(std::move(of));
  const std::uint64_t seed = schema->model().seed;
  ScoringModel model(schema, std::make_shared<const Objective>(schema->recipe(), seed));
  SLUICE_TRY(model.read(
      tensors, [&](std::size_t, std::size_t, const std::string& name, const RowsView& rows) {
        return ServedTable(name, schema->dim(), seed, rows);
      }));
  return model;
}

Result<ScoringModel> ScoringModel::with_delta(const nlohmann::ordered_json& json,
                                              const Tensors& tensors) const {
  SLUICE_ASSIGN(const Schema schema, Schema::from_json(json));
  if (schema.json() != schema_->json()) {
    return stop_error("the delta's model or features are others than its base's");
  }
  ScoringModel next(schema_, objective_);
  SLUICE_TRY(next.read(
      tensors, [&](std::size_t set, std::size_t table, const std::string&, const RowsView& rows) {
        return sets_[set].tables[table].with(rows);
      }));
  return next;
}

Tensors ScoringModel::tensors() const {
  Tensors tensors;
  for (const Set& set : sets_) {
    add_tower_tensors(set.towers, set.towers.parameters(), "", tensors);
    for (const ServedTable& table : set.tables) add_table_tensors(table, tensors);
  }
  return tensors;
}

ScoringModel::Scratch::Scratch(const ScoringModel& model)
    : own(model.schema().make_decoded()),
      shared(model.schema().make_decoded()),
      logits(model.places().size()) {
  own.part_mask = shared.part_mask = 0;
  for (const Set& set : model.sets()) passes.emplace_back(set.towers, 1, TowerPass::Use::score);
}

std::vector<Prediction> ScoringModel::score(std::span<const std::string_view> blobs) const {
  Scratch scratch(*this);
  std::vector<Prediction> predictions(blobs.size());
  score(blobs, scratch, predictions);
  return predictions;
}

void ScoringModel::score(std::span<const std::string_view> blobs, Scratch& scratch,
                         std::span<Prediction> out) const {
  SLUICE_CHECK(out.size() == blobs.size());
  const FlushDenormals flush;
  for (std::size_t begin = 0; begin < blobs.size(); begin += kAtOnce) {
    const std::size_t count = std::min(kAtOnce, blobs.size() - begin);
    score_some(blobs.subspan(begin, count), scratch, out.subspan(begin, count));
  }
}

void ScoringModel::score_some(std::span<const std::string_view> blobs, Scratch& scratch,
                              std::span<Prediction> out) const {
  std::vector<TowerPass>& passes = scratch.passes;
  const std::size_t row = passes[0].input_row();  // of all sets' inputs
  const std::size_t context_row = passes[0].context_row();
  DecodedSamples& own = scratch.own;
  DecodedSamples& shared = scratch.shared;
  own.clear();
  shared.clear();
  scratch.digests.resize(blobs.size());
  for (std::size_t s = 0; s < blobs.size(); ++s) {
    const auto at = static_cast<std::uint32_t>(s * row);
    SLUICE_CHECK(schema_->decode(blobs[s], at, false, own, scratch.digests[s]));
  }
  own.copy_terms();
  BatchContexts& contexts = scratch.contexts;
  if (schema_->inputs().context > 0) {
    contexts.assign(scratch.digests);
    for (std::size_t c = 0; c < contexts.size(); ++c) {
      schema_->decode_context(blobs[contexts.first_sample(c)],
                              static_cast<std::uint32_t>(c * context_row), shared);
    }
    shared.copy_terms();
  }
  for (std::size_t set = 0; set < sets_.size(); ++set) {
    TowerPass& pass = passes[set];
    const auto pool_all = [&](DecodedSamples& decoded, std::size_t floats, float* x) {
      find_rows(decoded, set, scratch);
      std::fill_n(x, floats, 0.0F);
      pool(decoded, set, schema_->dim(), 0, x);
    };
    pass.begin(blobs.size(), contexts.size(), contexts.of_sample(),
               rounded_up(blobs.size(), kLaneUnit));
    if (contexts.size() > 0) {
      pool_all(shared, contexts.size() * context_row, pass.context_input(0, 0));
      pass.forward_contexts(0, contexts.size(), 0);
    }
    pool_all(own, blobs.size() * row, pass.input(0, 0));
    pass.forward(0, blobs.size(), 0);
  }
  for (std::size_t s = 0; s < blobs.size(); ++s) {
    for (std::size_t t = 0; t < places_.size(); ++t) {
      scratch.logits[t] = passes[places_[t].set].logits(places_[t].tower)[s];
    }
    out[s] = objective_->predict(scratch.logits);
  }
}

// Most rows are in memory that no cache holds: their entries are asked for some look-ups ahead, and
// the rows once the entries are there. A row that the model does not hold has its initial values.
void ScoringModel::find_rows(DecodedSamples& decoded, std::size_t set, Scratch& scratch) const {
  constexpr std::size_t kAhead = 16;
  const std::vector<ServedTable>& tables = sets_[set].tables;
  const std::size_t dim = schema_->dim();
  float* absent = nullptr;
  std::size_t absent_rows = 0;
  const std::vector<DecodedSamples::Key>& keys = decoded.keys[0];
  const std::size_t count = keys.size();
  for (std::size_t n = 0; n < count + 2 * kAhead; ++n) {
    if (n < count) tables[keys[n].table].prefetch_entry(mix64(keys[n].key));
    if (n >= kAhead && n < count + kAhead) {
      const DecodedSamples::Key& soon = keys[n - kAhead];
      const std::byte* const likely = tables[soon.table].likely(mix64(soon.key));
      if (likely != nullptr) {
        __builtin_prefetch(likely);
        __builtin_prefetch(RowBlock::values_at(likely) + dim - 1);
      }
    }
    if (n < 2 * kAhead) continue;
    const DecodedSamples::Key& now = keys[n - 2 * kAhead];
    RowTerm& term = decoded.terms[set][now.term];
    term.row = tables[now.table].find(now.key, mix64(now.key));
    if (term.row != nullptr) continue;
    if (absent == nullptr) {
      scratch.absent.reserve(decoded.terms[set].size() * dim);
      absent = scratch.absent.data();
    }
    float* const values = absent + absent_rows++ * dim;
    tables[now.table].initial(now.key, {values, dim});
    term.row = values;
  }
}

}  // namespace sluice
