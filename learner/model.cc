#include "learner/model.h"

#include <algorithm>
#include <memory>

#include "base/check.h"
#include "base/lanes.h"
#include "learner/batch.h"
#include "learner/model_tensors.h"

namespace sluice {

namespace {

// A recipe's only set has the names of the tables alone.
std::string table_name(const Recipe& recipe, std::size_t set, const std::string& table) {
  return recipe.embedding_sets.size() == 1 ? table : recipe.embedding_sets[set] + "." + table;
}

}  // namespace

Model::Model(Schema schema, const std::vector<Slot>& row_slots)
    : schema_(std::move(schema)), objective_(schema_.recipe(), schema_.model().seed) {
  const Recipe& recipe = schema_.recipe();
  const ModelConfig& model = schema_.model();
  std::vector<std::vector<RecipeTower>> towers(recipe.embedding_sets.size());
  for (const RecipeTower& tower : recipe.towers) {
    places_.push_back({tower.embeddings, towers[tower.embeddings].size()});
    towers[tower.embeddings].push_back(tower);
  }
  for (std::size_t set = 0; set < towers.size(); ++set) {
    std::vector<EmbeddingTable> tables;
    for (const std::string& table : schema_.tables()) {
      tables.emplace_back(table_name(recipe, set, table), RowLayout{schema_.dim(), row_slots},
                          model.seed);
    }
    sets_.push_back({std::move(tables), Towers(schema_.inputs(), towers[set], model.hidden,
                                               model.seed, model.precision)});
  }
}

Result<Model> Model::from_snapshot(const nlohmann::ordered_json& json, const Tensors& tensors) {
  SLUICE_ASSIGN(Schema schema, Schema::from_json(json));
  Model model(std::move(schema), {});
  for (auto& [tables, towers] : model.sets()) {
    SLUICE_TRY(read_tower_tensors(tensors, "", towers, towers.parameters()));
    towers.refresh();
    for (EmbeddingTable& table : tables) SLUICE_TRY(read_table_tensors(tensors, false, table));
  }
  return model;
}

std::vector<Prediction> Model::score(std::span<const std::string_view> blobs) const {
  constexpr std::size_t kAtOnce = 4 * kLaneUnit;
  const FlushDenormals flush;
  std::vector<Prediction> predictions;
  predictions.reserve(blobs.size());
  std::vector<TowerPass> passes;
  for (const EmbeddingSet& set : sets_) passes.emplace_back(set.towers, 1);
  for (std::size_t begin = 0; begin < blobs.size(); begin += kAtOnce) {
    score_some(blobs.subspan(begin, std::min(kAtOnce, blobs.size() - begin)), passes, predictions);
  }
  return predictions;
}

void Model::score_some(std::span<const std::string_view> blobs, std::vector<TowerPass>& passes,
                       std::vector<Prediction>& out) const {
  const std::size_t row = passes[0].input_row();  // of all sets' inputs
  const std::size_t context_row = passes[0].context_row();
  DecodedSamples own = schema_.make_decoded();
  DecodedSamples shared = schema_.make_decoded();
  std::vector<Digest> digests(blobs.size());
  for (std::size_t s = 0; s < blobs.size(); ++s) {
    const auto at = static_cast<std::uint32_t>(s * row);
    SLUICE_CHECK(schema_.decode(blobs[s], at, false, own, digests[s]));
  }
  own.copy_terms();
  BatchContexts contexts;
  if (schema_.inputs().context > 0) contexts.assign(digests);
  for (std::size_t c = 0; c < contexts.size(); ++c) {
    schema_.decode_context(blobs[contexts.first_sample(c)],
                           static_cast<std::uint32_t>(c * context_row), shared);
  }
  shared.copy_terms();
  std::vector<std::unique_ptr<float[]>> absent_rows;
  for (std::size_t set = 0; set < sets_.size(); ++set) {
    TowerPass& pass = passes[set];
    const auto pool_all = [&](DecodedSamples& decoded, std::size_t floats, float* x) {
      find_rows(decoded, set, absent_rows);
      std::fill_n(x, floats, 0.0F);
      pool(decoded, set, schema_.dim(), 0, x);
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
  std::vector<float> logits(places_.size());
  for (std::size_t s = 0; s < blobs.size(); ++s) {
    for (std::size_t t = 0; t < places_.size(); ++t) {
      logits[t] = passes[places_[t].set].logits(places_[t].tower)[s];
    }
    out.push_back(objective_.predict(logits));
  }
}

// Rows that the model does not hold have their initial values, kept in `absent_rows`.
void Model::find_rows(DecodedSamples& decoded, std::size_t set,
                      std::vector<std::unique_ptr<float[]>>& absent_rows) const {
  for (const auto& keys : decoded.keys) {
    for (const DecodedSamples::Key& key : keys) {
      const EmbeddingTable& table = sets_[set].tables[key.table];
      RowTerm& term = decoded.terms[set][key.term];
      if (const EmbeddingRow* const row = table.find(key.key)) {
        term.row = row->values();
        continue;
      }
      absent_rows.push_back(std::make_unique<float[]>(schema_.dim()));
      table.initial(key.key, {absent_rows.back().get(), schema_.dim()});
      term.row = absent_rows.back().get();
    }
  }
}

void pool(const DecodedSamples& decoded, std::size_t set, std::size_t dim, std::uint32_t first,
          float* x) {
  best_kernels().add_rows(decoded.terms[set], dim, x - first);
  for (const DenseInput& dense : decoded.dense) x[dense.at - first] = dense.value;
}

}  // namespace sluice
