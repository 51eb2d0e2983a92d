#include "bench/serve.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace sluice::bench {

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  const auto count = static_cast<double>(values.size());
  const auto rank = static_cast<std::size_t>(std::max(1.0, std::ceil(q * count))) - 1;
  const auto place = values.begin() + static_cast<std::ptrdiff_t>(rank);
  std::nth_element(values.begin(), place, values.end());
  return *place;
}

int serve(const std::function<Slice(std::size_t, double)>& run) {
  std::size_t batch = 0;
  double seconds = 0;
  while (std::scanf("%zu %lf", &batch, &seconds) == 2) {
    if (batch == 0 || !(seconds > 0)) {
      std::fprintf(stderr, "a slice needs a batch size and seconds above 0\n");
      return 2;
    }
    const Slice slice = run(batch, seconds);
    std::printf("{\"samples\": %zu, \"seconds\": %.6f, \"longest_ms\": %.3f, \"p99_ms\": %.3f}\n",
                slice.samples, slice.seconds, 1e3 * quantile(slice.batch_seconds, 1),
                1e3 * quantile(slice.batch_seconds, 0.99));
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace sluice::bench
