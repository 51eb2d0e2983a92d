#include "serving/model_catalog.h"

#include <algorithm>
#include <utility>

#include "serving/snapshots.h"

namespace sluice {

ModelCatalog::ModelCatalog(CatalogOptions options, FileSystem& files, Clock& clock,
                           VersionEvents& events)
    : options_(std::move(options)), files_(files), clock_(clock), events_(events) {}

Result<std::map<std::string, fs::path>> ModelCatalog::look() const {
  std::map<std::string, fs::path> found;
  const fs::path models = options_.where / "models";
  if (files_.exists(models)) {
    SLUICE_ASSIGN(const std::vector<std::string> names, files_.list(models));
    for (const std::string& name : names) {
      const fs::path snapshots = models / name / "snapshots";
      if (files_.exists(snapshots)) found[name] = snapshots;
    }
    return found;
  }
  const auto folder = find_snapshots(files_, options_.where, std::nullopt);
  // A usage error says that there is none yet.
  if (!folder && folder.error().kind != ErrorKind::usage) return folder.error();
  if (!folder) return found;
  const fs::path path = fs::absolute(*folder).lexically_normal();
  const bool is_in_models_folder = path.filename() == "snapshots" && options_.model.empty();
  const std::string name = is_in_models_folder      ? path.parent_path().filename().string()
                           : options_.model.empty() ? path.filename().string()
                                                    : options_.model;
  found[name.empty() ? "model" : name] = *folder;
  return found;
}

void ModelCatalog::poll() {
  const auto found = look();
  const std::string why = found ? "" : found.error().message;
  if (why != std::exchange(look_error_, why) && !found) events_.on_look_error(why);
  if (found) {
    for (const auto& [name, folder] : *found) add(name, folder);
  }
  for (const std::string& name : names()) find(name)->poll();
}

void ModelCatalog::add(const std::string& name, const fs::path& folder) {
  const std::scoped_lock lock(mutex_);
  std::unique_ptr<ModelVersions>& model = models_[name];
  if (model != nullptr) return;
  VersionOptions options{name, folder, options_.alias, options_.keep};
  model = std::make_unique<ModelVersions>(std::move(options), files_, clock_, events_);
}

ModelVersions* ModelCatalog::find(const std::string& name) const {
  const std::scoped_lock lock(mutex_);
  const auto found = models_.find(name);
  return found == models_.end() ? nullptr : found->second.get();
}

std::vector<std::string> ModelCatalog::names() const {
  const std::scoped_lock lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, model] : models_) names.push_back(name);
  return names;
}

bool ModelCatalog::is_ready() const {
  const std::scoped_lock lock(mutex_);
  return !models_.empty() && std::all_of(models_.begin(), models_.end(), [](const auto& entry) {
    return entry.second->current() != nullptr;
  });
}

}  // namespace sluice
