#include "learner/objective.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/hash.h"
#include "learner/node_values.h"

namespace sluice {

namespace {

using Op = RecipeNode::Op;
using Samples = RecipeTerm::Samples;

// Below this, a quotient by 1 − p is taken in logs.
constexpr double kSmallestFactor = 1e-280;

std::size_t operands(const RecipeNode& node) {
  switch (node.op) {
    case Op::number:
    case Op::label:
    case Op::logit:
    case Op::constant:
      return 0;
    case Op::value:
    case Op::log:
    case Op::negate:
    case Op::absolute:
    case Op::square:
    case Op::softplus:
    case Op::sigmoid:
    case Op::complement:
    case Op::stop_real:
    case Op::stop_rate:
      return 1;
    case Op::mix:
      return 3;
    default:
      return 2;
  }
}

std::uint16_t operand(const RecipeNode& node, std::size_t n) {
  return n == 0 ? node.a : n == 1 ? node.b : node.c;
}

}  // namespace

struct Objective::Values {
  std::array<NodeValue, kMostNodes> of;
};

struct Objective::Sample {
  std::span<const float> logits;
  const FinalLabels& labels;
  std::string_view impression_id;
};

Objective::Objective(Recipe recipe, std::uint64_t seed) : recipe_(std::move(recipe)), seed_(seed) {
  const std::vector<RecipeNode>& nodes = recipe_.nodes;
  SLUICE_CHECK(nodes.size() <= kMostNodes && recipe_.towers.size() <= kMostTowers);
  std::vector<TowerSet> reaches(nodes.size());  // towers that a gradient gets to from here
  std::vector<bool> is_rate(nodes.size());      // one of rate_nodes_
  for (const std::uint16_t rate : {recipe_.pctr, recipe_.pcvr, recipe_.pctcvr})
    is_rate[rate] = true;
  for (std::size_t n = nodes.size(); n-- > 0;) {
    for (std::size_t k = 0; k < operands(nodes[n]); ++k) {
      SLUICE_CHECK(operand(nodes[n], k) < n);
      if (is_rate[n]) is_rate[operand(nodes[n], k)] = true;
    }
  }
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    const RecipeNode& node = nodes[n];
    if (node.op == Op::logit) reaches[n] = TowerSet{1} << node.a;
    const bool is_stop = node.op == Op::stop_real || node.op == Op::stop_rate;
    for (std::size_t k = 0; k < operands(node) && !is_stop; ++k) {
      reaches[n] |= reaches[operand(node, k)];
    }
    if (is_rate[n]) rate_nodes_.push_back(static_cast<std::uint16_t>(n));
    if (is_rate[n] && node.op == Op::ratio) ratio_nodes_.push_back(static_cast<std::uint16_t>(n));
  }
  for (const bool by_weights : {false, true}) {
    for (std::size_t index = 0; index < recipe_.terms.size(); ++index) {
      const bool is_by_weights = recipe_.terms[index].normalize == RecipeTerm::Normalize::weights;
      if (is_by_weights == by_weights) terms_.push_back(make_term(index, reaches, is_rate));
    }
    if (!by_weights) batch_terms_ = terms_.size();
  }
  needs_weight_sums_ = batch_terms_ < terms_.size();
  TowerSet before = 0;
  for (Term& term : terms_) {
    term.first = term.reached & ~before;
    before |= term.reached;
  }
}

Objective::Term Objective::make_term(std::size_t index, const std::vector<TowerSet>& reaches,
                                     const std::vector<bool>& is_rate) const {
  const std::vector<RecipeNode>& nodes = recipe_.nodes;
  const RecipeTerm& from = recipe_.terms[index];
  Term term;
  term.index = index;
  term.reached = reaches[from.loss];
  term.stream = hash64(from.name);
  if (from.chance == RecipeTerm::kNone) {
    term.constant_chance = 1;
  } else if (nodes[from.chance].op == Op::number || nodes[from.chance].op == Op::constant) {
    term.constant_chance = nodes[from.chance].number;
  }
  std::vector<bool> is_needed(nodes.size()), is_passed(nodes.size()), is_touched(nodes.size());
  for (const std::uint16_t root : {from.loss, from.weight, from.chance}) {
    if (root != RecipeTerm::kNone) is_needed[root] = true;
  }
  is_passed[from.loss] = is_touched[from.loss] = true;
  for (std::size_t n = nodes.size(); n-- > 0;) {
    const auto node = static_cast<std::uint16_t>(n);
    if (is_passed[n]) term.backward.push_back(node);
    if (is_touched[n]) term.touched.push_back(node);
    for (std::size_t k = 0; k < operands(nodes[n]); ++k) {
      const std::uint16_t its = operand(nodes[n], k);
      if (is_needed[n]) is_needed[its] = true;
      if (!is_passed[n]) continue;
      is_touched[its] = true;
      if (reaches[its] != 0) is_passed[its] = true;
    }
  }
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    if (is_needed[n] && !is_rate[n]) term.forward.push_back(static_cast<std::uint16_t>(n));
  }
  return term;
}

void Objective::evaluate(std::span<const std::uint16_t> list, const Sample& sample,
                         Values& values) const {
  for (const std::uint16_t n : list) {
    const RecipeNode& node = recipe_.nodes[n];
    NodeValue& out = values.of[n];
    const NodeValue& a = values.of[node.a];
    const NodeValue& b = values.of[node.b];
    switch (node.op) {
      case Op::number:
        out.p = node.number;
        break;
      case Op::label: {
        const FinalLabels& labels = sample.labels;
        const bool is_set = node.label == RecipeNode::Label::y        ? labels.y
                            : node.label == RecipeNode::Label::action ? labels.action
                                                                      : labels.z;
        out.p = is_set ? 1 : 0;
        break;
      }
      case Op::logit:
        out.p = sample.logits[node.a];
        break;
      case Op::value:
        out.p = a.p;
        break;
      case Op::log:
        out.p = a.log_p;
        break;
      case Op::add:
        out.p = a.p + b.p;
        break;
      case Op::subtract:
        out.p = a.p - b.p;
        break;
      case Op::multiply:
        out.p = a.p * b.p;
        break;
      case Op::divide:
        out.p = a.p / b.p;
        break;
      case Op::negate:
        out.p = -a.p;
        break;
      case Op::absolute:
        out.p = std::abs(a.p);
        break;
      case Op::square:
        out.p = a.p * a.p;
        break;
      case Op::min:
        out.p = std::min(a.p, b.p);
        break;
      case Op::max:
        out.p = std::max(a.p, b.p);
        break;
      case Op::softplus:
        out.p = softplus(a.p);
        break;
      case Op::bce:
        out.p = a.p != 0 ? -b.log_p : -b.log_no;
        break;
      case Op::sigmoid:
        out = sigmoid_value(a.p);
        break;
      case Op::constant:
        out = constant_value(node.number);
        break;
      case Op::complement:
        out = {a.no, a.p, a.log_no, a.log_p, -a.logit};
        break;
      case Op::product:
        out = product_value(a, b);
        break;
      case Op::mix:
        out = mix_value(a, b, values.of[node.c]);
        break;
      case Op::ratio:
        out = ratio_value(a, b);
        break;
      case Op::stop_real:
      case Op::stop_rate:
        out = a;
        break;
    }
  }
}

// Adjoints are d loss / d real, of a rate d loss / d logit: that is bounded where d loss / d p is
// not. They begin as −0, to which adding is exact.
void Objective::differentiate(const Term& term, double scale, const Values& values,
                              std::span<double> gradients) const {
  std::array<double, kMostNodes> adjoints;
  for (const std::uint16_t n : term.touched) adjoints[n] = -0.0;
  adjoints[recipe_.terms[term.index].loss] = 1;
  for (const std::uint16_t n : term.backward) {
    const RecipeNode& node = recipe_.nodes[n];
    const double g = adjoints[n];
    const NodeValue& value = values.of[n];
    const NodeValue& a = values.of[node.a];
    const NodeValue& b = values.of[node.b];
    double& to_a = adjoints[node.a];
    double& to_b = adjoints[node.b];
    switch (node.op) {
      case Op::logit: {
        const bool is_first = (term.first >> node.a & 1) != 0;
        gradients[node.a] = is_first ? scale * g : gradients[node.a] + scale * g;
        break;
      }
      case Op::value:
        to_a += g * a.p * a.no;
        break;
      case Op::log:
        to_a += g * a.no;
        break;
      case Op::add:
        to_a += g;
        to_b += g;
        break;
      case Op::subtract:
        to_a += g;
        to_b -= g;
        break;
      case Op::multiply:
        to_a += g * b.p;
        to_b += g * a.p;
        break;
      case Op::divide:
        if (g == 0) break;  // what is beyond a bound may be infinite
        to_a += g / b.p;
        to_b -= g * value.p / b.p;
        break;
      case Op::negate:
        to_a -= g;
        break;
      case Op::absolute:
        if (a.p != 0) to_a += a.p > 0 ? g : -g;
        break;
      case Op::square:
        to_a += 2 * a.p * g;
        break;
      case Op::min:
        (b.p < a.p ? to_b : to_a) += g;
        break;
      case Op::max:
        (a.p < b.p ? to_b : to_a) += g;
        break;
      case Op::softplus:
        to_a += g * sigmoid_value(a.p).p;
        break;
      case Op::bce:
        to_b += g * (a.p != 0 ? -b.no : b.p);
        break;
      case Op::sigmoid:
        to_a += g;
        break;
      case Op::complement:
        to_a -= g;
        break;
      case Op::product:
        // d logit(a·b) / d logit(a) = (1 − a) / (1 − a·b). The quotient first, as it is then exact
        // where the loss is log(a·b).
        if (value.no > kSmallestFactor || (value.no > 0 && std::abs(g) <= value.no)) {
          const double quotient = g / value.no;
          to_a += quotient * a.no;
          to_b += quotient * b.no;
        } else {
          to_a += g * exp_of_share(a.log_no - value.log_no);
          to_b += g * exp_of_share(b.log_no - value.log_no);
        }
        break;
      case Op::mix: {
        const NodeValue& weight = values.of[node.c];
        const NodeValue not_weight = {weight.no, weight.p, weight.log_no, weight.log_p,
                                      -weight.logit};
        to_a += g * mix_factor(weight, a, value);
        to_b += g * mix_factor(not_weight, b, value);
        adjoints[node.c] += g * mix_weight_factor(weight, a, b, value);
        break;
      }
      case Op::ratio:
        if (!(value.no > 0)) break;  // it was cut to 1
        to_a += g / value.no * a.no;
        to_b -= g / value.no * b.no;
        break;
      case Op::number:
      case Op::label:
      case Op::constant:
      case Op::stop_real:
      case Op::stop_rate:
        break;
    }
  }
}

bool Objective::applies(const RecipeTerm& term, const FinalLabels& labels) const {
  switch (term.samples) {
    case Samples::all:
      break;
    case Samples::clicked:
      if (!labels.y) return false;
      break;
    case Samples::unclicked:
      if (labels.y) return false;
      break;
    case Samples::acted:
      if (!labels.action) return false;
      break;
  }
  const bool uses_none = !term.uses_y && !term.uses_action && !term.uses_z;
  if (term.uses_action && !labels.action_final && !labels.action_was_final) return false;
  if (term.uses_z && !labels.z_final && !labels.z_was_final) return false;
  return ((term.uses_y || uses_none) && labels.y_final) ||
         (term.uses_action && labels.action_final) || (term.uses_z && labels.z_final);
}

double Objective::draw(std::size_t term, std::string_view impression_id) const {
  const std::uint64_t stream = hash64(recipe_.terms[term].name);
  const std::uint64_t bits = mix64(hash64(impression_id, seed_) + stream);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

double Objective::begin(const Term& term, const Sample& sample, Values& values) const {
  const RecipeTerm& from = recipe_.terms[term.index];
  evaluate(term.forward, sample, values);
  if (term.constant_chance < 1) {
    const double chance =
        term.constant_chance < 0 ? values.of[from.chance].p : term.constant_chance;
    if (draw(term.index, sample.impression_id) >= chance) return 0;
  }
  return from.weight == RecipeTerm::kNone ? 1 : values.of[from.weight].p;
}

Prediction Objective::read_predictions(const Values& values) const {
  const auto read = [&](std::uint16_t node) {
    const NodeValue& value = values.of[node];
    return PredictedRate{value.logit, value.p, value.log_p, value.log_no};
  };
  Prediction result = {read(recipe_.pctr), read(recipe_.pcvr), read(recipe_.pctcvr), 0};
  for (const std::uint16_t n : ratio_nodes_) {
    const RecipeNode& node = recipe_.nodes[n];
    if (values.of[node.a].log_p > values.of[node.b].log_p) ++result.cut_ratios;
  }
  return result;
}

TowerSet Objective::reached(const FinalLabels& labels, std::string_view impression_id) const {
  TowerSet result = 0;
  for (const Term& term : terms_) {
    if (!applies(recipe_.terms[term.index], labels)) continue;
    const bool is_constant = 0 <= term.constant_chance && term.constant_chance < 1;
    if (is_constant && draw(term.index, impression_id) >= term.constant_chance) continue;
    result |= term.reached;
  }
  return result;
}

std::uint32_t Objective::embedding_sets(TowerSet towers) const {
  std::uint32_t result = 0;
  for (std::size_t t = 0; t < recipe_.towers.size(); ++t) {
    if ((towers >> t & 1) != 0) result |= 1U << recipe_.towers[t].embeddings;
  }
  return result;
}

Prediction Objective::predict(std::span<const float> logits) const {
  SLUICE_CHECK(logits.size() == towers());
  Values values;
  evaluate(rate_nodes_, {logits, FinalLabels(), {}}, values);
  return read_predictions(values);
}

void Objective::add_weights(std::span<const float> logits, const FinalLabels& labels,
                            std::string_view impression_id, std::span<double> sums) const {
  SLUICE_CHECK(logits.size() == towers() && sums.size() == terms());
  Values values;
  const Sample sample = {logits, labels, impression_id};
  bool has_rates = false;
  for (std::size_t n = batch_terms_; n < terms_.size(); ++n) {
    const Term& term = terms_[n];
    if (!applies(recipe_.terms[term.index], labels)) continue;
    if (!std::exchange(has_rates, true)) evaluate(rate_nodes_, sample, values);
    sums[term.index] += begin(term, sample, values);
  }
}

TermDivisors Objective::divisors(std::size_t batch_samples, std::span<const double> sums) const {
  TermDivisors result(terms(), static_cast<double>(batch_samples));
  for (std::size_t n = batch_terms_; n < terms_.size(); ++n) {
    result[terms_[n].index] = sums[terms_[n].index];
  }
  return result;
}

void Objective::gradients(std::span<const float> logits, const FinalLabels& labels,
                          std::string_view impression_id, const TermDivisors& divisors,
                          std::span<double> gradients, Prediction& predictions) const {
  SLUICE_CHECK(logits.size() == towers() && gradients.size() == towers());
  Values values;
  const Sample sample = {logits, labels, impression_id};
  evaluate(rate_nodes_, sample, values);
  predictions = read_predictions(values);
  std::fill(gradients.begin(), gradients.end(), 0.0);
  for (std::size_t n = 0; n < terms_.size(); ++n) {
    const Term& term = terms_[n];
    if (n == batch_terms_ && n > 0) {
      for (double& gradient : gradients) gradient /= divisors[terms_[0].index];
    }
    if (!applies(recipe_.terms[term.index], labels)) continue;
    const double weight = begin(term, sample, values);
    if (weight == 0) continue;
    differentiate(term, n < batch_terms_ ? weight : weight / divisors[term.index], values,
                  gradients);
  }
  if (batch_terms_ < terms_.size()) return;
  for (double& gradient : gradients) gradient /= divisors[terms_[0].index];
}

double Objective::loss(std::span<const float> logits, const FinalLabels& labels,
                       std::string_view impression_id, const TermDivisors& divisors) const {
  Values values;
  const Sample sample = {logits, labels, impression_id};
  evaluate(rate_nodes_, sample, values);
  double result = 0;
  for (const Term& term : terms_) {
    if (!applies(recipe_.terms[term.index], labels)) continue;
    const double weight = begin(term, sample, values);
    if (weight == 0) continue;
    const double loss = values.of[recipe_.terms[term.index].loss].p;
    result += weight * loss / divisors[term.index];
  }
  return result;
}

}  // namespace sluice
