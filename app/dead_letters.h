// Reading the dead letters of a data folder, also while a service uses it, and writing them as logs
// that can be replayed.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "app/record_repair.h"
#include "base/file.h"
#include "base/result.h"
#include "ingest/dead_letter.h"
#include "joiner/join.h"
#include "store/key_value.h"

namespace sluice {

// Which letters; what is not set allows all.
struct DeadLetterFilter {
  std::set<Refusal> reasons;
  std::set<Stream> streams;
  std::optional<TimeMs> since;  // wall time
  std::string detail;           // stands in the detail
  bool allows(const DeadLetter& letter) const;
};

// A data folder's dead letters as of its last commit. One thread.
class DeadLetterFolder {
 public:
  static Result<DeadLetterFolder> open(const std::filesystem::path& data_dir);

  const JoinProgress& progress() const { return progress_; }
  std::uint32_t partitions() const { return static_cast<std::uint32_t>(progress_.shards.size()); }

  // All that the filter allows, oldest first, until `visit` returns false.
  Status read(const DeadLetterFilter& filter,
              const std::function<bool(DeadLetter letter)>& visit) const;
  Result<std::optional<DeadLetter>> find(std::uint64_t number) const;

 private:
  DeadLetterFolder() = default;
  std::unique_ptr<KeyValueStore> store_;
  JoinProgress progress_;
};

// How dead letters become logs.
struct DeadLetterExport {
  std::filesystem::path out;  // absent or empty
  DeadLetterFilter filter;
  Repair repair;
  // With a config: its topic names, and each record is judged as a replay would judge it.
  const Config* config = nullptr;
  // The whole logs of the config's source, each repaired record in its place, or where it would be
  // late there, before the first record that is later.
  bool merges = false;
};

struct DeadLetterExportSummary {
  std::uint64_t written = 0;   // letters that are in the logs
  std::uint64_t repaired = 0;  // of these, with an edit
  std::uint64_t moved = 0;     // of these, not in their old place
  std::uint64_t unrepairable = 0;
  std::uint64_t copied = 0;  // other records, of a merge
};

// Writes <out>/<topic>/<partition>.jsonl for every partition, origins.jsonl (one line a letter in
// the logs) and unrepairable.jsonl (one a letter that is no JSON object or would be malformed
// again). `clock` is the source's.
Result<DeadLetterExportSummary> export_dead_letters(const DeadLetterFolder& folder,
                                                    const DeadLetterExport& options,
                                                    FileSystem& files, Clock& clock);

// {"number", "wall_time", "stream", "partition", "position", "reason", "detail", "bytes"}, and
// where `with_record` the record as "text", or as "hex" where it is no UTF-8.
nlohmann::ordered_json dead_letter_json(const DeadLetter& letter, bool with_record);

}  // namespace sluice
