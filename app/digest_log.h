// digests.jsonl of a data folder: which digests came out at which sequence, of each of its models.
// What comes out again, after a restart, must be the same: the promise checks itself.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "base/file.h"
#include "base/hash.h"
#include "base/result.h"

namespace sluice {

struct ModelAt {
  std::string model;  // its name
  std::uint64_t sequence = 0;
  Digest samples_digest;
  Digest model_digest;
};

// Any thread may add: models that are compared share one.
class DigestLog {
 public:
  // Reads what is there. An error where a line is none of ours. `files` outlives it.
  static Result<std::unique_ptr<DigestLog>> open(FileSystem& files,
                                                 const std::filesystem::path& data_dir);

  // The line is on disk when this returns; where it was there before, its digests must be these.
  // After a write that failed nothing more is written.
  Status add(const char* kind, const ModelAt& at);

 private:
  DigestLog(FileSystem& files, std::filesystem::path data_dir);
  Status load();
  Status append(const std::string& line);

  FileSystem& files_;
  const std::filesystem::path data_dir_;
  const std::filesystem::path path_;
  std::mutex mutex_;                                                    // guards what follows
  std::map<std::pair<std::string, std::uint64_t>, std::string> lines_;  // by model and sequence
  Status outcome_;
};

}  // namespace sluice
