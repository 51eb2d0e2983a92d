#include "app/score_compare.h"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include "app/line_reader.h"
#include "base/file.h"
#include "serving/scorer.h"

namespace sluice {
namespace {

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
  const std::string path = options.served.string();
  std::ifstream file(options.served);
  if (!file) return usage_error("--compare: cannot read " + path);
  AllServed served;
  std::set<std::string> models;
  std::string line;
  for (std::uint64_t number = 1; std::getline(file, line); ++number) {
    const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
    try {
      const auto model = json.at("model").get<std::string>();
      if (options.model && model != *options.model) continue;
      models.insert(model);
      ByVersion& version = served[json.at("version").get<std::uint64_t>()];
      version.by_id.emplace(json.at("id").get<std::string>(), version.lines.size());
      version.lines.push_back({json.at("id").get<std::string>(), json.at("pctr").get<double>(),
                               json.at("pcvr").get<double>(), json.at("pctcvr").get<double>()});
    } catch (const nlohmann::json::exception&) {
      // A crash may have torn the last line; anything else is no such file.
      if (file.peek() == std::ifstream::traits_type::eof()) break;
      if (line.empty()) continue;
      return usage_error(path + ":" + std::to_string(number) +
                         ": is no line of served predictions");
    }
  }
  if (file.bad()) return stop_error("--compare: " + path + " cannot be read to its end");
  if (models.size() <= 1) return served;
  std::string names;
  for (const std::string& name : models) names += (names.empty() ? "" : ", ") + name;
  return usage_error("--compare: " + path +
                     " is of several models: choose one by --model: " + names);
}

class Comparison {
 public:
  Comparison(const Scorer& scorer, ByVersion& version, Skew& skew)
      : scorer_(scorer), version_(version), skew_(skew) {}

  void add(std::span<const std::string> impressions) {
    for (const auto& result : scorer_.score(impressions)) {
      if (!result) continue;  // it was not served either
      const auto [begin, end] = version_.by_id.equal_range(result->impression_id);
      for (auto it = begin; it != end; ++it) {
        compare(version_.lines[it->second], result->prediction);
      }
    }
  }
  void finish() {
    for (const Served& line : version_.lines) skew_.not_found += line.is_found ? 0 : 1;
  }

 private:
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
};

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

Error cannot_read(const std::string& what) {
  return stop_error("cannot read " + what + ": " + std::strerror(errno));
}

// The input, to be read once for each version.
struct Input {
  File file{nullptr, std::fclose};
  off_t begin = 0;
};

// Of what can be read only once, as a pipe, it is a copy in a file that is gone with it: neither
// the input nor all versions need fit into memory.
Result<Input> open_input(const std::string& in) {
  const int descriptor = in == "-" ? ::dup(STDIN_FILENO) : ::open(in.c_str(), O_RDONLY | O_CLOEXEC);
  File file(descriptor < 0 ? nullptr : ::fdopen(descriptor, "r"), std::fclose);
  if (file == nullptr) return usage_error("cannot read " + in + ": " + std::strerror(errno));
  const off_t begin = ::lseek(descriptor, 0, SEEK_CUR);
  if (begin >= 0) return Input{std::move(file), begin};
  File copy(std::tmpfile(), std::fclose);
  if (copy == nullptr) return cannot_read(in + " twice; no copy of it can be made");
  std::vector<char> bytes(1 << 18);
  while (const std::size_t size = std::fread(bytes.data(), 1, bytes.size(), file.get())) {
    if (std::fwrite(bytes.data(), 1, size, copy.get()) != size) {
      return cannot_read(in + " twice; its copy cannot be written");
    }
  }
  if (std::ferror(file.get()) != 0) return cannot_read(in);
  if (std::fflush(copy.get()) != 0) return cannot_read(in + " twice; its copy cannot be written");
  return Input{std::move(copy), 0};
}

Status compare_version(const Scorer& scorer, const Input& input, ByVersion& version, Skew& skew) {
  const int descriptor = ::fileno(input.file.get());
  if (::lseek(descriptor, input.begin, SEEK_SET) < 0) return cannot_read("the input again");
  LineReader reader(descriptor, scorer.max_record_bytes());
  Comparison comparison(scorer, version, skew);
  while (true) {
    SLUICE_ASSIGN(const std::vector<std::string> impressions, reader.read());
    if (impressions.empty()) break;
    comparison.add(impressions);
  }
  comparison.finish();
  return {};
}

}  // namespace

Result<Skew> measure_skew(const SkewOptions& options) {
  SLUICE_ASSIGN(AllServed served, read_served(options));
  SLUICE_ASSIGN(const Input input, open_input(options.in));
  RealFileSystem files;
  Skew skew;
  std::shared_ptr<const Scorer> scorer;
  for (auto& [sequence, version] : served) {
    SLUICE_ASSIGN(const fs::path folder,
                  find_snapshot(files, options.snapshots, options.model, sequence));
    SLUICE_ASSIGN(scorer, open_scorer(files, folder, scorer));
    SLUICE_TRY(compare_version(*scorer, input, version, skew));
  }
  return skew;
}

}  // namespace sluice
