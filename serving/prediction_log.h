// A file with a JSON line a row that was served, for `sluice score --compare`:
//
//   {"id": "i7", "model": "m", "version": 1200, "pctr": 0.041, "pcvr": 0.015, "pctcvr": 0.000615}
//
// A request never waits for it: lines go through a bounded queue to a thread that writes, and what
// finds the queue full is dropped and counted. The file has a largest size, then it becomes FILE.1
// in the place of the one before. After an error of the file nothing more is written; the error is
// kept.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>

#include "base/file.h"
#include "base/result.h"
#include "serving/scorer.h"

namespace sluice {

class PredictionLog {
 public:
  static constexpr std::size_t kMaxQueuedBytes = 16 << 20;

  // Appends to the file where it is there already. `files` outlives it.
  static Result<std::unique_ptr<PredictionLog>> open(FileSystem& files,
                                                     const std::filesystem::path& path,
                                                     std::uint64_t max_bytes);
  // Writes what is queued.
  ~PredictionLog();

  // Any thread. False where the lines were dropped.
  bool add(const std::string& model, std::uint64_t version, std::span<const Score> scores);
  // The first one of the file, if any.
  std::optional<Error> error() const;

 private:
  PredictionLog(FileSystem& files, std::filesystem::path path, std::uint64_t max_bytes);
  Status begin();
  Status write(const std::string& lines);
  void run();

  FileSystem& files_;
  std::filesystem::path path_;
  std::uint64_t max_bytes_;
  std::unique_ptr<WritableFile> file_;  // of the writing thread, as the next one
  std::uint64_t size_ = 0;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wakes_;
  std::string queued_;
  bool is_ending_ = false;
  std::optional<Error> error_;
  std::thread writer_;
};

}  // namespace sluice
