// What `sluice generate` can be asked for. Plain data; the defaults are those of the command line.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "base/time.h"
#include "config/config.h"

namespace sluice {

struct ShopOptions {
  enum class Compression { none, zstd };

  std::uint64_t seed = 1;
  std::uint64_t impressions = 200'000;
  std::uint64_t users = 10'000;
  std::uint64_t items = 2'000;
  std::uint32_t partitions = 4;
  std::uint32_t page = 20;           // impressions that share user, context and moment
  TimeMs start = 1'704'067'200'000;  // 2024-01-01
  DurationMs span = 172'800'000;     // of the impressions; clicks and purchases go on after it

  // The windows and bounds of the join that the labels are meant for: the config's defaults.
  DurationMs click_window = 1'800'000;
  DurationMs conversion_window = 86'400'000;
  DurationMs action_window = 86'400'000;  // where there are actions
  DurationMs max_out_of_orderness = 10'000;

  DurationMs disorder = 10'000;  // every record arrives less than this after its event time
  double repeats = 0.05;         // share of clicks, and of purchases, that come again
  double late_clicks = 0.01;     // clicks after the click window, for each click inside it
  double late_purchases = 0.02;  // purchases after the conversion window, for each one inside it
  double duplicates = 0;         // share of impressions that are sent twice
  double orphans = 0;            // clicks and purchases without impression or click, an impression
  double malformed = 0;          // share of records whose line is damaged
  double late = 0;               // share of records held back until their log has passed them

  // A fourth stream: actions between click and purchase. The others' bytes stay as they are.
  bool has_actions = false;
  bool has_values = false;  // purchases have their item's price as `value`; labels sum it

  std::uint32_t segments = 0;  // files that each log is cut into; 0: one file without a folder
  Compression compression = Compression::none;

  // The first so many of kStreamNames.
  std::size_t streams() const { return has_actions ? kStreams : kStreamsWithoutActions; }
};

// What a config takes by default: from streams.not_before to the end of year 9999.
inline constexpr TimeMs kEarliestEvent = 1'000'000'000'000;
inline constexpr TimeMs kLatestEvent = 253'402'300'799'999;

// A usage error that names the first option that cannot be.
Status check_options(const ShopOptions& options);
Status check_start(TimeMs start);

}  // namespace sluice
