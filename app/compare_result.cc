#include "app/compare_result.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "base/time.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kLowest = 0.025;
constexpr double kHighest = 0.975;
// An interval stands on this share of the resamplings at least: in the others the metric may be
// undefined.
constexpr double kLeastDefined = 0.9;

struct Group {
  std::string name;
  std::vector<const ComparedResult*> members;
};

std::vector<Group> groups_of(const std::vector<ComparedResult>& results) {
  std::vector<Group> groups;
  for (const ComparedResult& result : results) {
    const auto found = std::ranges::find(groups, result.model.group, &Group::name);
    Group& group =
        found != groups.end() ? *found : groups.emplace_back(Group{result.model.group, {}});
    group.members.push_back(&result);
  }
  return groups;
}

Json finite_or_null(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}

// The mean over a group's members of what `value` gives for each; NaN where one is undefined.
template <class Value>
double mean(const Group& group, Value value) {
  double sum = 0;
  for (const ComparedResult* member : group.members) sum += value(member->verdict);
  return sum / static_cast<double>(group.members.size());
}

double mean_metric(const Group& group, std::size_t metric) {
  return mean(group, [&](const ModelVerdict& verdict) { return verdict.metrics[metric]; });
}

double mean_replica(const Group& group, std::size_t metric, std::size_t replica) {
  return mean(group,
              [&](const ModelVerdict& verdict) { return verdict.replicas[replica][metric]; });
}

// Over the seeds, with n − 1 below.
double deviation(const Group& group, std::size_t metric) {
  const std::size_t count = group.members.size();
  if (count < 2) return std::numeric_limits<double>::quiet_NaN();
  const double center = mean_metric(group, metric);
  double sum = 0;
  for (const ComparedResult* member : group.members) {
    sum += std::pow(member->verdict.metrics[metric] - center, 2);
  }
  return std::sqrt(sum / static_cast<double>(count - 1));
}

// {"low", "high"} of what `replica` gives for each resampling; null where too few are defined.
template <class Replica>
void put_interval(Json& json, std::uint64_t resamplings, Replica replica) {
  std::vector<double> values;
  for (std::uint64_t r = 0; r < resamplings; ++r) {
    if (const double value = replica(r); std::isfinite(value)) values.push_back(value);
  }
  const bool is_defined = !values.empty() && static_cast<double>(values.size()) >=
                                                 kLeastDefined * static_cast<double>(resamplings);
  std::ranges::sort(values);
  json["low"] = is_defined ? Json(quantile(values, kLowest)) : Json(nullptr);
  json["high"] = is_defined ? Json(quantile(values, kHighest)) : Json(nullptr);
}

// Metrics of the truth where there is none are left out.
bool is_reported(std::size_t metric, bool has_truth) {
  return has_truth || metric % kMetricsOfRate < kLabelMetrics;
}

Json metrics_json(const Group& group, std::uint64_t resamplings, bool has_truth) {
  Json json;
  for (std::size_t metric = 0; metric < kMetrics; ++metric) {
    if (!is_reported(metric, has_truth)) continue;
    Json& entry = json[metric_name(metric)];
    entry["value"] = finite_or_null(mean_metric(group, metric));
    put_interval(entry, resamplings,
                 [&](std::uint64_t r) { return mean_replica(group, metric, r); });
    if (group.members.size() > 1) {
      entry["seed_deviation"] = finite_or_null(deviation(group, metric));
    }
  }
  return json;
}

Json differences_json(const Group& group, const Group& baseline, std::uint64_t resamplings,
                      bool has_truth) {
  Json json;
  for (std::size_t metric = 0; metric < kMetrics; ++metric) {
    if (!is_reported(metric, has_truth)) continue;
    Json& entry = json[metric_name(metric)];
    entry["value"] = finite_or_null(mean_metric(group, metric) - mean_metric(baseline, metric));
    put_interval(entry, resamplings, [&](std::uint64_t r) {
      return mean_replica(group, metric, r) - mean_replica(baseline, metric, r);
    });
  }
  return json;
}

Json slices_json(const Group& group, std::size_t slices, bool has_truth) {
  Json json;
  for (std::size_t metric = 0; metric < kMetrics; ++metric) {
    const bool is_gauc =
        metric % kMetricsOfRate == static_cast<std::size_t>(LabelMetric::gauc);  // of all only
    if (!is_reported(metric, has_truth) || is_gauc) continue;
    Json& values = json[metric_name(metric)] = Json::array();
    for (std::size_t slice = 0; slice < slices; ++slice) {
      values.push_back(finite_or_null(
          mean(group, [&](const ModelVerdict& verdict) { return verdict.slices[slice][metric]; })));
    }
  }
  return json;
}

Json judged_json(const ComparedSamples& samples, std::uint64_t with_truth) {
  return {{"first_sequence", samples.begin() + 1},
          {"samples", samples.size() - samples.begin()},
          {"users", samples.users()},
          {"begin", format_time(samples.begin_time())},
          {"end", format_time(samples.end_time())},
          {"impressions_with_truth", with_truth}};
}

Json models_json(const std::vector<ComparedResult>& results) {
  std::vector<ComparedModel> models;
  for (const ComparedResult& result : results) models.push_back(result.model);
  const std::vector<std::string> keys = differing_keys(models);
  Json json = Json::array();
  for (const ComparedResult& result : results) {
    const ModelConfig& model = result.model.config.model;
    Json entry = {{"name", model.name},
                  {"group", result.model.group},
                  {"recipe", model.recipe},
                  {"seed", model.seed},
                  {"model_digest", result.model_digest}};
    const auto values = semantic_keys(result.model.config, KeyGroup::learner);
    entry["differing_keys"] = Json::object();
    for (const std::string& key : keys) {
      const auto value = values.find(key);
      entry["differing_keys"][key] = value == values.end() ? Json(nullptr) : Json(value->second);
    }
    json.push_back(std::move(entry));
  }
  return json;
}

}  // namespace

Status check_baseline(const std::vector<ComparedModel>& models, const std::string& baseline) {
  std::set<std::string> names;
  for (const ComparedModel& model : models) {
    names.insert({model.group, model.config.model.name});
  }
  if (baseline.empty() || names.contains(baseline)) return {};
  std::string known;
  for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
  return usage_error("--baseline " + baseline + ": there is no such model; there are " + known);
}

Json make_comparison(const std::vector<ComparedResult>& results, const ComparedSamples& samples,
                     const ComparisonFacts& facts) {
  const std::vector<Group> groups = groups_of(results);
  Group baseline = groups.front();
  for (const Group& group : groups) {
    if (group.name == facts.baseline) baseline = group;
  }
  for (const ComparedResult& result : results) {
    if (result.model.config.model.name == facts.baseline && baseline.name != facts.baseline) {
      baseline = {facts.baseline, {&result}};
    }
  }
  const std::uint64_t with_truth = results.front().verdict.impressions_with_truth;
  const bool has_truth = with_truth > 0;
  Json json;
  json["format"] = 1;
  json["samples"] = samples.size();
  json["samples_digest"] = facts.samples_digest;
  json["judged"] = judged_json(samples, with_truth);
  json["resamplings"] = facts.resamplings;
  json["has_truth"] = has_truth;
  json["baseline"] = baseline.name;
  json["models"] = models_json(results);
  json["groups"] = Json::array();
  for (const Group& group : groups) {
    Json entry = {{"name", group.name}, {"seeds", group.members.size()}};
    entry["metrics"] = metrics_json(group, facts.resamplings, has_truth);
    if (group.name != baseline.name) {
      entry["differences"] = differences_json(group, baseline, facts.resamplings, has_truth);
    }
    entry["slices"] = slices_json(group, samples.slices().size(), has_truth);
    json["groups"].push_back(std::move(entry));
  }
  json["slices"] = Json::array();
  for (const SampleSlice& slice : samples.slices()) {
    json["slices"].push_back({{"end", slice.end}, {"time", format_time(slice.time)}});
  }
  return json;
}

std::string metric_name(std::size_t metric) {
  const std::size_t of_rate = metric % kMetricsOfRate;
  const std::string rate = kRateNames[metric / kMetricsOfRate];
  return of_rate < kLabelMetrics ? rate + "." + kLabelMetricNames[of_rate]
                                 : rate + ".true." + kTruthMetricNames[of_rate - kLabelMetrics];
}

double quantile(const std::vector<double>& sorted, double p) {
  const double place = p * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

}  // namespace sluice
