// sluice snapshot list, show, verify: what is published, what it holds, whether it is whole.
#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "app/report_error.h"
#include "app/text_table.h"
#include "app/verbs.h"
#include "base/time.h"
#include "serving/snapshots.h"
#include "store/published_folder.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

struct SnapshotOptions {
  std::string where = "sluice-data";
  std::optional<std::string> model;
  std::optional<std::uint64_t> sequence;
  bool all = false;
  bool json = false;
};

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

// "12.3 MB"; decimal units.
std::string format_bytes(std::uint64_t bytes) {
  constexpr std::array kUnits = {"B", "kB", "MB", "GB", "TB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1000 && unit + 1 < kUnits.size(); ++unit) value /= 1000;
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text.data();
}

// A member that may be missing at any level; null then. Lives as long as `json`.
const ordered_json& at_path(const ordered_json& json, std::initializer_list<const char*> keys) {
  static const ordered_json null;
  const ordered_json* value = &json;
  for (const char* key : keys) {
    if (!value->is_object() || !value->contains(key)) return null;
    value = &(*value)[key];
  }
  return *value;
}

std::string text_of(const ordered_json& value) {
  if (value.is_null()) return "-";
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_number_float()) return value.dump();
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.4f", value.get<double>());
  return text.data();
}

std::uint64_t listed_bytes(const ordered_json& manifest) {
  std::uint64_t bytes = 0;
  for (const auto& file : at_path(manifest, {"files"})) {
    const ordered_json& size = at_path(file, {"bytes"});
    if (size.is_number_unsigned()) bytes += size.get<std::uint64_t>();
  }
  return bytes;
}

// ---- list

constexpr std::array<const char*, 3> kTasks = {"ctr", "ctcvr", "cvr"};

ordered_json list_entry(const ordered_json& manifest, std::uint64_t sequence, bool is_latest) {
  ordered_json entry = {{"sequence", sequence},
                        {"time", at_path(manifest, {"time"})},
                        {"kind", at_path(manifest, {"kind"})},
                        {"bytes", listed_bytes(manifest)},
                        {"reproducible", at_path(manifest, {"reproducible"})},
                        {"auc", ordered_json::object()},
                        {"latest", is_latest}};
  for (const char* task : kTasks) entry["auc"][task] = at_path(manifest, {"metrics", task, "auc"});
  return entry;
}

std::vector<std::string> list_row(const ordered_json& entry) {
  std::vector<std::string> row = {entry["sequence"].dump(), text_of(entry["time"]),
                                  text_of(entry["kind"]),
                                  format_bytes(entry["bytes"].get<std::uint64_t>())};
  for (const char* task : kTasks) row.push_back(text_of(entry["auc"][task]));
  row.emplace_back(entry["latest"] == true ? "LATEST" : "");
  if (entry["reproducible"] == false) row.emplace_back("not reproducible");
  return row;
}

Result<int> list(const SnapshotOptions& options) {
  RealFileSystem files;
  SLUICE_ASSIGN(const fs::path parent, find_snapshots(files, options.where, options.model));
  SLUICE_ASSIGN(const auto numbers, list_numbered_folders(files, parent));
  SLUICE_ASSIGN(const auto latest, read_latest(files, parent));
  ordered_json entries = ordered_json::array();
  std::vector<std::vector<std::string>> rows = {
      {"sequence", "event time", "kind", "size", "AUC CTR", "CTCVR", "CVR"}};
  int exit_code = 0;
  for (const std::uint64_t number : numbers) {
    const auto manifest = read_manifest(files, parent / numbered_folder_name(number));
    if (!manifest) {
      exit_code = report_error(manifest.error());
      continue;
    }
    entries.push_back(list_entry(*manifest, number, number == latest));
    rows.push_back(list_row(entries.back()));
  }
  if (options.json) {
    print(entries.dump(2) + "\n");
  } else if (numbers.empty()) {
    print("no snapshot is published yet in " + parent.string() + "\n");
  } else {
    print(text_table(rows));
  }
  return exit_code;
}

// ---- show

std::string metrics_text(const ordered_json& manifest, const char* key, const char* title) {
  std::vector<std::vector<std::string>> rows = {
      {title, "AUC", "log loss", "normalized entropy", "calibration"}};
  for (const char* task : kTasks) {
    rows.push_back({std::string("  ") + task});
    for (const char* metric : {"auc", "log_loss", "normalized_entropy", "calibration"}) {
      rows.back().push_back(text_of(at_path(manifest, {key, task, metric})));
    }
  }
  return text_table(rows);
}

std::string features_text(const ordered_json& manifest) {
  std::vector<std::vector<std::string>> rows = {
      {"features", "path", "type", "table", "group", "buckets"}};
  for (const ordered_json& feature : at_path(manifest, {"features"})) {
    rows.push_back({"  " + text_of(at_path(feature, {"name"}))});
    for (const char* key : {"path", "type", "table", "group", "buckets"}) {
      rows.back().push_back(text_of(at_path(feature, {key})));
    }
  }
  return text_table(rows);
}

std::string show_text(const fs::path& folder, const ordered_json& manifest) {
  std::vector<std::vector<std::string>> rows = {{"snapshot", folder.string()}};
  for (const char* key :
       {"sequence", "time", "kind", "reproducible", "samples_digest", "model_digest"}) {
    rows.push_back({key, text_of(at_path(manifest, {key}))});
  }
  for (const char* group : {"join", "learner"}) {
    rows.push_back({std::string(group) + " hash", text_of(at_path(manifest, {"hashes", group}))});
  }
  rows.push_back({"model", at_path(manifest, {"model"}).dump()});
  for (const auto& [name, file] : at_path(manifest, {"files"}).items()) {
    const ordered_json& size = at_path(file, {"bytes"});
    rows.push_back(
        {name, size.is_number_unsigned() ? format_bytes(size.get<std::uint64_t>()) : "-"});
  }
  return text_table(rows) + "\n" + metrics_text(manifest, "metrics", "metrics so far") + "\n" +
         metrics_text(manifest, "window_metrics", "since the last one") + "\n" +
         features_text(manifest);
}

Result<int> show(const SnapshotOptions& options) {
  RealFileSystem files;
  SLUICE_ASSIGN(const fs::path folder,
                find_snapshot(files, options.where, options.model, options.sequence));
  SLUICE_ASSIGN(const ordered_json manifest, read_manifest(files, folder));
  print(options.json ? manifest.dump(2) + "\n" : show_text(folder, manifest));
  return 0;
}

// ---- verify

Result<std::vector<fs::path>> folders_to_verify(FileSystem& files, const SnapshotOptions& options) {
  if (!options.all) {
    SLUICE_ASSIGN(fs::path folder,
                  find_snapshot(files, options.where, options.model, options.sequence));
    return std::vector{std::move(folder)};
  }
  if (options.sequence) return usage_error("verify takes a sequence number or --all, not both");
  SLUICE_ASSIGN(const fs::path parent, find_snapshots(files, options.where, options.model));
  SLUICE_ASSIGN(const auto numbers, list_numbered_folders(files, parent));
  std::vector<fs::path> folders;
  folders.reserve(numbers.size());
  for (const auto number : numbers) folders.push_back(parent / numbered_folder_name(number));
  // LATEST is checked with the rest: it must name one of them.
  SLUICE_ASSIGN(const auto latest, read_latest(files, parent));
  if (latest && std::find(numbers.begin(), numbers.end(), *latest) == numbers.end()) {
    return stop_error((parent / kLatest).string() + " names " + numbered_folder_name(*latest) +
                      ", which is not there");
  }
  return folders;
}

Result<int> verify(const SnapshotOptions& options) {
  RealFileSystem files;
  SLUICE_ASSIGN(const std::vector<fs::path> folders, folders_to_verify(files, options));
  ordered_json entries = ordered_json::array();
  int exit_code = 0;
  for (const fs::path& folder : folders) {
    const auto snapshot = read_snapshot(files, folder);
    ordered_json entry = {{"folder", folder.string()}, {"whole", snapshot.has_value()}};
    if (snapshot) {
      entry["bytes"] = listed_bytes(snapshot->manifest);
      if (!options.json) {
        print(folder.string() + " is whole (" + format_bytes(entry["bytes"].get<std::uint64_t>()) +
              ")\n");
      }
    } else {
      entry["error"] = snapshot.error().message;
      exit_code = report_error(snapshot.error());
    }
    entries.push_back(std::move(entry));
  }
  if (options.json) print(entries.dump(2) + "\n");
  return exit_code;
}

// ---- the command line

using Action = Result<int> (*)(const SnapshotOptions&);

CLI::App* add_action(CLI::App& group, const char* name, const char* description,
                     const std::shared_ptr<SnapshotOptions>& options, Action action,
                     int& exit_code) {
  CLI::App* verb = group.add_subcommand(name, description);
  verb->add_option("DIR", options->where, "A data folder, a folder of snapshots, or a snapshot's")
      ->capture_default_str();
  verb->add_option("--model", options->model, "Which one, where a data folder has several models");
  verb->add_flag("--json", options->json, "Prints JSON");
  verb->callback([options, action, &exit_code] {
    const Result<int> outcome = action(*options);
    exit_code = outcome ? *outcome : report_error(outcome.error());
  });
  return verb;
}

}  // namespace

void add_snapshot(CLI::App& root, int& exit_code) {
  CLI::App* group = root.add_subcommand("snapshot", "Looks at the snapshots of a data folder");
  group->require_subcommand(1);
  const auto options = std::make_shared<SnapshotOptions>();
  add_action(*group, "list", "One line a snapshot: event time, size, AUC of each task", options,
             list, exit_code);
  CLI::App* show_verb =
      add_action(*group, "show", "What a snapshot's manifest says", options, show, exit_code);
  CLI::App* verify_verb = add_action(
      *group, "verify", "Reads every file and checks it against the manifest; 1 if one is damaged",
      options, verify, exit_code);
  for (CLI::App* verb : {show_verb, verify_verb}) {
    verb->add_option("SEQUENCE", options->sequence, "Its number; default: what LATEST names");
  }
  verify_verb->add_flag("--all", options->all, "Checks every snapshot in the folder");
  add_snapshot_export(*group, exit_code);
}

}  // namespace sluice
