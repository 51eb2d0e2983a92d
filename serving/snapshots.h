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
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/hash.h"
#include "base/result.h"
#include "config/config.h"
#include "learner/scoring_model.h"
#include "store/tensors.h"

namespace sluice {

inline constexpr const char* kWeightsFile = "weights.safetensors";

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

// What a delta's rows are changes of: the snapshot just before it in its lineage.
struct SnapshotBase {
  std::uint64_t sequence = 0;
  std::string checksum;  // that of its manifest
};

// What lies in one snapshot's folder.
struct SnapshotPart {
  nlohmann::ordered_json manifest;
  std::optional<SnapshotBase> base;      // none: it is full
  std::optional<Digest> weights_digest;  // of the whole model at this point (learner/row_digest.h);
                                         // none in full ones of an earlier version
  // Named as in learner/model_tensors.h. Of a delta: the rows touched since its base, towers whole.
  Tensors tensors;

  // By which the delta after this one names it.
  std::string checksum() const { return manifest.at("checksum").get<std::string>(); }
};

// Of a snapshot's manifest; none of a full one's.
Result<std::optional<SnapshotBase>> base_of_snapshot(const nlohmann::ordered_json& manifest);
// Of a snapshot's manifest; none where SnapshotPart has none.
Result<std::optional<Digest>> weights_digest_of(const nlohmann::ordered_json& manifest);

// One snapshot of a chain, as its manifest alone tells.
struct ChainLink {
  std::filesystem::path folder;
  std::uint64_t sequence = 0;        // that of the folder's name, where that is a number
  std::optional<SnapshotBase> base;  // none: it is full
};

// The most deltas in a row: ten times what a config may ask for (snapshots.full_every).
inline constexpr std::size_t kMaxChain = 10'000;

Result<ChainLink> read_link(FileSystem& files, const std::filesystem::path& folder);

// From `link`, which is a delta, to its base beside it: the one of that number and that checksum.
// Numbers fall from link to link, whatever manifests say, so that every walk ends.
Result<ChainLink> base_of(FileSystem& files, const ChainLink& link);

// One folder, checked by itself: sizes, checksums, the manifest's entries, the sequence number
// against the folder's name. Says nothing of its base. The error names the folder.
Result<SnapshotPart> read_snapshot_part(FileSystem& files, const std::filesystem::path& folder);

// The same with all of the model's rows: those of a delta and of its chain, base by base to a full
// one, which lie beside it. Each folder is checked, and is the one that the delta after it was made
// from; the weights come out with the last one's digest. The manifest stays that of `folder`. The
// error names the folder that is missing or damaged.
Result<SnapshotPart> read_flat_snapshot(FileSystem& files, const std::filesystem::path& folder);

// The names and limits by which impressions were read in training: the manifest's "streams", and
// back.
nlohmann::ordered_json streams_json(const StreamsConfig& streams);
Result<StreamsConfig> streams_of_snapshot(const nlohmann::ordered_json& manifest);

// The model of read_flat_snapshot(), its tensors checked against the schema.
Result<Snapshot> read_snapshot(FileSystem& files, const std::filesystem::path& folder);

// The snapshots that the `numbers` under `parent` need to be read: their bases, and those of these.
// One that is missing needs none; one whose manifest cannot be read may need any that is older.
Result<std::set<std::uint64_t>> needed_bases(FileSystem& files, const std::filesystem::path& parent,
                                             const std::vector<std::uint64_t>& numbers);

// Removes all but the `keep` newest, those that LATEST or an alias names, and what these need to be
// read.
Status prune_snapshots(FileSystem& files, const std::filesystem::path& parent, std::size_t keep);

}  // namespace sluice
