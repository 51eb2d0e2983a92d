// Publishes snapshots beside training: sorts and encodes the rows, writes and syncs the folder,
// moves LATEST or, where the gate holds it back, the alias `candidate`, removes what retention no
// longer keeps. One snapshot at a time, each after the one before. After a write that failed
// nothing more is written.
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
#include "config/config.h"
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
  SnapshotWriter(std::filesystem::path folder, const SnapshotsConfig& config,
                 std::string provenance, FileSystem& files, Clock& clock,
                 std::unique_ptr<Background> background);

  // Removes what a crash left, and reads what is published. Before anything else.
  Status open();

  // Once the one before is written (wait()).
  void start(UnwrittenSnapshot snapshot);
  // What went wrong so far; does not wait.
  Status check();
  // Until what was started is published, LATEST or `candidate` names it and what is too old is
  // removed.
  Status wait();

  // Of the last one that was started, once it is written: that of its manifest.
  const std::string& checksum() const { return checksum_; }
  std::optional<std::uint64_t> newest() const;     // that was published
  std::optional<std::uint64_t> candidate() const;  // the newest that the gate has held back

 private:
  void write(UnwrittenSnapshot snapshot);
  Status publish(UnwrittenSnapshot snapshot);
  Status put_into_use(std::uint64_t sequence, const nlohmann::ordered_json& metrics);

  const std::filesystem::path folder_;
  const SnapshotsConfig config_;
  const std::string provenance_;
  FileSystem& files_;
  Clock& clock_;
  std::string checksum_;      // the job's while it runs
  mutable std::mutex mutex_;  // guards what follows
  std::optional<std::uint64_t> newest_;
  std::optional<std::uint64_t> candidate_;
  Status outcome_;
  std::unique_ptr<Background> background_;  // the last member: it ends first
};

}  // namespace sluice
