#include "learner/frozen_model.h"

#include <algorithm>
#include <utility>

#include "learner/model_tensors.h"

namespace sluice {

namespace {

struct Place {
  std::uint64_t key;
  std::uint32_t part;
  std::uint32_t row;
};

std::vector<Place> places_by_key(const FrozenModel::Table& table) {
  std::vector<Place> places;
  places.reserve(table.rows());
  for (std::size_t part = 0; part < table.parts.size(); ++part) {
    const auto& keys = table.parts[part].keys;
    for (std::size_t row = 0; row < keys.size(); ++row) {
      places.push_back(
          {keys[row], static_cast<std::uint32_t>(part), static_cast<std::uint32_t>(row)});
    }
  }
  std::sort(places.begin(), places.end(),
            [](const Place& a, const Place& b) { return a.key < b.key; });
  return places;
}

void add_table(const FrozenModel::Table& table, Tensors& tensors) {
  const std::vector<Place> places = places_by_key(table);
  const std::size_t row_bytes = table.dim * sizeof(float);
  Tensor keys{TensorType::u64, {places.size()}, {}};
  Tensor rows{TensorType::f32, {places.size(), table.dim}, {}};
  keys.bytes.reserve(places.size() * sizeof(std::uint64_t));
  rows.bytes.reserve(places.size() * row_bytes);
  for (const Place& place : places) {
    const float* const weights = table.parts[place.part].weights.data() + place.row * table.dim;
    keys.bytes.append(reinterpret_cast<const char*>(&place.key), sizeof place.key);
    rows.bytes.append(reinterpret_cast<const char*>(weights), row_bytes);
  }
  tensors["embedding." + table.name + ".keys"] = std::move(keys);
  tensors["embedding." + table.name + ".rows"] = std::move(rows);
}

}  // namespace

std::uint64_t FrozenModel::Table::rows() const {
  std::uint64_t rows = 0;
  for (const FrozenRows& part : parts) rows += part.keys.size();
  return rows;
}

nlohmann::ordered_json FrozenModel::rows_by_table() const {
  nlohmann::ordered_json rows = nlohmann::ordered_json::object();
  for (const Table& table : tables) rows[table.name] = table.rows();
  return rows;
}

Tensors FrozenModel::take_tensors() {
  Tensors tensors = std::move(towers);
  for (Table& table : tables) {
    add_table(table, tensors);
    table.parts = {};
  }
  return tensors;
}

}  // namespace sluice
