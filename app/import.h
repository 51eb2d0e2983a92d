// `sluice import` without its command line: a labelled table as a folder of event logs with the
// config that replays them. docs/import.md describes the formats and what is in the folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "app/import_logs.h"
#include "app/import_options.h"
#include "app/import_table.h"
#include "base/file.h"
#include "base/result.h"

namespace sluice {

struct ImportSummary {
  std::uint64_t rows = 0;                         // of data, read
  std::map<std::string, std::uint64_t> bad_rows;  // refused, by reason
  std::vector<std::string> first_bad_rows;        // the first ten: where and why, a line each
  ImportCounts counts;
};

// Called now and then with how many rows were read, and the bytes consumed of the present table.
using ImportProgress =
    std::function<void(std::uint64_t rows, const std::string& table, std::uint64_t bytes)>;

// Writes into `folder`, which must be empty or not there; aside first, so that after an error, also
// that of too many bad rows, it holds nothing. expected.json comes last.
// `summary` is filled as far as it came, also where an error is returned. The same tables and
// options give the same bytes.
Status import_table(const ImportOptions& options, const std::filesystem::path& folder,
                    FileSystem& files, const ImportProgress& progress, ImportSummary& summary);

// sluice.toml: a config that replays the logs beside it.
std::string import_config(const ImportOptions& options, const ImportLogs& logs,
                          const std::vector<ImportFeature>& features);

}  // namespace sluice
