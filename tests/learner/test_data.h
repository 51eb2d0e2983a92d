// Feature blobs, configs and random streams of samples for the learner's tests.
#pragma once

#include <cstdint>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "config/config.h"
#include "joiner/sample.h"
#include "learner/prediction.h"
#include "learner/trainer.h"

namespace sluice::testing {

// The blob of one impression; `values` by feature name: an id as a text or an integer, a list of
// ids, a list of [id, weight], a number; null or absent. What fits none of these is a wrong type.
std::string encode_features(const std::vector<FeatureConfig>& features,
                            const nlohmann::json& values);

FeatureConfig feature(std::string name, FeatureConfig::Type type, std::string table = "");

// What the golden files say of an optimizer, every key.
OptimizerConfig optimizer_of(const nlohmann::json& from);

// One config of each update rule, with everything that it has switched on.
std::vector<OptimizerConfig> all_optimizers();

// A small model with every kind of feature: "a_id" and "b_ids" share a table, "c_weighted",
// "d_log", "e_edges", "f_dense".
Config small_config();

// What the recipe esmm predicts from these logits.
Prediction esmm_prediction(float a, float b);

// Puts the named features into one group.
void group_features(Config& config, const std::vector<std::string>& names);

// Labelled samples as a join would emit them: ascending times, one or two samples an impression,
// clicks at a rate that depends on the sign of d_log. Features of a group have equal values in the
// impressions of a page, of which there are one to six one after the other.
class SampleStream {
 public:
  SampleStream(const Config& config, std::uint32_t seed);
  Sample next();
  std::vector<Sample> take(std::size_t count);

 private:
  nlohmann::json random_values();
  nlohmann::json impression_values();
  std::uint32_t below(std::uint32_t limit) { return random_() % limit; }

  const Config& config_;
  std::mt19937 random_;  // its raw output only: equal with every standard library
  std::uint64_t sequence_ = 0;
  std::uint64_t impressions_ = 0;
  TimeMs time_ = 1'700'000'000'000;
  nlohmann::json page_;             // the group's values on this page
  std::uint32_t left_on_page_ = 0;  // impressions
  std::vector<Sample> open_;        // first samples whose z is not final
};

void offer_all(Trainer& trainer, const std::vector<Sample>& samples);

// How a model may be computed without changing a bit of it.
struct Machine {
  std::size_t threads;
  std::uint64_t lane;
};
// The digests of the models that these machines make of the samples.
std::set<std::string> model_digests(Config config, const std::vector<Sample>& samples,
                                    std::span<const Machine> machines);

}  // namespace sluice::testing
