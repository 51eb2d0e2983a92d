#include "app/import.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "base/utf8.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kAside = "importing";
constexpr std::string_view kExpected = "expected.json";
constexpr std::string_view kConfig = "sluice.toml";
constexpr std::size_t kMostTold = 10;  // bad rows
constexpr std::uint64_t kRowsBetweenProgress = 1'024;

// Files are written into a folder inside of `folder`, and moved up when all are there.
class Aside {
 public:
  static Result<Aside> create(FileSystem& files, fs::path folder) {
    const bool is_new = !files.exists(folder);
    SLUICE_TRY(files.create_directories(folder));
    SLUICE_ASSIGN(const auto names, files.list(folder));
    if (!names.empty()) {
      std::string why = folder.string() + " is not empty: --out names a new or an empty folder";
      if (names.front() == kAside) {
        why += "; " + (folder / kAside).string() +
               " is of an import that runs, or that was killed: then remove it";
      }
      return usage_error(std::move(why));
    }
    SLUICE_TRY(files.create_directories(folder / kAside));
    return Aside(files, std::move(folder), is_new);
  }
  // Leaves nothing of what was not moved up.
  ~Aside() {
    if (files_ == nullptr) return;
    static_cast<void>(files_->remove_all(is_made_in_vain_ ? folder_ : path()));
  }
  Aside(Aside&& other) noexcept
      : files_(std::exchange(other.files_, nullptr)),
        folder_(std::move(other.folder_)),
        is_made_in_vain_(other.is_made_in_vain_) {}
  Aside& operator=(Aside&&) = delete;

  fs::path path() const { return folder_ / kAside; }

  Status move_up() {
    // A table has no in-shop actions.
    for (std::size_t s = 0; s < kStreamsWithoutActions; ++s) SLUICE_TRY(move(kStreamNames[s]));
    SLUICE_TRY(move(kConfig));
    SLUICE_TRY(move(kExpected));
    is_made_in_vain_ = false;
    return {};
  }

 private:
  Aside(FileSystem& files, fs::path folder, bool is_new)
      : files_(&files), folder_(std::move(folder)), is_made_in_vain_(is_new) {}
  Status move(std::string_view name) { return files_->rename(path() / name, folder_ / name); }

  FileSystem* files_;
  fs::path folder_;
  bool is_made_in_vain_;  // the folder was not there before, and nothing is in it yet
};

std::string place_of(const std::string& file, std::uint64_t line, const RowProblem& problem) {
  std::string text = (file == "-" ? "standard input" : file) + ":" + std::to_string(line) + ": ";
  if (problem.column > 0) text += "column " + std::to_string(problem.column) + ": ";
  return text + problem.reason + ": " + problem.detail;
}

class Import {
 public:
  Import(const ImportOptions& options, FileSystem& files, const ImportProgress& progress,
         ImportSummary& summary)
      : options_(options), files_(files), progress_(progress), summary_(summary) {}

  Status run(const fs::path& folder) {
    SLUICE_ASSIGN(Aside aside, Aside::create(files_, folder));
    SLUICE_TRY(make_format(aside.path()));
    const UnclickedConversion unclicked =
        options_.unclicked_conversion.value_or(format_->unclicked_conversion());
    SLUICE_ASSIGN(ImportLogs logs, ImportLogs::create(files_, aside.path(), options_, unclicked));
    const Status read = read_tables(logs);
    summary_.counts = logs.counts();
    SLUICE_TRY(read);
    SLUICE_TRY(check_rows());
    SLUICE_TRY(format_->check_features());
    SLUICE_TRY(write_text(files_, aside.path() / kConfig,
                          import_config(options_, logs, format_->features())));
    SLUICE_TRY(write_text(files_, aside.path() / kExpected, expected().dump(2) + "\n"));
    return aside.move_up();
  }

 private:
  Status make_format(const fs::path& scratch) {
    const auto on_bad_row = [this](const std::string& file, std::uint64_t line,
                                   const RowProblem& problem) { refuse(file, line, problem); };
    if (options_.format == "aliccp") {
      SLUICE_ASSIGN(format_, make_aliccp_format(options_, files_, scratch, on_bad_row));
    } else {
      SLUICE_ASSIGN(format_, make_column_format(options_));
    }
    return {};
  }

  bool is_at_limit() const { return options_.limit > 0 && summary_.rows >= options_.limit; }

  Status read_tables(ImportLogs& logs) {
    for (const std::string& table : options_.tables) SLUICE_TRY(read_table(table, logs));
    return logs.finish();
  }

  Status read_table(const std::string& table, ImportLogs& logs) {
    if (is_at_limit()) return {};
    SLUICE_ASSIGN(const auto stream, open_table(table));
    CsvReader reader(*stream, format_->dialect());
    CsvRow row;
    ImportRow values;
    bool has_begun = false;
    while (!is_at_limit()) {
      SLUICE_ASSIGN(const bool has_row, reader.next(row));
      if (!has_row) break;
      if (!has_begun) {
        SLUICE_ASSIGN(const bool is_header, begin_table(row, table, has_begun));
        if (is_header) continue;
      }
      if (summary_.rows++ % kRowsBetweenProgress == 0) {
        progress_(summary_.rows, table, stream->consumed());
      }
      SLUICE_ASSIGN(const auto problem, read_row(row, values, logs));
      if (problem) refuse(table, row.line, *problem);
    }
    return {};
  }

  // Whether it is the header. A row with a problem says nothing of the columns: the next one does.
  Result<bool> begin_table(const CsvRow& row, const std::string& table, bool& has_begun) {
    if (const auto problem = row_problem(row)) {
      if (!format_->needs_header()) return false;
      return stop_error(place_of(table, row.line, *problem) + "; this is the header");
    }
    has_begun = true;
    return format_->begin_file(row, table);
  }

  Result<std::optional<RowProblem>> read_row(const CsvRow& row, ImportRow& values,
                                             ImportLogs& logs) {
    if (auto problem = row_problem(row)) return problem;
    SLUICE_ASSIGN(auto problem, format_->read(row, values));
    if (problem) return problem;
    return logs.add(summary_.rows, values);
  }

  void refuse(const std::string& file, std::uint64_t line, const RowProblem& problem) {
    ++summary_.bad_rows[problem.reason];
    if (summary_.first_bad_rows.size() < kMostTold) {
      summary_.first_bad_rows.push_back(place_of(file, line, problem));
    }
  }

  Status check_rows() const {
    std::uint64_t bad = 0;
    for (const auto& [reason, count] : summary_.bad_rows) bad += count;
    if (bad > options_.max_bad_rows) {
      return stop_error(std::to_string(bad) + " bad rows, and --max-bad-rows is " +
                        std::to_string(options_.max_bad_rows) + ": nothing was written");
    }
    if (summary_.counts.records[0] == 0) {
      return stop_error("the table has no row that could be imported: nothing was written");
    }
    return {};
  }

  Json expected() const {
    const ImportCounts& counts = summary_.counts;
    Json json;
    json["table"] = {{"format", options_.format}, {"rows", summary_.rows}};
    json["table"]["bad_rows"] = Json::object();
    for (const auto& [reason, count] : summary_.bad_rows) json["table"]["bad_rows"][reason] = count;
    json["table"]["implied_clicks"] = counts.implied_clicks;
    json["table"]["skipped_conversions"] = counts.skipped_conversions;
    for (std::size_t s = 0; s < kStreamsWithoutActions; ++s) {
      json["records"][kStreamNames[s]] = counts.records[s];
    }
    json["labels"] = {{"impressions", counts.records[0]},
                      {"clicked", counts.clicked},
                      {"converted", counts.converted}};
    return json;
  }

  const ImportOptions& options_;
  FileSystem& files_;
  const ImportProgress& progress_;
  ImportSummary& summary_;
  std::unique_ptr<TableFormat> format_;
};

}  // namespace

Result<std::unique_ptr<ByteStream>> open_table(const std::string& file) {
  if (file == "-") return open_byte_stream("/dev/stdin", Compression::none);
  Compression compression = Compression::none;
  if (file.ends_with(".gz")) compression = Compression::gzip;
  if (file.ends_with(".zst")) compression = Compression::zstd;
  return open_byte_stream(file, compression);
}

std::optional<RowProblem> row_problem(const CsvRow& row) {
  if (row.problem == CsvProblem::oversized) {
    return RowProblem{"oversized", 0, "the row is longer than 4 MiB, or has over 65536 fields"};
  }
  if (row.problem == CsvProblem::quotes) {
    return RowProblem{"quotes", 0, "a quoted field has no end, or something behind it"};
  }
  // Each by itself: two halves of a character that a delimiter parts are none.
  for (std::size_t index = 0; index < row.fields.size(); ++index) {
    if (!is_utf8(row.fields[index])) return RowProblem{"not_utf8", index + 1, "is not UTF-8"};
  }
  return {};
}

Status import_table(const ImportOptions& options, const fs::path& folder, FileSystem& files,
                    const ImportProgress& progress, ImportSummary& summary) {
  SLUICE_TRY(check_options(options));
  return Import(options, files, progress, summary).run(folder);
}

}  // namespace sluice
