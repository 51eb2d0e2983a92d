// Fault drills: every durable step of a service has a name, and the process can be made to kill
// itself right before or right after any of them (docs/operating.md, "Fault drills"). Without the
// environment variables below nothing of this is installed.
//
// A step's name is what is written and what is done to it, such as "checkpoint.rename" or
// "store.commit". It follows from the path and the operation alone, so that none can be forgotten:
// what is not known is called "unknown".
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/file.h"
#include "base/result.h"
#include "store/key_value.h"

namespace sluice {

// Where a service writes.
struct DurablePaths {
  std::filesystem::path data_dir;
  std::optional<std::filesystem::path> report;
  std::optional<std::filesystem::path> predictions;
};

// "checkpoint", "digests", ...: what lies at `path`; "unknown" where that is nothing of ours.
std::string durable_kind(const DurablePaths& paths, const std::filesystem::path& path);

// Thread-safe. Outlives what it has wrapped.
class KillPoints {
 public:
  // As SLUICE_KILL_AT and SLUICE_STEPS_FILE say; null where neither is set. A usage error where
  // the first is not STEP:before|after:N, or the second cannot be written.
  //   SLUICE_KILL_AT=checkpoint.rename:after:3  SIGKILL to itself after the third one
  //   SLUICE_STEPS_FILE=FILE                    appends the name of each step as it begins
  static Result<std::unique_ptr<KillPoints>> from_environment(DurablePaths paths);

  // The same edges, with each durable operation a step.
  std::unique_ptr<FileSystem> wrap(FileSystem& files);
  std::unique_ptr<KeyValueStore> wrap(std::unique_ptr<KeyValueStore> store);

  // Around a step; enter() returns which passing of it this is, from 1 on. One that failed is not
  // left. Several threads may be in the same step.
  Result<std::uint64_t> enter(const std::string& step);
  void leave(const std::string& step, std::uint64_t passing);

  const DurablePaths& paths() const { return paths_; }

 private:
  struct Target {
    std::string step;
    bool is_after = false;
    std::uint64_t passing = 0;  // from 1 on
  };

  explicit KillPoints(DurablePaths paths) : paths_(std::move(paths)) {}
  static Result<Target> parse(const std::string& text);
  void kill_if(const std::string& step, bool is_after, std::uint64_t passing) const;

  const DurablePaths paths_;
  RealFileSystem real_files_;
  std::optional<Target> target_;
  std::mutex mutex_;  // guards what follows
  std::unique_ptr<WritableFile> steps_;
  std::map<std::string, std::uint64_t> passings_;
};

}  // namespace sluice
