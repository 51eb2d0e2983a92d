#include "app/kill_points.h"

#include <charconv>
#include <csignal>
#include <cstdlib>
#include <utility>

#include "store/published_folder.h"

namespace sluice {
namespace {

// In the one way, of several, in which a path may be written; without a slash at its end.
fs::path plain(const fs::path& path) {
  const fs::path normal = fs::absolute(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

// `path` itself, or the file beside it from which it is replaced (write_atomically).
bool is_file(const fs::path& path, const fs::path& file) {
  fs::path aside = plain(file);
  aside += ".tmp";
  return path == plain(file) || path == aside;
}

fs::path folder_of(const fs::path& file) {
  return plain(file).parent_path();
}

std::string kind_in_model(const fs::path& rest) {
  if (rest.empty()) return "model";
  const std::string first = rest.begin()->string();
  if (first == "checkpoints") return "checkpoint";
  if (first == "snapshots") {
    if (rest.parent_path().filename() == kAliases) return "alias";
    const std::string name = rest.filename().string();
    return name == kLatest || name == std::string(kLatest) + ".tmp" ? "latest" : "snapshot";
  }
  if (first == "identity.txt" || first == "identity.txt.tmp") return "identity";
  if (first == "scores.bin") return "scores";
  return "unknown";
}

// A published folder is renamed in three ways.
std::string rename_step(const std::string& kind, const fs::path& from, const fs::path& to) {
  if (to.filename().string().ends_with(".removed.tmp")) return kind + ".unpublish";
  if (to.filename().string().ends_with(".damaged")) return kind + ".put_aside";
  if (from.filename().string().ends_with(".tmp")) return kind + ".rename";
  return "unknown.rename";
}

// Runs `operation` as a step.
template <class Operation>
auto pass(KillPoints& points, const std::string& step, Operation operation)
    -> decltype(operation()) {
  SLUICE_ASSIGN(const std::uint64_t passing, points.enter(step));
  auto outcome = operation();
  if (outcome) points.leave(step, passing);
  return outcome;
}

class SteppingFile final : public WritableFile {
 public:
  // `write`: what append() is called.
  SteppingFile(KillPoints& points, std::unique_ptr<WritableFile> file, std::string kind,
               const char* write)
      : points_(points),
        file_(std::move(file)),
        write_step_(kind + write),
        sync_step_(std::move(kind) + ".sync") {}

  Status append(std::string_view bytes) override {
    return pass(points_, write_step_, [&] { return file_->append(bytes); });
  }
  Status sync() override {
    return pass(points_, sync_step_, [&] { return file_->sync(); });
  }
  // Closing makes nothing durable.
  Status close() override { return file_->close(); }

 private:
  KillPoints& points_;
  const std::unique_ptr<WritableFile> file_;
  const std::string write_step_, sync_step_;
};

class SteppingFileSystem final : public FileSystem {
 public:
  SteppingFileSystem(KillPoints& points, FileSystem& files) : points_(points), files_(files) {}

  Result<std::unique_ptr<WritableFile>> create(const fs::path& path) override {
    return open(path, ".create", ".write", [&] { return files_.create(path); });
  }
  Result<std::unique_ptr<WritableFile>> append_to(const fs::path& path) override {
    return open(path, ".open", ".append", [&] { return files_.append_to(path); });
  }
  Result<std::string> read(const fs::path& path) override { return files_.read(path); }
  Result<std::string> read_range(const fs::path& path, std::uint64_t offset,
                                 std::uint64_t size) override {
    return files_.read_range(path, offset, size);
  }
  Result<std::uint64_t> size(const fs::path& path) override { return files_.size(path); }
  Status truncate(const fs::path& path, std::uint64_t size) override {
    return pass(points_, kind(path) + ".cut", [&] { return files_.truncate(path, size); });
  }
  bool exists(const fs::path& path) override { return files_.exists(path); }
  Status create_directories(const fs::path& path) override {
    return pass(points_, kind(path) + ".create_folder",
                [&] { return files_.create_directories(path); });
  }
  Status rename(const fs::path& from, const fs::path& to) override {
    return pass(points_, rename_step(kind(to), from, to), [&] { return files_.rename(from, to); });
  }
  Status remove_all(const fs::path& path) override {
    return pass(points_, kind(path) + ".remove", [&] { return files_.remove_all(path); });
  }
  Result<std::vector<std::string>> list(const fs::path& directory) override {
    return files_.list(directory);
  }
  Result<std::unique_ptr<FileLock>> lock(const fs::path& path) override {
    return files_.lock(path);
  }
  Status sync_directory(const fs::path& directory) override {
    return pass(points_, kind(directory) + ".folder_sync",
                [&] { return files_.sync_directory(directory); });
  }

 private:
  template <class Operation>
  Result<std::unique_ptr<WritableFile>> open(const fs::path& path, const char* step,
                                             const char* write, Operation operation) {
    const std::string name = kind(path);
    SLUICE_ASSIGN(auto file, pass(points_, name + step, operation));
    return std::unique_ptr<WritableFile>(
        std::make_unique<SteppingFile>(points_, std::move(file), name, write));
  }
  std::string kind(const fs::path& path) const { return durable_kind(points_.paths(), path); }

  KillPoints& points_;
  FileSystem& files_;
};

class SteppingStore final : public KeyValueStore {
 public:
  SteppingStore(KillPoints& points, std::unique_ptr<KeyValueStore> store)
      : points_(points), store_(std::move(store)) {}

  Status commit(const WriteBatch& batch) override {
    return pass(points_, "store.commit", [&] { return store_->commit(batch); });
  }
  Result<std::optional<std::string>> get(Space space, std::string_view key) override {
    return store_->get(space, key);
  }
  Status scan(Space space, std::string_view begin, std::string_view end,
              const std::function<bool(std::string_view, std::string_view)>& visit) override {
    return store_->scan(space, begin, end, visit);
  }
  std::uint64_t disk_bytes() override { return store_->disk_bytes(); }

 private:
  KillPoints& points_;
  const std::unique_ptr<KeyValueStore> store_;
};

std::optional<std::string> variable(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? std::nullopt : std::optional<std::string>(text);
}

}  // namespace

std::string durable_kind(const DurablePaths& paths, const fs::path& given) {
  const fs::path path = plain(given);
  if (paths.report && is_file(path, *paths.report)) return "report";
  if (paths.predictions && is_file(path, *paths.predictions)) return "predictions";

  const fs::path rest = path.lexically_relative(plain(paths.data_dir));
  if (rest == ".") return "data";
  if (!rest.empty() && *rest.begin() != "..") {
    const std::string first = rest.begin()->string();
    if (first == "digests.jsonl" || first == "digests.jsonl.tmp") return "digests";
    if (first == "compared.bin") return "compared";
    if (first != "models") return "unknown";
    auto part = ++rest.begin();
    if (part == rest.end()) return "model";
    fs::path in_model;
    for (++part; part != rest.end(); ++part) in_model /= *part;
    return kind_in_model(in_model);
  }
  if (path == folder_of(paths.data_dir)) return "data";
  for (const auto& file : {paths.report, paths.predictions}) {
    if (file && path == folder_of(*file)) return "output";
  }
  return "unknown";
}

Result<KillPoints::Target> KillPoints::parse(const std::string& text) {
  const std::size_t last = text.rfind(':');
  const std::size_t middle =
      last == std::string::npos || last == 0 ? std::string::npos : text.rfind(':', last - 1);
  Target target;
  if (middle != std::string::npos) {
    target.step = text.substr(0, middle);
    const std::string side = text.substr(middle + 1, last - middle - 1);
    target.is_after = side == "after";
    const auto [end, error] =
        std::from_chars(text.data() + last + 1, text.data() + text.size(), target.passing);
    if (!target.step.empty() && (target.is_after || side == "before") && error == std::errc() &&
        end == text.data() + text.size() && target.passing > 0) {
      return target;
    }
  }
  return usage_error("SLUICE_KILL_AT: '" + text +
                     "' is not STEP:before|after:N, as in checkpoint.rename:after:3");
}

Result<std::unique_ptr<KillPoints>> KillPoints::from_environment(DurablePaths paths) {
  const auto target = variable("SLUICE_KILL_AT");
  const auto steps = variable("SLUICE_STEPS_FILE");
  if (!target && !steps) return std::unique_ptr<KillPoints>();
  std::unique_ptr<KillPoints> points(new KillPoints(std::move(paths)));
  if (target) {
    SLUICE_ASSIGN(points->target_, parse(*target));
  }
  if (steps) {
    auto file = points->real_files_.append_to(*steps);
    if (!file) return usage_error("SLUICE_STEPS_FILE: " + file.error().message);
    points->steps_ = *std::move(file);
  }
  return points;
}

std::unique_ptr<FileSystem> KillPoints::wrap(FileSystem& files) {
  return std::make_unique<SteppingFileSystem>(*this, files);
}

std::unique_ptr<KeyValueStore> KillPoints::wrap(std::unique_ptr<KeyValueStore> store) {
  return std::make_unique<SteppingStore>(*this, std::move(store));
}

Result<std::uint64_t> KillPoints::enter(const std::string& step) {
  const std::lock_guard lock(mutex_);
  const std::uint64_t passing = ++passings_[step];
  if (steps_ != nullptr) SLUICE_TRY(steps_->append(step + "\n"));
  kill_if(step, false, passing);
  return passing;
}

void KillPoints::leave(const std::string& step, std::uint64_t passing) {
  kill_if(step, true, passing);
}

void KillPoints::kill_if(const std::string& step, bool is_after, std::uint64_t passing) const {
  if (!target_ || target_->is_after != is_after || target_->step != step ||
      target_->passing != passing) {
    return;
  }
  std::raise(SIGKILL);
}

}  // namespace sluice
