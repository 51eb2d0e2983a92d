#include "app/shop_expected.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/check.h"
#include "ingest/event.h"

namespace sluice {
namespace {

double ratio(double sum, std::uint64_t count) {
  return count == 0 ? std::numeric_limits<double>::quiet_NaN() : sum / static_cast<double>(count);
}

// JSON has no "not a number": undefined is null. Six digits are more than the counts can tell.
nlohmann::ordered_json number_or_null(double value) {
  if (std::isnan(value)) return nullptr;
  return std::round(value * 1e6) / 1e6;
}

}  // namespace

void RateAuc::add(double rate, bool label) {
  constexpr double kHighestLogit = 16.0;
  const double logit = std::log(rate / (1.0 - rate));
  const double share = (logit + kHighestLogit) / (2.0 * kHighestLogit);
  const double bin = std::clamp(share * kBins, 0.0, static_cast<double>(kBins - 1));
  ++bins_[static_cast<std::size_t>(bin)][label ? 1 : 0];
}

double RateAuc::value() const {
  double negatives = 0;
  double positives = 0;
  double ordered_pairs = 0;
  for (const auto& [negative, positive] : bins_) {
    ordered_pairs +=
        static_cast<double>(positive) * (negatives + 0.5 * static_cast<double>(negative));
    negatives += static_cast<double>(negative);
    positives += static_cast<double>(positive);
  }
  if (negatives == 0 || positives == 0) return std::numeric_limits<double>::quiet_NaN();
  return ordered_pairs / (negatives * positives);
}

void ShopExpected::add_truth(const ShopImpression& impression) {
  const double pctr = impression.rates.pctr;
  const double pcvr = impression.rates.pcvr;
  ++impressions_;
  sum_pctr_ += pctr;
  sum_pcvr_ += pcvr;
  ctr_auc_.add(pctr, impression.clicked);
  ctcvr_auc_.add(pctr * pcvr, impression.purchased);
  if (impression.clicked) {
    ++clicked_;
    sum_pcvr_clicked_ += pcvr;
    cvr_auc_.add(pcvr, impression.purchased);
    if (options_.has_actions) {
      sum_paction_clicked_ += impression.rates.paction;
      action_auc_.add(impression.rates.paction, impression.acted);
    }
  }
}

void ShopExpected::add_record(const ShopRecord& record, ShopVerdict verdict) {
  ++counts_.records[static_cast<std::size_t>(record.stream)];
  if (verdict == ShopVerdict::malformed) ++counts_.malformed;
  if (verdict == ShopVerdict::late) ++counts_.late;
  const Fact fact{record.time, record.stream, record.value};
  std::vector<Fact> alone;
  if (record.subject_records == 1) {
    if (verdict == ShopVerdict::accepted) alone.push_back(fact);
    settle(alone);
    return;
  }
  Subject& subject = unsettled_[record.subject];
  if (verdict == ShopVerdict::accepted) subject.accepted.push_back(fact);
  SLUICE_CHECK(subject.records < record.subject_records);
  if (++subject.records == record.subject_records) {
    settle(subject.accepted);
    unsettled_.erase(record.subject);
  }
}

void ShopExpected::settle(std::vector<Fact>& facts) {
  std::sort(facts.begin(), facts.end(), [](const Fact& a, const Fact& b) {
    return std::pair(a.time, rank_of(a.stream)) < std::pair(b.time, rank_of(b.stream));
  });
  struct Impression {
    TimeMs open_until = kTimeMin;
    bool clicked = false;
    TimeMs conversion_end = kTimeMin;  // once clicked
    bool converted = false;
    TimeMs action_end = kTimeMin;  // once clicked
    bool acted = false;
  };
  Impression impression;
  for (const Fact& fact : facts) {
    const bool is_open = fact.time < impression.open_until;
    if (fact.stream == Stream::impressions) {
      if (is_open) {
        ++counts_.duplicate;
      } else {
        ++counts_.impressions;
        impression = {};
        impression.open_until = fact.time + options_.click_window;
      }
    } else if (!is_open) {
      ++counts_.no_open_impression;
    } else if (fact.stream == Stream::clicks) {
      if (impression.clicked) {
        ++counts_.repeat;
      } else {
        ++counts_.clicked;
        impression.clicked = true;
        impression.conversion_end = fact.time + options_.conversion_window;
        impression.open_until = std::max(impression.open_until, impression.conversion_end);
        if (options_.has_actions) {
          impression.action_end = fact.time + options_.action_window;
          impression.open_until = std::max(impression.open_until, impression.action_end);
        }
      }
    } else if (fact.stream == Stream::actions) {
      if (impression.acted) {
        ++counts_.repeat;
      } else if (!impression.clicked || fact.time >= impression.action_end) {
        ++counts_.no_click;
      } else {
        ++counts_.acted;
        impression.acted = true;
      }
    } else if (impression.converted) {
      if (options_.has_values && fact.time < impression.conversion_end) {
        ++counts_.further;
        counts_.value += fact.value;
      } else {
        ++counts_.repeat;
      }
    } else if (!impression.clicked || fact.time >= impression.conversion_end) {
      ++counts_.no_click;
    } else {
      ++counts_.converted;
      counts_.value += fact.value;
      impression.converted = true;
    }
  }
}

ShopExpected::TrueRates ShopExpected::true_rates() const {
  return {.ctr_auc = ctr_auc_.value(),
          .ctcvr_auc = ctcvr_auc_.value(),
          .cvr_auc = cvr_auc_.value(),
          .mean_pctr = ratio(sum_pctr_, impressions_),
          .mean_pcvr = ratio(sum_pcvr_, impressions_),
          .mean_pcvr_clicked = ratio(sum_pcvr_clicked_, clicked_),
          .action_auc = action_auc_.value(),
          .mean_paction_clicked = ratio(sum_paction_clicked_, clicked_)};
}

nlohmann::ordered_json ShopExpected::json() const {
  SLUICE_CHECK(unsettled_.empty());
  nlohmann::ordered_json json;
  json["attribution"] = "impression_id";
  json["click_window_ms"] = options_.click_window;
  json["conversion_window_ms"] = options_.conversion_window;
  if (options_.has_actions) json["action_window_ms"] = options_.action_window;
  json["max_out_of_orderness_ms"] = options_.max_out_of_orderness;
  for (std::size_t s = 0; s < options_.streams(); ++s) {
    json["records"][kStreamNames[s]] = counts_.records[s];
  }
  json["labels"]["impressions"] = counts_.impressions;
  json["labels"]["clicked"] = counts_.clicked;
  json["labels"]["converted"] = counts_.converted;
  if (options_.has_actions) json["labels"]["acted"] = counts_.acted;
  if (options_.has_values) {
    json["labels"]["further_purchases"] = counts_.further;
    json["value"] = to_double(counts_.value);
  }
  json["refused"]["malformed"] = counts_.malformed;
  json["refused"]["late"] = counts_.late;
  json["refused"]["duplicate"] = counts_.duplicate;
  json["refused"]["repeat"] = counts_.repeat;
  json["refused"]["no_open_impression"] = counts_.no_open_impression;
  json["refused"]["no_click"] = counts_.no_click;
  const TrueRates rates = true_rates();
  json["bayes"]["ctr_auc"] = number_or_null(rates.ctr_auc);
  json["bayes"]["ctcvr_auc"] = number_or_null(rates.ctcvr_auc);
  json["bayes"]["cvr_auc"] = number_or_null(rates.cvr_auc);
  if (options_.has_actions) json["bayes"]["action_auc"] = number_or_null(rates.action_auc);
  json["true_rates"]["mean_pctr"] = number_or_null(rates.mean_pctr);
  json["true_rates"]["mean_pcvr"] = number_or_null(rates.mean_pcvr);
  json["true_rates"]["mean_pcvr_clicked"] = number_or_null(rates.mean_pcvr_clicked);
  if (options_.has_actions) {
    json["true_rates"]["mean_paction_clicked"] = number_or_null(rates.mean_paction_clicked);
  }
  return json;
}

}  // namespace sluice
