// What a join of the shop's logs must find, counted from the records as they were drawn and
// written. The rules are those of docs/design.md ("Labels", "Attribution and repeats") with
// attribution by impression_id, first click and no clock skew, applied to all records of one
// impression at once, so there is neither watermark nor shared state: nothing here is part of the
// join.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include <nlohmann/json.hpp>

#include "app/shop_events.h"
#include "app/shop_options.h"

namespace sluice {

// How its own log alone judges a record.
enum class ShopVerdict : std::uint8_t { accepted, malformed, late };

// AUC of predicted rates, ties half, from 2^16 bins of the logit.
class RateAuc {
 public:
  void add(double rate, bool label);
  double value() const;  // not a number while one of the labels has not come

 private:
  static constexpr std::size_t kBins = 1 << 16;
  std::vector<std::array<std::uint64_t, 2>> bins_ =
      std::vector<std::array<std::uint64_t, 2>>(kBins);
};

class ShopExpected {
 public:
  explicit ShopExpected(const ShopOptions& options) : options_(options) {}  // outlives the object

  void add_truth(const ShopImpression& impression);
  // Once for each record written.
  void add_record(const ShopRecord& record, ShopVerdict verdict);

  struct Counts {
    std::array<std::uint64_t, kStreams> records{};  // lines written
    std::uint64_t impressions = 0;                  // labelled
    std::uint64_t clicked = 0;
    std::uint64_t converted = 0;
    std::uint64_t acted = 0;
    std::uint64_t further = 0;  // purchases of converted ones, where values are summed
    Micros value = 0;           // of all that are converted
    std::uint64_t malformed = 0;
    std::uint64_t late = 0;
    std::uint64_t duplicate = 0;
    std::uint64_t repeat = 0;
    std::uint64_t no_open_impression = 0;
    std::uint64_t no_click = 0;
  };
  // Complete once every record of every page was added.
  const Counts& counts() const { return counts_; }

  struct TrueRates {
    double ctr_auc = 0, ctcvr_auc = 0, cvr_auc = 0;  // of the true rates: no model does better
    double mean_pctr = 0;
    double mean_pcvr = 0;          // over all impressions
    double mean_pcvr_clicked = 0;  // over clicked ones
    // With actions; over clicked ones.
    double action_auc = 0;
    double mean_paction_clicked = 0;
  };
  TrueRates true_rates() const;

  // expected.json; docs/generate.md describes it.
  nlohmann::ordered_json json() const;

 private:
  struct Fact {
    TimeMs time = 0;
    Stream stream = Stream::impressions;
    Micros value = 0;
  };
  struct Subject {
    std::uint32_t records = 0;  // seen
    std::vector<Fact> accepted;
  };

  void settle(std::vector<Fact>& facts);

  const ShopOptions& options_;
  Counts counts_;
  std::unordered_map<std::uint64_t, Subject> unsettled_;
  RateAuc ctr_auc_, ctcvr_auc_, cvr_auc_, action_auc_;
  std::uint64_t impressions_ = 0;
  std::uint64_t clicked_ = 0;
  double sum_pctr_ = 0, sum_pcvr_ = 0, sum_pcvr_clicked_ = 0, sum_paction_clicked_ = 0;
};

}  // namespace sluice
