#include "learner/row_digest.h"

#include <cstring>

#include "learner/model_tensors.h"

namespace sluice {

namespace {

constexpr char kRow = 'r';
constexpr char kLayer = 'l';

Status add_table(const Tensors& tensors, std::string_view table, DigestSum& sum) {
  SLUICE_ASSIGN(const TableView view, view_table_tensors(tensors, std::string(table)));
  RowHasher hasher(table);
  for (std::size_t n = 0; n < view.rows.keys.size(); ++n) {
    sum.add(hasher.weights(view.rows.keys[n], view.row(n)));
  }
  return {};
}

}  // namespace

RowHasher::RowHasher(std::string_view table) {
  ByteWriter out(bytes_);
  out.u8(kRow);
  out.text(table);
  prefix_ = bytes_.size();
}

Digest RowHasher::weights(std::uint64_t key, std::span<const float> weights) {
  bytes_.resize(prefix_ + sizeof key + weights.size_bytes());
  std::memcpy(bytes_.data() + prefix_, &key, sizeof key);
  std::memcpy(bytes_.data() + prefix_ + sizeof key, weights.data(), weights.size_bytes());
  return hash128(bytes_);
}

Digest RowHasher::state(const EmbeddingRow& row, std::size_t floats) {
  static_assert(sizeof(EmbeddingRow) == 16, "key and last batch, then the values");
  const std::size_t size = sizeof row + floats * sizeof(float);
  bytes_.resize(prefix_ + size);
  std::memcpy(bytes_.data() + prefix_, &row, size);
  return hash128(bytes_);
}

Digest tower_array_hash(std::string_view name, std::span<const float> weights) {
  Piece piece(kLayer, name);
  piece.floats(weights);
  return piece.hash();
}

Result<Digest> weights_digest(const Tensors& tensors) {
  DigestSum sum;
  for (const auto& [name, tensor] : tensors) {
    if (const std::string_view table = table_of_keys(name); !table.empty()) {
      SLUICE_TRY(add_table(tensors, table, sum));
    } else if (name.starts_with("tower.")) {
      SLUICE_ASSIGN(const std::vector<float> weights, tensor.values<float>());
      sum.add(tower_array_hash(name, weights));
    }
  }
  return sum.value();
}

}  // namespace sluice
