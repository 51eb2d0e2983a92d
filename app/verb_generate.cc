// `sluice generate`: the command line around generate_shop().
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include "app/progress_line.h"
#include "app/report_error.h"
#include "app/shop.h"
#include "app/verbs.h"
#include "base/micros.h"

namespace sluice {
namespace {

// As typed; durations and times become numbers in read_options().
struct GenerateArguments {
  ShopOptions options;
  std::string folder;
  bool force = false;
  std::optional<double> days;
  std::string span, start, disorder, max_out_of_orderness, click_window, conversion_window;
  std::string action_window;
  std::string compress = "none";
};

Status read_duration(const char* option, const std::string& text, DurationMs& duration) {
  if (text.empty()) return {};
  auto parsed = parse_duration(text);
  if (!parsed) return usage_error(std::string(option) + ": " + parsed.error().message);
  duration = *parsed;
  return {};
}

Result<ShopOptions> read_options(const GenerateArguments& arguments) {
  ShopOptions options = arguments.options;
  if (arguments.days) {
    constexpr double kMostDays = 36'500;
    if (!(*arguments.days > 0 && *arguments.days <= kMostDays)) {
      return usage_error("--days: must be above 0 and at most 36500");
    }
    options.span = static_cast<DurationMs>(std::llround(*arguments.days * 86'400'000.0));
  }
  SLUICE_TRY(read_duration("--span", arguments.span, options.span));
  SLUICE_TRY(read_duration("--disorder", arguments.disorder, options.disorder));
  SLUICE_TRY(read_duration("--max-out-of-orderness", arguments.max_out_of_orderness,
                           options.max_out_of_orderness));
  SLUICE_TRY(read_duration("--click-window", arguments.click_window, options.click_window));
  SLUICE_TRY(
      read_duration("--conversion-window", arguments.conversion_window, options.conversion_window));
  SLUICE_TRY(read_duration("--action-window", arguments.action_window, options.action_window));
  if (!arguments.start.empty()) {
    auto start = parse_time(arguments.start);
    if (!start) return usage_error("--start: " + start.error().message);
    options.start = *start;
  }
  options.compression = arguments.compress == "zstd" ? ShopOptions::Compression::zstd
                                                     : ShopOptions::Compression::none;
  return options;
}

void add_size_options(CLI::App& verb, GenerateArguments& arguments) {
  ShopOptions& options = arguments.options;
  verb.add_option("--out", arguments.folder, "The folder to write; made where it is not there")
      ->type_name("DIR")
      ->required();
  verb.add_flag("--force", arguments.force, "Replace the shop in a folder that is not empty");
  verb.add_option("--seed", options.seed, "The same seed and options give the same bytes")
      ->capture_default_str();
  verb.add_option("--impressions", options.impressions, "Number of impressions")
      ->capture_default_str();
  verb.add_option("--users", options.users, "Number of users")->capture_default_str();
  verb.add_option("--items", options.items, "Number of items")->capture_default_str();
  verb.add_option("--partitions", options.partitions,
                  "Number of partitions of each stream; a record's is CRC-32(user_id) modulo it")
      ->capture_default_str();
  verb.add_option("--page", options.page,
                  "Impressions that are shown together, to one user in one context")
      ->capture_default_str();
  CLI::Option* days =
      verb.add_option("--days", arguments.days, "Days of event time that impressions span [2]");
  verb.add_option("--span", arguments.span, "The same as a duration, like \"36 h\"")
      ->excludes(days);
  verb.add_option("--start", arguments.start,
                  "Event time of the beginning, like 2024-01-31T12:00:00Z [2024-01-01]")
      ->type_name("TIME");
  verb.add_option("--segments", options.segments,
                  "Cut each log into so many files, at equal steps of arrival time; 0: do not cut")
      ->capture_default_str();
  verb.add_option("--compress", arguments.compress, "none or zstd")
      ->check(CLI::IsMember({"none", "zstd"}))
      ->capture_default_str();
}

void add_trouble_options(CLI::App& verb, GenerateArguments& arguments) {
  ShopOptions& options = arguments.options;
  const auto duration = [&verb](const char* name, std::string& text, const char* help) {
    verb.add_option(name, text, help)->type_name("DURATION");
  };
  duration("--disorder", arguments.disorder,
           "Records arrive less than this after their event time [10 s]");
  duration("--max-out-of-orderness", arguments.max_out_of_orderness,
           "The bound by which expected.json judges what is late [10 s]");
  duration("--click-window", arguments.click_window,
           "Window of the labels: clicks after their impression [30 min]");
  duration("--conversion-window", arguments.conversion_window,
           "Window of the labels: purchases after their click [24 h]");
  duration("--action-window", arguments.action_window,
           "With --actions, window of the labels: actions after their click [24 h]");
  const auto rate = [&verb](const char* name, double& value, const char* help) {
    verb.add_option(name, value, help)->type_name("RATE")->capture_default_str();
  };
  rate("--repeats", options.repeats, "Share of clicks, and of purchases, that come again");
  rate("--late-clicks", options.late_clicks,
       "Clicks after the click window, for each click inside it");
  rate("--late-purchases", options.late_purchases,
       "Purchases after the conversion window, for each purchase inside it");
  rate("--duplicates", options.duplicates, "Share of impressions that are sent twice");
  rate("--orphans", options.orphans,
       "Clicks and purchases without their impression or click, for each impression");
  verb.add_flag("--actions", options.has_actions,
                "A fourth stream, of actions between click and purchase, with its true rates");
  verb.add_flag("--values", options.has_values,
                "Purchases have their item's price as value, and shop.toml sums it");
  rate("--malformed", options.malformed, "Share of records whose line is damaged");
  rate("--late", options.late, "Share of records held back until their log has passed them");
}

void print_summary(const ShopSummary& summary, const GenerateArguments& arguments, double seconds) {
  const auto& [counts, rates] = summary;
  const auto count = [](const char* name, std::uint64_t value) {
    std::printf("  %-24s %12llu\n", name, static_cast<unsigned long long>(value));
  };
  const auto rate = [](const char* name, double value) {
    if (std::isnan(value)) {
      std::printf("  %-24s %12s\n", name, "-");
    } else {
      std::printf("  %-24s %12.4f\n", name, value);
    }
  };
  std::printf("records\n");
  const ShopOptions& options = arguments.options;
  for (std::size_t s = 0; s < options.streams(); ++s) count(kStreamNames[s], counts.records[s]);
  std::printf("labels that a join must find\n");
  count("impressions", counts.impressions);
  count("clicked", counts.clicked);
  if (options.has_actions) count("acted", counts.acted);
  count("converted", counts.converted);
  if (options.has_values) {
    std::printf("  %-24s %12s\n", "value", format_micros(counts.value).c_str());
  }
  std::printf("records that it must refuse\n");
  count("malformed", counts.malformed);
  count("late", counts.late);
  count("duplicate", counts.duplicate);
  count("repeat", counts.repeat);
  count("no_open_impression", counts.no_open_impression);
  count("no_click", counts.no_click);
  std::printf("true rates\n");
  rate("pCTR, mean", rates.mean_pctr);
  rate("pCVR, mean over all", rates.mean_pcvr);
  rate("pCVR, mean over clicked", rates.mean_pcvr_clicked);
  if (options.has_actions) rate("P(action), clicked", rates.mean_paction_clicked);
  rate("AUC of CTR", rates.ctr_auc);
  rate("AUC of CTCVR", rates.ctcvr_auc);
  rate("AUC of CVR of clicked", rates.cvr_auc);
  if (options.has_actions) rate("AUC of actions of clicked", rates.action_auc);
  const double impressions = static_cast<double>(options.impressions);
  std::printf("%s written in %.1f s, %.0f impressions/s; replay it with\n",
              arguments.folder.c_str(), seconds, impressions / std::max(seconds, 1e-3));
  std::printf("  sluice replay %s\n", (fs::path(arguments.folder) / "shop.toml").c_str());
}

int generate(const GenerateArguments& arguments) {
  auto options = read_options(arguments);
  if (!options) return report_error(options.error());
  SystemClock clock;
  RealFileSystem files;
  const DurationMs began = clock.steady_ms();
  const auto summary = [&] {
    ProgressLine line(clock);
    const auto show = [&](std::uint64_t done) {
      line.show([&] {
        return std::to_string(done) + " of " + std::to_string(options->impressions) +
               " impressions (" + std::to_string(100 * done / options->impressions) + " %)";
      });
    };
    return generate_shop(*options, arguments.folder, arguments.force, files, show);
  }();
  if (!summary) return report_error(summary.error());
  print_summary(*summary, arguments, static_cast<double>(clock.steady_ms() - began) / 1'000.0);
  return 0;
}

}  // namespace

void add_generate(CLI::App& root, int& exit_code) {
  CLI::App* verb = root.add_subcommand(
      "generate", "Writes a synthetic shop with known true rates, as event logs");
  const auto arguments = std::make_shared<GenerateArguments>();
  add_size_options(*verb, *arguments);
  add_trouble_options(*verb, *arguments);
  verb->callback([arguments, &exit_code] { exit_code = generate(*arguments); });
}

}  // namespace sluice
