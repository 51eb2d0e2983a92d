// Numbers become ids by buckets. The edges are one table, computed once and kept in the snapshot's
// schema, so that a reader never repeats the logarithm.
#pragma once

#include <cstdint>
#include <vector>

#include "config/config.h"

namespace sluice {

class Buckets {
 public:
  // "log:N": sign(v)·floor(N·ln(1+|v|)); edges e_k = exp(k/N) − 1 for k = 1, 2, ... below 2^63,
  // beyond which |v| saturates.
  static std::vector<double> log_edges(int per_unit);

  // `signed_log`: bucket = sign(v) · number of edges ≤ |v|, else number of edges ≤ v. Edges ascend.
  Buckets(bool signed_log, std::vector<double> edges)
      : signed_log_(signed_log), edges_(std::move(edges)) {}

  std::int64_t bucket(double value) const;
  const std::vector<double>& edges() const { return edges_; }

 private:
  bool signed_log_;
  std::vector<double> edges_;
};

}  // namespace sluice
