// Publishes snapshots beside training: sorts and encodes the rows, writes and syncs the folder,
// moves LATEST, removes what retention no longer keeps. One snapshot at a time, each after the one
// before. After a write that failed nothing more is written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "app/background.h"
#include "base/file.h"
#include "base/result.h"
#include "base/time.h"
#include "learner/frozen_model.h"

namespace sluice {

struct UnwrittenSnapshot {
  nlohmann::ordered_json manifest;  // without "files" and "checksum"
  FrozenModel model;
};

// Called by one thread. The edges outlive it.
class SnapshotWriter {
 public:
  // `folder`: models/<name>/snapshots. `provenance`: a JSON object.
  SnapshotWriter(std::filesystem::path folder, std::uint64_t keep, std::string provenance,
                 FileSystem& files, Clock& clock, std::unique_ptr<Background> background);

  // Removes what a crash left, and reads LATEST. Before anything else.
  Status open();

  // Once the one before is written (wait()).
  void start(UnwrittenSnapshot snapshot);
  // What went wrong so far; does not wait.
  Status check();
  // Until what was started is published, LATEST names it and what is too old is removed.
  Status wait();

  // Of the last one that was started, once it is written: that of its manifest.
  const std::string& checksum() const { return checksum_; }
  // What LATEST names.
  std::optional<std::uint64_t> latest() const;

 private:
  void write(UnwrittenSnapshot snapshot);
  Status publish(UnwrittenSnapshot snapshot);
  Status prune();

  const std::filesystem::path folder_;
  const std::uint64_t keep_;
  const std::string provenance_;
  FileSystem& files_;
  Clock& clock_;
  std::string checksum_;      // the job's while it runs
  mutable std::mutex mutex_;  // guards what follows
  std::optional<std::uint64_t> latest_;
  Status outcome_;
  std::unique_ptr<Background> background_;  // the last member: it ends first
};

}  // namespace sluice
