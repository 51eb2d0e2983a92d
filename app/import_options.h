// What `sluice import` can be asked for. Plain data; the defaults are those of the command line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "app/shop_options.h"
#include "base/result.h"
#include "base/time.h"

namespace sluice {

// How the times of a table are written. What counts "from the start" is added to --start.
enum class TimeUnit { iso, seconds, milliseconds, seconds_from_start, milliseconds_from_start };

// What a row becomes that says conversion, but no click.
enum class UnclickedConversion {
  implies_click,  // a click and a purchase
  skipped,        // an impression only; counted
};

// The columns of a table of any shape, by name.
struct CsvColumns {
  std::string click;  // empty: every row is clicked
  std::string conversion;
  std::string time;  // of the impression; empty: drawn, as are the two below
  std::string click_time;
  std::string conversion_time;
  std::string user;
  std::string item;
  TimeUnit unit = TimeUnit::iso;
  std::vector<std::string> numbers;  // patterns of columns; the others hold ids
  std::vector<std::string> lists;    // of ids
  char list_separator = '|';
  char delimiter = ',';
  bool has_header = true;  // without: columns are named c1, c2, ...
  std::string missing;     // a field that stands for no value, beside the empty one
};

struct ImportOptions {
  std::string format = "csv";
  std::vector<std::string> tables;  // files, one after the other; "-" is standard input
  std::vector<std::string> common;  // aliccp: the files of the common features
  CsvColumns csv;
  std::vector<std::string> features;  // patterns of the columns to keep as features; none: all
  std::optional<UnclickedConversion> unclicked_conversion;  // none: the format's own

  std::uint32_t partitions = 4;
  ShopOptions::Compression compression = ShopOptions::Compression::none;
  std::uint64_t seed = 1;
  TimeMs start = 1'704'067'200'000;  // 2024-01-01
  double impressions_per_second = 100;
  std::uint64_t limit = 0;  // rows; 0: all
  std::uint64_t max_bad_rows = 0;
};

// A usage error that names the first option that cannot be.
Status check_options(const ImportOptions& options);

// "name", or "prefix*": whatever begins with the prefix.
bool matches(const std::string& pattern, const std::string& name);
bool matches_any(const std::vector<std::string>& patterns, const std::string& name);

}  // namespace sluice
