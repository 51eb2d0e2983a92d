// Tables as event logs: what is in memory meanwhile, and what is told after an error.
#include "app/import.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <string>

#include "app/import_text.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

// Of rows with these times; their numbers are odd, as if every second row were refused.
std::uint64_t bytes_not_yet_written(const std::function<TimeMs(std::uint64_t)>& time) {
  constexpr std::uint64_t kRows = 5'000;
  const TemporaryFolder folder;
  RealFileSystem files;
  ImportOptions options;
  options.partitions = 1;
  auto logs = ImportLogs::create(files, folder.path(), options, UnclickedConversion::skipped);
  EXPECT_TRUE(logs);
  ImportRow row;
  row.features = "{\"text\":\"" + std::string(1'000, 'x') + "\"}";
  for (std::uint64_t n = 0; n < kRows; ++n) {
    row.time = time(n);
    const auto problem = logs->add(2 * n + 1, row);
    EXPECT_TRUE(problem && !*problem);
  }
  const fs::path log = folder.path() / "impressions" / "00000.jsonl";
  const std::uint64_t before = fs::file_size(log);
  EXPECT_TRUE(logs->finish());
  EXPECT_GT(fs::file_size(log), kRows * 1'000);
  return fs::file_size(log) - before;
}

TEST(ImportLogsTest, ImpressionsDoNotWaitInMemoryInWhateverOrderTheyCome) {
  constexpr TimeMs kBegin = 1'700'000'000'000;
  constexpr std::uint64_t kFewBytes = 512 << 10;  // a file's buffer, and some rows
  EXPECT_LT(bytes_not_yet_written([](std::uint64_t n) { return kBegin + 1'000 * TimeMs(n); }),
            kFewBytes);
  EXPECT_LT(bytes_not_yet_written([](std::uint64_t n) { return kBegin - 1'000 * TimeMs(n); }),
            kFewBytes);
  EXPECT_LT(bytes_not_yet_written([](std::uint64_t) { return kBegin; }), kFewBytes);
  EXPECT_LT(
      bytes_not_yet_written([](std::uint64_t n) { return kBegin + TimeMs(n * 7'919 % 5'000); }),
      kFewBytes);
}

TEST(ImportTextTest, ANumberHasOneSign) {
  EXPECT_EQ(parse_number("+5"), 5);
  EXPECT_EQ(parse_number("-5e-1"), -0.5);
  EXPECT_EQ(parse_seconds("+1.5"), 1'500);
  for (const char* text : {"", "+", "-", "+-5", "-+5", "++5", "--5", "+ 5", "5+", "inf", "nan"}) {
    EXPECT_FALSE(parse_number(text)) << text;
  }
}

TEST(ImportTest, TheSummaryComesAsFarAsTheImportDid) {
  const TemporaryFolder folder;
  const fs::path table = folder.path() / "table.csv";
  std::ofstream(table) << "y,f\n1,a\n0,b\n2,c\n1,d\n";
  ImportOptions options;
  options.csv.click = "y";
  options.tables = {table, folder.path() / "nowhere.csv"};
  RealFileSystem files;
  ImportSummary summary;
  const auto no_progress = [](std::uint64_t, const std::string&, std::uint64_t) {};
  EXPECT_FALSE(import_table(options, folder.path() / "out", files, no_progress, summary));
  EXPECT_EQ(summary.rows, 4u);
  EXPECT_EQ(summary.bad_rows.at("label"), 1u);
  EXPECT_EQ(summary.first_bad_rows.size(), 1u);
  EXPECT_EQ(summary.counts.records[0], 3u);
  EXPECT_EQ(summary.counts.clicked, 2u);
}

}  // namespace
}  // namespace sluice
