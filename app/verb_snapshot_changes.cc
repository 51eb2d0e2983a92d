// sluice snapshot rollback, alias and prune: what an operator changes about published snapshots.
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "app/snapshot_verb.h"
#include "serving/snapshots.h"
#include "store/published_folder.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

// A snapshot that was found among its fellows.
struct Found {
  fs::path parent;
  std::uint64_t sequence = 0;
};

Result<Found> find_whole(FileSystem& files, const SnapshotOptions& options) {
  SLUICE_ASSIGN(const fs::path folder, find_whole_snapshot(files, options, options.which));
  const auto sequence = folder_number(folder.filename().string());
  if (!sequence) return usage_error(folder.string() + " does not lie among other snapshots");
  const fs::path parent = folder.has_parent_path() ? folder.parent_path() : fs::path(".");
  return Found{parent, *sequence};
}

// A service may be publishing, and another operator be at work.
Result<std::unique_ptr<FileLock>> lock_snapshots(FileSystem& files,
                                                 const SnapshotOptions& options) {
  SLUICE_ASSIGN(const fs::path parent, find_snapshots(files, options.where, options.model));
  return lock_names(files, parent);
}

std::string text_of(const std::optional<std::uint64_t>& sequence) {
  return sequence ? std::to_string(*sequence) : "none";
}

ordered_json json_of(const std::optional<std::uint64_t>& sequence) {
  return sequence ? ordered_json(*sequence) : ordered_json();
}

// ---- rollback

// The one before LATEST that no gate has held back, as `rollback` takes where none is named.
Result<std::string> one_before_latest(FileSystem& files, const SnapshotOptions& options) {
  SLUICE_ASSIGN(const fs::path parent, find_snapshots(files, options.where, options.model));
  SLUICE_ASSIGN(const auto latest, read_latest(files, parent));
  SLUICE_ASSIGN(const auto numbers, list_numbered_folders(files, parent));
  SLUICE_ASSIGN(const auto held, read_held(files, parent));
  const auto before = std::find_if(numbers.rbegin(), numbers.rend(), [&](std::uint64_t number) {
    return number < latest.value_or(0) && !held.contains(number);
  });
  if (before == numbers.rend()) {
    return usage_error("there is no snapshot before LATEST in " + parent.string());
  }
  return std::to_string(*before);
}

Result<int> rollback(SnapshotOptions options) {
  RealFileSystem files;
  SLUICE_ASSIGN(const auto lock, lock_snapshots(files, options));
  if (options.which.empty()) {
    SLUICE_ASSIGN(options.which, one_before_latest(files, options));
  }
  SLUICE_ASSIGN(const Found found, find_whole(files, options));
  SLUICE_ASSIGN(const auto latest, read_latest(files, found.parent));
  if (!latest || found.sequence >= *latest) {
    return usage_error("snapshot " + std::to_string(found.sequence) +
                       " is not older than LATEST, which is " + text_of(latest) +
                       "; to go forward: sluice snapshot alias DIR LATEST " +
                       std::to_string(found.sequence));
  }
  SLUICE_TRY(choose_latest(files, found.parent, found.sequence));
  print(options.json
            ? ordered_json{{"latest", found.sequence}, {"was", json_of(latest)}}.dump(2) + "\n"
            : "LATEST is " + std::to_string(found.sequence) + " now; it was " + text_of(latest) +
                  ". The next new snapshot will be LATEST again.\n");
  return 0;
}

// ---- alias

struct AliasOptions {
  std::shared_ptr<SnapshotOptions> of = std::make_shared<SnapshotOptions>();
  std::string name;
  bool remove = false;
};

Result<int> alias(const AliasOptions& options) {
  RealFileSystem files;
  SLUICE_ASSIGN(const auto lock, lock_snapshots(files, *options.of));
  std::optional<std::uint64_t> now;
  const bool is_latest = options.name == kLatest;
  SLUICE_ASSIGN(fs::path parent, find_snapshots(files, options.of->where, options.of->model));
  SLUICE_ASSIGN(const auto before,
                is_latest ? read_latest(files, parent) : read_alias(files, parent, options.name));
  if (options.remove) {
    if (is_latest) return usage_error("LATEST can be moved, not removed");
    SLUICE_TRY(remove_alias(files, parent, options.name));
  } else {
    SLUICE_ASSIGN(const Found found, find_whole(files, *options.of));
    SLUICE_TRY(is_latest ? choose_latest(files, parent, found.sequence)
                         : set_alias(files, parent, options.name, found.sequence));
    now = found.sequence;
  }
  const ordered_json json = {
      {"alias", options.name}, {"snapshot", json_of(now)}, {"was", json_of(before)}};
  print(options.of->json
            ? json.dump(2) + "\n"
            : options.name + " is " + text_of(now) + " now; it was " + text_of(before) + "\n");
  return 0;
}

// ---- prune

struct PruneOptions {
  std::shared_ptr<SnapshotOptions> of = std::make_shared<SnapshotOptions>();
  std::size_t keep = 0;
};

Result<int> prune(const PruneOptions& options) {
  RealFileSystem files;
  SLUICE_ASSIGN(const auto lock, lock_snapshots(files, *options.of));
  SLUICE_ASSIGN(const fs::path parent, find_snapshots(files, options.of->where, options.of->model));
  SLUICE_ASSIGN(const auto before, list_numbered_folders(files, parent));
  SLUICE_TRY(prune_snapshots(files, parent, options.keep));
  SLUICE_ASSIGN(const auto after, list_numbered_folders(files, parent));
  std::vector<std::uint64_t> removed;
  std::set_difference(before.begin(), before.end(), after.begin(), after.end(),
                      std::back_inserter(removed));
  print(options.of->json
            ? ordered_json{{"removed", removed}, {"kept", after}}.dump(2) + "\n"
            : "removed " + std::to_string(removed.size()) + " of " + std::to_string(before.size()) +
                  " snapshots; " + std::to_string(after.size()) +
                  " stay, with LATEST, those that have a name, and what deltas need\n");
  return 0;
}

void add_rollback(CLI::App& group, int& exit_code) {
  const auto options = std::make_shared<SnapshotOptions>();
  CLI::App* verb = add_snapshot_verb(
      group, "rollback", "Makes an older snapshot LATEST, so that it is served", options,
      [options] { return rollback(*options); }, exit_code);
  add_which(*verb, options->which)
      ->description("Its number or an alias; default: the one before LATEST");
  verb->footer(
      "A service that goes on learning makes its next snapshot LATEST again, a restart does not.\n"
      "Who serves an alias (serving.alias) decides each change by hand. To learn without the\n"
      "samples that spoilt a model: sluice replay --skip-samples A..B, into a new data folder.\n");
}

void add_alias(CLI::App& group, int& exit_code) {
  const auto options = std::make_shared<AliasOptions>();
  CLI::App* verb = add_snapshot_verb(
      group, "alias", "Gives a snapshot a name, such as champion, by which it is found and kept",
      options->of, [options] { return alias(*options); }, exit_code);
  verb->get_option("DIR")->required();
  verb->add_option("NAME", options->name, "Letters, digits, - and _; or LATEST, which moves it")
      ->required();
  add_which(*verb, options->of->which);
  verb->add_flag("--remove", options->remove, "Takes the name away");
  verb->footer(
      "  sluice snapshot alias sluice-data champion 120000\n"
      "  sluice snapshot alias sluice-data LATEST candidate    # what the gate has held back\n");
}

void add_prune(CLI::App& group, int& exit_code) {
  const auto options = std::make_shared<PruneOptions>();
  CLI::App* verb = add_snapshot_verb(
      group, "prune", "Removes all but the newest snapshots", options->of,
      [options] { return prune(*options); }, exit_code);
  verb->add_option("--keep", options->keep,
                   "So many; LATEST, those with an alias and what they need stay too")
      ->required()
      ->check(CLI::Range(std::size_t{1}, std::size_t{1'000'000}));
}

}  // namespace

void add_snapshot_changes(CLI::App& group, int& exit_code) {
  add_rollback(group, exit_code);
  add_alias(group, exit_code);
  add_prune(group, exit_code);
}

}  // namespace sluice
