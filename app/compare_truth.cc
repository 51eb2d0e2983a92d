#include "app/compare_truth.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>

#include "base/hash.h"

namespace sluice {
namespace {

constexpr std::string_view kTruthHeader = "impression_id,pctr,pcvr";
constexpr std::uint64_t kTruthReadBytes = 1 << 20;

std::optional<float> parse_rate(std::string_view text) {
  float rate = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rate);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return rate >= 0 && rate <= 1 ? std::optional(rate) : std::nullopt;
}

}  // namespace

Result<TruthTable> TruthTable::load(FileSystem& files, const fs::path& folder) {
  if (!files.exists(folder)) return usage_error("--truth: there is no " + folder.string());
  SLUICE_ASSIGN(const auto names, files.list(folder));
  TruthTable table;
  for (const std::string& name : names) {
    if (name.ends_with(".csv")) SLUICE_TRY(table.load_file(files, folder / name));
  }
  if (table.entries_.empty()) {
    return usage_error("--truth: " + folder.string() + " has no *.csv of " +
                       std::string(kTruthHeader));
  }
  std::ranges::sort(table.entries_, {}, &Entry::impression);
  return table;
}

Status TruthTable::load_file(FileSystem& files, const fs::path& path) {
  std::string rest;  // what follows the last whole line
  std::uint64_t line_number = 0;
  for (std::uint64_t offset = 0;;) {
    SLUICE_ASSIGN(const std::string bytes, files.read_range(path, offset, kTruthReadBytes));
    offset += bytes.size();
    rest += bytes;
    if (bytes.empty() && !rest.empty()) rest += '\n';
    std::size_t begin = 0;
    for (std::size_t end; (end = rest.find('\n', begin)) != std::string::npos; begin = end + 1) {
      const std::string_view line(rest.data() + begin, end - begin);
      if (++line_number == 1 ? read_header(line) : add_line(line)) continue;
      return stop_error(path.string() + ":" + std::to_string(line_number) + ": expected " +
                        std::string(kTruthHeader) +
                        (line_number == 1 ? "" : ", both rates in [0, 1]"));
    }
    rest.erase(0, begin);
    if (bytes.empty()) return {};
  }
}

// Further columns may follow: a shop with actions has theirs.
bool TruthTable::read_header(std::string_view line) {
  if (!line.starts_with(kTruthHeader)) return false;
  const std::string_view further = line.substr(kTruthHeader.size());
  further_columns_ = std::ranges::count(further, ',');
  return further.empty() || further.front() == ',';
}

bool TruthTable::add_line(std::string_view line) {
  // From the end: an id may hold anything but a line end.
  for (auto left = further_columns_; left > 0; --left) {
    const auto comma = line.rfind(',');
    if (comma == std::string_view::npos) return false;
    line = line.substr(0, comma);
  }
  const auto second = line.rfind(',');
  if (second == std::string_view::npos || second == 0) return false;
  const auto first = line.rfind(',', second - 1);
  if (first == std::string_view::npos) return false;
  const auto pctr = parse_rate(line.substr(first + 1, second - first - 1));
  const auto pcvr = parse_rate(line.substr(second + 1));
  if (!pctr || !pcvr) return false;
  entries_.push_back({hash64(line.substr(0, first)), {*pctr, *pcvr}});
  return true;
}

const TrueRates* TruthTable::find(std::uint64_t impression) const {
  const auto found = std::ranges::lower_bound(entries_, impression, {}, &Entry::impression);
  return found != entries_.end() && found->impression == impression ? &found->rates : nullptr;
}

}  // namespace sluice
