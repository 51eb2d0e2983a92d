// What the model says of one impression.
#pragma once

namespace sluice {

// As predicted before any label of the impression was learned. A second sample of an impression
// repeats its first one's.
struct Prediction {
  float ctr_logit = 0;  // a; pCTR = σ(a)
  float cvr_logit = 0;  // b; pCVR = σ(b)
  double pctr = 0;
  double pcvr = 0;
  double pctcvr = 0;  // pCTR · pCVR

  friend bool operator==(const Prediction&, const Prediction&) = default;
};

}  // namespace sluice
