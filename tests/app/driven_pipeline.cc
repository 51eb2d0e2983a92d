#include "tests/app/driven_pipeline.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

#include "app/report.h"
#include "base/bytes.h"
#include "base/check.h"
#include "store/published_folder.h"

namespace sluice {

std::string read_bytes(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << in.rdbuf();
  return bytes.str();
}

// ---- what can fail

class FailingFileSystem::File final : public WritableFile {
 public:
  File(FailingFileSystem& owner, std::unique_ptr<WritableFile> file)
      : owner_(owner), file_(std::move(file)) {}
  Status append(std::string_view bytes) override {
    const Status status = owner_.operation();
    SLUICE_TRY(file_->append(status ? bytes : bytes.substr(0, bytes.size() / 2)));
    return status;
  }
  Status sync() override { return owner_.operation(); }
  Status close() override {
    SLUICE_TRY(owner_.operation());
    return file_->close();
  }

 private:
  FailingFileSystem& owner_;
  std::unique_ptr<WritableFile> file_;
};

Status FailingFileSystem::operation() {
  const std::lock_guard lock(mutex_);
  if (left_ == 0) return stop_error("the disk is full (injected)");
  --left_;
  return {};
}

Result<std::unique_ptr<WritableFile>> FailingFileSystem::create(const fs::path& path) {
  SLUICE_TRY(operation());
  SLUICE_ASSIGN(auto file, files_.create(path));
  return std::unique_ptr<WritableFile>(std::make_unique<File>(*this, std::move(file)));
}

Result<std::unique_ptr<WritableFile>> FailingFileSystem::append_to(const fs::path& path) {
  SLUICE_TRY(operation());
  SLUICE_ASSIGN(auto file, files_.append_to(path));
  return std::unique_ptr<WritableFile>(std::make_unique<File>(*this, std::move(file)));
}

Status FailingFileSystem::truncate(const fs::path& path, std::uint64_t size) {
  SLUICE_TRY(operation());
  return files_.truncate(path, size);
}

Status FailingFileSystem::create_directories(const fs::path& path) {
  SLUICE_TRY(operation());
  return files_.create_directories(path);
}

Status FailingFileSystem::rename(const fs::path& from, const fs::path& to) {
  SLUICE_TRY(operation());
  return files_.rename(from, to);
}

Status FailingFileSystem::remove_all(const fs::path& path) {
  SLUICE_TRY(operation());
  return files_.remove_all(path);
}

Status FailingFileSystem::sync_directory(const fs::path& directory) {
  SLUICE_TRY(operation());
  const std::lock_guard lock(mutex_);
  synced_folders.insert(directory.string());
  return {};
}

Status FailingStore::commit(const WriteBatch& batch) {
  if (left_ == 0) return stop_error("the store fails (injected)");
  --left_;
  return store_->commit(batch);
}

// ---- the pipeline

Status DrivenPipeline::start() {
  running_ = config;
  if (source_ == nullptr) {
    SLUICE_ASSIGN(opened_, open_file_source(running_));
  }
  Source& source = source_ != nullptr ? *source_ : *opened_;
  SLUICE_TRY(files.create_directories(data_dir()));
  handoff_ = std::make_unique<Handoff>();
  workers_ = std::make_unique<Workers>(threads);
  SLUICE_ASSIGN(join_, JoinStage::open(running_, policy_, source, store, clock, *handoff_));
  LearningOptions options{data_dir(), folder_ / "predictions.csv", "{}"};
  options.rows_at_once = rows_at_once;
  if (writes_beside) options.make_background = make_background_thread;
  SLUICE_ASSIGN(learning_, Learning::open(running_, options, store, files, clock, *workers_));
  handoff_->set_trained(learning_->trained_sequence(), learning_->first_needed());
  return {};
}

void DrivenPipeline::crash() {
  learning_.reset();
  join_.reset();
  workers_.reset();
  handoff_.reset();
  opened_.reset();
  files.heal();
  store.heal();
}

Result<bool> DrivenPipeline::join() {
  return join_->step();
}

Result<bool> DrivenPipeline::learn(std::size_t max_samples) {
  SLUICE_ASSIGN(const bool more, learning_->learn(handoff_->committed(), max_samples));
  handoff_->set_trained(learning_->trained_sequence(), learning_->first_needed());
  return more;
}

Status DrivenPipeline::finish() {
  for (bool more = true; more;) {
    SLUICE_ASSIGN(more, join());
    for (bool untrained = true; untrained;) {
      SLUICE_ASSIGN(untrained, learn(1'000));
    }
  }
  return join_->is_closed() ? learning_->finish() : Status();
}

Status DrivenPipeline::stop() {
  SLUICE_TRY(join_->stop());
  return learning_->stop();
}

std::vector<std::string> DrivenPipeline::folders(const std::string& kind) const {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(model_dir() / kind)) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

ReplayOutcome DrivenPipeline::outcome() {
  ReplayOutcome outcome;
  auto report = make_report(*join_, *learning_, {}, true);
  SLUICE_CHECK(report.has_value());
  outcome.report = *std::move(report);
  outcome.report.erase("throughput");
  outcome.predictions = read_bytes(folder_ / "predictions.csv");
  outcome.scores = read_bytes(model_dir() / "scores.bin");
  std::istringstream lines(read_bytes(data_dir() / "digests.jsonl"));
  for (std::string line; std::getline(lines, line);) outcome.digest_lines.insert(line);
  for (const std::string& name : folders("snapshots")) {
    const fs::path path = model_dir() / "snapshots" / name;
    outcome.snapshots[name] =
        read_bytes(path / "manifest.json") + read_bytes(path / "weights.safetensors");
  }
  outcome.latest = read_bytes(model_dir() / "snapshots" / kLatest);
  const Status scanned =
      store.scan(Space::dead_letters, {}, {}, [&](std::string_view, std::string_view value) {
        ByteReader in(value);
        in.svarint();  // the wall time
        outcome.dead_letters.emplace(value.substr(value.size() - in.remaining()));
        return true;
      });
  SLUICE_CHECK(scanned.has_value());
  return outcome;
}

std::string ReplayOutcome::difference(const ReplayOutcome& other) const {
  std::string names;
  if (report != other.report) {
    names += "report: " + report.dump() + "\n for " + other.report.dump() + "\n";
  }
  if (predictions != other.predictions) names += "predictions ";
  if (scores != other.scores) names += "scores ";
  if (digest_lines != other.digest_lines) names += "digests.jsonl ";
  if (snapshots != other.snapshots) names += "snapshots ";
  if (latest != other.latest) names += "LATEST ";
  if (dead_letters != other.dead_letters) names += "dead letters ";
  return names;
}

}  // namespace sluice
