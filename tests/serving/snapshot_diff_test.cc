#include "serving/snapshot_diff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sluice {
namespace {

using ::testing::HasSubstr;

// One table with rows of two numbers, and one layer of three.
Tensors model(const std::vector<std::uint64_t>& keys, const std::vector<float>& rows,
              const std::vector<float>& layer) {
  return {{"embedding.user.keys", Tensor::of<std::uint64_t>({keys.size()}, keys)},
          {"embedding.user.rows", Tensor::of<float>({keys.size(), 2}, rows)},
          {"tower.ctr.0.weight", Tensor::of<float>({1, 3}, layer)}};
}

TEST(SnapshotDiff, CountsRowsAndMeasuresMoves) {
  const Tensors before = model({2, 5, 7, 9}, {0, 0, 1, 1, 2, 2, 3, 3}, {3, 0, 4});
  const Tensors after = model({1, 5, 7, 8, 9}, {0, 0, 1, 1, 2, 3, 4, 4, 6, 7}, {3, 2, 4});
  const auto diff = diff_snapshots(before, after);
  ASSERT_TRUE(diff) << diff.error().message;
  ASSERT_EQ(diff->tables.size(), 1u);
  const TableDiff& table = diff->tables[0];
  EXPECT_EQ(table.name, "user");
  EXPECT_EQ(table.rows_before, 4u);
  EXPECT_EQ(table.rows_after, 5u);
  EXPECT_EQ(table.added, 2u);    // 1 and 8
  EXPECT_EQ(table.removed, 1u);  // 2
  EXPECT_EQ(table.changed, 2u);  // 7 by 1, 9 by 5
  EXPECT_DOUBLE_EQ(table.mean_move, 3);
  EXPECT_DOUBLE_EQ(table.largest_move, 5);
  EXPECT_EQ(table.largest_key, 9u);
  ASSERT_EQ(diff->layers.size(), 1u);
  EXPECT_DOUBLE_EQ(diff->layers[0].move, 2);
  EXPECT_DOUBLE_EQ(diff->layers[0].relative, 0.4);
}

TEST(SnapshotDiff, RefusesOtherModels) {
  const Tensors before = model({1}, {0, 0}, {1, 2, 3});
  Tensors other_layer = before;
  other_layer["tower.ctr.0.weight"] = Tensor::of<float>({1, 2}, {1, 2});
  Tensors other_dim = before;
  other_dim["embedding.user.rows"] = Tensor::of<float>({1, 3}, {1, 2, 3});
  Tensors further = before;
  further["tower.cvr.0.weight"] = Tensor::of<float>({1}, {1});
  Tensors cut = before;
  cut.erase("embedding.user.rows");
  for (const Tensors& after : {other_layer, other_dim, further, cut}) {
    for (const auto& diff : {diff_snapshots(before, after), diff_snapshots(after, before)}) {
      ASSERT_FALSE(diff);
      EXPECT_THAT(diff.error().message, HasSubstr("different models"));
    }
  }
}

}  // namespace
}  // namespace sluice
