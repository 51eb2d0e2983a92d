// `sluice generate` without its command line: a whole shop as a folder of logs. docs/generate.md
// describes what is in it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "app/shop_expected.h"
#include "app/shop_options.h"
#include "base/file.h"
#include "base/result.h"

namespace sluice {

struct ShopSummary {
  ShopExpected::Counts counts;
  ShopExpected::TrueRates rates;
};

// Called now and then with the number of impressions drawn so far.
using ShopProgress = std::function<void(std::uint64_t impressions)>;

// Writes the shop into `folder`, expected.json last. The same options give the same bytes. A folder
// that is not empty is a usage error unless `overwrite`; then an earlier shop's files in it are
// removed first, and others stay.
Result<ShopSummary> generate_shop(const ShopOptions& options, const std::filesystem::path& folder,
                                  bool overwrite, FileSystem& files, const ShopProgress& progress);

// shop.toml: a config that replays the logs beside it.
std::string shop_config(const ShopOptions& options);

}  // namespace sluice
