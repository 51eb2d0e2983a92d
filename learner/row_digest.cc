#include "learner/row_digest.h"

#include <cstring>

namespace sluice {

namespace {

constexpr char kRow = 'r';
constexpr char kLayer = 'l';

// The table of "embedding.<table>.keys"; empty for any other name.
std::string_view table_of_keys(std::string_view name) {
  constexpr std::string_view kPrefix = "embedding.";
  constexpr std::string_view kSuffix = ".keys";
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return {};
  if (name.size() <= kPrefix.size() + kSuffix.size()) return {};
  return name.substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffix.size());
}

// The tensor's bytes where it has that type; else an error.
Result<const Tensor*> typed(const Tensors& tensors, const std::string& name, TensorType type) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) return stop_error("tensor " + name + " is missing");
  if (found->second.type != type) {
    return stop_error("tensor " + name + " is not of type " + to_string(type));
  }
  return &found->second;
}

Status add_table(const Tensors& tensors, std::string_view table, DigestSum& sum) {
  const std::string prefix = "embedding." + std::string(table);
  SLUICE_ASSIGN(const Tensor* const keys, typed(tensors, prefix + ".keys", TensorType::u64));
  SLUICE_ASSIGN(const Tensor* const rows, typed(tensors, prefix + ".rows", TensorType::f32));
  const std::size_t count = keys->elements();
  if (rows->shape.size() != 2 || rows->shape[0] != count) {
    return stop_error("tensor " + prefix + ".rows has another shape than its keys");
  }
  const std::size_t dim = rows->shape[1];
  RowHasher hasher(table);
  std::vector<float> weights(dim);
  for (std::size_t row = 0; row < count; ++row) {
    std::uint64_t key = 0;
    std::memcpy(&key, keys->bytes.data() + row * sizeof key, sizeof key);
    std::memcpy(weights.data(), rows->bytes.data() + row * dim * sizeof(float),
                dim * sizeof(float));
    sum.add(hasher.weights(key, weights));
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
