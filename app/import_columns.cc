// Tables whose columns have one value each.
#include <algorithm>
#include <set>
#include <utility>

#include "app/import_spec.h"
#include "app/import_table.h"
#include "app/import_text.h"
#include "base/json_text.h"

namespace sluice {
namespace {

using Header = TableSpec::Header;

constexpr std::size_t kNone = static_cast<std::size_t>(-1);

struct FeatureColumn {
  std::size_t index = 0;
  ColumnSpec spec;
  std::string name;
};

class ColumnFormat final : public TableFormat {
 public:
  ColumnFormat(TableSpec spec, const ImportOptions& options)
      : spec_(std::move(spec)), kept_(options.features), start_(options.start) {}

  CsvDialect dialect() const override { return spec_.dialect; }
  UnclickedConversion unclicked_conversion() const override { return UnclickedConversion::skipped; }
  bool needs_header() const override { return spec_.header == Header::required; }
  Result<bool> begin_file(const CsvRow& first, const std::string& file) override;
  Result<std::optional<RowProblem>> read(const CsvRow& row, ImportRow& out) override {
    return read_row(row, out);
  }
  std::vector<ImportFeature> features() const override;

 private:
  std::vector<std::string> column_names(const CsvRow& first, bool is_header) const;
  Status find(const std::string& column, const std::string& file, std::size_t& index) const;
  Status find_features(const std::string& file);
  Status check_patterns(const std::string& file) const;
  std::vector<ColumnSpec> wanted_features() const;
  bool has_role(const std::string& column) const;

  bool is_missing(std::string_view text) const {
    return text.empty() || (!spec_.roles.missing.empty() && text == spec_.roles.missing);
  }
  std::optional<RowProblem> read_row(const CsvRow& row, ImportRow& out) const;
  std::optional<RowProblem> read_label(const CsvRow& row, std::size_t index, bool& label) const;
  std::optional<RowProblem> read_time(const CsvRow& row, std::size_t index,
                                      std::optional<TimeMs>& time) const;
  std::optional<RowProblem> read_times(const CsvRow& row, ImportRow& out) const;
  std::optional<RowProblem> read_features(const CsvRow& row, std::string& out) const;
  void append_list(std::string_view text, std::string& out) const;

  TableSpec spec_;
  std::vector<std::string> kept_;
  TimeMs start_;

  // Of the present file.
  std::vector<std::string> names_;
  std::size_t click_ = kNone, conversion_ = kNone, time_ = kNone, click_time_ = kNone,
              conversion_time_ = kNone, conversion_delay_ = kNone, user_ = kNone, item_ = kNone;
  std::vector<FeatureColumn> features_;
};

std::vector<std::string> ColumnFormat::column_names(const CsvRow& first, bool is_header) const {
  if (is_header) return {first.fields.begin(), first.fields.end()};
  if (!spec_.columns.empty()) return spec_.columns;
  if (!names_.empty()) return names_;  // as in the first file
  std::vector<std::string> names;
  for (std::size_t n = 1; n <= first.fields.size(); ++n) names.push_back("c" + std::to_string(n));
  return names;
}

Result<bool> ColumnFormat::begin_file(const CsvRow& first, const std::string& file) {
  bool is_header = needs_header();
  if (spec_.header == Header::optional) {
    is_header = !first.fields.empty() && first.fields[0] == spec_.columns[0];
  }
  names_ = column_names(first, is_header);
  for (auto name = names_.begin(); name != names_.end(); ++name) {
    if (std::find(std::next(name), names_.end(), *name) != names_.end()) {
      return usage_error(file + ": two columns are called '" + *name + "'");
    }
  }
  const CsvColumns& roles = spec_.roles;
  const std::pair<const std::string&, std::size_t&> wanted[] = {
      {roles.click, click_},
      {roles.conversion, conversion_},
      {roles.time, time_},
      {roles.click_time, click_time_},
      {roles.conversion_time, conversion_time_},
      {spec_.conversion_delay, conversion_delay_},
      {roles.user, user_},
      {roles.item, item_}};
  for (const auto& [column, index] : wanted) SLUICE_TRY(find(column, file, index));
  SLUICE_TRY(find_features(file));
  return is_header;
}

Status ColumnFormat::find(const std::string& column, const std::string& file,
                          std::size_t& index) const {
  index = kNone;
  if (column.empty()) return {};
  const auto found = std::find(names_.begin(), names_.end(), column);
  if (found == names_.end()) {
    std::string known;
    constexpr std::size_t kMostNamed = 12;
    for (std::size_t n = 0; n < names_.size() && n < kMostNamed; ++n) {
      known += (n == 0 ? "" : ", ") + names_[n].substr(0, 40);
    }
    if (names_.size() > kMostNamed) known += ", ...";
    return usage_error(file + ": has no column '" + column + "' (--format " + spec_.name +
                       "); its columns: " + known);
  }
  index = static_cast<std::size_t>(found - names_.begin());
  return {};
}

bool ColumnFormat::has_role(const std::string& column) const {
  const CsvColumns& roles = spec_.roles;
  const auto all = {&roles.click, &roles.conversion, &roles.time, &roles.click_time,
                    &roles.conversion_time};
  return std::any_of(all.begin(), all.end(), [&](const auto* role) { return *role == column; });
}

std::vector<ColumnSpec> ColumnFormat::wanted_features() const {
  std::vector<ColumnSpec> wanted = spec_.features;
  if (!wanted.empty()) return wanted;
  for (const std::string& name : names_) {
    if (has_role(name)) continue;
    if (matches_any(spec_.roles.numbers, name)) {
      wanted.push_back({name, ColumnSpec::Kind::number, "\"log:8\""});
    } else if (matches_any(spec_.roles.lists, name)) {
      wanted.push_back({name, ColumnSpec::Kind::list, ""});
    } else {
      wanted.push_back({name, ColumnSpec::Kind::id, ""});
    }
  }
  return wanted;
}

// A pattern without a column is a slip of the pen.
Status ColumnFormat::check_patterns(const std::string& file) const {
  const std::pair<const char*, const std::vector<std::string>&> options[] = {
      {"--numbers", spec_.roles.numbers}, {"--lists", spec_.roles.lists}, {"--features", kept_}};
  for (const auto& [option, patterns] : options) {
    for (const std::string& pattern : patterns) {
      const auto fits = [&](const std::string& name) { return matches(pattern, name); };
      if (std::none_of(names_.begin(), names_.end(), fits)) {
        return usage_error(file + ": has no column '" + pattern + "' (" + option + ")");
      }
    }
  }
  return {};
}

Status ColumnFormat::find_features(const std::string& file) {
  SLUICE_TRY(check_patterns(file));
  const std::vector<FeatureColumn> before = std::exchange(features_, {});
  std::set<std::string> taken;
  for (ColumnSpec& column : wanted_features()) {
    if (!kept_.empty() && !matches_any(kept_, column.column)) continue;
    FeatureColumn feature;
    SLUICE_TRY(find(column.column, file, feature.index));
    feature.name = feature_name(column.column);
    if (!taken.insert(feature.name).second) {
      return usage_error(file + ": the columns of two features would be called '" + feature.name +
                         "'; rename one, or leave it out with --features");
    }
    feature.spec = std::move(column);
    features_.push_back(std::move(feature));
  }
  if (features_.empty()) return usage_error(file + ": no column is left to be a feature");
  const auto same_name = [](const auto& a, const auto& b) { return a.name == b.name; };
  if (!before.empty() && !std::is_permutation(before.begin(), before.end(), features_.begin(),
                                              features_.end(), same_name)) {
    return usage_error(file + ": has other columns than the tables before it");
  }
  return {};
}

std::optional<RowProblem> ColumnFormat::read_label(const CsvRow& row, std::size_t index,
                                                   bool& label) const {
  const auto value = parse_label(row.fields[index]);
  if (!value) {
    return RowProblem{"label", index + 1,
                      "'" + std::string(row.fields[index].substr(0, 40)) + "' is neither 0 nor 1"};
  }
  label = *value;
  return {};
}

std::optional<RowProblem> ColumnFormat::read_time(const CsvRow& row, std::size_t index,
                                                  std::optional<TimeMs>& time) const {
  time.reset();
  if (index == kNone || is_missing(row.fields[index])) return {};
  time = parse_table_time(row.fields[index], spec_.roles.unit, start_);
  if (time) return {};
  const bool is_count = spec_.roles.unit == TimeUnit::iso &&
                        row.fields[index].find_first_not_of("0123456789.") == std::string::npos;
  return RowProblem{"time", index + 1,
                    "'" + std::string(row.fields[index].substr(0, 40)) + "' is no time" +
                        (is_count ? "; --time-unit says what numbers count" : "")};
}

std::optional<RowProblem> ColumnFormat::read_times(const CsvRow& row, ImportRow& out) const {
  if (auto problem = read_time(row, time_, out.time)) return problem;
  if (time_ != kNone && !out.time) return RowProblem{"time", time_ + 1, "there is none"};
  if (auto problem = read_time(row, click_time_, out.click_time)) return problem;
  if (auto problem = read_time(row, conversion_time_, out.conversion_time)) return problem;
  if (spec_.is_clicked_at_once) out.click_time = out.time;
  out.conversion_delay.reset();
  if (conversion_delay_ == kNone || is_missing(row.fields[conversion_delay_])) return {};
  out.conversion_delay = parse_seconds(row.fields[conversion_delay_]);
  if (out.conversion_delay) return {};
  return RowProblem{
      "time", conversion_delay_ + 1,
      "'" + std::string(row.fields[conversion_delay_].substr(0, 40)) + "' is no number of seconds"};
}

void ColumnFormat::append_list(std::string_view text, std::string& out) const {
  const char separator = spec_.roles.list_separator;
  out += '[';
  bool is_first = true;
  while (!text.empty()) {
    const std::string_view id = text.substr(0, text.find(separator));
    text.remove_prefix(std::min(text.size(), id.size() + 1));
    if (id.empty()) continue;
    if (!is_first) out += ',';
    is_first = false;
    append_json_id(out, id);
  }
  out += ']';
}

std::optional<RowProblem> ColumnFormat::read_features(const CsvRow& row, std::string& out) const {
  out = "{";
  for (const FeatureColumn& feature : features_) {
    const std::string_view text = row.fields[feature.index];
    if (is_missing(text)) continue;
    if (out.size() > 1) out += ',';
    append_json_text(out, feature.name);
    out += ':';
    if (feature.spec.kind == ColumnSpec::Kind::id) {
      append_json_id(out, text);
    } else if (feature.spec.kind == ColumnSpec::Kind::list) {
      append_list(text, out);
    } else if (const auto number = parse_number(text)) {
      append_json_number(out, *number);
    } else {
      return RowProblem{"number", feature.index + 1,
                        "'" + std::string(text.substr(0, 40)) + "' is no number"};
    }
  }
  out += '}';
  return {};
}

std::optional<RowProblem> ColumnFormat::read_row(const CsvRow& row, ImportRow& out) const {
  if (row.fields.size() != names_.size()) {
    return RowProblem{"columns", 0,
                      std::to_string(row.fields.size()) + " fields, but " +
                          std::to_string(names_.size()) + " columns"};
  }
  out.clicked = click_ == kNone;
  out.converted = false;
  if (click_ != kNone) {
    if (auto problem = read_label(row, click_, out.clicked)) return problem;
  }
  if (conversion_ != kNone) {
    if (auto problem = read_label(row, conversion_, out.converted)) return problem;
  }
  if (auto problem = read_times(row, out)) return problem;
  out.user_id = user_ == kNone || is_missing(row.fields[user_]) ? "" : row.fields[user_];
  out.item_id = item_ == kNone || is_missing(row.fields[item_]) ? "" : row.fields[item_];
  return read_features(row, out.features);
}

std::vector<ImportFeature> ColumnFormat::features() const {
  std::vector<ImportFeature> result;
  for (const FeatureColumn& feature : features_) {
    std::string type = "\"id\"";
    if (feature.spec.kind == ColumnSpec::Kind::list) type = "\"ids\"";
    if (feature.spec.kind == ColumnSpec::Kind::number) {
      type = "\"number\", buckets = " + feature.spec.buckets;
    }
    result.push_back({feature.name, "features." + feature.name, "type = " + type});
  }
  return result;
}

}  // namespace

Result<std::unique_ptr<TableFormat>> make_column_format(const ImportOptions& options) {
  TableSpec spec = csv_spec(options.csv);
  if (options.format == "aliexpress") spec = aliexpress_spec();
  if (options.format == "criteo_attribution") spec = criteo_attribution_spec();
  if (options.format == "criteo_search") spec = criteo_search_spec();
  return std::unique_ptr<TableFormat>(std::make_unique<ColumnFormat>(std::move(spec), options));
}

}  // namespace sluice
