#include "learner/model.h"

#include <utility>

namespace sluice {

std::vector<TowerPlace> tower_places(const Recipe& recipe) {
  std::vector<TowerPlace> places;
  std::vector<std::size_t> towers(recipe.embedding_sets.size());
  for (const RecipeTower& tower : recipe.towers) {
    places.push_back({tower.embeddings, towers[tower.embeddings]++});
  }
  return places;
}

std::vector<Towers> make_towers(const Schema& schema) {
  const Recipe& recipe = schema.recipe();
  const ModelConfig& model = schema.model();
  std::vector<std::vector<RecipeTower>> by_set(recipe.embedding_sets.size());
  for (const RecipeTower& tower : recipe.towers) by_set[tower.embeddings].push_back(tower);
  std::vector<Towers> made;
  for (std::vector<RecipeTower>& towers : by_set) {
    made.emplace_back(schema.inputs(), std::move(towers), model.hidden, model.seed,
                      model.precision);
  }
  return made;
}

std::string table_name(const Recipe& recipe, std::size_t set, const std::string& table) {
  return recipe.embedding_sets.size() == 1 ? table : recipe.embedding_sets[set] + "." + table;
}

Model::Model(Schema schema, const std::vector<Slot>& row_slots)
    : schema_(std::move(schema)),
      objective_(schema_.recipe(), schema_.model().seed),
      places_(tower_places(schema_.recipe())) {
  std::vector<Towers> towers = make_towers(schema_);
  for (std::size_t set = 0; set < towers.size(); ++set) {
    std::vector<EmbeddingTable> tables;
    for (const std::string& table : schema_.tables()) {
      tables.emplace_back(table_name(schema_.recipe(), set, table),
                          RowLayout{schema_.dim(), row_slots}, schema_.model().seed);
    }
    sets_.push_back({std::move(tables), std::move(towers[set])});
  }
}

void pool(const DecodedSamples& decoded, std::size_t set, std::size_t dim, std::uint32_t first,
          float* x) {
  best_kernels().add_rows(decoded.terms[set], dim, x - first);
  for (const DenseInput& dense : decoded.dense) x[dense.at - first] = dense.value;
}

}  // namespace sluice
