#include "app/compare_text.h"

#include <array>
#include <charconv>
#include <cstdio>
#include <vector>

#include "app/text_table.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;
using Row = std::vector<std::string>;

struct Column {
  const char* metric;
  const char* title;
  const char* format;
};
constexpr std::array kLabelColumns = {Column{"auc", "AUC", "%.4f"}, Column{"gauc", "GAUC", "%.4f"},
                                      Column{"log_loss", "log loss", "%.5f"},
                                      Column{"normalized_entropy", "norm. entr.", "%.4f"},
                                      Column{"calibration", "pred./observed", "%.3f"}};
constexpr std::array kTruthColumns = {Column{"true.mean_error", "mean |error|", "%.3e"},
                                      Column{"true.rms_error", "rms error", "%.3e"},
                                      Column{"true.excess_log_loss", "excess log loss", "%.3e"},
                                      Column{"true.ratio", "pred./true", "%.3f"}};
// Whose differences are shown on a terminal; the page and the files have all.
constexpr std::array kDifferenceColumns = {Column{"auc", "AUC", "%+.4f"},
                                           Column{"gauc", "GAUC", "%+.4f"},
                                           Column{"log_loss", "log loss", "%+.5f"}};
constexpr std::array kTruthDifferenceColumns = {
    Column{"true.mean_error", "mean |error|", "%+.2e"},
    Column{"true.excess_log_loss", "excess log loss", "%+.2e"}};

std::string shown(const Json& value, const char* format) {
  if (!value.is_number()) return "-";
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), format, value.get<double>());
  return text.data();
}

// "+0.0123 [+0.0050, +0.0196]"
std::string with_interval(const Json& entry, const char* format) {
  std::string text = shown(entry["value"], format);
  if (!entry["low"].is_number()) return text;
  return text + " [" + shown(entry["low"], format) + ", " + shown(entry["high"], format) + "]";
}

template <std::size_t kCount>
Row titles(const std::string& first, const std::array<Column, kCount>& columns) {
  Row row = {first};
  for (const Column& column : columns) row.emplace_back(column.title);
  return row;
}

template <std::size_t kCount>
std::string metrics_table(const Json& comparison, const std::string& title, const std::string& rate,
                          const std::array<Column, kCount>& columns) {
  std::vector<Row> rows = {titles(title, columns)};
  for (const Json& group : comparison["groups"]) {
    Row row = {group["name"].get<std::string>()};
    for (const Column& column : columns) {
      row.push_back(shown(group["metrics"][rate + "." + column.metric]["value"], column.format));
    }
    rows.push_back(std::move(row));
  }
  return text_table(rows);
}

template <std::size_t kCount>
std::string differences_table(const Json& comparison, const std::string& rate,
                              const std::array<Column, kCount>& columns) {
  std::vector<Row> rows;
  for (const Json& group : comparison["groups"]) {
    if (!group.contains("differences")) continue;
    Row row = {group["name"].get<std::string>()};
    for (const Column& column : columns) {
      row.push_back(with_interval(group["differences"][rate + "." + column.metric], column.format));
    }
    rows.push_back(std::move(row));
  }
  if (rows.empty()) return {};
  rows.insert(rows.begin(),
              titles("difference to " + comparison["baseline"].get<std::string>(), columns));
  return text_table(rows);
}

std::string csv_number(const Json& value) {
  if (!value.is_number()) return {};
  std::array<char, 32> text;
  const auto [end, error] =
      std::to_chars(text.data(), text.data() + text.size(), value.get<double>());
  return {text.data(), end};
}

std::string count(const Json& value) {
  return std::to_string(value.get<std::uint64_t>());
}

}  // namespace

std::string comparison_tables(const Json& comparison) {
  const Json& judged = comparison["judged"];
  const std::uint64_t first = judged["first_sequence"].get<std::uint64_t>();
  std::string text = "judged    samples " + std::to_string(first) + " to " +
                     count(comparison["samples"]) + ", of " + count(judged["users"]) +
                     " users, each predicted before it was learned\n";
  const auto resamplings = comparison["resamplings"].get<std::uint64_t>();
  if (resamplings > 0) {
    text += "          in brackets: 95 % of " + std::to_string(resamplings) +
            " resamplings of the users, the same for all models\n";
  }
  constexpr std::array<std::array<const char*, 2>, 3> kTitles = {
      {{"ctr", "CTR"}, {"cvr", "CVR of clicked"}, {"ctcvr", "CTCVR"}}};
  for (const auto& [rate, title] : kTitles) {
    text += "\n" + metrics_table(comparison, title, rate, kLabelColumns) +
            differences_table(comparison, rate, kDifferenceColumns);
  }
  if (comparison["has_truth"].get<bool>()) {
    text += "\nagainst the true rates, over all impressions, clicked or not:\n" +
            metrics_table(comparison, "pCVR", "cvr", kTruthColumns) +
            differences_table(comparison, "cvr", kTruthDifferenceColumns);
  }
  return text;
}

std::string comparison_csv(const Json& comparison) {
  std::string text =
      "model,seeds,metric,value,low,high,difference,difference_low,difference_high\n";
  for (const Json& group : comparison["groups"]) {
    for (const auto& [metric, entry] : group["metrics"].items()) {
      text += group["name"].get<std::string>() + "," + count(group["seeds"]) + "," + metric;
      const Json& less = group.contains("differences") ? group["differences"][metric] : Json();
      for (const char* key : {"value", "low", "high"}) text += "," + csv_number(entry[key]);
      for (const char* key : {"value", "low", "high"}) {
        text += "," + (less.is_object() ? csv_number(less[key]) : std::string());
      }
      text += "\n";
    }
  }
  return text;
}

}  // namespace sluice
