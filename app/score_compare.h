// `sluice score --compare FILE`: whether what was served (the file of `serve --log-predictions`) is
// what the same versions say of the same impressions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "base/result.h"

namespace sluice {

struct SkewOptions {
  std::filesystem::path served;     // the file
  std::filesystem::path snapshots;  // a data folder, or one that the versions lie in
  std::optional<std::string> model;
  std::string in = "-";  // impressions as in the log
};

struct Skew {
  std::uint64_t compared = 0;     // lines of the file whose impression is in the input
  std::uint64_t unequal = 0;      // of these, with a rate that differs in any bit
  std::uint64_t not_found = 0;    // lines without their impression
  double largest_difference = 0;  // of any rate
  std::string largest_id;         // where it was
};

Result<Skew> measure_skew(const SkewOptions& options);

}  // namespace sluice
