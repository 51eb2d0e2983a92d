// How the bench's programs are driven: the table asks several of them in turn for short slices, so
// that a machine that drifts hits all alike.
//
// A program prints one JSON line when it is ready. Then each line "BATCH SECONDS" of its standard
// input asks for a slice of at least so many timed seconds, and is answered by one JSON line:
//   {"samples", "seconds", "longest_ms", "p99_ms"}     the last two of single batches; or 0
// It ends at the end of its input.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

namespace sluice::bench {

struct Slice {
  std::size_t samples = 0;
  double seconds = 0;                 // of the timed parts
  std::vector<double> batch_seconds;  // empty: not known
};

// The q-th quantile (nearest rank); 0 of nothing.
double quantile(std::vector<double> values, double q);

// Answers until the input ends. Returns the program's exit code.
int serve(const std::function<Slice(std::size_t batch, double seconds)>& run);

}  // namespace sluice::bench
