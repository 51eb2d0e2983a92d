// Progressive metrics: every impression is scored before any of its labels is learned, and the
// scores are compared with the labels as those become final.
//   ctr    y against pCTR, over samples with final y
//   ctcvr  z against pCTCVR, over samples with final z
//   cvr    z against pCVR, over clicked samples with final z
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/result.h"
#include "learner/labels.h"
#include "learner/prediction.h"

namespace sluice {

// One rate against one label. All sums are in double, in the order of the calls. AUC from 2^16 bins
// of the logit (1/1024 wide, the ends of [-32, 32) take what is beyond), ties within a bin counting
// one half.
class ProgressiveMetric {
 public:
  // In the log loss a rate of 1 counts as the double before it, and 0 alike.
  void add(bool label, const PredictedRate& rate);

  std::uint64_t samples() const { return samples_; }
  std::uint64_t positives() const { return positives_; }

  // {"samples", "positives", "auc", "log_loss", "normalized_entropy", "calibration"}. log_loss is a
  // mean in nats; normalized_entropy = log_loss / entropy of the base rate; calibration = Σp /
  // Σlabel. What is undefined (no sample, one class only, no positive) is null.
  nlohmann::ordered_json json() const;

  // The exact bits of all sums; only bins that are not empty.
  void encode(ByteWriter& out) const;
  bool decode(ByteReader& in);  // false where the bytes are none of encode()'s

 private:
  struct Bin {
    std::uint64_t negatives = 0;
    std::uint64_t positives = 0;
  };
  nlohmann::ordered_json auc() const;

  std::uint64_t samples_ = 0;
  std::uint64_t positives_ = 0;
  double sum_probability_ = 0;
  double sum_log_loss_ = 0;
  std::vector<Bin> bins_;  // empty until the first add()
};

class ProgressiveMetrics {
 public:
  // Only final labels count. `prediction` is the impression's first.
  void add(const FinalLabels& labels, const Prediction& prediction);

  // {"ctr": ..., "ctcvr": ..., "cvr": ...}
  nlohmann::ordered_json json() const;

  std::string encode() const;
  static Result<ProgressiveMetrics> decode(std::string_view bytes);

 private:
  ProgressiveMetric ctr_;
  ProgressiveMetric ctcvr_;
  ProgressiveMetric cvr_;
};

}  // namespace sluice
