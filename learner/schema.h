// What the model reads of an impression: features, each with its columns of the input and its
// table; those of the feature group first, then the others, each in the order of their names. Made
// from the config, or from a snapshot's JSON alone.
//
// The key of a row is XXH3_64(value text, seed = XXH3_64(table name)). The text of an integer id or
// of a bucket is its decimal form, so 5 and "5" are one id.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/hash.h"
#include "base/result.h"
#include "config/config.h"
#include "config/recipe.h"
#include "ingest/features.h"
#include "learner/buckets.h"
#include "learner/embedding_table.h"
#include "learner/towers.h"

namespace sluice {

// One feature.
struct Field {
  FeatureConfig feature;
  bool is_context = false;         // of the feature group that impressions of a request share
  std::size_t column = 0;          // of the context's or the own inputs
  std::size_t width = 1;           // embedding_dim, or 1 for a dense number
  std::size_t table = 0;           // index into Schema::tables(); not for dense ones
  std::optional<Buckets> buckets;  // bucketed numbers only
};

// One dense number.
struct DenseInput {
  std::uint32_t at = 0;
  float value = 0;
};

// What samples say to the model; reused from batch to batch.
struct DecodedSamples {
  // By embedding set, the same but for the rows. One id each: weight · row is added to the set's
  // inputs from `at` on. In (sample, field, id) order; whoever looks the rows up fills them in.
  std::vector<std::vector<RowTerm>> terms = std::vector<std::vector<RowTerm>>(1);
  // Whose row it is, of terms whose rows are in one part of their tables, in the terms' order.
  struct Key {
    std::uint64_t key;
    std::uint32_t term;
    std::uint16_t table;
    std::uint16_t
        reached;  // bit s: a term of the sample's loss reaches set s, so that row is trained
  };
  std::array<std::vector<Key>, EmbeddingTable::kParts> keys;  // by part
  std::size_t part_mask = EmbeddingTable::kParts - 1;  // 0: all in the first, in the terms' order
  std::vector<DenseInput> dense;                       // absent ones are not listed and count as 0
  std::vector<std::uint64_t> wrong_types;  // by feature: values of a wrong type, taken as absent
  std::vector<std::uint64_t> absent;       // by feature: impressions without one

  std::uint16_t reached = 0xffff;  // of the keys that are added now

  void clear();
  void add(std::uint64_t key, std::uint16_t table, std::uint32_t at, float weight) {
    std::vector<RowTerm>& first = terms.front();
    keys[EmbeddingTable::part_of(EmbeddingTable::hash_of(key)) & part_mask].push_back(
        {key, static_cast<std::uint32_t>(first.size()), table, reached});
    first.push_back({nullptr, at, weight});
  }
  // The first set's terms are the others' too: once all are added.
  void copy_terms();
};

class Schema {
 public:
  // `features` is sorted by name. At least one feature; a recipe that this build has.
  Schema(std::vector<FeatureConfig> features, ModelConfig model);

  // {"model": {"recipe", "recipe_text", "embedding_dim", "hidden", "seed", "precision"},
  //  "features": [{"name", "path", "type", "table", "group", "buckets"}, ...],
  //  "bucket_edges": {"log:8": [...]}}
  // "recipe" is a built-in's name; a file's is "own", with its canonical text in "recipe_text",
  // which is absent otherwise. "table" is absent for dense numbers, "group" without one; "buckets"
  // is "log:N" or a list of edges, or absent. "precision" is "f32" or "bf16".
  nlohmann::ordered_json json() const;
  // Reads what json() gave, the edges too; other keys are passed over.
  static Result<Schema> from_json(const nlohmann::ordered_json& json);

  const ModelConfig& model() const { return model_; }
  const Recipe& recipe() const { return recipe_; }
  const std::vector<Field>& fields() const { return fields_; }
  std::vector<FeatureConfig> features() const;
  const std::vector<std::string>& tables() const { return tables_; }  // sorted names
  std::size_t dim() const { return model_.embedding_dim; }
  // Context columns are those of the grouped features, in the order of their names; own columns
  // those of the others. A model with a tower without hidden layers shares nothing: all columns
  // are own ones, in the same order.
  const Towers::Inputs& inputs() const { return inputs_; }

  std::uint64_t row_key(std::size_t table, std::string_view text) const;
  std::uint64_t row_key(std::size_t table, std::int64_t value) const;

  // An empty DecodedSamples for this schema.
  DecodedSamples make_decoded() const;
  // Appends what an impression's feature blob (ingest/features.h) says of its own columns, whose
  // first is at `at`, and sets `context` to the hash of what it says of the context's.
  // `is_counted` adds to DecodedSamples::wrong_types and absent, context features' too. False where
  // the blob is not one of these features: the caller mixed up two configs.
  bool decode(std::string_view blob, std::uint32_t at, bool is_counted, DecodedSamples& out,
              Digest& context) const;
  // The same of the context's columns, for a blob that decode() took.
  void decode_context(std::string_view blob, std::uint32_t at, DecodedSamples& out) const;

 private:
  using LogEdges = std::map<int, std::vector<double>>;  // by N of "log:N"
  Schema(std::vector<FeatureConfig> features, ModelConfig model, Recipe recipe, LogEdges log_edges);
  bool read_value(FeatureReader& reader, const Field& field, FeatureTag tag, std::uint32_t at,
                  DecodedSamples* out) const;

  ModelConfig model_;
  Recipe recipe_;
  LogEdges log_edges_;
  std::vector<Field> fields_;
  std::vector<std::string> tables_;
  std::vector<std::uint64_t> table_seeds_;
  Towers::Inputs inputs_;
};

}  // namespace sluice
