// A comparison as one document: what compare.json holds and what the tables and the page are made
// of. docs/compare.md describes it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "app/compare_evaluation.h"
#include "app/compare_models.h"
#include "base/result.h"

namespace sluice {

struct ComparedResult {
  ComparedModel model;
  std::string model_digest;
  ModelVerdict verdict;
};

struct ComparisonFacts {
  std::string samples_digest;
  std::uint64_t resamplings = 0;
  std::string baseline;  // a model's name or group; empty: the first one's
};

// Models of one group are seeds of one thing: their metrics are means, with the standard deviation
// over the seeds beside it. Intervals are the 2.5 % and 97.5 % quantiles over the resamplings,
// which are the same users for every model. `results` is not empty; the baseline was checked.
nlohmann::ordered_json make_comparison(const std::vector<ComparedResult>& results,
                                       const ComparedSamples& samples,
                                       const ComparisonFacts& facts);

// A usage error where no model and no group has this name; empty is fine.
Status check_baseline(const std::vector<ComparedModel>& models, const std::string& baseline);

// "ctr.auc", "cvr.true.mean_error", ...; by index into Metrics.
std::string metric_name(std::size_t metric);

// The p-quantile of sorted values, linear between two of them; values not empty.
double quantile(const std::vector<double>& sorted, double p);

}  // namespace sluice
