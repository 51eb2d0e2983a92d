// Reads a generated shop from disk and counts again what a join must find in it, by nested loops
// over whole logs: neither a watermark nor a state, and nothing of the generator's own counting.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "app/shop.h"
#include "base/time.h"

namespace sluice::shop_test {

// A failure fails the test.
ShopSummary generate(const ShopOptions& options, const std::filesystem::path& folder);

// Small, and dense enough in time that disorder is between pages too.
inline ShopOptions small_shop() {
  ShopOptions options;
  options.impressions = 12'000;
  options.users = 500;
  options.items = 300;
  options.partitions = 3;
  options.span = 1'200'000;
  return options;
}

std::string read_file(const std::filesystem::path& path);
std::vector<std::string> lines_of(const std::string& text);

// One log, its segments one after the other.
std::vector<std::string> read_log(const std::filesystem::path& root, const std::string& stream,
                                  const ShopOptions& options, std::uint32_t partition);

// An event of a line; none where the line is malformed.
struct Line {
  std::int64_t time = 0;
  std::string impression_id;
  double value = 0;
};
std::optional<Line> parse_line(const std::string& text);

// What a log's own records say: those that are accepted, and how far they are out of order.
struct JudgedLog {
  std::vector<Line> accepted;
  std::uint64_t records = 0;
  std::uint64_t malformed = 0;
  std::uint64_t late = 0;
  std::int64_t most_out_of_order = 0;  // ms behind the highest time before, accepted ones
};
JudgedLog judge(const std::vector<std::string>& lines, DurationMs bound);

struct Recount {
  nlohmann::json expected;             // "records", "labels" and "refused" as in expected.json
  double value = 0;                    // of all purchases that count; about: a sum in double
  std::int64_t most_out_of_order = 0;  // ms, of all logs
};
Recount recount(const std::filesystem::path& root, const ShopOptions& options);

// impression_id -> its true rates, with the partition that the file is of.
struct Truth {
  std::uint32_t partition = 0;
  double pctr = 0, pcvr = 0;
  double paction = 0, pcvr_acted = 0, pcvr_unacted = 0;  // with actions
};
std::map<std::string, Truth> read_truth(const std::filesystem::path& root,
                                        std::uint32_t partitions);

}  // namespace sluice::shop_test
