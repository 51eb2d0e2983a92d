#include "app/compare_facts.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"

namespace sluice {
namespace {

constexpr std::uint64_t kRecordBytes = 24;
constexpr std::uint64_t kReadBytes = kRecordBytes << 15;  // whole records

}  // namespace

SampleFacts facts_of(const Sample& sample) {
  const std::uint64_t impression = hash64(sample.impression_id);
  const std::uint64_t user = sample.user_id.empty() ? impression : hash64(sample.user_id);
  return {user, impression, sample.time};
}

Result<std::unique_ptr<FactsLog>> FactsLog::open(FileSystem& files, const fs::path& path,
                                                 std::uint64_t trained_sequence) {
  const bool is_new = !files.exists(path);
  std::uint64_t size = 0;
  if (!is_new) {
    SLUICE_ASSIGN(size, files.size(path));
  }
  const std::uint64_t records = std::min(size / kRecordBytes, trained_sequence);
  if (size != records * kRecordBytes) SLUICE_TRY(files.truncate(path, records * kRecordBytes));
  SLUICE_ASSIGN(auto file, files.append_to(path));
  if (is_new) SLUICE_TRY(files.sync_directory(path.parent_path()));
  return std::unique_ptr<FactsLog>(new FactsLog(std::move(file), records + 1));
}

Status FactsLog::add(std::span<const Sample> samples) {
  std::string records;
  ByteWriter bytes(records);
  for (const Sample& sample : samples) {
    if (sample.sequence < next_sequence_) continue;
    SLUICE_CHECK(sample.sequence == next_sequence_);
    const SampleFacts facts = facts_of(sample);
    bytes.u64(facts.user);
    bytes.u64(facts.impression);
    bytes.u64(static_cast<std::uint64_t>(facts.time));
    ++next_sequence_;
  }
  return records.empty() ? Status() : file_->append(records);
}

Status FactsLog::sync() {
  return file_->sync();
}

Status read_facts(FileSystem& files, const fs::path& path, std::uint64_t samples,
                  const std::function<void(const SampleFacts&)>& visit) {
  std::uint64_t read = 0;
  while (read < samples) {
    SLUICE_ASSIGN(const std::string records,
                  files.read_range(path, read * kRecordBytes, kReadBytes));
    if (records.size() < kRecordBytes) {
      return stop_error(path.string() + " has " + std::to_string(read) + " records for " +
                        std::to_string(samples) +
                        " samples; the data folder is damaged: compare "
                        "into a new one");
    }
    ByteReader bytes(records);
    for (; bytes.remaining() >= kRecordBytes && read < samples; ++read) {
      SampleFacts facts;
      facts.user = bytes.u64();
      facts.impression = bytes.u64();
      facts.time = static_cast<TimeMs>(bytes.u64());
      visit(facts);
    }
  }
  return {};
}

}  // namespace sluice
