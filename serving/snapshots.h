// Snapshots on disk: where they lie, and one read whole and checked.
//
//   <data-dir>/models/<model>/snapshots/LATEST
//   <data-dir>/models/<model>/snapshots/<sequence>/manifest.json
//                                                 /weights.safetensors
//                                                 /provenance.json
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/result.h"
#include "config/config.h"
#include "learner/scoring_model.h"

namespace sluice {

// The folder of a model's snapshots. `where` is a data folder, a model's folder or the wanted
// folder itself; `model` chooses where a data folder holds several, and goes with a data folder
// only.
Result<std::filesystem::path> find_snapshots(FileSystem& files, const std::filesystem::path& where,
                                             const std::optional<std::string>& model);

// One snapshot's folder: `where` itself if it is one, else `sequence`, or what LATEST names, below
// find_snapshots().
Result<std::filesystem::path> find_snapshot(FileSystem& files, const std::filesystem::path& where,
                                            const std::optional<std::string>& model,
                                            std::optional<std::uint64_t> sequence);

struct Snapshot {
  nlohmann::ordered_json manifest;
  StreamsConfig streams;  // the names and limits by which impressions were read in training
  ScoringModel model;
};

// Everything is checked: sizes, checksums, tensors against the schema, the sequence number against
// the folder's name. The error names the folder.
Result<Snapshot> read_snapshot(FileSystem& files, const std::filesystem::path& folder);

}  // namespace sluice
