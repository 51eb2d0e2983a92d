// Both stages of a replay driven by hand on one thread, with a process that can end at any point:
// between two calls, at a write of a file, at a commit. The store and the folder outlive it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "app/learning.h"
#include "app/pipeline.h"
#include "base/file.h"
#include "base/lanes.h"
#include "ingest/source.h"
#include "store/key_value.h"
#include "tests/ingest/scripted_source.h"

namespace sluice {

// Thread-safe. Writes fail from one on, which writes half of its bytes, until the disk is healed.
// Nothing is synced: only the process ends here, and what it wrote stays.
class FailingFileSystem final : public FileSystem {
 public:
  void fail_from(std::uint64_t operation) {
    const std::lock_guard lock(mutex_);
    left_ = operation;
  }
  void heal() { fail_from(~std::uint64_t{0}); }

  Result<std::unique_ptr<WritableFile>> create(const fs::path& path) override;
  Result<std::unique_ptr<WritableFile>> append_to(const fs::path& path) override;
  Result<std::string> read(const fs::path& path) override { return files_.read(path); }
  Result<std::string> read_range(const fs::path& path, std::uint64_t offset,
                                 std::uint64_t size) override {
    return files_.read_range(path, offset, size);
  }
  Result<std::uint64_t> size(const fs::path& path) override { return files_.size(path); }
  Status truncate(const fs::path& path, std::uint64_t size) override;
  bool exists(const fs::path& path) override { return files_.exists(path); }
  Status create_directories(const fs::path& path) override;
  Status rename(const fs::path& from, const fs::path& to) override;
  Status remove_all(const fs::path& path) override;
  Result<std::vector<std::string>> list(const fs::path& directory) override {
    return files_.list(directory);
  }
  Status sync_directory(const fs::path& directory) override;

  // Of folders since the beginning, and of files since they were opened.
  std::set<std::string> synced_folders;

 private:
  class File;
  Status operation();
  RealFileSystem files_;
  std::mutex mutex_;  // guards what follows, and synced_folders
  std::uint64_t left_ = ~std::uint64_t{0};
};

// Commits fail from one on, until it is healed.
class FailingStore final : public KeyValueStore {
 public:
  void fail_from(std::uint64_t commit) { left_ = commit; }
  void heal() { left_ = ~std::uint64_t{0}; }

  Status commit(const WriteBatch& batch) override;
  Result<std::optional<std::string>> get(Space space, std::string_view key) override {
    return store_->get(space, key);
  }
  Status scan(Space space, std::string_view begin, std::string_view end,
              const std::function<bool(std::string_view, std::string_view)>& visit) override {
    return store_->scan(space, begin, end, visit);
  }
  std::uint64_t disk_bytes() override { return store_->disk_bytes(); }

 private:
  std::unique_ptr<KeyValueStore> store_ = make_memory_store();
  std::uint64_t left_ = ~std::uint64_t{0};
};

// All that a finished replay leaves for others, but what depends on the run.
struct ReplayOutcome {
  nlohmann::ordered_json report;  // without throughput
  std::string predictions;
  std::string scores;
  std::set<std::string> digest_lines;
  std::map<std::string, std::string> snapshots;  // folder -> manifest and weights
  std::string latest;
  std::multiset<std::string> dead_letters;  // without their wall time

  // The names of what differs.
  std::string difference(const ReplayOutcome& other) const;
};

class DrivenPipeline {
 public:
  // `source`: none opens the config's files at each start.
  DrivenPipeline(Config first_config, std::filesystem::path folder, const EndPolicy& policy,
                 Source* source = nullptr)
      : config(std::move(first_config)),
        folder_(std::move(folder)),
        policy_(policy),
        source_(source) {}

  Status start();
  // The process ends; disk and store work again.
  void crash();
  bool is_running() const { return learning_ != nullptr; }

  // One step of the joining stage; false at the end of the logs.
  Result<bool> join();
  // One of the learning stage, of about `max_samples`; true where more is there.
  Result<bool> learn(std::size_t max_samples);
  // Both to the end, and the last partial batch.
  Status finish();
  // As after SIGTERM.
  Status stop();

  JoinStage& join_stage() { return *join_; }
  Learning& learning() { return *learning_; }
  ReplayOutcome outcome();

  std::filesystem::path data_dir() const { return folder_ / "data"; }
  std::filesystem::path model_dir() const { return data_dir() / "models" / config.model.name; }
  std::vector<std::string> folders(const std::string& kind) const;  // of checkpoints or snapshots

  Config config;  // changes take effect at the next start
  FailingFileSystem files;
  FailingStore store;
  ManualClock clock;
  std::size_t threads = 1;
  std::size_t rows_at_once = 32'768;  // of a snapshot, between two batches
  bool writes_beside = false;         // snapshots, on a thread of their own

 private:
  std::filesystem::path folder_;
  EndPolicy policy_;
  Source* source_;
  Config running_;
  std::unique_ptr<Source> opened_;
  std::unique_ptr<Handoff> handoff_;
  std::unique_ptr<Workers> workers_;
  std::unique_ptr<JoinStage> join_;
  std::unique_ptr<Learning> learning_;
};

std::string read_bytes(const std::filesystem::path& path);

}  // namespace sluice
