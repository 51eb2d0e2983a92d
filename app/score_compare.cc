#include "app/score_compare.h"

#include <cmath>
#include <fstream>
#include <iostream>
#include <map>
#include <unordered_map>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "serving/scorer.h"

namespace sluice {
namespace {

constexpr std::size_t kScoredTogether = 1'024;

struct Served {
  std::string id;
  double pctr = 0, pcvr = 0, pctcvr = 0;
  bool is_found = false;
};

// What one version served; an impression may have been served several times.
struct ByVersion {
  std::vector<Served> lines;
  std::unordered_multimap<std::string, std::size_t> by_id;
};
using AllServed = std::map<std::uint64_t, ByVersion>;

Result<AllServed> read_served(const SkewOptions& options) {
  std::ifstream file(options.served);
  if (!file) return usage_error("--compare: cannot read " + options.served.string());
  AllServed served;
  std::string line;
  for (std::uint64_t number = 1; std::getline(file, line); ++number) {
    const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
    try {
      if (options.model && json.at("model").get<std::string>() != *options.model) continue;
      ByVersion& version = served[json.at("version").get<std::uint64_t>()];
      version.by_id.emplace(json.at("id").get<std::string>(), version.lines.size());
      version.lines.push_back({json.at("id").get<std::string>(), json.at("pctr").get<double>(),
                               json.at("pcvr").get<double>(), json.at("pctcvr").get<double>()});
    } catch (const nlohmann::json::exception&) {
      // A crash may have torn the last line; anything else is no such file.
      if (file.peek() == std::ifstream::traits_type::eof()) break;
      if (line.empty()) continue;
      return usage_error(options.served.string() + ":" + std::to_string(number) +
                         ": is no line of served predictions");
    }
  }
  return served;
}

class Comparison {
 public:
  Comparison(const Scorer& scorer, ByVersion& version, Skew& skew)
      : scorer_(scorer), version_(version), skew_(skew) {}

  void add(std::string impression) {
    impressions_.push_back(std::move(impression));
    if (impressions_.size() == kScoredTogether) compare();
  }
  void finish() {
    compare();
    for (const Served& line : version_.lines) skew_.not_found += line.is_found ? 0 : 1;
  }

 private:
  void compare() {
    for (const auto& result : scorer_.score(impressions_)) {
      if (!result) continue;  // it was not served either
      const auto [begin, end] = version_.by_id.equal_range(result->impression_id);
      for (auto it = begin; it != end; ++it) {
        compare(version_.lines[it->second], result->prediction);
      }
    }
    impressions_.clear();
  }
  void compare(Served& line, const Prediction& prediction) {
    if (std::exchange(line.is_found, true)) return;  // an impression that stands twice
    ++skew_.compared;
    double largest = 0;
    bool is_equal = true;
    for (const auto& [served, now] :
         {std::pair(line.pctr, prediction.ctr.yes), std::pair(line.pcvr, prediction.cvr.yes),
          std::pair(line.pctcvr, prediction.ctcvr.yes)}) {
      is_equal = is_equal && served == now;
      largest = std::max(largest, std::abs(served - now));
    }
    if (is_equal) return;
    ++skew_.unequal;
    if (largest < skew_.largest_difference) return;
    skew_.largest_difference = largest;
    skew_.largest_id = line.id;
  }

  const Scorer& scorer_;
  ByVersion& version_;
  Skew& skew_;
  std::vector<std::string> impressions_;
};

Result<std::vector<std::string>> read_lines(const std::string& in) {
  std::ifstream file;
  if (in != "-") file.open(in);
  if (in != "-" && !file) return usage_error("cannot read " + in);
  std::istream& input = in == "-" ? std::cin : file;
  std::vector<std::string> lines;
  for (std::string line; std::getline(input, line);) lines.push_back(std::move(line));
  return lines;
}

}  // namespace

Result<Skew> measure_skew(const SkewOptions& options) {
  SLUICE_ASSIGN(AllServed served, read_served(options));
  SLUICE_ASSIGN(const std::vector<std::string> impressions, read_lines(options.in));
  RealFileSystem files;
  Skew skew;
  std::shared_ptr<const Scorer> scorer;
  for (auto& [sequence, version] : served) {
    SLUICE_ASSIGN(const fs::path folder,
                  find_snapshot(files, options.snapshots, options.model, sequence));
    SLUICE_ASSIGN(scorer, open_scorer(files, folder, scorer));
    Comparison comparison(*scorer, version, skew);
    for (const std::string& impression : impressions) comparison.add(impression);
    comparison.finish();
  }
  return skew;
}

}  // namespace sluice
