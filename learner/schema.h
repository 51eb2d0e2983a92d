// What the model reads of an impression: features in the order of their names, each with its
// columns of the input and its table. Made from the config, or from a snapshot's JSON alone.
//
// The key of a row is XXH3_64(value text, seed = XXH3_64(table name)). The text of an integer id or
// of a bucket is its decimal form, so 5 and "5" are one id.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "config/config.h"
#include "learner/buckets.h"

namespace sluice {

// One feature.
struct Field {
  FeatureConfig feature;
  std::size_t column = 0;          // of the input
  std::size_t width = 1;           // embedding_dim, or 1 for a dense number
  std::size_t table = 0;           // index into Schema::tables(); not for dense ones
  std::optional<Buckets> buckets;  // bucketed numbers only
};

// One id of one sample: adds weight · row(key) to the sample's input from `column` on.
struct Term {
  std::uint64_t key = 0;
  std::uint32_t sample = 0;
  std::uint32_t column = 0;
  float weight = 1;
  const float* row = nullptr;  // [dim], filled in by whoever looks the row up
};

// One dense number of one sample.
struct DenseInput {
  std::uint32_t sample = 0;
  std::uint32_t column = 0;
  float value = 0;
};

// What samples say to the model; reused from batch to batch.
struct DecodedSamples {
  std::vector<std::vector<Term>> terms;    // by table, each in (sample, field, id) order
  std::vector<DenseInput> dense;           // absent ones are not listed and count as 0
  std::vector<std::uint64_t> wrong_types;  // by feature: values of a wrong type, taken as absent

  void clear();
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
  std::size_t inputs() const { return inputs_; }

  std::uint64_t row_key(std::size_t table, std::string_view text) const;
  std::uint64_t row_key(std::size_t table, std::int64_t value) const;

  // An empty DecodedSamples for this schema.
  DecodedSamples make_decoded() const;
  // Appends what an impression's feature blob (ingest/features.h) says, as sample number `sample`;
  // `count_wrong_types` adds to DecodedSamples::wrong_types. False where the blob is not one of
  // these features: the caller mixed up two configs.
  bool decode(std::string_view blob, std::uint32_t sample, bool count_wrong_types,
              DecodedSamples& out) const;

 private:
  using LogEdges = std::map<int, std::vector<double>>;  // by N of "log:N"
  Schema(std::vector<FeatureConfig> features, ModelConfig model, LogEdges log_edges);

  ModelConfig model_;
  LogEdges log_edges_;
  std::vector<Field> fields_;
  std::vector<std::string> tables_;
  std::vector<std::uint64_t> table_seeds_;
  std::size_t inputs_ = 0;
};

}  // namespace sluice
