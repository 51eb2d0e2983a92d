// What a table's format says: how its rows become impressions, clicks and purchases, and which
// features they have. docs/import.md lists the formats.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/csv_reader.h"
#include "app/import_options.h"
#include "base/file.h"
#include "base/result.h"
#include "base/time.h"

namespace sluice {

// One row as it was read. Ids are texts as in the table, empty where it has none.
struct ImportRow {
  bool clicked = false;
  bool converted = false;
  std::optional<TimeMs> time, click_time, conversion_time;
  std::optional<DurationMs> conversion_delay;  // from the click
  std::string user_id, item_id;
  std::string features;  // a JSON object
};

// Why a row is refused.
struct RowProblem {
  const char* reason = nullptr;  // one word; rows are counted by it
  std::size_t column = 0;        // from 1; 0: the whole row
  std::string detail;
};

// A line of [features] in the config.
struct ImportFeature {
  std::string name;
  std::string path;
  std::string type;  // TOML: type and what belongs to it
};

class TableFormat {
 public:
  virtual ~TableFormat() = default;
  virtual CsvDialect dialect() const = 0;
  virtual UnclickedConversion unclicked_conversion() const = 0;
  virtual bool needs_header() const = 0;
  // Called with the first row of each file that is without a problem of its own; true where that row
  // is a header, which holds no data.
  virtual Result<bool> begin_file(const CsvRow& first, const std::string& file) = 0;
  // Overwrites `out`. The row is without a problem of its own, and UTF-8. An error stops the
  // import.
  virtual Result<std::optional<RowProblem>> read(const CsvRow& row, ImportRow& out) = 0;
  // Those of the rows read so far.
  virtual std::vector<ImportFeature> features() const = 0;
  // Called after the last row; a usage error where --features asks for what no row had, or where no
  // feature is left. Formats whose first row tells that say so in begin_file().
  virtual Status check_features() const { return {}; }
};

// A table whose columns have one value each: all formats but aliccp.
Result<std::unique_ptr<TableFormat>> make_column_format(const ImportOptions& options);

// Told of every bad row of a table: of which file, and where.
using OnBadRow =
    std::function<void(const std::string& file, std::uint64_t line, const RowProblem& problem)>;

// Reads the common features' tables first, into a file in `scratch` that is there as long as the
// format is used. `files` outlives the format.
Result<std::unique_ptr<TableFormat>> make_aliccp_format(const ImportOptions& options,
                                                        FileSystem& files, const fs::path& scratch,
                                                        const OnBadRow& on_bad_row);

// "-": standard input, uncompressed; else by the name's ending: .gz, .zst, or plain.
Result<std::unique_ptr<ByteStream>> open_table(const std::string& file);

// What can be said of a row before its format looks at it.
std::optional<RowProblem> row_problem(const CsvRow& row);

}  // namespace sluice
