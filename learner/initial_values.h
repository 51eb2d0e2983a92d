// Initial weights as a pure function of (seed, name, index), so that neither the order in which
// rows arrive nor the number of threads matters, and a reader of a snapshot can make the value of a
// row that the snapshot does not hold.
//
// All arithmetic on u64 wraps. mix64 is base/hash.h's: x += 0x9e3779b97f4a7c15;
// x = (x ^ x>>30)·0xbf58476d1ce4e5b9; x = (x ^ x>>27)·0x94d049bb133111eb; x ^ x>>31.
//   stream(name)   = XXH3_64(name, seed = model.seed)
//   layer, index k : bits = mix64(stream("tower.ctr.0.weight") + k), k the row-major index in
//                    [out, in]; biases alike, by their own name
//   row, column j  : bits = mix64(mix64(stream("embedding.<table>") + key) + j)
//   value(bits, r) = f32(t / 2^24 · r), t = 2·(bits >> 40) + 1 − 2^24
// t is an odd integer of magnitude below 2^24, uniform and symmetric about zero; t / 2^24 is exact,
// the product with r is one rounding in double and the cast to f32 another. r is 1/√fan_in for
// layers (weights and biases) and 0.05·√3 for rows, whose standard deviation is then 0.05.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace sluice {

inline constexpr double kRowStandardDeviation = 0.05;

// Uniform in (−range, range), from 64 random bits.
float initial_value(std::uint64_t bits, double range);

// Fills one layer's weights ([out, in], row-major) or biases ([out]).
void initialize_layer(std::uint64_t seed, std::string_view name, std::size_t fan_in,
                      std::span<float> out);

// Initial values of the rows of one table.
class InitialRows {
 public:
  InitialRows(std::uint64_t seed, std::string_view table);
  void fill(std::uint64_t key, std::span<float> out) const;  // [dim]

 private:
  std::uint64_t stream_;
  double range_;
};

}  // namespace sluice
