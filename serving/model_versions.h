// The versions of one model that are served: the current one, which LATEST or an alias names, and
// a few beside it.
//
// A version is a snapshot, named by its sequence number, read and checked whole before anything is
// scored by it. So a folder that is still being copied from elsewhere, or is damaged, is never
// served: the one before stays current, and the new one is tried again, later and later up to
// kMaxRetryMs. Requests hold the version that they began with; nothing waits for a swap.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/time.h"
#include "serving/http_message.h"
#include "serving/instance.h"
#include "serving/scorer.h"

namespace sluice {

struct ModelVersion {
  std::uint64_t sequence = 0;
  std::optional<TimeMs> event_time;  // up to which it has learned, as its manifest says
  std::shared_ptr<const Scorer> scorer;
  InputForm form;
};
using ModelVersionPtr = std::shared_ptr<const ModelVersion>;

// What happens to a model's versions, for metrics and log lines. Called on the thread at work.
class VersionEvents {
 public:
  virtual ~VersionEvents() = default;
  // The place where models lie cannot be looked at; once for each new reason.
  virtual void on_look_error(const std::string& why) = 0;
  virtual void on_current(const std::string& model, const ModelVersion& version) = 0;
  virtual void on_load_error(const std::string& model, const std::string& why) = 0;
  // How many of the snapshots on disk a gate has kept from becoming LATEST; at each look.
  virtual void on_held(const std::string& model, std::size_t snapshots) = 0;
};

struct VersionOptions {
  std::string model;
  std::filesystem::path folder;  // of the snapshots
  std::string alias;             // empty: LATEST
  // In memory, the current one among them; at least 1. There is always a place beside it for one
  // that was asked for by its number.
  std::size_t keep = 2;
};

class ModelVersions {
 public:
  static constexpr DurationMs kMinRetryMs = 200;
  static constexpr DurationMs kMaxRetryMs = 5'000;

  // The references outlive it.
  ModelVersions(VersionOptions options, FileSystem& files, Clock& clock, VersionEvents& events);

  const std::string& model() const { return options_.model; }

  // Looks where LATEST, or the alias, points to, and loads what is new. One thread: the one that
  // polls. Returns whether another version is current than before.
  bool poll();

  // Any thread. None before the first one is loaded.
  ModelVersionPtr current() const;
  // The one with this number: from memory, else loaded now, on the caller's thread. 404 where there
  // is none; 503 while another one is being loaded so, or where it cannot be read: then it is not
  // read again before the time that poll() would wait too.
  Answer<ModelVersionPtr> find(std::uint64_t sequence);
  // The one that an alias names. 404 where there is no such alias, 503 where it cannot be read.
  Answer<ModelVersionPtr> find_alias(const std::string& alias);
  // All that are on disk, ascending.
  std::vector<std::uint64_t> available() const;

 private:
  Result<std::optional<std::uint64_t>> wanted() const;
  Result<ModelVersionPtr> load(std::uint64_t sequence, const ModelVersionPtr& near);
  Result<ModelVersionPtr> read(std::uint64_t sequence, const std::filesystem::path& folder,
                               const ModelVersionPtr& near);
  ModelVersionPtr in_memory(std::uint64_t sequence);
  void keep(ModelVersionPtr version, bool is_current);
  void failed(std::uint64_t sequence, const std::string& why);
  void mended(std::uint64_t sequence);
  bool is_known_bad(std::uint64_t sequence) const;
  void load_older(std::uint64_t before);

  VersionOptions options_;
  FileSystem& files_;
  Clock& clock_;
  VersionEvents& events_;

  // What could not be loaded, and when it is tried again.
  struct Failure {
    std::string why;
    DurationMs retry_at = 0;
    DurationMs retry_after = 0;
  };
  static constexpr std::size_t kMaxFailures = 64;

  std::mutex load_on_demand_;  // held by the one request that loads
  mutable std::mutex mutex_;   // guards what follows
  ModelVersionPtr current_;
  std::vector<ModelVersionPtr> others_;  // the last used first
  // By sequence number; 0: what names the versions, LATEST or an alias.
  std::map<std::uint64_t, Failure> failures_;
};

}  // namespace sluice
