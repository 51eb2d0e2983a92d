#include "app/snapshot_verb.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>

#include <CLI/CLI.hpp>

#include "app/report_error.h"
#include "serving/snapshots.h"
#include "store/published_folder.h"

namespace sluice {
namespace {

// None where `which` is to be taken as LATEST.
Result<std::optional<std::uint64_t>> sequence_of(FileSystem& files, const SnapshotOptions& options,
                                                 const std::string& which) {
  if (which.empty() || which == kLatest) return std::optional<std::uint64_t>();
  std::uint64_t sequence = 0;
  const auto [end, error] = std::from_chars(which.data(), which.data() + which.size(), sequence);
  if (error == std::errc() && end == which.data() + which.size()) return std::optional(sequence);
  SLUICE_ASSIGN(const fs::path parent, find_snapshots(files, options.where, options.model));
  SLUICE_ASSIGN(const auto named, read_alias(files, parent, which));
  if (named) return named;
  return usage_error("there is no alias " + which + " in " + parent.string() +
                     "; a snapshot is named by its number, LATEST or an alias");
}

}  // namespace

CLI::App* add_snapshot_verb(CLI::App& group, const char* name, const char* description,
                            const std::shared_ptr<SnapshotOptions>& options,
                            const std::function<Result<int>()>& action, int& exit_code) {
  CLI::App* verb = group.add_subcommand(name, description);
  verb->add_option("DIR", options->where,
                   "A data folder or one of snapshots; for show, verify and diff also a snapshot's")
      ->capture_default_str();
  verb->add_option("--model", options->model, "Which one, where a data folder has several models");
  verb->add_flag("--json", options->json, "Prints JSON");
  verb->callback([action, &exit_code] {
    const Result<int> outcome = action();
    exit_code = outcome ? *outcome : report_error(outcome.error());
  });
  return verb;
}

CLI::Option* add_which(CLI::App& verb, std::string& which) {
  return verb.add_option("SNAPSHOT", which, "Its number, LATEST or an alias; default: LATEST");
}

Result<fs::path> find_named_snapshot(FileSystem& files, const SnapshotOptions& options,
                                     const std::string& which) {
  SLUICE_ASSIGN(const auto sequence, sequence_of(files, options, which));
  return find_snapshot(files, options.where, options.model, sequence);
}

Result<fs::path> find_whole_snapshot(FileSystem& files, const SnapshotOptions& options,
                                     const std::string& which) {
  SLUICE_ASSIGN(fs::path folder, find_named_snapshot(files, options, which));
  SLUICE_TRY(read_snapshot(files, folder));
  return folder;
}

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

std::string format_bytes(std::uint64_t bytes) {
  constexpr std::array kUnits = {"B", "kB", "MB", "GB", "TB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1000 && unit + 1 < kUnits.size(); ++unit) value /= 1000;
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text.data();
}

}  // namespace sluice
