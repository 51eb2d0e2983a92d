// What the model says of one impression: as predicted before any label of the impression was
// learned. A second sample of an impression repeats its first one's.
#pragma once

#include <cstdint>

namespace sluice {

// What is predicted of one rate.
struct PredictedRate {
  double logit = 0;    // log p − log(1−p); of a tower's sigmoid the logit itself
  double yes = 0;      // p
  double log_yes = 0;  // log p; below 0 and finite, but of a ratio it may be 0
  double log_no = 0;   // log(1−p); of a ratio that was cut to 1: −infinity
  friend bool operator==(const PredictedRate&, const PredictedRate&) = default;
};

struct Prediction {
  PredictedRate ctr, cvr, ctcvr;
  std::uint32_t cut_ratios = 0;  // ratios above 1, cut to 1, among those the three rates rest on
  friend bool operator==(const Prediction&, const Prediction&) = default;
};

}  // namespace sluice
