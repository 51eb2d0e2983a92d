// Tables that were written field by field read back the same, whatever the portions.
#include "app/csv_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "app/shop_random.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using Table = std::vector<std::vector<std::string>>;

class TextStream final : public ByteStream {
 public:
  explicit TextStream(std::string text) : text_(std::move(text)) {}
  Result<std::size_t> read(std::span<char> buffer) override {
    const std::size_t count = std::min(buffer.size(), text_.size() - consumed_);
    std::copy_n(text_.begin() + static_cast<std::ptrdiff_t>(consumed_), count, buffer.begin());
    consumed_ += count;
    return count;
  }
  Status skip(std::uint64_t) override { return stop_error("is not used"); }
  std::uint64_t consumed() const override { return consumed_; }

 private:
  std::string text_;
  std::size_t consumed_ = 0;
};

struct Read {
  Table rows;  // without a problem
  std::vector<std::uint64_t> lines;
  std::vector<std::pair<std::uint64_t, CsvProblem>> problems;
};

Read read(const std::string& text, CsvDialect dialect = {}, std::size_t most_row_bytes = 1'000,
          std::size_t buffer_bytes = 3) {
  TextStream stream(text);
  CsvReader reader(stream, dialect, most_row_bytes, buffer_bytes);
  Read result;
  CsvRow row;
  while (true) {
    const auto has_row = reader.next(row);
    EXPECT_TRUE(has_row);
    if (!has_row || !*has_row) return result;
    if (row.problem != CsvProblem::none) {
      result.problems.emplace_back(row.line, row.problem);
      continue;
    }
    result.rows.emplace_back(row.fields.begin(), row.fields.end());
    result.lines.push_back(row.line);
  }
}

std::string written(const std::string& field, bool is_quoted) {
  if (!is_quoted && field.find_first_of(",\n\r\"") == std::string::npos) return field;
  std::string text = "\"";
  for (const char c : field) text += c == '"' ? std::string("\"\"") : std::string(1, c);
  return text + '"';
}

TEST(CsvReader, WhatWasWrittenReadsBackInAnyPortions) {
  constexpr const char* kPieces[] = {"a", "\"", "\"\"", ",", "\n", "\r\n", "\r", " ", "\xc3\xbc"};
  std::size_t rows = 0;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed, 1, 1);
    Table table;
    std::string text = random.chance(0.3) ? "\xef\xbb\xbf" : "";
    std::vector<std::uint64_t> lines;
    const bool has_cr = random.chance(0.5);
    const std::uint64_t columns = 1 + random.below(4);
    for (std::uint64_t r = random.below(6); r > 0; --r) {
      table.emplace_back();
      lines.push_back(1 + static_cast<std::uint64_t>(std::count(text.begin(), text.end(), '\n')));
      for (std::uint64_t c = 0; c < columns; ++c) {
        std::string field;
        for (std::uint64_t n = random.below(5); n > 0; --n) field += kPieces[random.below(9)];
        // A row of one empty field must be quoted to be one.
        const bool is_quoted = random.chance(0.3) || (columns == 1 && field.empty());
        if (c > 0) text += ',';
        text += written(field, is_quoted);
        table.back().push_back(field);
      }
      const bool is_last = r == 1;
      if (!is_last || random.chance(0.5)) text += has_cr ? "\r\n" : "\n";
    }
    for (const std::size_t buffer_bytes : {3, 4, 7, 1'000}) {
      const Read found = read(text, {}, 1'000, buffer_bytes);
      EXPECT_EQ(found.rows, table);
      EXPECT_EQ(found.lines, lines);
      EXPECT_TRUE(found.problems.empty());
    }
    rows += table.size();
  }
  EXPECT_GT(rows, 500u);
}

TEST(CsvReader, QuotesOnlyWhereTheDialectHasThem) {
  EXPECT_THAT(read("a\t\"b\n\"c\t\"\n", {'\t', false}).rows,
              ElementsAre(ElementsAre("a", "\"b"), ElementsAre("\"c", "\"")));
  EXPECT_THAT(read("5\" disk,x\n").rows, ElementsAre(ElementsAre("5\" disk", "x")));
}

TEST(CsvReader, EmptyLinesAreNoRows) {
  const Read found = read("\n\r\na,\n\n\n,\r\n\"\"\n\n");
  EXPECT_THAT(found.rows, ElementsAre(ElementsAre("a", ""), ElementsAre("", ""), ElementsAre("")));
  EXPECT_THAT(found.lines, ElementsAre(3, 6, 7));
  EXPECT_TRUE(read("").rows.empty());
  EXPECT_TRUE(read("\xef\xbb\xbf").rows.empty());
}

TEST(CsvReader, ABadRowEndsWithItsLine) {
  const Read found = read("\"a\"b,c\n1,2\n\"a\"\r,\n3,4\n\"a\" ,x\r\n5,6");
  EXPECT_THAT(found.rows,
              ElementsAre(ElementsAre("1", "2"), ElementsAre("3", "4"), ElementsAre("5", "6")));
  EXPECT_THAT(found.problems,
              ElementsAre(std::pair(1u, CsvProblem::quotes), std::pair(3u, CsvProblem::quotes),
                          std::pair(5u, CsvProblem::quotes)));
}

TEST(CsvReader, AnOpenQuoteTakesAllUpToTheEnd) {
  const Read found = read("1,2\n\"a,b\n3,4\n");
  EXPECT_THAT(found.rows, ElementsAre(ElementsAre("1", "2")));
  EXPECT_THAT(found.problems, ElementsAre(std::pair(2u, CsvProblem::quotes)));
}

TEST(CsvReader, AnOversizedRowIsCutAndPassedOver) {
  const std::string ten(10, 'x');
  EXPECT_THAT(read(ten + ",\n", {}, 10).rows, ElementsAre(ElementsAre(ten, "")));
  const std::vector<std::string> oversized = {ten + "x", ten + ",y", '"' + ten + "x\"",
                                              '"' + ten + "\"\"\"", "\"xxxx\nxxxx\nxx\",1"};
  for (const std::string& row : oversized) {
    SCOPED_TRACE(row);
    const Read found = read("1,2\n" + row + "\n3,4\n", {}, 10);
    EXPECT_EQ(found.problems.at(0), std::pair(std::uint64_t{2}, CsvProblem::oversized));
    EXPECT_THAT(found.rows.back(), ElementsAre("3", "4"));
  }
  const Read found = read(std::string(100'000, ',') + "\n3,4\n", {}, 10);
  EXPECT_THAT(found.problems, ElementsAre(std::pair(1u, CsvProblem::oversized)));
  EXPECT_THAT(found.rows, ElementsAre(ElementsAre("3", "4")));
}

}  // namespace
}  // namespace sluice
