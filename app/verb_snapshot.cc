// sluice snapshot list, show, verify: what is published, what it holds, whether it is whole.
#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "app/report_error.h"
#include "app/snapshot_verb.h"
#include "app/text_table.h"
#include "app/verbs.h"
#include "base/time.h"
#include "serving/snapshots.h"
#include "store/published_folder.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

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

// LATEST and the aliases that name it.
std::vector<std::string> names_of(std::uint64_t sequence,
                                  const std::optional<std::uint64_t>& latest,
                                  const std::map<std::string, std::uint64_t>& aliases) {
  std::vector<std::string> names;
  if (sequence == latest) names.emplace_back(kLatest);
  for (const auto& [alias, named] : aliases) {
    if (named == sequence) names.push_back(alias);
  }
  return names;
}

ordered_json list_entry(const ordered_json& manifest, std::uint64_t sequence,
                        const std::vector<std::string>& names) {
  ordered_json entry = {{"sequence", sequence},
                        {"time", at_path(manifest, {"time"})},
                        {"kind", at_path(manifest, {"kind"})},
                        {"bytes", listed_bytes(manifest)},
                        {"reproducible", at_path(manifest, {"reproducible"})},
                        {"auc", ordered_json::object()},
                        {"latest", !names.empty() && names.front() == kLatest},
                        {"names", names}};
  for (const char* task : kTasks) entry["auc"][task] = at_path(manifest, {"metrics", task, "auc"});
  return entry;
}

std::vector<std::string> list_row(const ordered_json& entry) {
  std::vector<std::string> row = {entry["sequence"].dump(), text_of(entry["time"]),
                                  text_of(entry["kind"]),
                                  format_bytes(entry["bytes"].get<std::uint64_t>())};
  for (const char* task : kTasks) row.push_back(text_of(entry["auc"][task]));
  std::string names;
  for (const auto& name : entry["names"]) {
    names += (names.empty() ? "" : " ") + name.get<std::string>();
  }
  row.push_back(std::move(names));
  if (entry["reproducible"] == false) row.emplace_back("not reproducible");
  return row;
}

Result<int> list(const SnapshotOptions& options) {
  RealFileSystem files;
  SLUICE_ASSIGN(const fs::path parent, find_snapshots(files, options.where, options.model));
  SLUICE_ASSIGN(const auto numbers, list_numbered_folders(files, parent));
  SLUICE_ASSIGN(const auto latest, read_latest(files, parent));
  SLUICE_ASSIGN(const auto aliases, read_aliases(files, parent));
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
    entries.push_back(list_entry(*manifest, number, names_of(number, latest, aliases)));
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
  SLUICE_ASSIGN(const fs::path folder, find_named_snapshot(files, options, options.which));
  SLUICE_ASSIGN(const ordered_json manifest, read_manifest(files, folder));
  print(options.json ? manifest.dump(2) + "\n" : show_text(folder, manifest));
  return 0;
}

// ---- verify

struct VerifyOptions {
  std::shared_ptr<SnapshotOptions> of = std::make_shared<SnapshotOptions>();
  bool all = false;
};

Result<std::vector<fs::path>> folders_to_verify(FileSystem& files, const VerifyOptions& verify) {
  const SnapshotOptions& options = *verify.of;
  if (!verify.all) {
    SLUICE_ASSIGN(fs::path folder, find_named_snapshot(files, options, options.which));
    return std::vector{std::move(folder)};
  }
  if (!options.which.empty()) return usage_error("verify takes a snapshot or --all, not both");
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

Result<int> verify(const VerifyOptions& options) {
  RealFileSystem files;
  SLUICE_ASSIGN(const std::vector<fs::path> folders, folders_to_verify(files, options));
  ordered_json entries = ordered_json::array();
  int exit_code = 0;
  for (const fs::path& folder : folders) {
    const auto snapshot = read_snapshot(files, folder);
    ordered_json entry = {{"folder", folder.string()}, {"whole", snapshot.has_value()}};
    if (snapshot) {
      entry["bytes"] = listed_bytes(snapshot->manifest);
      if (!options.of->json) {
        print(folder.string() + " is whole (" + format_bytes(entry["bytes"].get<std::uint64_t>()) +
              ")\n");
      }
    } else {
      entry["error"] = snapshot.error().message;
      exit_code = report_error(snapshot.error());
    }
    entries.push_back(std::move(entry));
  }
  if (options.of->json) print(entries.dump(2) + "\n");
  return exit_code;
}

// ---- the command line

void add_list(CLI::App& group, int& exit_code) {
  const auto options = std::make_shared<SnapshotOptions>();
  add_snapshot_verb(
      group, "list", "One line a snapshot: event time, size, AUC of each task, aliases", options,
      [options] { return list(*options); }, exit_code);
}

void add_show(CLI::App& group, int& exit_code) {
  const auto options = std::make_shared<SnapshotOptions>();
  CLI::App* verb = add_snapshot_verb(
      group, "show", "What a snapshot's manifest says", options,
      [options] { return show(*options); }, exit_code);
  add_which(*verb, options->which);
}

void add_verify(CLI::App& group, int& exit_code) {
  const auto options = std::make_shared<VerifyOptions>();
  CLI::App* verb = add_snapshot_verb(
      group, "verify", "Reads every file and checks it against the manifest; 1 if one is damaged",
      options->of, [options] { return verify(*options); }, exit_code);
  add_which(*verb, options->of->which);
  verb->add_flag("--all", options->all, "Checks every snapshot in the folder");
}

}  // namespace

void add_snapshot(CLI::App& root, int& exit_code) {
  CLI::App* group = root.add_subcommand("snapshot", "Snapshots: look, compare, put into use");
  group->require_subcommand(1);
  add_list(*group, exit_code);
  add_show(*group, exit_code);
  add_verify(*group, exit_code);
  add_snapshot_diff(*group, exit_code);
  add_snapshot_changes(*group, exit_code);
  add_snapshot_export(*group, exit_code);
}

}  // namespace sluice
