#include "learner/model.h"

#include <algorithm>
#include <memory>

#include "base/check.h"
#include "base/lanes.h"
#include "learner/batch.h"
#include "learner/esmm_loss.h"
#include "learner/model_tensors.h"

namespace sluice {

Model::Model(Schema schema, const std::vector<Slot>& row_slots)
    : schema_(std::move(schema)),
      towers_(schema_.inputs(), schema_.model().hidden, schema_.model().seed,
              schema_.model().precision) {
  for (const std::string& table : schema_.tables()) {
    tables_.emplace_back(table, RowLayout{schema_.dim(), row_slots}, schema_.model().seed);
  }
}

Result<Model> Model::from_snapshot(const nlohmann::ordered_json& json, const Tensors& tensors) {
  SLUICE_ASSIGN(Schema schema, Schema::from_json(json));
  Model model(std::move(schema), {});
  SLUICE_TRY(read_tower_tensors(tensors, "", model.towers(), model.towers().parameters()));
  model.towers().refresh();
  for (EmbeddingTable& table : model.tables()) {
    SLUICE_TRY(read_table_tensors(tensors, false, table));
  }
  return model;
}

std::vector<Prediction> Model::score(std::span<const std::string_view> blobs) const {
  constexpr std::size_t kAtOnce = 4 * kLaneUnit;
  const FlushDenormals flush;
  std::vector<Prediction> predictions;
  predictions.reserve(blobs.size());
  TowerPass pass(towers_, 1);
  for (std::size_t begin = 0; begin < blobs.size(); begin += kAtOnce) {
    score_some(blobs.subspan(begin, std::min(kAtOnce, blobs.size() - begin)), pass, predictions);
  }
  return predictions;
}

void Model::score_some(std::span<const std::string_view> blobs, TowerPass& pass,
                       std::vector<Prediction>& out) const {
  DecodedSamples own = schema_.make_decoded();
  DecodedSamples shared = schema_.make_decoded();
  std::vector<Digest> digests(blobs.size());
  for (std::size_t s = 0; s < blobs.size(); ++s) {
    const auto at = static_cast<std::uint32_t>(s * pass.input_row());
    SLUICE_CHECK(schema_.decode(blobs[s], at, false, own, digests[s]));
  }
  BatchContexts contexts;
  if (towers_.has_context()) contexts.assign(digests);
  for (std::size_t c = 0; c < contexts.size(); ++c) {
    schema_.decode_context(blobs[contexts.first_sample(c)],
                           static_cast<std::uint32_t>(c * pass.context_row()), shared);
  }
  pass.begin(blobs.size(), contexts.size(), contexts.of_sample(),
             rounded_up(blobs.size(), kLaneUnit));
  std::vector<std::unique_ptr<float[]>> absent_rows;
  const auto pool_all = [&](DecodedSamples& decoded, std::size_t floats, float* x) {
    find_rows(decoded, absent_rows);
    std::fill_n(x, floats, 0.0F);
    pool(decoded, schema_.dim(), 0, x);
  };
  if (contexts.size() > 0) {
    pool_all(shared, contexts.size() * pass.context_row(), pass.context_input(0, 0));
    pass.forward_contexts(0, contexts.size(), 0);
  }
  pool_all(own, blobs.size() * pass.input_row(), pass.input(0, 0));
  pass.forward(0, blobs.size(), 0);
  for (std::size_t s = 0; s < blobs.size(); ++s) {
    out.push_back(predict(pass.logits(Tower::ctr)[s], pass.logits(Tower::cvr)[s]));
  }
}

// Rows that the model does not hold have their initial values, kept in `absent_rows`.
void Model::find_rows(DecodedSamples& decoded,
                      std::vector<std::unique_ptr<float[]>>& absent_rows) const {
  for (const auto& keys : decoded.keys) {
    for (const DecodedSamples::Key& key : keys) {
      const EmbeddingTable& table = tables_[key.table];
      RowTerm& term = decoded.terms[key.term];
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

void pool(const DecodedSamples& decoded, std::size_t dim, std::uint32_t first, float* x) {
  best_kernels().add_rows(decoded.terms, dim, x - first);
  for (const DenseInput& dense : decoded.dense) x[dense.at - first] = dense.value;
}

}  // namespace sluice
