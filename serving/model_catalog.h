// The models of one place, by name: of a data folder all that it holds, those that appear later
// too; else the one folder of snapshots.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "base/time.h"
#include "serving/model_versions.h"

namespace sluice {

struct CatalogOptions {
  std::filesystem::path where;  // a data folder, a model's, or one of snapshots
  std::string model;            // the name of a folder of snapshots that lies in no model's folder
  std::string alias;
  std::size_t keep = 2;  // versions of a model in memory
};

class ModelCatalog {
 public:
  // The references outlive it.
  ModelCatalog(CatalogOptions options, FileSystem& files, Clock& clock, VersionEvents& events);

  // Looks for new models, and lets each look for a new version. One thread.
  void poll();

  // Any thread; a model lives as long as the catalog. Null where there is none of the name.
  ModelVersions* find(const std::string& name) const;
  std::vector<std::string> names() const;
  // There is a model, and each has a version.
  bool is_ready() const;

 private:
  Result<std::map<std::string, std::filesystem::path>> look() const;
  void add(const std::string& name, const std::filesystem::path& folder);

  CatalogOptions options_;
  FileSystem& files_;
  Clock& clock_;
  VersionEvents& events_;
  std::string look_error_;    // the last one; empty where there is none
  mutable std::mutex mutex_;  // guards the map; what it points to stays
  std::map<std::string, std::unique_ptr<ModelVersions>> models_;
};

}  // namespace sluice
