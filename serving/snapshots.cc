#include "serving/snapshots.h"

#include "learner/row_digest.h"
#include "serving/snapshot_tensors.h"
#include "store/published_folder.h"
#include "store/whole_numbers.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

constexpr int kFormat = 1;

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

// 0, which is no snapshot's, where it is none of ours.
std::uint64_t sequence_in(const ordered_json& json) {
  const ordered_json value = json.is_object() ? json.value("sequence", ordered_json()) : json;
  return value.is_number_unsigned() ? value.get<std::uint64_t>() : 0;
}

Status check_manifest(const ordered_json& manifest, const std::optional<std::uint64_t>& number) {
  if (manifest.value("format", ordered_json()) != kFormat) {
    return stop_error("its format is not " + std::to_string(kFormat) +
                      ": it was written by another version of sluice, or is no snapshot");
  }
  if (number && manifest.value("sequence", ordered_json()) != *number) {
    return stop_error("its manifest is that of another sequence number");
  }
  return {};
}

Result<SnapshotPart> part_of(PublishedFolder folder, const std::optional<std::uint64_t>& number) {
  SnapshotPart part;
  SLUICE_TRY(check_manifest(folder.manifest, number));
  SLUICE_ASSIGN(part.base, base_of_snapshot(folder.manifest));
  SLUICE_ASSIGN(part.weights_digest, weights_digest_of(folder.manifest));
  const auto weights = folder.files.find(kWeightsFile);
  if (weights == folder.files.end()) return stop_error(std::string("it lists no ") + kWeightsFile);
  SLUICE_ASSIGN(part.tensors, decode_tensors(weights->second));
  part.manifest = std::move(folder.manifest);
  return part;
}

Error cannot_use(const fs::path& folder, const Error& error) {
  return stop_error("cannot use the snapshot " + folder.string() + ": " + error.message);
}

Error cannot_use(const fs::path& folder, const std::string& why) {
  return cannot_use(folder, stop_error(why));
}

Result<ChainLink> link_of(const fs::path& folder, const ordered_json& manifest) {
  const Status checked = check_manifest(manifest, folder_number(folder.filename().string()));
  if (!checked) return cannot_use(folder, checked.error());
  auto base = base_of_snapshot(manifest);
  if (!base) return cannot_use(folder, base.error());
  return ChainLink{folder, sequence_in(manifest), *std::move(base)};
}

// The folders of the bases of `last`, in `folder`: the nearest first, to a full one. Only manifests
// are read.
Result<std::vector<fs::path>> chain_of(FileSystem& files, const fs::path& folder,
                                       const SnapshotPart& last) {
  std::vector<fs::path> chain;
  ChainLink link{folder, sequence_in(last.manifest), last.base};
  while (link.base) {
    if (chain.size() == kMaxChain) {
      return stop_error("it is the last of more than " + std::to_string(kMaxChain) + " deltas");
    }
    SLUICE_ASSIGN(link, base_of(files, link));
    chain.push_back(link.folder);
  }
  return chain;
}

Status add_chain(FileSystem& files, const fs::path& folder, SnapshotPart& last) {
  SLUICE_ASSIGN(const std::vector<fs::path> chain, chain_of(files, folder, last));
  std::vector<Tensors> deltas;
  Tensors full;
  for (auto path = chain.rbegin(); path != chain.rend(); ++path) {
    SLUICE_ASSIGN(SnapshotPart part, read_snapshot_part(files, *path));
    if (part.base) {
      deltas.push_back(std::move(part.tensors));
    } else {
      full = std::move(part.tensors);
    }
  }
  deltas.push_back(std::move(last.tensors));
  SLUICE_ASSIGN(last.tensors, apply_deltas(std::move(full), deltas));
  return {};
}

Result<Snapshot> snapshot_of(SnapshotPart part) {
  SLUICE_ASSIGN(StreamsConfig streams, streams_of_snapshot(part.manifest));
  SLUICE_ASSIGN(ScoringModel model, ScoringModel::from_snapshot(part.manifest, part.tensors));
  return Snapshot{std::move(part.manifest), std::move(streams), std::move(model)};
}

}  // namespace

Result<std::optional<SnapshotBase>> base_of_snapshot(const ordered_json& manifest) {
  const ordered_json kind = manifest.value("kind", ordered_json());
  if (kind == "full") return std::optional<SnapshotBase>();
  if (kind != "delta") {
    return stop_error(
        "it is of a kind that this version does not read; it reads \"full\" and \"delta\"");
  }
  const ordered_json base = manifest.value("base", ordered_json::object());
  const std::uint64_t sequence = sequence_in(base);
  // Each base is an earlier one: a chain has an end.
  if (sequence == 0 || sequence >= sequence_in(manifest) || !base.contains("checksum") ||
      !base["checksum"].is_string()) {
    return stop_error("its manifest does not say which snapshot before it is its base");
  }
  return std::optional(SnapshotBase{sequence, base["checksum"].get<std::string>()});
}

Result<std::optional<Digest>> weights_digest_of(const ordered_json& manifest) {
  const auto found = manifest.find("weights_digest");
  if (found == manifest.end()) {
    if (manifest.value("kind", ordered_json()) == "full") return std::optional<Digest>();
    return stop_error("its manifest has no weights_digest");
  }
  if (!found->is_string()) return stop_error("its weights_digest is no text");
  SLUICE_ASSIGN(const Digest digest, Digest::from_hex(found->get<std::string>()));
  return std::optional(digest);
}

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
    if (!sequence) {
      SLUICE_ASSIGN(const auto held, read_held(files, parent));
      return usage_error(
          held.empty() ? "no snapshot is published yet in " + parent.string()
                       : "the gate has kept every snapshot in " + parent.string() +
                             " from becoming LATEST so far: name one by its number, or put it into "
                             "use with `sluice snapshot alias DIR LATEST candidate`");
    }
  }
  const fs::path path = parent / numbered_folder_name(*sequence);
  if (!files.exists(path)) {
    return usage_error("there is no snapshot " + std::to_string(*sequence) + " in " +
                       parent.string() + "; `sluice snapshot list` shows those that are there");
  }
  return path;
}

Result<ChainLink> read_link(FileSystem& files, const fs::path& folder) {
  SLUICE_ASSIGN(const ordered_json manifest, read_manifest(files, folder));
  return link_of(folder, manifest);
}

Result<ChainLink> base_of(FileSystem& files, const ChainLink& link) {
  const fs::path path = link.folder.parent_path() / numbered_folder_name(link.base->sequence);
  const std::string delta = "snapshot " + std::to_string(link.sequence) + " is a delta to";
  if (!files.exists(path)) return stop_error(delta + " " + path.string() + ", which is not there");
  SLUICE_ASSIGN(const ordered_json manifest, read_manifest(files, path));
  if (manifest.value("checksum", ordered_json()) != link.base->checksum) {
    return stop_error(path.string() + " is another one than " + delta);
  }
  return link_of(path, manifest);
}

Result<SnapshotPart> read_snapshot_part(FileSystem& files, const fs::path& folder) {
  SLUICE_ASSIGN(PublishedFolder published, read_folder(files, folder));
  auto part = part_of(std::move(published), folder_number(folder.filename().string()));
  if (!part) return cannot_use(folder, part.error());
  return part;
}

Result<SnapshotPart> read_flat_snapshot(FileSystem& files, const fs::path& folder) {
  SLUICE_ASSIGN(SnapshotPart part, read_snapshot_part(files, folder));
  if (part.base) {
    if (const Status added = add_chain(files, folder, part); !added) {
      return cannot_use(folder, added.error());
    }
  }
  if (!part.weights_digest) return part;
  const auto digest = weights_digest(part.tensors);
  if (!digest) return cannot_use(folder, digest.error());
  if (*digest != *part.weights_digest) {
    return cannot_use(folder, "its weights have the digest " + digest->hex() + ", not " +
                                  part.weights_digest->hex() + " as its manifest says");
  }
  return part;
}

ordered_json streams_json(const StreamsConfig& streams) {
  return {{"ts", streams.ts},
          {"event_id", streams.event_id},
          {"impression_id", streams.impression_id},
          {"user_id", streams.user_id},
          {"item_id", streams.item_id},
          {"not_before", streams.not_before},
          {"max_record_bytes", streams.max_record_bytes},
          {"max_depth", streams.max_depth}};
}

Result<StreamsConfig> streams_of_snapshot(const ordered_json& manifest) try {
  const ordered_json& json = manifest.at("streams");
  StreamsConfig streams;
  for (const auto& [key, name] :
       {std::pair("ts", &streams.ts), std::pair("event_id", &streams.event_id),
        std::pair("impression_id", &streams.impression_id), std::pair("user_id", &streams.user_id),
        std::pair("item_id", &streams.item_id)}) {
    *name = json.at(key).get<std::string>();
  }
  SLUICE_ASSIGN(streams.not_before, signed_at(json, "not_before"));
  SLUICE_ASSIGN(streams.max_record_bytes, unsigned_at(json, "max_record_bytes"));
  SLUICE_ASSIGN(streams.max_depth, unsigned_at(json, "max_depth"));
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

Result<Snapshot> read_snapshot(FileSystem& files, const fs::path& folder) {
  SLUICE_ASSIGN(SnapshotPart part, read_flat_snapshot(files, folder));
  auto snapshot = snapshot_of(std::move(part));
  if (!snapshot) return cannot_use(folder, snapshot.error());
  return snapshot;
}

Result<std::set<std::uint64_t>> needed_bases(FileSystem& files, const fs::path& parent,
                                             const std::vector<std::uint64_t>& numbers) {
  std::set<std::uint64_t> needed;
  SLUICE_ASSIGN(const auto there, list_numbered_folders(files, parent));
  for (const std::uint64_t number : numbers) {
    std::uint64_t next = number;
    while (files.exists(parent / numbered_folder_name(next))) {
      const auto link = read_link(files, parent / numbered_folder_name(next));
      if (!link) {
        needed.insert(there.begin(), std::lower_bound(there.begin(), there.end(), next));
        break;
      }
      if (!link->base || !needed.insert(link->base->sequence).second) break;
      next = link->base->sequence;
    }
  }
  return needed;
}

Status prune_snapshots(FileSystem& files, const fs::path& parent, std::size_t keep) {
  SLUICE_ASSIGN(std::vector<std::uint64_t> kept, list_numbered_folders(files, parent));
  if (kept.size() <= keep) return {};
  kept.erase(kept.begin(), kept.end() - static_cast<std::ptrdiff_t>(keep));
  SLUICE_ASSIGN(const auto named, named_snapshots(files, parent));
  kept.insert(kept.end(), named.begin(), named.end());
  SLUICE_ASSIGN(const auto bases, needed_bases(files, parent, kept));
  return keep_newest(files, parent, keep, bases);
}

}  // namespace sluice
