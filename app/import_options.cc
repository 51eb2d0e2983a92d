#include "app/import_options.h"

#include <algorithm>
#include <array>

namespace sluice {
namespace {

constexpr std::array<const char*, 5> kFormats = {"csv", "aliccp", "aliexpress",
                                                 "criteo_attribution", "criteo_search"};

Status check_files(const ImportOptions& options) {
  if (std::count(options.tables.begin(), options.tables.end(), "-") > 1) {
    return usage_error("TABLE: standard input (-) can be read once");
  }
  const bool is_aliccp = options.format == "aliccp";
  if (is_aliccp && options.common.empty()) {
    return usage_error(
        "--format aliccp: --common must name the common features (common_features_train.csv) that "
        "belong to the skeleton");
  }
  if (!is_aliccp && !options.common.empty()) {
    return usage_error("--common: is for --format aliccp only");
  }
  return {};
}

Status check_columns(const ImportOptions& options) {
  const CsvColumns& csv = options.csv;
  if (options.format != "csv") return {};
  if (csv.click.empty() && csv.conversion.empty()) {
    return usage_error(
        "--format csv: --click, --conversion or both must name the columns of the labels");
  }
  if (csv.time.empty() && !(csv.click_time.empty() && csv.conversion_time.empty())) {
    return usage_error("--click-time and --conversion-time: are for tables with a --time");
  }
  for (const char delimiter : {csv.delimiter, csv.list_separator}) {
    const bool is_ascii = static_cast<unsigned char>(delimiter) < 0x80;
    if (delimiter == '"' || delimiter == '\n' || delimiter == '\r' || !is_ascii) {
      return usage_error(
          "--delimiter and --list-separator: must be ASCII, no quote and no line end");
    }
  }
  return {};
}

}  // namespace

Status check_options(const ImportOptions& options) {
  if (std::find(kFormats.begin(), kFormats.end(), options.format) == kFormats.end()) {
    return usage_error("--format: '" + options.format + "' is none; --help lists them");
  }
  SLUICE_TRY(check_files(options));
  SLUICE_TRY(check_columns(options));
  if (options.partitions == 0 || options.partitions > 1'024) {
    return usage_error("--partitions: must be from 1 to 1024");
  }
  constexpr double kMostPerSecond = 1e6;
  if (!(options.impressions_per_second > 1e-6 &&
        options.impressions_per_second <= kMostPerSecond)) {
    return usage_error("--impressions-per-second: must be above 0.000001 and at most 1000000");
  }
  return check_start(options.start);
}

bool matches(const std::string& pattern, const std::string& name) {
  if (pattern.ends_with('*')) return name.starts_with(pattern.substr(0, pattern.size() - 1));
  return pattern == name;
}

bool matches_any(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&name](const auto& pattern) { return matches(pattern, name); });
}

}  // namespace sluice
