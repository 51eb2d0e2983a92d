#include "serving/snapshots.h"

#include <vector>

#include "store/published_folder.h"
#include "store/tensors.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

constexpr int kFormat = 1;
constexpr const char* kWeights = "weights.safetensors";

bool is_snapshot(FileSystem& files, const fs::path& path) {
  return files.exists(path / "manifest.json");
}

// A parent of snapshots has LATEST; before the first is published and after it was removed by hand,
// its name or its content tells.
bool is_snapshots_folder(FileSystem& files, const fs::path& path) {
  if (files.exists(path / kLatest) || path.filename() == "snapshots") return true;
  const auto numbers = list_numbered_folders(files, path);
  return numbers && !numbers->empty();
}

Result<fs::path> choose_model(FileSystem& files, const fs::path& data_dir,
                              const std::optional<std::string>& model) {
  SLUICE_ASSIGN(const std::vector<std::string> names, files.list(data_dir / "models"));
  std::string known;
  std::vector<fs::path> found;
  for (const std::string& name : names) {
    const fs::path path = data_dir / "models" / name / "snapshots";
    if (!files.exists(path)) continue;
    if (name == model) return path;
    known += (known.empty() ? "" : ", ") + name;
    found.push_back(path);
  }
  if (found.empty()) return usage_error(data_dir.string() + " holds no model's snapshots yet");
  if (model) {
    return usage_error("--model " + *model + ": " + data_dir.string() + " holds only " + known);
  }
  if (found.size() == 1) return found.front();
  return usage_error(data_dir.string() + " holds several models: choose one by --model: " + known);
}

Result<StreamsConfig> streams_of(const ordered_json& manifest) try {
  const ordered_json& json = manifest.at("streams");
  StreamsConfig streams;
  for (const auto& [key, name] :
       {std::pair("ts", &streams.ts), std::pair("event_id", &streams.event_id),
        std::pair("impression_id", &streams.impression_id), std::pair("user_id", &streams.user_id),
        std::pair("item_id", &streams.item_id)}) {
    *name = json.at(key).get<std::string>();
  }
  streams.not_before = json.at("not_before").get<TimeMs>();
  streams.max_record_bytes = json.at("max_record_bytes").get<std::uint64_t>();
  streams.max_depth = json.at("max_depth").get<std::uint64_t>();
  // What a config may have (config/schema.cc): decoders take memory by them.
  if (streams.max_depth == 0 || streams.max_depth > 1'000 || streams.max_record_bytes > 256 << 20) {
    return stop_error(
        "the manifest does not say how impressions are read: max_depth or max_record_bytes is none "
        "that a config may have");
  }
  return streams;
} catch (const nlohmann::json::exception& error) {
  return stop_error(std::string("the manifest does not say how impressions are read: ") +
                    error.what());
}

Result<Snapshot> snapshot_of(PublishedFolder folder, const std::optional<std::uint64_t>& number) {
  const ordered_json& manifest = folder.manifest;
  if (manifest.value("format", ordered_json()) != kFormat) {
    return stop_error("its format is not " + std::to_string(kFormat) +
                      ": it was written by another version of sluice, or is no snapshot");
  }
  if (manifest.value("kind", ordered_json()) != "full") {
    return stop_error("it is of a kind that this version does not read; it reads \"full\"");
  }
  if (number && manifest.value("sequence", ordered_json()) != *number) {
    return stop_error("its manifest is that of another sequence number");
  }
  const auto weights = folder.files.find(kWeights);
  if (weights == folder.files.end()) return stop_error(std::string("it lists no ") + kWeights);
  SLUICE_ASSIGN(StreamsConfig streams, streams_of(manifest));
  SLUICE_ASSIGN(const Tensors tensors, decode_tensors(weights->second));
  SLUICE_ASSIGN(ScoringModel model, ScoringModel::from_snapshot(manifest, tensors));
  return Snapshot{std::move(folder.manifest), std::move(streams), std::move(model)};
}

}  // namespace

Result<fs::path> find_snapshots(FileSystem& files, const fs::path& where,
                                const std::optional<std::string>& model) {
  if (!files.exists(where)) return usage_error("there is no folder " + where.string());
  if (files.exists(where / "models")) return choose_model(files, where, model);
  if (model) {
    return usage_error("--model " + *model + " goes with a data folder, which " + where.string() +
                       " is not");
  }
  if (files.exists(where / "snapshots")) return where / "snapshots";
  if (is_snapshots_folder(files, where)) return where;
  return usage_error(where.string() + " is neither a data folder nor one of snapshots");
}

Result<fs::path> find_snapshot(FileSystem& files, const fs::path& where,
                               const std::optional<std::string>& model,
                               std::optional<std::uint64_t> sequence) {
  if (!sequence && !model && is_snapshot(files, where)) return where;
  SLUICE_ASSIGN(const fs::path parent, find_snapshots(files, where, model));
  if (!sequence) {
    SLUICE_ASSIGN(sequence, read_latest(files, parent));
    if (!sequence) return usage_error("no snapshot is published yet in " + parent.string());
  }
  const fs::path path = parent / numbered_folder_name(*sequence);
  if (!files.exists(path)) {
    return usage_error("there is no snapshot " + std::to_string(*sequence) + " in " +
                       parent.string() + "; `sluice snapshot list` shows those that are there");
  }
  return path;
}

Result<Snapshot> read_snapshot(FileSystem& files, const fs::path& folder) {
  SLUICE_ASSIGN(PublishedFolder published, read_folder(files, folder));
  auto snapshot = snapshot_of(std::move(published), folder_number(folder.filename().string()));
  if (!snapshot) {
    return stop_error("cannot use the snapshot " + folder.string() + ": " +
                      snapshot.error().message);
  }
  return snapshot;
}

}  // namespace sluice
