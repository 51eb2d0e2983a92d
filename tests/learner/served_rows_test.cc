#include "learner/served_rows.h"

#include <map>
#include <set>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace sluice {
namespace {

constexpr std::size_t kColumns = 3;

using KeyedRows = std::map<std::uint64_t, std::vector<float>>;

// A view needs its rows in one place.
struct Columns {
  explicit Columns(const KeyedRows& rows) {
    for (const auto& [key, row] : rows) {
      keys.push_back(key);
      values.insert(values.end(), row.begin(), row.end());
    }
  }
  RowsView view() const { return {keys, values.data()}; }

  std::vector<std::uint64_t> keys;
  std::vector<float> values;
};

KeyedRows all_rows(const ServedTable& table) {
  KeyedRows rows;
  table.for_each([&](std::uint64_t key, const float* values) {
    EXPECT_TRUE(rows.emplace(key, std::vector<float>(values, values + kColumns)).second) << key;
  });
  return rows;
}

void expect_rows(const ServedTable& table, const KeyedRows& expected) {
  EXPECT_EQ(all_rows(table), expected);
  EXPECT_EQ(table.rows(), expected.size());
  for (std::uint64_t key = 0; key < 60; ++key) {
    const float* const found = table.find(key);
    ASSERT_EQ(found != nullptr, expected.contains(key)) << key;
    if (found == nullptr) continue;
    EXPECT_EQ(std::vector<float>(found, found + kColumns), expected.at(key));
    EXPECT_EQ(RowBlock::values_at(table.likely(mix64(key))), found);
  }
}

KeyedRows random_rows() {
  const auto keys = *rc::gen::container<std::set<std::uint64_t>>(rc::gen::inRange(0, 60));
  KeyedRows rows;
  for (const std::uint64_t key : keys) {
    rows[key] = *rc::gen::container<std::vector<float>>(kColumns, rc::gen::arbitrary<float>());
    for (float& value : rows[key]) value = value == value ? value : 0;  // to be compared
  }
  return rows;
}

// A map that each delta is written into says what every version holds, also once later ones are
// made of it.
RC_GTEST_PROP(ServedRows, EveryVersionOfAChainHoldsItsRows, ()) {
  std::vector<KeyedRows> expected = {random_rows()};
  std::vector<ServedTable> versions;
  versions.emplace_back("t", kColumns, 1, Columns(expected[0]).view());
  const int deltas = *rc::gen::inRange(0, 6);
  for (int n = 0; n < deltas; ++n) {
    const KeyedRows changed = random_rows();
    versions.push_back(versions.back().with(Columns(changed).view()));
    expected.push_back(expected.back());
    for (const auto& [key, row] : changed) expected.back()[key] = row;
  }
  for (std::size_t n = 0; n < versions.size(); ++n) expect_rows(versions[n], expected[n]);
}

// What a delta costs is told by the bytes that it has of its own.
TEST(ServedRows, AVersionSharesTheRowsThatADeltaDoesNotName) {
  KeyedRows rows;
  for (std::uint64_t key = 0; key < 100'000; ++key) rows[key * 7919] = {1, 2, 3};
  const ServedTable base("t", kColumns, 1, Columns(rows).view());
  EXPECT_LT(base.bytes(), 100'000 * (8 + 4 * kColumns + 4 + 13.5));
  const ServedTable next = base.with(Columns({{7919, {4, 5, 6}}, {1, {7, 8, 9}}}).view());
  EXPECT_EQ(next.find(2 * 7919), base.find(2 * 7919)) << "one piece of memory";
  EXPECT_LT(next.bytes() - base.bytes(), 1'000U);
  EXPECT_EQ(next.changed_rows(), 2U);
  EXPECT_EQ(next.rows(), 100'001U);
  EXPECT_EQ(base.find(1), nullptr);
  EXPECT_EQ(base.find(7919)[0], 1);
  EXPECT_EQ(next.find(7919)[0], 4);
}

// Nothing but the key itself decides: two keys whose entries look alike are told apart.
TEST(ServedRows, EntriesThatLookAlikeAreToldApart) {
  KeyedRows rows;
  for (std::uint64_t key = 0; key < 300'000; ++key) {
    rows[key] = {static_cast<float>(key), 0, 0};
  }
  const ServedTable table("t", kColumns, 1, Columns(rows).view());
  for (std::uint64_t key = 0; key < 600'000; ++key) {
    const float* const found = table.find(key);
    ASSERT_EQ(found != nullptr, key < 300'000) << key;
    ASSERT_TRUE(found == nullptr || found[0] == static_cast<float>(key)) << key;
  }
}

TEST(ServedRows, ATableMayBeEmpty) {
  const ServedTable table("t", kColumns, 1, {});
  EXPECT_EQ(table.find(5), nullptr);
  EXPECT_EQ(table.likely(mix64(5)), nullptr);
  EXPECT_EQ(table.rows(), 0U);
  expect_rows(table.with({}), {});
  expect_rows(table.with(Columns({{5, {1, 2, 3}}}).view()), {{5, {1, 2, 3}}});
}

}  // namespace
}  // namespace sluice
