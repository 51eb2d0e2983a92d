#include "learner/metrics.h"

#include <cmath>

namespace sluice {

namespace {

constexpr std::size_t kBins = 1 << 16;
constexpr double kBinsPerUnit = 1024;
constexpr double kLeastLog = -36.736800569677101;  // log 2^-53

std::size_t bin_of(double logit) {
  const double place = logit * kBinsPerUnit + kBins / 2.0;
  if (!(place > 0)) return 0;  // also where the logit is not a number
  if (place >= kBins) return kBins - 1;
  return static_cast<std::size_t>(place);
}

}  // namespace

void ProgressiveMetric::add(bool label, const PredictedRate& rate) {
  if (bins_.empty()) bins_.resize(kBins);
  Bin& bin = bins_[bin_of(rate.logit)];
  ++(label ? bin.positives : bin.negatives);
  ++samples_;
  if (label) ++positives_;
  sum_probability_ += rate.yes;
  const double log_likelihood = label ? rate.log_yes : rate.log_no;
  sum_log_loss_ -= std::isinf(log_likelihood) ? kLeastLog : log_likelihood;
}

nlohmann::ordered_json ProgressiveMetric::auc() const {
  const std::uint64_t negatives = samples_ - positives_;
  if (positives_ == 0 || negatives == 0) return nullptr;
  double correct = 0;  // pairs ranked correctly
  double below = 0;    // negatives in lower bins
  for (const Bin& bin : bins_) {
    const auto bin_negatives = static_cast<double>(bin.negatives);
    correct += static_cast<double>(bin.positives) * (below + 0.5 * bin_negatives);
    below += bin_negatives;
  }
  return correct / (static_cast<double>(positives_) * static_cast<double>(negatives));
}

nlohmann::ordered_json ProgressiveMetric::json() const {
  nlohmann::ordered_json result = {
      {"samples", samples_}, {"positives", positives_},       {"auc", auc()},
      {"log_loss", nullptr}, {"normalized_entropy", nullptr}, {"calibration", nullptr},
  };
  if (samples_ == 0) return result;
  const auto n = static_cast<double>(samples_);
  const double log_loss = sum_log_loss_ / n;
  result["log_loss"] = log_loss;
  if (positives_ > 0) result["calibration"] = sum_probability_ / static_cast<double>(positives_);
  if (positives_ > 0 && positives_ < samples_) {
    const double rate = static_cast<double>(positives_) / n;
    const double entropy = -rate * std::log(rate) - (1 - rate) * std::log1p(-rate);
    result["normalized_entropy"] = log_loss / entropy;
  }
  return result;
}

void ProgressiveMetric::encode(ByteWriter& out) const {
  out.u64(samples_);
  out.u64(positives_);
  out.f64(sum_probability_);
  out.f64(sum_log_loss_);
  std::uint64_t used = 0;
  for (const Bin& bin : bins_) used += bin.negatives + bin.positives > 0 ? 1 : 0;
  out.varint(used);
  for (std::size_t i = 0; i < bins_.size(); ++i) {
    if (bins_[i].negatives + bins_[i].positives == 0) continue;
    out.varint(i);
    out.varint(bins_[i].negatives);
    out.varint(bins_[i].positives);
  }
}

bool ProgressiveMetric::decode(ByteReader& in) {
  samples_ = in.u64();
  positives_ = in.u64();
  sum_probability_ = in.f64();
  sum_log_loss_ = in.f64();
  const std::uint64_t used = in.varint();
  if (!in.ok() || used > kBins) return false;
  if (used > 0) bins_.assign(kBins, Bin{});
  std::uint64_t negatives = 0;
  std::uint64_t positives = 0;
  for (std::uint64_t n = 0; n < used; ++n) {
    const std::uint64_t i = in.varint();
    if (i >= kBins) return false;
    bins_[i].negatives = in.varint();
    bins_[i].positives = in.varint();
    negatives += bins_[i].negatives;
    positives += bins_[i].positives;
  }
  return in.ok() && positives == positives_ && negatives + positives == samples_;
}

void ProgressiveMetrics::add(const FinalLabels& labels, const Prediction& prediction) {
  if (labels.y_final) ctr_.add(labels.y, prediction.ctr);
  if (!labels.z_final) return;
  ctcvr_.add(labels.z, prediction.ctcvr);
  if (labels.y) cvr_.add(labels.z, prediction.cvr);
}

nlohmann::ordered_json ProgressiveMetrics::json() const {
  return {{"ctr", ctr_.json()}, {"ctcvr", ctcvr_.json()}, {"cvr", cvr_.json()}};
}

std::string ProgressiveMetrics::encode() const {
  std::string bytes;
  ByteWriter out(bytes);
  ctr_.encode(out);
  ctcvr_.encode(out);
  cvr_.encode(out);
  return bytes;
}

Result<ProgressiveMetrics> ProgressiveMetrics::decode(std::string_view bytes) {
  ProgressiveMetrics metrics;
  ByteReader in(bytes);
  if (!metrics.ctr_.decode(in) || !metrics.ctcvr_.decode(in) || !metrics.cvr_.decode(in) ||
      !in.at_end()) {
    return stop_error("the metrics' sums are damaged or of another format");
  }
  return metrics;
}

}  // namespace sluice
