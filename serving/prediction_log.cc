#include "serving/prediction_log.h"

#include "base/json_text.h"

namespace sluice {
namespace {

void append_line(std::string& out, const std::string& model, std::uint64_t version,
                 const Score& score) {
  out += R"({"id":)";
  append_json_text(out, score.impression_id);
  out += R"(,"model":)";
  append_json_text(out, model);
  out += R"(,"version":)" + std::to_string(version) + R"(,"pctr":)";
  append_json_number(out, score.prediction.ctr.yes);
  out += R"(,"pcvr":)";
  append_json_number(out, score.prediction.cvr.yes);
  out += R"(,"pctcvr":)";
  append_json_number(out, score.prediction.ctcvr.yes);
  out += "}\n";
}

}  // namespace

PredictionLog::PredictionLog(FileSystem& files, fs::path path, std::uint64_t max_bytes)
    : files_(files), path_(std::move(path)), max_bytes_(max_bytes) {}

Result<std::unique_ptr<PredictionLog>> PredictionLog::open(FileSystem& files, const fs::path& path,
                                                           std::uint64_t max_bytes) {
  std::unique_ptr<PredictionLog> log(new PredictionLog(files, path, max_bytes));
  SLUICE_TRY(log->begin());
  log->writer_ = std::thread([raw = log.get()] { raw->run(); });
  return log;
}

PredictionLog::~PredictionLog() {
  {
    const std::scoped_lock lock(mutex_);
    is_ending_ = true;
  }
  wakes_.notify_one();
  if (writer_.joinable()) writer_.join();
}

// A line that a crash has torn is ended, so that the next one begins a line of its own.
Status PredictionLog::begin() {
  size_ = 0;
  bool is_torn = false;
  if (files_.exists(path_)) {
    SLUICE_ASSIGN(size_, files_.size(path_));
    if (size_ > 0) {
      SLUICE_ASSIGN(const std::string last, files_.read_range(path_, size_ - 1, 1));
      is_torn = !last.ends_with('\n');
    }
  }
  SLUICE_ASSIGN(file_, files_.append_to(path_));
  if (is_torn) SLUICE_TRY(write("\n"));
  return {};
}

Status PredictionLog::write(const std::string& lines) {
  if (size_ > 0 && size_ + lines.size() > max_bytes_) {
    SLUICE_TRY(file_->close());
    fs::path old = path_;
    old += ".1";
    SLUICE_TRY(files_.rename(path_, old));
    SLUICE_ASSIGN(file_, files_.create(path_));
    size_ = 0;
  }
  SLUICE_TRY(file_->append(lines));
  size_ += lines.size();
  return {};
}

bool PredictionLog::add(const std::string& model, std::uint64_t version,
                        std::span<const Score> scores) {
  std::string lines;
  for (const Score& score : scores) append_line(lines, model, version, score);
  {
    const std::scoped_lock lock(mutex_);
    if (error_ || queued_.size() + lines.size() > kMaxQueuedBytes) return false;
    queued_ += lines;
  }
  wakes_.notify_one();
  return true;
}

std::optional<Error> PredictionLog::error() const {
  const std::scoped_lock lock(mutex_);
  return error_;
}

void PredictionLog::run() {
  std::string lines;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      wakes_.wait(lock, [this] { return is_ending_ || !queued_.empty(); });
      if (queued_.empty()) return;
      lines.clear();
      std::swap(lines, queued_);
    }
    if (const Status written = write(lines); !written) {
      const std::scoped_lock lock(mutex_);
      error_ = written.error();
      queued_.clear();
      return;
    }
  }
}

}  // namespace sluice
