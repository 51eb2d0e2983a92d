#include "learner/model.h"

#include <algorithm>
#include <array>
#include <memory>

#include "base/check.h"
#include "base/lanes.h"
#include "learner/esmm_loss.h"
#include "learner/model_tensors.h"
#include "learner/vector_math.h"

namespace sluice {

Model::Model(Schema schema, const std::vector<Slot>& row_slots)
    : schema_(std::move(schema)),
      towers_(schema_.inputs(), schema_.model().hidden, schema_.model().seed) {
  for (const std::string& table : schema_.tables()) {
    tables_.emplace_back(table, RowLayout{schema_.dim(), row_slots}, schema_.model().seed);
  }
}

Result<Model> Model::from_snapshot(const nlohmann::ordered_json& json, const Tensors& tensors) {
  SLUICE_ASSIGN(Schema schema, Schema::from_json(json));
  Model model(std::move(schema), {});
  SLUICE_TRY(read_tower_tensors(tensors, "", model.towers(), model.towers().parameters()));
  for (EmbeddingTable& table : model.tables()) {
    SLUICE_TRY(read_table_tensors(tensors, false, table));
  }
  return model;
}

std::vector<Prediction> Model::score(std::span<const std::string_view> blobs) const {
  constexpr std::size_t kAtOnce = 4 * kTile;
  const FlushDenormals flush;
  std::vector<Prediction> predictions;
  predictions.reserve(blobs.size());
  for (std::size_t begin = 0; begin < blobs.size(); begin += kAtOnce) {
    score_some(blobs.subspan(begin, std::min(kAtOnce, blobs.size() - begin)), predictions);
  }
  return predictions;
}

void Model::score_some(std::span<const std::string_view> blobs,
                       std::vector<Prediction>& out) const {
  DecodedSamples decoded = schema_.make_decoded();
  for (std::size_t s = 0; s < blobs.size(); ++s) {
    SLUICE_CHECK(schema_.decode(blobs[s], static_cast<std::uint32_t>(s), false, decoded));
  }
  // Rows that the snapshot does not hold have their initial values.
  std::vector<std::unique_ptr<float[]>> absent_rows;
  for (std::size_t t = 0; t < tables_.size(); ++t) {
    for (Term& term : decoded.terms[t]) {
      term.row = tables_[t].find(term.key);
      if (term.row != nullptr) continue;
      absent_rows.push_back(std::make_unique<float[]>(schema_.dim()));
      tables_[t].initial(term.key, {absent_rows.back().get(), schema_.dim()});
      term.row = absent_rows.back().get();
    }
  }
  const std::size_t columns = padded_to_tiles(blobs.size());
  std::vector<float> x(schema_.inputs() * columns);
  pool(decoded, schema_.dim(), 0, schema_.inputs(), columns, x.data());
  std::vector<float> logits(kTowers * columns);
  TowerWorkspace workspace;
  float* const a = logits.data();
  float* const b = a + columns;
  towers_.forward(x.data(), columns, workspace, std::array{a, b});
  for (std::size_t s = 0; s < blobs.size(); ++s) out.push_back(predict(a[s], b[s]));
}

void pool(const DecodedSamples& decoded, std::size_t dim, std::uint32_t first_sample,
          std::size_t inputs, std::size_t columns, float* x) {
  std::fill_n(x, inputs * columns, 0.0F);
  for (const std::vector<Term>& terms : decoded.terms) {
    for (const Term& term : terms) {
      float* const at = x + (term.sample - first_sample) * inputs + term.column;
      add_scaled(dim, term.weight, term.row, at);
    }
  }
  for (const DenseInput& dense : decoded.dense) {
    x[(dense.sample - first_sample) * inputs + dense.column] = dense.value;
  }
}

}  // namespace sluice
