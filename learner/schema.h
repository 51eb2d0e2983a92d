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

// One id: adds weight · row(key) to the inputs from `at` on.
struct Term {
  std::uint64_t key = 0;
  const float* row = nullptr;  // [dim], filled in by whoever looks the row up
  std::uint32_t table = 0;
  std::uint32_t at = 0;
  float weight = 1;
};

// One dense number.
struct DenseInput {
  std::uint32_t at = 0;
  float value = 0;
};

// What samples say to the model; reused from batch to batch.
struct DecodedSamples {
  std::vector<Term> terms;  // in (sample, field, id) order
  // The terms whose rows are in a part of their tables, by their numbers, ascending.
  std::array<std::vector<std::uint32_t>, EmbeddingTable::kParts> by_part;
  std::vector<DenseInput> dense;           // absent ones are not listed and count as 0
  std::vector<std::uint64_t> wrong_types;  // by feature: values of a wrong type, taken as absent

  void clear();
  void add(const Term& term) {
    by_part[EmbeddingTable::part_of(EmbeddingTable::hash_of(term.key))].push_back(
        static_cast<std::uint32_t>(terms.size()));
    terms.push_back(term);
  }
};

class Schema {
 public:
  // `features` is sorted by name. At least one feature.
  Schema(std::vector<FeatureConfig> features, ModelConfig model);

  // {"model": {"recipe", "embedding_dim", "hidden", "seed", "precision"},
  //  "features": [{"name", "path", "type", "table", "group", "buckets"}, ...],
  //  "bucket_edges": {"log:8": [...]}}
  // "table" is absent for dense numbers, "group" without one; "buckets" is "log:N" or a list of
  // edges, or absent. "precision" is "f32" or "bf16".
  nlohmann::ordered_json json() const;
  // Reads what json() gave, the edges too; other keys are passed over.
  static Result<Schema> from_json(const nlohmann::ordered_json& json);

  const ModelConfig& model() const { return model_; }
  const std::vector<Field>& fields() const { return fields_; }
  std::vector<FeatureConfig> features() const;
  const std::vector<std::string>& tables() const { return tables_; }  // sorted names
  std::size_t dim() const { return model_.embedding_dim; }
  // Context columns are those of the grouped features, in the order of their names; own columns
  // those of the others. A model without hidden layers shares nothing: all columns are own ones,
  // in the same order.
  const Towers::Inputs& inputs() const { return inputs_; }

  std::uint64_t row_key(std::size_t table, std::string_view text) const;
  std::uint64_t row_key(std::size_t table, std::int64_t value) const;

  // An empty DecodedSamples for this schema.
  DecodedSamples make_decoded() const;
  // Appends what an impression's feature blob (ingest/features.h) says of its own columns, whose
  // first is at `at`, and sets `context` to the hash of what it says of the context's.
  // `count_wrong_types` adds to DecodedSamples::wrong_types, context features' too. False where the
  // blob is not one of these features: the caller mixed up two configs.
  bool decode(std::string_view blob, std::uint32_t at, bool count_wrong_types, DecodedSamples& out,
              Digest& context) const;
  // The same of the context's columns, for a blob that decode() took.
  void decode_context(std::string_view blob, std::uint32_t at, DecodedSamples& out) const;

 private:
  using LogEdges = std::map<int, std::vector<double>>;  // by N of "log:N"
  Schema(std::vector<FeatureConfig> features, ModelConfig model, LogEdges log_edges);
  bool read_value(FeatureReader& reader, const Field& field, FeatureTag tag, std::uint32_t at,
                  DecodedSamples* out) const;

  ModelConfig model_;
  LogEdges log_edges_;
  std::vector<Field> fields_;
  std::vector<std::string> tables_;
  std::vector<std::uint64_t> table_seeds_;
  Towers::Inputs inputs_;
};

}  // namespace sluice
