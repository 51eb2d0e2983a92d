// sluice snapshot diff: which tables and towers moved from one snapshot to another, and how much.
#include <array>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "app/snapshot_verb.h"
#include "app/text_table.h"
#include "serving/snapshot_diff.h"
#include "serving/snapshots.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

struct DiffOptions {
  std::shared_ptr<SnapshotOptions> of = std::make_shared<SnapshotOptions>();
  std::string before, after;
  std::string with;  // the folder of `after`, where it is another one
};

struct Side {
  fs::path folder;
  SnapshotPart snapshot;  // flat
};

Result<Side> read_side(FileSystem& files, const SnapshotOptions& options,
                       const std::string& which) {
  SLUICE_ASSIGN(const fs::path folder, find_named_snapshot(files, options, which));
  SLUICE_ASSIGN(SnapshotPart snapshot, read_flat_snapshot(files, folder));
  return Side{folder, std::move(snapshot)};
}

std::string four_digits(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.4g", value);
  return text.data();
}

ordered_json diff_json(const Side& before, const Side& after, const SnapshotDiff& diff) {
  ordered_json json = {{"before", before.folder.string()},
                       {"after", after.folder.string()},
                       {"tables", ordered_json::object()},
                       {"layers", ordered_json::object()},
                       {"metrics", ordered_json::object()}};
  for (const TableDiff& table : diff.tables) {
    json["tables"][table.name] = {{"rows_before", table.rows_before},
                                  {"rows_after", table.rows_after},
                                  {"added", table.added},
                                  {"removed", table.removed},
                                  {"changed", table.changed},
                                  {"mean_move", table.mean_move},
                                  {"largest_move", table.largest_move},
                                  {"largest_key", table.largest_key}};
  }
  for (const LayerDiff& layer : diff.layers) {
    json["layers"][layer.name] = {{"move", layer.move}, {"relative", layer.relative}};
  }
  for (const char* key : {"metrics", "window_metrics"}) {
    json["metrics"][key] = {{"before", before.snapshot.manifest.value(key, ordered_json())},
                            {"after", after.snapshot.manifest.value(key, ordered_json())}};
  }
  return json;
}

std::string diff_text(const Side& before, const Side& after, const SnapshotDiff& diff) {
  std::vector<std::vector<std::string>> tables = {
      {"table", "rows", "added", "removed", "changed", "mean move", "largest move"}};
  for (const TableDiff& table : diff.tables) {
    tables.push_back({table.name, std::to_string(table.rows_after), std::to_string(table.added),
                      std::to_string(table.removed), std::to_string(table.changed),
                      four_digits(table.mean_move), four_digits(table.largest_move)});
  }
  std::vector<std::vector<std::string>> layers = {{"layer", "move", "relative to its norm"}};
  for (const LayerDiff& layer : diff.layers) {
    layers.push_back({layer.name, four_digits(layer.move), four_digits(layer.relative)});
  }
  return before.folder.string() + " to " + after.folder.string() + "\n\n" + text_table(tables) +
         "\n" + text_table(layers);
}

Result<int> diff(const DiffOptions& options) {
  RealFileSystem files;
  SLUICE_ASSIGN(const Side before, read_side(files, *options.of, options.before));
  SnapshotOptions other = *options.of;
  if (!options.with.empty()) other.where = options.with;
  SLUICE_ASSIGN(const Side after, read_side(files, other, options.after));
  SLUICE_ASSIGN(const SnapshotDiff difference,
                diff_snapshots(before.snapshot.tensors, after.snapshot.tensors));
  print(options.of->json ? diff_json(before, after, difference).dump(2) + "\n"
                         : diff_text(before, after, difference));
  return 0;
}

}  // namespace

void add_snapshot_diff(CLI::App& group, int& exit_code) {
  const auto options = std::make_shared<DiffOptions>();
  CLI::App* verb = add_snapshot_verb(
      group, "diff", "Which tables and towers moved between two snapshots, and how much",
      options->of, [options] { return diff(*options); }, exit_code);
  verb->get_option("DIR")->required();
  verb->add_option("BEFORE", options->before, "The earlier one: its number, LATEST or an alias")
      ->required();
  verb->add_option("AFTER", options->after, "The later one, named so too; default: LATEST");
  verb->add_option("--with", options->with, "Another folder, in which AFTER lies");
  verb->footer(
      "A row's or layer's move is the Euclidean distance between its weights before and after.\n"
      "  sluice snapshot diff sluice-data champion LATEST\n");
}

}  // namespace sluice
