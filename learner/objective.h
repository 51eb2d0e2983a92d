// The loss of a recipe and its gradients, of one sample at a time, in double, from the towers'
// logits. Logits are always in the order of Recipe::towers.
//
// Operation: reached() says which towers a sample can train, before anything is looked up.
// Where needs_weight_sums(), add_weights() of every sample of the batch, in order, gives the terms'
// divisors. gradients() then gives d(loss of the batch)/d(logit) of a sample, and its predictions
// on the way.
//
// Which terms a sample trains: all of whose labels are final by this sample, one of them on it; so
// each at most once an impression, however many samples that gives. A term that uses no label
// trains on the impression's first sample. Of these, the ones whose `samples` the labels are in;
// and of those with a chance, where
//   uniform(seed, impression id, term's name) in [0, 1)  <  chance.
//
// Finite, and exact to some units in the last place, for all logits of a float (docs/models.md,
// "How it is computed"). All functions are const, allocate nothing, and may be called from any
// thread.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "config/recipe.h"
#include "learner/labels.h"
#include "learner/prediction.h"

namespace sluice {

// Towers as bits: tower t is 1 << t.
using TowerSet = std::uint32_t;

// By term: what its sum over the batch is divided by; 0: the term has no sample and counts nothing.
using TermDivisors = std::vector<double>;

class Objective {
 public:
  // `seed` is model.seed: of the draws by which samples are taken.
  Objective(Recipe recipe, std::uint64_t seed);

  const Recipe& recipe() const { return recipe_; }
  std::size_t towers() const { return recipe_.towers.size(); }
  std::size_t terms() const { return recipe_.terms.size(); }

  // Towers that some term of this sample reaches by a gradient. Independent of the logits: a term
  // whose chance depends on a rate counts, whatever the draw; one of constant chance only if drawn.
  TowerSet reached(const FinalLabels& labels, std::string_view impression_id) const;
  // Embedding sets of these towers, as bits.
  std::uint32_t embedding_sets(TowerSet towers) const;

  Prediction predict(std::span<const float> logits) const;

  // Some term is divided by the sum of its weights.
  bool needs_weight_sums() const { return needs_weight_sums_; }
  // Adds this sample's weight in each term of that kind to `sums`, by term.
  void add_weights(std::span<const float> logits, const FinalLabels& labels,
                   std::string_view impression_id, std::span<double> sums) const;
  // From the sums over all samples of a batch; without such terms `sums` may be empty.
  TermDivisors divisors(std::size_t batch_samples, std::span<const double> sums) const;

  // Sets `gradients`, by tower, to this sample's part of the gradient of the batch's loss
  //   Σ over terms of (Σ over its samples of weight · loss) / divisor.
  // What `predictions` becomes is predict(logits).
  void gradients(std::span<const float> logits, const FinalLabels& labels,
                 std::string_view impression_id, const TermDivisors& divisors,
                 std::span<double> gradients, Prediction& predictions) const;

  // This sample's part of that loss. For tests and diagnosis.
  double loss(std::span<const float> logits, const FinalLabels& labels,
              std::string_view impression_id, const TermDivisors& divisors) const;

  // The draw of a sample in a term, in [0, 1): a function of the seed, the id and the term's name.
  double draw(std::size_t term, std::string_view impression_id) const;

 private:
  struct Values;  // of all nodes, for one sample
  // A term with what is known of it beforehand.
  struct Term {
    std::size_t index = 0;                // of recipe_.terms
    std::vector<std::uint16_t> forward;   // what loss, weight and chance need beyond the rates
    std::vector<std::uint16_t> backward;  // of the loss, where a gradient passes; users first
    std::vector<std::uint16_t> touched;   // these and their operands
    TowerSet reached = 0;
    TowerSet first = 0;  // towers that no earlier term reaches
    std::uint64_t stream = 0;
    double constant_chance = -1;  // below 0: it depends on the sample
  };
  struct Sample;  // what a sample's evaluation is of

  Term make_term(std::size_t index, const std::vector<TowerSet>& reaches,
                 const std::vector<bool>& is_rate) const;
  void evaluate(std::span<const std::uint16_t> nodes, const Sample& sample, Values& values) const;
  Prediction read_predictions(const Values& values) const;
  bool applies(const RecipeTerm& term, const FinalLabels& labels) const;
  // Evaluates the term for the sample; its weight there, 0 where the sample is not drawn.
  double begin(const Term& term, const Sample& sample, Values& values) const;
  void differentiate(const Term& term, double scale, const Values& values,
                     std::span<double> gradients) const;

  Recipe recipe_;
  std::uint64_t seed_ = 0;
  std::vector<std::uint16_t> rate_nodes_;   // what the three rates need, operands first
  std::vector<std::uint16_t> ratio_nodes_;  // those of them that are ratios
  std::vector<Term> terms_;                 // those divided by the batch's samples first
  std::size_t batch_terms_ = 0;             // so many are divided by the batch's samples
  bool needs_weight_sums_ = false;
};

}  // namespace sluice
