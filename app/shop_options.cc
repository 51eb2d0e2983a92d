#include "app/shop_options.h"

#include <string>
#include <utility>

namespace sluice {

Status check_start(TimeMs start) {
  if (start >= kEarliestEvent && start <= kLatestEvent) return {};
  return usage_error("--start: must be from " + format_time(kEarliestEvent) +
                     ", the default of streams.not_before, to the year 9999");
}

Status check_options(const ShopOptions& options) {
  const std::pair<const char*, double> rates[] = {{"repeats", options.repeats},
                                                  {"late-clicks", options.late_clicks},
                                                  {"late-purchases", options.late_purchases},
                                                  {"duplicates", options.duplicates},
                                                  {"orphans", options.orphans},
                                                  {"malformed", options.malformed},
                                                  {"late", options.late}};
  for (const auto& [name, rate] : rates) {
    if (!(rate >= 0.0 && rate <= 1.0)) {
      return usage_error(std::string("--") + name + ": a rate is from 0 to 1");
    }
  }
  constexpr DurationMs kLongest = 36'500 * 86'400'000LL;
  const std::pair<const char*, DurationMs> durations[] = {
      {"span", options.span},
      {"click-window", options.click_window},
      {"conversion-window", options.conversion_window},
      {"action-window", options.action_window}};
  for (const auto& [name, duration] : durations) {
    if (duration <= 0 || duration > kLongest) {
      return usage_error(std::string("--") + name + ": must be above 0 and at most 36500 d");
    }
  }
  for (const DurationMs duration : {options.disorder, options.max_out_of_orderness}) {
    if (duration < 0 || duration > kLongest) {
      return usage_error("--disorder and --max-out-of-orderness: must be from 0 to 36500 d");
    }
  }
  SLUICE_TRY(check_start(options.start));
  constexpr std::uint64_t kMost = 1'000'000'000'000;
  if (options.impressions == 0 || options.impressions > kMost || options.users == 0 ||
      options.users > kMost) {
    return usage_error("--impressions and --users: must be from 1 to 10^12");
  }
  if (options.partitions == 0 || options.partitions > 1'024) {
    return usage_error("--partitions: must be from 1 to 1024");
  }
  if (!options.has_actions && options.action_window != ShopOptions().action_window) {
    return usage_error("--action-window: needs --actions");
  }
  if (options.segments > 10'000) return usage_error("--segments: must be at most 10000");
  if (options.page == 0 || options.page > 1'000) {
    return usage_error("--page: must be from 1 to 1000");
  }
  constexpr std::uint64_t kMostItems = 10'000'000;  // all of them are kept in memory
  if (options.items < options.page || options.items > kMostItems) {
    return usage_error("--items: must be at least --page (a page shows an item once) and at most " +
                       std::to_string(kMostItems));
  }
  return {};
}

}  // namespace sluice
