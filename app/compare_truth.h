// The true rates of impressions, which only a synthetic shop knows (docs/generate.md: truth/).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "app/compare_metrics.h"
#include "base/file.h"
#include "base/result.h"

namespace sluice {

// By hash64 of the impression id. 16 bytes an impression.
class TruthTable {
 public:
  // Every *.csv of the folder: a header impression_id,pctr,pcvr, then a line an impression. An
  // error names the file and line that is none of these, or a folder without files.
  static Result<TruthTable> load(FileSystem& files, const std::filesystem::path& folder);

  std::size_t size() const { return entries_.size(); }
  const TrueRates* find(std::uint64_t impression) const;  // null: not known

 private:
  struct Entry {
    std::uint64_t impression;
    TrueRates rates;
  };
  Status load_file(FileSystem& files, const std::filesystem::path& path);
  bool read_header(std::string_view line);
  bool add_line(std::string_view line);

  std::ptrdiff_t further_columns_ = 0;  // of the file that is read
  std::vector<Entry> entries_;          // by impression
};

}  // namespace sluice
