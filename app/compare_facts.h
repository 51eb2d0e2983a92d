// What a comparison knows of each sample beside the models' scores: whose it is, and when. Written
// once for all models, by the learning thread, as the samples are read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>

#include "base/file.h"
#include "base/result.h"
#include "base/time.h"
#include "joiner/sample.h"

namespace sluice {

struct SampleFacts {
  std::uint64_t user = 0;        // hash64 of the user id; of the impression id where there is none
  std::uint64_t impression = 0;  // hash64 of the impression id
  TimeMs time = 0;               // event time of the sample
  friend bool operator==(const SampleFacts&, const SampleFacts&) = default;
};

SampleFacts facts_of(const Sample& sample);

// One record of 24 bytes a sample, little-endian: u64 user, u64 impression, i64 time. Record n is
// that of sequence n + 1.
class FactsLog {
 public:
  // Cut back to `trained_sequence` records, of which all are on disk (sync()). Where fewer are
  // there, next_sequence() says from where on samples are missing.
  static Result<std::unique_ptr<FactsLog>> open(FileSystem& files,
                                                const std::filesystem::path& path,
                                                std::uint64_t trained_sequence);
  std::uint64_t next_sequence() const { return next_sequence_; }
  // Those from next_sequence() on; it must be among them where they do not all lie before it.
  Status add(std::span<const Sample> samples);
  // What was added survives a crash once this has returned.
  Status sync();

 private:
  FactsLog(std::unique_ptr<WritableFile> file, std::uint64_t next_sequence)
      : file_(std::move(file)), next_sequence_(next_sequence) {}
  std::unique_ptr<WritableFile> file_;
  std::uint64_t next_sequence_;
};

// All of them, in order. An error where there are not `samples`.
Status read_facts(FileSystem& files, const std::filesystem::path& path, std::uint64_t samples,
                  const std::function<void(const SampleFacts&)>& visit);

}  // namespace sluice
