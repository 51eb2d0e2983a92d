#include "learner/buckets.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace sluice {

std::vector<double> Buckets::log_edges(int per_unit) {
  SLUICE_CHECK(per_unit > 0);
  std::vector<double> edges;
  for (int k = 1;; ++k) {
    const double edge = std::exp(static_cast<double>(k) / per_unit) - 1.0;
    if (edge > 0x1p63) return edges;
    edges.push_back(edge);
  }
}

std::int64_t Buckets::bucket(double value) const {
  const double searched = signed_log_ ? std::abs(value) : value;
  const auto count = std::upper_bound(edges_.begin(), edges_.end(), searched) - edges_.begin();
  return signed_log_ && value < 0 ? -count : count;
}

}  // namespace sluice
