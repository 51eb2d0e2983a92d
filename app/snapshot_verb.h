// What the verbs of `sluice snapshot` share.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/file.h"
#include "base/result.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace sluice {

struct SnapshotOptions {
  std::string where = "sluice-data";
  std::optional<std::string> model;
  std::string which;  // a number, LATEST or an alias; empty: LATEST
  bool json = false;
};

// Adds DIR, --model and --json; `action` gives the exit code.
CLI::App* add_snapshot_verb(CLI::App& group, const char* name, const char* description,
                            const std::shared_ptr<SnapshotOptions>& options,
                            const std::function<Result<int>()>& action, int& exit_code);
// Adds SNAPSHOT, for `which`.
CLI::Option* add_which(CLI::App& verb, std::string& which);

// The folder that `which` names; DIR itself where that is a snapshot's and `which` is empty.
Result<std::filesystem::path> find_named_snapshot(FileSystem& files, const SnapshotOptions& options,
                                                  const std::string& which);
// The same, and it must be whole: what an operator puts into use.
Result<std::filesystem::path> find_whole_snapshot(FileSystem& files, const SnapshotOptions& options,
                                                  const std::string& which);

void print(const std::string& text);            // on stdout
std::string format_bytes(std::uint64_t bytes);  // "12.3 MB"; decimal units

void add_snapshot_diff(CLI::App& group, int& exit_code);
void add_snapshot_export(CLI::App& group, int& exit_code);
void add_snapshot_changes(CLI::App& group, int& exit_code);  // rollback, alias, prune

}  // namespace sluice
