// What a data folder says of samples, by their sequence numbers; for sluice trace. The folder is
// only read, and a service may be using it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/hash.h"
#include "base/result.h"
#include "config/config.h"
#include "joiner/join.h"
#include "joiner/sample.h"
#include "learner/objective.h"

namespace sluice {

struct TraceFolder {
  // A usage error where it is no data folder, or was begun with another config of the join or the
  // learner, or does not know the config's model.
  static Result<TraceFolder> open(FileSystem& files, const std::filesystem::path& data_dir,
                                  const Config& config);

  std::filesystem::path path;
  JoinProgress progress;  // as of the last commit
  struct DigestLine {
    bool is_snapshot = false;
    std::string samples_digest;
  };
  std::map<std::uint64_t, DigestLine> digests;  // of digests.jsonl, by sequence
  std::vector<std::uint64_t> checkpoints;       // those kept, ascending
  std::vector<std::uint64_t> snapshots;
  std::uint64_t scored = 0;  // samples in scores.bin

  // The samples digest up to `sequence`, where the folder knows it.
  std::optional<std::string> samples_digest(std::uint64_t sequence) const;

  struct Facts {
    bool is_committed = false;
    bool is_trained = false;
    // The first that were made with the sample in them, and the first of these that are kept.
    std::optional<std::uint64_t> checkpoint, snapshot;
    std::optional<std::uint64_t> kept_checkpoint, kept_snapshot;
    std::optional<Prediction> prediction;  // made before anything of the impression was learned
  };
  Result<Facts> facts(FileSystem& files, const Sample& sample) const;

 private:
  std::filesystem::path scores_;
  std::optional<Objective> objective_;  // what the scores are read by
};

}  // namespace sluice
