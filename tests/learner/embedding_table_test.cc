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
  EmbeddingTable table("t", {kDim, {{"m"}, {"v"}}}, 9);
  std::unordered_map<std::uint64_t, std::vector<float>> map;
  // Few low bits, so that keys collide in the index; some keys are large, and zero is a key.
  const auto key = rc::gen::oneOf(
      rc::gen::inRange<std::uint64_t>(0, 64),
      rc::gen::map(rc::gen::inRange<std::uint64_t>(0, 64), [](std::uint64_t n) { return n << 40; }),
      rc::gen::arbitrary<std::uint64_t>());
  float stamp = 0;
  for (const std::uint64_t k : *rc::gen::container<std::vector<std::uint64_t>>(key)) {
    RC_ASSERT((table.find(k) != nullptr) == map.contains(k));
    EmbeddingRow* const row = table.find_or_create(k);
    RC_ASSERT(row->key == k);
    if (!map.contains(k)) {
      std::vector<float> initial(kDim);
      table.initial(k, initial);
      RC_ASSERT(std::equal(initial.begin(), initial.end(), row->values()));
      RC_ASSERT(std::all_of(row->values() + kDim, row->values() + 3 * kDim,
                            [](float slot) { return slot == 0; }));
      map[k].resize(3 * kDim);
    }
    for (std::size_t j = 0; j < 3 * kDim; ++j) row->values()[j] = map[k][j] = ++stamp;
  }
  RC_ASSERT(table.rows() == map.size());
  std::vector<std::uint64_t> keys;
  for (const EmbeddingRow* const row : table.by_key()) keys.push_back(row->key);
  RC_ASSERT(std::is_sorted(keys.begin(), keys.end()));
  for (const auto& [k, values] : map) {
    const EmbeddingRow* const row = table.find(k);
    RC_ASSERT(row != nullptr);
    RC_ASSERT(std::equal(values.begin(), values.end(), row->values()));
  }
}

// Past the first segments' splits, in every part.
TEST(EmbeddingTable, RowsStayWhereTheyAreWhileItGrows) {
  constexpr std::uint64_t kRows = 200'000;
  EmbeddingTable table("t", {kDim, {{"one", true, 1.0F}, {"two", true, 2.0F}}}, 9);
  std::vector<const EmbeddingRow*> rows;
  for (std::uint64_t k = 0; k < kRows; ++k) rows.push_back(table.find_or_create(k));
  EXPECT_EQ(table.rows(), kRows);
  std::vector<float> initial(kDim);
  for (std::uint64_t k = 0; k < kRows; ++k) {
    ASSERT_EQ(table.find(k), rows[k]);
    ASSERT_EQ(rows[k]->key, k);
    ASSERT_EQ(rows[k]->last_batch, 0U);
    table.initial(k, initial);
    ASSERT_TRUE(std::equal(initial.begin(), initial.end(), rows[k]->values()));
    ASSERT_EQ(rows[k]->values()[kDim], 1.0F);
    ASSERT_EQ(rows[k]->values()[kDim + 1], 2.0F);
  }
  EXPECT_EQ(table.find(kRows), nullptr);
  std::size_t seen = 0;
  table.for_each([&](const EmbeddingRow& row) { seen += table.find(row.key) == &row ? 1 : 0; });
  EXPECT_EQ(seen, kRows);
}

// A row of 4 floats is one line of 64 bytes; the index has its 8 bytes an entry at most twice over
// after a split, and memory comes in chunks that double.
TEST(EmbeddingTable, TellsItsMemory) {
  EmbeddingTable table("t", {kDim, {{"sum", true}}}, 9);
  const std::size_t empty = table.bytes();
  EXPECT_LT(empty, 64U << 10);
  constexpr std::uint64_t kRows = 500'000;
  for (std::uint64_t k = 0; k < kRows; ++k) table.find_or_create(k);
  const double bytes_a_row = static_cast<double>(table.bytes()) / kRows;
  EXPECT_GT(bytes_a_row, 64 + 8);
  EXPECT_LT(bytes_a_row, 64 + 32);
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
