// `sluice import`: the command line around import_table().
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <system_error>

#include <CLI/CLI.hpp>

#include "app/import.h"
#include "app/progress_line.h"
#include "app/report_error.h"
#include "app/verbs.h"

namespace sluice {
namespace {

// As typed; what is no text or number becomes one in read_options().
struct ImportArguments {
  ImportOptions options;
  std::string folder;
  std::string start;
  std::string unit = "iso";
  std::string delimiter = ",";
  std::string list_separator = "|";
  std::string unclicked;
  std::string compress = "none";
  bool has_no_header = false;
};

constexpr const char* kColumnGroup = "Columns of --format csv";

constexpr const char* kExamples = R"(Examples

  Ali-CCP: skeletons with the common features that they share
    sluice import --format aliccp sample_skeleton_train.csv --common common_features_train.csv \
        --compress zstd --out aliccp
  AliExpress, as one of the sets NL, ES, FR, US has it; training and test rows in one log
    sluice import --format aliexpress AliExpress_NL/train.csv AliExpress_NL/test.csv --out nl
  Criteo Attribution Modeling for Bidding: its times count from the start
    sluice import --format criteo_attribution criteo_attribution_dataset.tsv.gz \
        --start 2017-01-01 --out criteo
  Criteo Sponsored Search Conversion Log: every row is clicked
    sluice import --format criteo_search CriteoSearchData --out search
  any labelled table: say which column is what; the others become features
    sluice import shop.csv --click clicked --conversion bought --time shown_at --time-unit seconds \
        --user user --item product --numbers 'price,count_*' --out shop

then
    sluice replay OUT/sluice.toml
)";

const std::map<std::string, TimeUnit> kUnits = {
    {"iso", TimeUnit::iso},
    {"seconds", TimeUnit::seconds},
    {"milliseconds", TimeUnit::milliseconds},
    {"seconds-from-start", TimeUnit::seconds_from_start},
    {"milliseconds-from-start", TimeUnit::milliseconds_from_start}};

Status read_character(const char* option, const std::string& text, char& character) {
  if (text == "tab" || text == "\\t") {
    character = '\t';
  } else if (text.size() == 1) {
    character = text.front();
  } else {
    return usage_error(std::string(option) + ": must be one character, or tab");
  }
  return {};
}

Result<ImportOptions> read_options(const ImportArguments& arguments) {
  ImportOptions options = arguments.options;
  SLUICE_TRY(read_character("--delimiter", arguments.delimiter, options.csv.delimiter));
  SLUICE_TRY(
      read_character("--list-separator", arguments.list_separator, options.csv.list_separator));
  options.csv.has_header = !arguments.has_no_header;
  options.csv.unit = kUnits.at(arguments.unit);
  if (!arguments.start.empty()) {
    auto start = parse_time(arguments.start);
    if (!start) return usage_error("--start: " + start.error().message);
    options.start = *start;
  }
  if (!arguments.unclicked.empty()) {
    options.unclicked_conversion = arguments.unclicked == "click"
                                       ? UnclickedConversion::implies_click
                                       : UnclickedConversion::skipped;
  }
  options.compression = arguments.compress == "zstd" ? ShopOptions::Compression::zstd
                                                     : ShopOptions::Compression::none;
  return options;
}

void add_table_options(CLI::App& verb, ImportArguments& arguments) {
  ImportOptions& options = arguments.options;
  verb.add_option("TABLE", options.tables,
                  "Tables, one log after the other: plain, .gz or .zst; - is standard input")
      ->required();
  verb.add_option("--format", options.format,
                  "csv, aliccp, aliexpress, criteo_attribution or criteo_search")
      ->check(CLI::IsMember({"csv", "aliccp", "aliexpress", "criteo_attribution", "criteo_search"}))
      ->capture_default_str();
  verb.add_option("--out", arguments.folder, "The folder to write; must be empty or not there")
      ->type_name("DIR")
      ->required();
  verb.add_option("--common", options.common,
                  "aliccp: a table of common features; may stand more than once")
      ->type_name("FILE")
      ->allow_extra_args(false);
  verb.add_option("--features", options.features,
                  "Only these columns (aliccp: fields) become features; 'ab*' is all that begin so")
      ->type_name("COLUMN,...")
      ->allow_extra_args(false)
      ->delimiter(',');
  verb.add_option("--conversion-without-click", arguments.unclicked,
                  "What a row becomes that says so: click (it was clicked too) or skip (an "
                  "impression only) [aliccp: click, others: skip]")
      ->check(CLI::IsMember({"click", "skip"}));
  verb.add_option("--limit", options.limit, "Read so many rows only; 0: all")
      ->capture_default_str();
  verb.add_option("--max-bad-rows", options.max_bad_rows,
                  "More rows that cannot be read are an error, and nothing is written")
      ->capture_default_str();
}

void add_log_options(CLI::App& verb, ImportArguments& arguments) {
  ImportOptions& options = arguments.options;
  verb.add_option("--partitions", options.partitions,
                  "Number of partitions of each stream; a record's is CRC-32(user_id) modulo it")
      ->capture_default_str();
  verb.add_option("--compress", arguments.compress, "Of the logs: none or zstd")
      ->check(CLI::IsMember({"none", "zstd"}))
      ->capture_default_str();
  verb.add_option("--start", arguments.start,
                  "Event time of the first row, or of time 0 in a table that counts from its "
                  "start [2024-01-01]")
      ->type_name("TIME");
  verb.add_option("--impressions-per-second", options.impressions_per_second,
                  "Rows without a time are so far apart, in the order of the table")
      ->capture_default_str();
  verb.add_option("--seed", options.seed, "Of the delays of clicks and conversions without a time")
      ->capture_default_str();
}

void add_column_options(CLI::App& verb, ImportArguments& arguments) {
  CsvColumns& csv = arguments.options.csv;
  const auto column = [&verb](const char* name, std::string& text, const char* help) {
    verb.add_option(name, text, help)->type_name("COLUMN")->group(kColumnGroup);
  };
  const auto columns = [&verb](const char* name, std::vector<std::string>& texts,
                               const char* help) {
    verb.add_option(name, texts, help)
        ->type_name("COLUMN,...")
        ->allow_extra_args(false)
        ->delimiter(',')
        ->group(kColumnGroup);
  };
  column("--click", csv.click, "Label, 0 or 1; without it every row is clicked");
  column("--conversion", csv.conversion, "Label, 0 or 1; without it no row is converted");
  column("--time", csv.time, "Time of the impression; without it times are drawn");
  column("--click-time", csv.click_time, "Time of the click");
  column("--conversion-time", csv.conversion_time, "Time of the conversion");
  column("--user", csv.user, "Its rows lie in one partition; a feature too");
  column("--item", csv.item, "The impression's item; a feature too");
  columns("--numbers", csv.numbers, "Numbers, which get logarithmic buckets; 'ab*' as above");
  columns("--lists", csv.lists, "Lists of ids");
  verb.add_option("--time-unit", arguments.unit,
                  "iso, seconds or milliseconds since 1970, seconds-from-start or "
                  "milliseconds-from-start")
      ->check(CLI::IsMember(kUnits))
      ->capture_default_str()
      ->group(kColumnGroup);
  verb.add_option("--missing", csv.missing, "A field that stands for no value, like the empty one")
      ->type_name("TEXT")
      ->group(kColumnGroup);
  verb.add_option("--delimiter", arguments.delimiter, "Between fields: one character, or tab")
      ->capture_default_str()
      ->group(kColumnGroup);
  verb.add_option("--list-separator", arguments.list_separator, "Between the ids of a list")
      ->capture_default_str()
      ->group(kColumnGroup);
  verb.add_flag("--no-header", arguments.has_no_header,
                "The first row is data; columns are called c1, c2, ...")
      ->group(kColumnGroup);
}

void print_bad_rows(const ImportSummary& summary) {
  for (const std::string& line : summary.first_bad_rows) {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
  std::uint64_t more = 0;
  for (const auto& [reason, count] : summary.bad_rows) more += count;
  more -= summary.first_bad_rows.size();
  if (more > 0) std::fprintf(stderr, "... and %llu more\n", static_cast<unsigned long long>(more));
  for (const auto& [reason, count] : summary.bad_rows) {
    std::fprintf(stderr, "bad rows, %s: %llu\n", reason.c_str(),
                 static_cast<unsigned long long>(count));
  }
}

void print_summary(const ImportSummary& summary, const ImportArguments& arguments, double seconds) {
  const auto count = [](const char* name, std::uint64_t value) {
    std::printf("  %-24s %12llu\n", name, static_cast<unsigned long long>(value));
  };
  const ImportCounts& counts = summary.counts;
  std::printf("rows\n");
  count("read", summary.rows);
  for (const auto& [reason, number] : summary.bad_rows) count(("bad: " + reason).c_str(), number);
  if (counts.implied_clicks > 0) count("clicks implied", counts.implied_clicks);
  if (counts.skipped_conversions > 0) count("conversions skipped", counts.skipped_conversions);
  std::printf("labels that a join must find\n");
  count("impressions", counts.records[0]);
  count("clicked", counts.clicked);
  count("converted", counts.converted);
  std::printf("%s written in %.1f s, %.0f rows/s; replay it with\n", arguments.folder.c_str(),
              seconds, static_cast<double>(summary.rows) / std::max(seconds, 1e-3));
  std::printf("  sluice replay %s\n", (fs::path(arguments.folder) / "sluice.toml").c_str());
}

std::string progress_text(std::uint64_t rows, const std::string& table, std::uint64_t bytes) {
  std::string text = std::to_string(rows) + " rows";
  std::error_code code;
  const auto size = table == "-" ? 0 : fs::file_size(table, code);
  if (code || size == 0) return text;
  return text + ", " + std::to_string(100 * bytes / size) + " % of " + table;
}

// The other formats know their columns: what was said of them would be passed over.
Status check_column_options(const CLI::App& verb, const std::string& format) {
  if (format == "csv") return {};
  for (const CLI::Option* option : verb.get_options()) {
    if (option->get_group() != kColumnGroup || option->count() == 0) continue;
    return usage_error(option->get_name() + ": is for --format csv only");
  }
  return {};
}

int run_import(const CLI::App& verb, const ImportArguments& arguments) {
  const Status checked = check_column_options(verb, arguments.options.format);
  if (!checked) return report_error(checked.error());
  auto options = read_options(arguments);
  if (!options) return report_error(options.error());
  SystemClock clock;
  RealFileSystem files;
  ImportSummary summary;
  const DurationMs began = clock.steady_ms();
  const Status done = [&] {
    ProgressLine line(clock);
    const auto show = [&line](std::uint64_t rows, const std::string& table, std::uint64_t bytes) {
      line.show([&] { return progress_text(rows, table, bytes); });
    };
    return import_table(*options, arguments.folder, files, show, summary);
  }();
  print_bad_rows(summary);
  if (!done) return report_error(done.error());
  print_summary(summary, arguments, static_cast<double>(clock.steady_ms() - began) / 1'000.0);
  return 0;
}

}  // namespace

void add_import(CLI::App& root, int& exit_code) {
  CLI::App* verb =
      root.add_subcommand("import", "Makes event logs of a labelled table, as the public sets are");
  const auto arguments = std::make_shared<ImportArguments>();
  add_table_options(*verb, *arguments);
  add_log_options(*verb, *arguments);
  add_column_options(*verb, *arguments);
  verb->footer(kExamples);
  verb->callback([verb, arguments, &exit_code] { exit_code = run_import(*verb, *arguments); });
}

}  // namespace sluice
