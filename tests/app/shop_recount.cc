#include "tests/app/shop_recount.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>

#include "app/shop_files.h"

namespace sluice::shop_test {

using nlohmann::json;

ShopSummary generate(const ShopOptions& options, const fs::path& folder) {
  RealFileSystem files;
  auto summary = generate_shop(options, folder, false, files, [](std::uint64_t) {});
  EXPECT_TRUE(summary) << summary.error().message;
  return *summary;
}
std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  std::ostringstream bytes;
  bytes << in.rdbuf();
  return bytes.str();
}

std::string uncompressed(const std::string& bytes) {
  std::string text(std::max<std::size_t>(1 << 20, 40 * bytes.size()), '\0');
  const std::size_t size = ZSTD_decompressDCtx(
      std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)>(ZSTD_createDCtx(), &ZSTD_freeDCtx).get(),
      text.data(), text.size(), bytes.data(), bytes.size());
  EXPECT_FALSE(ZSTD_isError(size)) << ZSTD_getErrorName(size);
  text.resize(ZSTD_isError(size) ? 0 : size);
  return text;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  EXPECT_TRUE(text.empty() || text.back() == '\n');
  return lines;
}

// One log, its segments one after the other.
std::vector<std::string> read_log(const fs::path& root, const std::string& stream,
                                  const ShopOptions& options, std::uint32_t partition) {
  const bool is_compressed = options.compression == ShopOptions::Compression::zstd;
  const std::string ending = is_compressed ? ".jsonl.zst" : ".jsonl";
  std::string text;
  const auto take = [&](const fs::path& path) {
    const std::string bytes = read_file(path);
    text += is_compressed ? uncompressed(bytes) : bytes;
  };
  const fs::path base = root / stream / file_number(partition);
  if (options.segments == 0) take(base.string() + ending);
  for (std::uint32_t s = 0; s < options.segments; ++s) take(base / (file_number(s) + ending));
  return lines_of(text);
}
std::optional<Line> parse_line(const std::string& text) {
  const json event = json::parse(text, nullptr, false);  // refuses bytes that are not UTF-8
  if (!event.is_object()) return std::nullopt;
  const auto time = event.find("ts");
  const auto id = event.find("impression_id");
  if (time == event.end() || !time->is_number_integer()) return std::nullopt;
  if (id == event.end() || !id->is_string()) return std::nullopt;
  if (time->get<std::int64_t>() < 1'000'000'000'000) return std::nullopt;
  return Line{time->get<std::int64_t>(), id->get<std::string>(), event.value("value", 0.0)};
}
JudgedLog judge(const std::vector<std::string>& lines, DurationMs bound) {
  JudgedLog log;
  std::optional<std::int64_t> highest;
  for (const std::string& text : lines) {
    ++log.records;
    const auto line = parse_line(text);
    if (!line) {
      ++log.malformed;
    } else if (highest && line->time < *highest - bound) {
      ++log.late;
    } else {
      if (highest) log.most_out_of_order = std::max(log.most_out_of_order, *highest - line->time);
      highest = std::max(highest.value_or(line->time), line->time);
      log.accepted.push_back(*line);
    }
  }
  return log;
}
namespace {

// Labels of one impression by looking at all clicks and purchases that name it.
struct Labelled {
  std::int64_t time = 0;
  std::optional<std::size_t> click;  // index of the attributed one in its log
  std::optional<std::size_t> purchase;
  std::optional<std::size_t> action;
  std::int64_t click_time = 0, purchase_time = 0, action_time = 0, open_until = 0;
};

// Index and time of the first of `log` with that id in [begin, end).
std::optional<std::size_t> first_in(const std::vector<Line>& log, const std::string& id,
                                    std::int64_t begin, std::int64_t end) {
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < log.size(); ++i) {
    if (log[i].impression_id != id || log[i].time < begin || log[i].time >= end) continue;
    if (!best || log[i].time < log[*best].time) best = i;
  }
  return best;
}

// Counts by nested loops over whole logs. `impressions` of one id have one time in these shops, so
// all but one of them are duplicates.
json recount_partition(const std::vector<Line>& impressions, const std::vector<Line>& clicks,
                       const std::vector<Line>& actions, const std::vector<Line>& purchases,
                       const ShopOptions& options, double& value) {
  std::set<std::string> named;  // by some click or purchase: spares loops for all others
  for (const Line& click : clicks) named.insert(click.impression_id);
  for (const Line& purchase : purchases) named.insert(purchase.impression_id);
  std::map<std::string, Labelled> labels;
  std::map<std::string, std::uint64_t> count;
  for (const Line& line : impressions) {
    if (labels.count(line.impression_id) != 0) {
      EXPECT_EQ(labels[line.impression_id].time, line.time);
      ++count["duplicate"];
      continue;
    }
    ++count["impressions"];
    Labelled& label = labels[line.impression_id];
    label.time = line.time;
    label.open_until = line.time + options.click_window;
    if (named.count(line.impression_id) == 0) continue;
    label.click = first_in(clicks, line.impression_id, line.time, label.open_until);
    if (!label.click) continue;
    ++count["clicked"];
    label.click_time = clicks[*label.click].time;
    const std::int64_t conversion_end = label.click_time + options.conversion_window;
    label.purchase = first_in(purchases, line.impression_id, label.click_time, conversion_end);
    label.open_until = std::max(label.open_until, conversion_end);
    if (options.has_actions) {
      const std::int64_t action_end = label.click_time + options.action_window;
      label.action = first_in(actions, line.impression_id, label.click_time, action_end);
      label.open_until = std::max(label.open_until, action_end);
      if (label.action) {
        ++count["acted"];
        label.action_time = actions[*label.action].time;
      }
    }
    if (!label.purchase) continue;
    ++count["converted"];
    label.purchase_time = purchases[*label.purchase].time;
    value += purchases[*label.purchase].value;
  }
  const auto is_open = [&](const Line& line) {
    const auto label = labels.find(line.impression_id);
    return label != labels.end() && line.time >= label->second.time &&
           line.time < label->second.open_until;
  };
  for (std::size_t i = 0; i < clicks.size(); ++i) {
    if (!is_open(clicks[i])) {
      ++count["no_open_impression"];
    } else if (labels[clicks[i].impression_id].click != i) {
      ++count["repeat"];
    }
  }
  for (std::size_t i = 0; i < actions.size(); ++i) {
    if (!is_open(actions[i])) {
      ++count["no_open_impression"];
      continue;
    }
    const Labelled& label = labels[actions[i].impression_id];
    if (label.action == i) continue;
    ++count[label.action && label.action_time <= actions[i].time ? "repeat" : "no_click"];
  }
  for (std::size_t i = 0; i < purchases.size(); ++i) {
    if (!is_open(purchases[i])) {
      ++count["no_open_impression"];
      continue;
    }
    const Labelled& label = labels[purchases[i].impression_id];
    if (label.purchase == i) continue;
    if (options.has_values && label.purchase && label.purchase_time <= purchases[i].time &&
        purchases[i].time < label.click_time + options.conversion_window) {
      ++count["further_purchases"];
      value += purchases[i].value;
      continue;
    }
    ++count[label.purchase && label.purchase_time <= purchases[i].time ? "repeat" : "no_click"];
  }
  return count;
}
}  // namespace

Recount recount(const fs::path& root, const ShopOptions& options) {
  std::map<std::string, std::uint64_t> sum;
  Recount result;
  for (std::uint32_t p = 0; p < options.partitions; ++p) {
    std::map<std::string, JudgedLog> logs;
    for (std::size_t s = 0; s < options.streams(); ++s) {
      const char* const stream = kStreamNames[s];
      const JudgedLog& log = logs[stream] =
          judge(read_log(root, stream, options, p), options.max_out_of_orderness);
      sum[std::string("records.") + stream] += log.records;
      sum["malformed"] += log.malformed;
      sum["late"] += log.late;
      result.most_out_of_order = std::max(result.most_out_of_order, log.most_out_of_order);
    }
    const json counts = recount_partition(logs["impressions"].accepted, logs["clicks"].accepted,
                                          logs["actions"].accepted, logs["purchases"].accepted,
                                          options, result.value);
    for (const auto& [name, value] : counts.items()) sum[name] += value.get<std::uint64_t>();
  }
  for (std::size_t s = 0; s < options.streams(); ++s) {
    const char* const stream = kStreamNames[s];
    result.expected["records"][stream] = sum[std::string("records.") + stream];
  }
  for (const char* name : {"impressions", "clicked", "converted"}) {
    result.expected["labels"][name] = sum[name];
  }
  if (options.has_actions) result.expected["labels"]["acted"] = sum["acted"];
  if (options.has_values) {
    result.expected["labels"]["further_purchases"] = sum["further_purchases"];
  }
  for (const char* name :
       {"malformed", "late", "duplicate", "repeat", "no_open_impression", "no_click"}) {
    result.expected["refused"][name] = sum[name];
  }
  return result;
}
std::map<std::string, Truth> read_truth(const fs::path& root, std::uint32_t partitions) {
  std::map<std::string, Truth> truth;
  for (std::uint32_t p = 0; p < partitions; ++p) {
    auto lines = lines_of(read_file(root / "truth" / (file_number(p) + ".csv")));
    const bool has_actions = lines.at(0) != "impression_id,pctr,pcvr";
    if (has_actions) {
      EXPECT_EQ(lines.at(0), "impression_id,pctr,pcvr,paction,pcvr_acted,pcvr_unacted");
    }
    for (std::size_t i = 1; i < lines.size(); ++i) {
      std::istringstream cells(lines[i]);
      std::string id, cell;
      std::getline(cells, id, ',');
      std::vector<double> rates;
      while (std::getline(cells, cell, ',')) rates.push_back(std::stod(cell));
      EXPECT_EQ(rates.size(), has_actions ? 5U : 2U) << lines[i];
      rates.resize(5);
      const Truth one{p, rates[0], rates[1], rates[2], rates[3], rates[4]};
      EXPECT_TRUE(truth.emplace(id, one).second) << lines[i];
    }
  }
  return truth;
}
}  // namespace sluice::shop_test
