#include "app/snapshot_writer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <spdlog/spdlog.h>

#include "app/snapshot_gate.h"
#include "serving/snapshots.h"
#include "store/published_folder.h"
#include "store/tensors.h"

namespace sluice {

using Json = nlohmann::ordered_json;

SnapshotWriter::SnapshotWriter(fs::path folder, const SnapshotsConfig& config,
                               std::string provenance, FileSystem& files, Clock& clock,
                               std::unique_ptr<Background> background)
    : folder_(std::move(folder)),
      config_(config),
      provenance_(std::move(provenance)),
      files_(files),
      clock_(clock),
      background_(std::move(background)) {}

Status SnapshotWriter::open() {
  SLUICE_TRY(remove_temporary_folders(files_, folder_));
  SLUICE_ASSIGN(newest_, newest_published(files_, folder_));
  SLUICE_ASSIGN(const auto held, read_held(files_, folder_));
  if (!held.empty()) candidate_ = *held.rbegin();
  newest_ = std::max(newest_, candidate_);
  return {};
}

void SnapshotWriter::start(UnwrittenSnapshot snapshot) {
  // A job is copied: what it owns is shared.
  auto owned = std::make_shared<UnwrittenSnapshot>(std::move(snapshot));
  background_->start([this, owned] { write(std::move(*owned)); });
}

Status SnapshotWriter::check() {
  const std::lock_guard lock(mutex_);
  return outcome_;
}

Status SnapshotWriter::wait() {
  background_->wait();
  return check();
}

std::optional<std::uint64_t> SnapshotWriter::newest() const {
  const std::lock_guard lock(mutex_);
  return newest_;
}

std::optional<std::uint64_t> SnapshotWriter::candidate() const {
  const std::lock_guard lock(mutex_);
  return candidate_;
}

void SnapshotWriter::write(UnwrittenSnapshot snapshot) {
  const Status outcome = publish(std::move(snapshot));
  const std::lock_guard lock(mutex_);
  if (outcome_) outcome_ = outcome;
}

Status SnapshotWriter::publish(UnwrittenSnapshot snapshot) {
  const auto sequence = snapshot.manifest.at("sequence").get<std::uint64_t>();
  const std::vector<FolderFile> listed = {
      {kWeightsFile, encode_tensors(snapshot.model.take_tensors())}};
  const Json metrics = {{"window_metrics", snapshot.manifest.value("window_metrics", Json())}};
  const SealedManifest manifest = seal_manifest(std::move(snapshot.manifest), listed);
  checksum_ = manifest.checksum;
  const std::string name = numbered_folder_name(sequence);
  // One that was published and then pruned does not come back.
  if (newest().value_or(0) >= sequence && !files_.exists(folder_ / name)) return {};
  Json provenance = Json::parse(provenance_, nullptr, false);
  provenance["published"] = format_time(clock_.wall_ms());
  SLUICE_TRY(publish_sealed_folder(files_, folder_, name, manifest, listed,
                                   {{"provenance.json", provenance.dump(2) + "\n"}}));
  SLUICE_ASSIGN(const auto names, lock_names(files_, folder_));
  SLUICE_TRY(put_into_use(sequence, metrics));
  {
    const std::lock_guard lock(mutex_);
    newest_ = std::max(newest_.value_or(0), sequence);
  }
  return prune_snapshots(files_, folder_, config_.keep);
}

// LATEST, or a candidate where the gate holds it back. Decided once: after a restart LATEST may be
// another one.
Status SnapshotWriter::put_into_use(std::uint64_t sequence, const Json& metrics) {
  if (newest().value_or(0) >= sequence) return {};
  SLUICE_ASSIGN(const auto latest, read_latest(files_, folder_));
  Json latest_manifest;
  if (latest) {
    if (auto read = read_manifest(files_, folder_ / numbered_folder_name(*latest))) {
      latest_manifest = *std::move(read);
    }
  }
  SLUICE_ASSIGN(const auto published, newest_published(files_, folder_));
  SLUICE_ASSIGN(const auto held, read_held(files_, folder_));
  const bool was_held = !held.empty() && *held.rbegin() > published.value_or(0);
  const auto refusal = gate_refusal(config_.gate, metrics, latest_manifest, was_held);
  if (!refusal) return set_latest(files_, folder_, sequence);
  spdlog::warn("snapshot {} is kept as {} and does not become LATEST: {}", sequence, kCandidate,
               *refusal);
  SLUICE_TRY(set_alias(files_, folder_, kCandidate, sequence));
  SLUICE_TRY(add_held(files_, folder_, sequence));  // last: by this it is decided
  const std::lock_guard lock(mutex_);
  candidate_ = sequence;
  return {};
}

}  // namespace sluice
