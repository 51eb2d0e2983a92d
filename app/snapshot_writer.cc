#include "app/snapshot_writer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "serving/snapshots.h"
#include "store/published_folder.h"
#include "store/tensors.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kWeightsFile = "weights.safetensors";

}  // namespace

SnapshotWriter::SnapshotWriter(fs::path folder, std::uint64_t keep, std::string provenance,
                               FileSystem& files, Clock& clock,
                               std::unique_ptr<Background> background)
    : folder_(std::move(folder)),
      keep_(keep),
      provenance_(std::move(provenance)),
      files_(files),
      clock_(clock),
      background_(std::move(background)) {}

Status SnapshotWriter::open() {
  SLUICE_TRY(remove_temporary_folders(files_, folder_));
  SLUICE_ASSIGN(latest_, read_latest(files_, folder_));
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

std::optional<std::uint64_t> SnapshotWriter::latest() const {
  const std::lock_guard lock(mutex_);
  return latest_;
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
  const SealedManifest manifest = seal_manifest(std::move(snapshot.manifest), listed);
  checksum_ = manifest.checksum;
  const std::string name = numbered_folder_name(sequence);
  // One that was published and then pruned does not come back.
  if (latest().value_or(0) >= sequence && !files_.exists(folder_ / name)) return {};
  Json provenance = Json::parse(provenance_, nullptr, false);
  provenance["published"] = format_time(clock_.wall_ms());
  SLUICE_TRY(publish_sealed_folder(files_, folder_, name, manifest, listed,
                                   {{"provenance.json", provenance.dump(2) + "\n"}}));
  SLUICE_TRY(set_latest(files_, folder_, sequence));
  {
    const std::lock_guard lock(mutex_);
    latest_ = std::max(latest_.value_or(0), sequence);
  }
  return prune();
}

// Whatever is kept can be read: the bases of what is kept are too.
Status SnapshotWriter::prune() {
  SLUICE_ASSIGN(std::vector<std::uint64_t> numbers, list_numbered_folders(files_, folder_));
  if (numbers.size() <= keep_) return {};
  numbers.erase(numbers.begin(), numbers.end() - static_cast<std::ptrdiff_t>(keep_));
  if (const auto latest = this->latest()) numbers.push_back(*latest);
  return keep_newest(files_, folder_, keep_, needed_bases(files_, folder_, numbers));
}

}  // namespace sluice
