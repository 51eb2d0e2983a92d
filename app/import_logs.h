// Rows of a table as event logs: gives times to what has none, partitions and orders the records,
// and finds out the windows and the bound with which a join gets back each row's labels.
//
// The times are a function of the options and the row's number alone. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

#include "app/import_options.h"
#include "app/import_table.h"
#include "app/shop_files.h"
#include "base/file.h"
#include "base/result.h"

namespace sluice {

struct ImportCounts {
  std::array<std::uint64_t, kStreams> records{};
  std::uint64_t clicked = 0;
  std::uint64_t converted = 0;
  std::uint64_t implied_clicks = 0;       // rows with a conversion only: it was given a click
  std::uint64_t skipped_conversions = 0;  // or it was left out
};

class ImportLogs {
 public:
  // Creates the logs under `root`. `files` outlives the object.
  static Result<ImportLogs> create(FileSystem& files, const fs::path& root,
                                   const ImportOptions& options, UnclickedConversion unclicked);

  // `number` is the row's in the table, from 1. A problem refuses the row, an error stops.
  Result<std::optional<RowProblem>> add(std::uint64_t number, const ImportRow& row);
  Status finish();

  const ImportCounts& counts() const { return counts_; }
  // Every click is inside the one, every purchase inside the other, no record is later than the
  // third.
  DurationMs click_window() const;
  DurationMs conversion_window() const;
  DurationMs max_out_of_orderness() const;

 private:
  struct Times {
    TimeMs impression = 0, click = 0, purchase = 0;
  };
  // As the logs were written; apart, so that it stays where it is.
  struct Written {
    ShopOptions shop;  // what ShopLogs has to know
    std::vector<TimeMs> highest;
    DurationMs most_out_of_order = 0;
  };

  ImportLogs(const ImportOptions& options, UnclickedConversion unclicked)
      : seed_(options.seed),
        start_(options.start),
        impressions_per_second_(options.impressions_per_second),
        unclicked_(unclicked),
        written_(std::make_unique<Written>()) {}

  Times times_of(std::uint64_t number, const ImportRow& row) const;
  std::optional<RowProblem> check(const Times& times, const ImportRow& row) const;
  std::string event(char kind, std::uint64_t number, TimeMs time, const ImportRow& row) const;
  void put(Stream stream, TimeMs time, std::uint32_t partition, std::string line);

  std::uint64_t seed_;
  TimeMs start_;
  double impressions_per_second_;
  UnclickedConversion unclicked_;
  std::unique_ptr<Written> written_;
  std::optional<ShopLogs> logs_;
  TimeMs highest_impression_ = kTimeMin;
  DurationMs longest_click_delay_ = 0;
  DurationMs longest_conversion_delay_ = 0;
  ImportCounts counts_;
};

}  // namespace sluice
