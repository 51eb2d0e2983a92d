#include "learner/embedding_table.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "base/hash.h"

namespace sluice {
namespace {

constexpr std::size_t kDim = 3;

RC_GTEST_PROP(EmbeddingTableProperty, BehavesAsAMap, ()) {
  OptimizerConfig optimizer;
  optimizer.optimizer = OptimizerConfig::Rule::ftrl;
  optimizer.learning_rate = 0.25;
  EmbeddingTable table("t", RowLayout{kDim, slots_of(optimizer)}, 9);
  std::unordered_map<std::uint64_t, std::vector<float>> map;
  // Few low bits, so that keys collide in the index; some keys are large, and zero is a key.
  const auto key = rc::gen::oneOf(
      rc::gen::inRange<std::uint64_t>(0, 64),
      rc::gen::map(rc::gen::inRange<std::uint64_t>(0, 64), [](std::uint64_t n) { return n << 40; }),
      rc::gen::arbitrary<std::uint64_t>());
  float stamp = 0;
  for (const std::uint64_t k : *rc::gen::container<std::vector<std::uint64_t>>(key)) {
    RC_ASSERT((table.find(k) != nullptr) == map.contains(k));
    const std::uint32_t row = table.find_or_create(k);
    if (!map.contains(k)) {
      std::vector<float> initial(kDim);
      table.initial(k, initial);
      RC_ASSERT(std::equal(initial.begin(), initial.end(), table.values(row)));
      for (std::size_t j = 0; j < kDim; ++j) {  // z and n of FTRL
        RC_ASSERT(table.values(row)[kDim + j] == -4 * initial[j]);
        RC_ASSERT(table.values(row)[2 * kDim + j] == 0);
      }
      map[k].resize(3 * kDim);
    }
    for (std::size_t j = 0; j < 3 * kDim; ++j) table.values(row)[j] = map[k][j] = ++stamp;
  }
  RC_ASSERT(table.rows() == map.size());
  std::vector<std::uint64_t> keys;
  for (const std::uint32_t row : table.by_key()) keys.push_back(table.key(row));
  RC_ASSERT(std::is_sorted(keys.begin(), keys.end()));
  for (const auto& [k, values] : map) {
    const float* const row = table.find(k);
    RC_ASSERT(row != nullptr);
    RC_ASSERT(std::equal(values.begin(), values.end(), row));
  }
}

TEST(EmbeddingTable, RowsStayWhereTheyAreWhileItGrows) {
  EmbeddingTable table("t", RowLayout{kDim, {}}, 9);
  std::vector<const float*> rows;
  for (std::uint64_t k = 0; k < 5000; ++k) {
    rows.push_back(table.values(table.find_or_create(mix64(k))));
  }
  for (std::uint64_t k = 0; k < 5000; ++k) EXPECT_EQ(table.find(mix64(k)), rows[k]);
}

TEST(EmbeddingTable, InitialRowsAreUniformWithTheirStandardDeviation) {
  constexpr std::size_t kRows = 20'000;
  const InitialRows initial(7, "t");
  double sum = 0, squares = 0, largest = 0;
  for (std::uint64_t key = 0; key < kRows; ++key) {
    std::vector<float> row(kDim);
    initial.fill(key, row);
    for (const float value : row) {
      sum += value;
      squares += double{value} * value;
      largest = std::max(largest, std::abs(double{value}));
    }
  }
  const double n = kRows * kDim;
  EXPECT_NEAR(sum / n, 0, 4 * 0.05 / std::sqrt(n));
  EXPECT_NEAR(std::sqrt(squares / n), 0.05, 0.0005);
  EXPECT_NEAR(largest, 0.05 * std::sqrt(3.0), 1e-4);
}

TEST(InitialValues, DependOnSeedNameAndIndexAlone) {
  const auto layer = [](std::uint64_t seed, const char* name, std::size_t size) {
    std::vector<float> values(size);
    initialize_layer(seed, name, 4, values);
    return values;
  };
  const std::vector<float> values = layer(1, "tower.ctr.0.weight", 100);
  EXPECT_EQ(layer(1, "tower.ctr.0.weight", 100), values);
  EXPECT_NE(layer(2, "tower.ctr.0.weight", 100), values);
  EXPECT_NE(layer(1, "tower.cvr.0.weight", 100), values);
  EXPECT_TRUE(
      std::equal(values.begin(), values.begin() + 10, layer(1, "tower.ctr.0.weight", 10).begin()));
  EXPECT_TRUE(std::all_of(values.begin(), values.end(),
                          [](float value) { return std::abs(value) < 0.5F; }));
}

}  // namespace
}  // namespace sluice
