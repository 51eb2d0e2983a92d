// The synthetic shop: what is on disk, and that expected.json says what a recount of it finds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "app/shop.h"
#include "app/shop_files.h"
#include "base/hash.h"

namespace sluice {
namespace {

using nlohmann::json;

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "sluice-generate-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  ~TemporaryFolder() { fs::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

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

// An event of a line; none where the line is malformed.
struct Line {
  std::int64_t time = 0;
  std::string impression_id;
};

std::optional<Line> parse_line(const std::string& text) {
  const json event = json::parse(text, nullptr, false);  // refuses bytes that are not UTF-8
  if (!event.is_object()) return std::nullopt;
  const auto time = event.find("ts");
  const auto id = event.find("impression_id");
  if (time == event.end() || !time->is_number_integer()) return std::nullopt;
  if (id == event.end() || !id->is_string()) return std::nullopt;
  if (time->get<std::int64_t>() < 1'000'000'000'000) return std::nullopt;
  return Line{time->get<std::int64_t>(), id->get<std::string>()};
}

// What a log's own records say: those that are accepted, and how far they are out of order.
struct JudgedLog {
  std::vector<Line> accepted;
  std::uint64_t records = 0;
  std::uint64_t malformed = 0;
  std::uint64_t late = 0;
  std::int64_t most_out_of_order = 0;  // ms behind the highest time before, accepted ones
};

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

// Labels of one impression by looking at all clicks and purchases that name it.
struct Labelled {
  std::int64_t time = 0;
  std::optional<std::size_t> click;  // index of the attributed one in its log
  std::optional<std::size_t> purchase;
  std::int64_t click_time = 0, purchase_time = 0, open_until = 0;
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
                       const std::vector<Line>& purchases, const ShopOptions& options) {
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
    if (!label.purchase) continue;
    ++count["converted"];
    label.purchase_time = purchases[*label.purchase].time;
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
  for (std::size_t i = 0; i < purchases.size(); ++i) {
    if (!is_open(purchases[i])) {
      ++count["no_open_impression"];
      continue;
    }
    const Labelled& label = labels[purchases[i].impression_id];
    if (label.purchase == i) continue;
    ++count[label.purchase && label.purchase_time <= purchases[i].time ? "repeat" : "no_click"];
  }
  return count;
}

struct Recount {
  json expected;
  std::int64_t most_out_of_order = 0;
};

Recount recount(const fs::path& root, const ShopOptions& options) {
  std::map<std::string, std::uint64_t> sum;
  Recount result;
  for (std::uint32_t p = 0; p < options.partitions; ++p) {
    std::map<std::string, JudgedLog> logs;
    for (const char* stream : kStreamNames) {
      const JudgedLog& log = logs[stream] =
          judge(read_log(root, stream, options, p), options.max_out_of_orderness);
      sum[std::string("records.") + stream] += log.records;
      sum["malformed"] += log.malformed;
      sum["late"] += log.late;
      result.most_out_of_order = std::max(result.most_out_of_order, log.most_out_of_order);
    }
    const json counts = recount_partition(logs["impressions"].accepted, logs["clicks"].accepted,
                                          logs["purchases"].accepted, options);
    for (const auto& [name, value] : counts.items()) sum[name] += value.get<std::uint64_t>();
  }
  for (const char* stream : kStreamNames) {
    result.expected["records"][stream] = sum[std::string("records.") + stream];
  }
  for (const char* name : {"impressions", "clicked", "converted"}) {
    result.expected["labels"][name] = sum[name];
  }
  for (const char* name :
       {"malformed", "late", "duplicate", "repeat", "no_open_impression", "no_click"}) {
    result.expected["refused"][name] = sum[name];
  }
  return result;
}

// Small, and dense enough in time that disorder is between pages too.
ShopOptions small_shop() {
  ShopOptions options;
  options.impressions = 12'000;
  options.users = 500;
  options.items = 300;
  options.partitions = 3;
  options.span = 1'200'000;
  return options;
}

ShopOptions troubled_shop() {
  ShopOptions options = small_shop();
  options.seed = 5;
  options.repeats = 0.5;
  options.late_clicks = 0.2;
  options.late_purchases = 0.5;
  options.duplicates = 0.05;
  options.orphans = 0.05;
  options.malformed = 0.03;
  options.late = 0.03;
  return options;
}

// Conversions within seconds, so that all windows end among the events.
ShopOptions short_windows() {
  ShopOptions options = troubled_shop();
  options.seed = 11;
  options.click_window = 60'000;
  options.conversion_window = 20'000;
  options.page = 7;
  return options;
}

ShopOptions beyond_the_bound() {
  ShopOptions options = small_shop();
  options.disorder = 60'000;
  options.max_out_of_orderness = 5'000;
  return options;
}

ShopOptions in_segments() {
  ShopOptions options = troubled_shop();
  options.segments = 5;
  options.compression = ShopOptions::Compression::zstd;
  options.partitions = 1;
  return options;
}

class GeneratedShop : public testing::TestWithParam<ShopOptions> {};

TEST_P(GeneratedShop, ExpectedCountsEqualARecountOfTheLogs) {
  const TemporaryFolder folder;
  const ShopSummary summary = generate(GetParam(), folder.path());
  const json expected = json::parse(read_file(folder.path() / "expected.json"));
  const Recount found = recount(folder.path(), GetParam());
  for (const char* part : {"records", "labels", "refused"}) {
    EXPECT_EQ(expected[part], found.expected[part]) << part;
  }
  EXPECT_EQ(summary.counts.clicked, found.expected["labels"]["clicked"]);
  std::uint64_t read = 0;
  std::uint64_t told = 0;
  for (const auto& value : expected["records"]) read += value.get<std::uint64_t>();
  for (const auto& value : expected["labels"]) told += value.get<std::uint64_t>();
  for (const auto& value : expected["refused"]) told += value.get<std::uint64_t>();
  EXPECT_EQ(read, told);
}

INSTANTIATE_TEST_SUITE_P(Options, GeneratedShop,
                         testing::Values(small_shop(), troubled_shop(), short_windows(),
                                         beyond_the_bound(), in_segments()));

TEST(Generate, EveryTroubleIsThere) {
  for (const ShopOptions& options : {troubled_shop(), short_windows()}) {
    const TemporaryFolder folder;
    generate(options, folder.path());
    const json expected = json::parse(read_file(folder.path() / "expected.json"));
    for (const auto& [reason, count] : expected["refused"].items()) {
      EXPECT_GT(count.get<int>(), 20) << reason;
    }
  }
}

TEST(Generate, WithoutTroubleOptionsNothingIsMalformedLateOrDuplicate) {
  ShopOptions options = small_shop();
  options.repeats = options.late_clicks = options.late_purchases = 0;
  const TemporaryFolder folder;
  const auto counts = generate(options, folder.path()).counts;
  EXPECT_EQ(counts.malformed + counts.late + counts.duplicate + counts.repeat +
                counts.no_open_impression + counts.no_click,
            0u);
  EXPECT_EQ(counts.impressions, options.impressions);
  EXPECT_EQ(counts.records[1], counts.clicked);
  EXPECT_EQ(counts.records[2], counts.converted);
}

TEST(Generate, DisorderIsBelowItsBoundAndReachesUpToIt) {
  for (const DurationMs disorder : {2'000, 10'000}) {
    ShopOptions options = small_shop();
    options.disorder = disorder;
    options.span = 60'000;
    const TemporaryFolder folder;
    generate(options, folder.path());
    // Judged without a bound, so that nothing late is left out.
    ShopOptions unbounded = options;
    unbounded.max_out_of_orderness = 1'000'000'000;
    const std::int64_t most = recount(folder.path(), unbounded).most_out_of_order;
    EXPECT_LT(most, disorder);
    EXPECT_GT(most, disorder * 9 / 10);
  }
  ShopOptions ordered = small_shop();
  ordered.disorder = 0;
  const TemporaryFolder folder;
  generate(ordered, folder.path());
  EXPECT_EQ(recount(folder.path(), ordered).most_out_of_order, 0);
}

TEST(Generate, SegmentsAreCutAtTheSameArrivalTimesInAllLogs) {
  ShopOptions options = small_shop();
  options.segments = 4;
  options.disorder = 0;  // event time is arrival time
  const TemporaryFolder folder;
  generate(options, folder.path());
  for (const char* stream : kStreamNames) {
    for (std::uint32_t p = 0; p < options.partitions; ++p) {
      for (std::uint32_t s = 0; s < options.segments; ++s) {
        const fs::path path = folder.path() / stream / file_number(p) / (file_number(s) + ".jsonl");
        for (const std::string& line : lines_of(read_file(path))) {
          const auto step = (parse_line(line)->time - options.start) * 4 / options.span;
          ASSERT_EQ(std::min<std::int64_t>(step, 3), s) << path;
        }
      }
    }
  }
}

// All files of a folder by name.
std::map<std::string, Digest> digests(const fs::path& folder) {
  std::map<std::string, Digest> result;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    result[fs::relative(entry.path(), folder).string()] = hash128(read_file(entry.path()));
  }
  return result;
}

TEST(Generate, TheSameSeedGivesTheSameBytes) {
  for (ShopOptions options : {troubled_shop(), in_segments()}) {
    const TemporaryFolder first, second, other;
    generate(options, first.path());
    generate(options, second.path());
    EXPECT_EQ(digests(first.path()), digests(second.path()));
    ++options.seed;
    generate(options, other.path());
    const auto a = digests(first.path());
    const auto b = digests(other.path());
    ASSERT_EQ(a.size(), b.size());
    for (const auto& [name, digest] : a) {
      if (name != "shop.toml" && b.at(name) == digest) {
        // Only a log without any record may be like another.
        EXPECT_LT(fs::file_size(first.path() / name), 20u) << name;
      }
    }
  }
}

TEST(Generate, CompressionChangesNoRecord) {
  ShopOptions options = troubled_shop();
  const TemporaryFolder plain, compressed;
  generate(options, plain.path());
  ShopOptions zstd = options;
  zstd.compression = ShopOptions::Compression::zstd;
  generate(zstd, compressed.path());
  for (const char* stream : kStreamNames) {
    for (std::uint32_t p = 0; p < options.partitions; ++p) {
      EXPECT_EQ(read_log(plain.path(), stream, options, p),
                read_log(compressed.path(), stream, zstd, p));
    }
  }
}

// impression_id -> (pctr, pcvr), with the partition that the file is of.
struct Truth {
  std::uint32_t partition = 0;
  double pctr = 0, pcvr = 0;
};

std::map<std::string, Truth> read_truth(const fs::path& root, std::uint32_t partitions) {
  std::map<std::string, Truth> truth;
  for (std::uint32_t p = 0; p < partitions; ++p) {
    auto lines = lines_of(read_file(root / "truth" / (file_number(p) + ".csv")));
    EXPECT_EQ(lines.at(0), "impression_id,pctr,pcvr");
    for (std::size_t i = 1; i < lines.size(); ++i) {
      const auto first = lines[i].find(',');
      const auto second = lines[i].find(',', first + 1);
      const Truth rates{p, std::stod(lines[i].substr(first + 1, second - first - 1)),
                        std::stod(lines[i].substr(second + 1))};
      EXPECT_TRUE(truth.emplace(lines[i].substr(0, first), rates).second) << lines[i];
    }
  }
  return truth;
}

TEST(Generate, TruthHasEveryImpressionOnceBesideItsPartition) {
  const ShopOptions options = small_shop();
  const TemporaryFolder folder;
  generate(options, folder.path());
  const auto truth = read_truth(folder.path(), options.partitions);
  EXPECT_EQ(truth.size(), options.impressions);
  std::uint64_t impressions = 0;
  for (std::uint32_t p = 0; p < options.partitions; ++p) {
    for (const char* stream : kStreamNames) {
      for (const std::string& line : read_log(folder.path(), stream, options, p)) {
        const json event = json::parse(line);
        const auto& rates = truth.at(event["impression_id"].get<std::string>());
        EXPECT_EQ(rates.partition, p);
        const std::string user = event["user_id"].get<std::string>();
        const auto* bytes = reinterpret_cast<const Bytef*>(user.data());
        EXPECT_EQ(crc32(0, bytes, static_cast<uInt>(user.size())) % options.partitions, p);
        impressions += stream == kStreamNames[0] ? 1 : 0;
      }
    }
  }
  EXPECT_EQ(impressions, options.impressions);
}

TEST(Generate, PagesShareUserContextAndMoment) {
  const ShopOptions options = small_shop();
  const TemporaryFolder folder;
  generate(options, folder.path());
  std::map<std::string, std::vector<json>> pages;
  for (std::uint32_t p = 0; p < options.partitions; ++p) {
    for (const std::string& line : read_log(folder.path(), "impressions", options, p)) {
      json event = json::parse(line);
      const std::string id = event["impression_id"];
      pages[id.substr(0, id.find('-'))].push_back(std::move(event));
    }
  }
  EXPECT_EQ(pages.size(), options.impressions / options.page);
  for (const auto& [page, events] : pages) {
    ASSERT_EQ(events.size(), options.page);
    std::set<std::int64_t> items, positions;
    for (const json& event : events) {
      EXPECT_EQ(event["user_id"], events[0]["user_id"]);
      EXPECT_EQ(event["features"]["user"], events[0]["features"]["user"]);
      EXPECT_EQ(event["features"]["context"], events[0]["features"]["context"]);
      EXPECT_LE(std::abs(event["ts"].get<std::int64_t>() - events[0]["ts"].get<std::int64_t>()),
                options.page);
      items.insert(event["item_id"].get<std::int64_t>());
      positions.insert(event["features"]["position"].get<std::int64_t>());
    }
    EXPECT_EQ(items.size(), options.page);
    EXPECT_EQ(positions.size(), options.page);
  }
}

// Share of pairs of a positive and a negative that the score orders rightly, ties half.
double auc_by_sorting(std::vector<std::pair<double, bool>> scored) {
  std::sort(scored.begin(), scored.end());
  double negatives = 0, positives = 0, pairs = 0;
  for (std::size_t i = 0; i < scored.size();) {
    double tied_negatives = 0, tied_positives = 0;
    const double score = scored[i].first;
    for (; i < scored.size() && scored[i].first == score; ++i) {
      (scored[i].second ? tied_positives : tied_negatives) += 1;
    }
    pairs += tied_positives * (negatives + 0.5 * tied_negatives);
    negatives += tied_negatives;
    positives += tied_positives;
  }
  return pairs / (negatives * positives);
}

TEST(Generate, RatesAreThoseOfAShopWithSelectionBias) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    ShopOptions options;
    options.seed = seed;
    options.impressions = 100'000;
    const TemporaryFolder folder;
    const auto [counts, rates] = generate(options, folder.path());
    const auto clicked = static_cast<double>(counts.clicked);
    const auto impressions = static_cast<double>(options.impressions);
    EXPECT_NEAR(clicked / impressions, 0.04, 0.006);
    EXPECT_NEAR(rates.mean_pctr * impressions, clicked, 5 * std::sqrt(clicked));
    EXPECT_GT(rates.mean_pcvr_clicked, 0.01);
    EXPECT_LT(rates.mean_pcvr_clicked, 0.02);
    const double conversions = rates.mean_pcvr_clicked * clicked;
    EXPECT_NEAR(static_cast<double>(counts.converted), conversions, 5 * std::sqrt(conversions));
    EXPECT_LT(rates.mean_pcvr, 0.6 * rates.mean_pcvr_clicked);
    EXPECT_GT(rates.ctr_auc, 0.75);
    EXPECT_GT(rates.ctcvr_auc, 0.85);
    EXPECT_GT(rates.cvr_auc, 0.7);
    EXPECT_LT(rates.ctr_auc, 0.9);  // labels stay a matter of chance
  }
}

TEST(Generate, TheCeilingIsTheAucOfTheTrueRates) {
  ShopOptions options;
  options.impressions = 50'000;
  options.repeats = options.late_clicks = options.late_purchases = 0;
  const TemporaryFolder folder;
  const auto rates = generate(options, folder.path()).rates;
  std::set<std::string> clicked, purchased;
  for (std::uint32_t p = 0; p < options.partitions; ++p) {
    for (const auto& line : read_log(folder.path(), "clicks", options, p)) {
      clicked.insert(parse_line(line)->impression_id);
    }
    for (const auto& line : read_log(folder.path(), "purchases", options, p)) {
      purchased.insert(parse_line(line)->impression_id);
    }
  }
  std::vector<std::pair<double, bool>> ctr, ctcvr, cvr;
  double sum_pcvr = 0, sum_pcvr_clicked = 0;
  for (const auto& [id, truth] : read_truth(folder.path(), options.partitions)) {
    const bool y = clicked.count(id) != 0;
    const bool z = purchased.count(id) != 0;
    ctr.emplace_back(truth.pctr, y);
    ctcvr.emplace_back(truth.pctr * truth.pcvr, z);
    if (y) cvr.emplace_back(truth.pcvr, z);
    sum_pcvr += truth.pcvr;
    sum_pcvr_clicked += y ? truth.pcvr : 0;
  }
  EXPECT_NEAR(rates.ctr_auc, auc_by_sorting(ctr), 1e-3);
  EXPECT_NEAR(rates.ctcvr_auc, auc_by_sorting(ctcvr), 1e-3);
  EXPECT_NEAR(rates.cvr_auc, auc_by_sorting(cvr), 1e-3);
  EXPECT_NEAR(rates.mean_pcvr, sum_pcvr / static_cast<double>(ctr.size()), 1e-7);
  EXPECT_NEAR(rates.mean_pcvr_clicked, sum_pcvr_clicked / static_cast<double>(cvr.size()), 1e-7);
}

TEST(Generate, DelaysHaveLongTails) {
  ShopOptions options;
  options.impressions = 100'000;
  options.repeats = options.late_clicks = options.late_purchases = 0;
  const TemporaryFolder folder;
  generate(options, folder.path());
  std::map<std::string, std::int64_t> shown;
  std::vector<double> delays;
  for (std::uint32_t p = 0; p < options.partitions; ++p) {
    for (const auto& line : read_log(folder.path(), "impressions", options, p)) {
      const auto event = parse_line(line);
      shown[event->impression_id] = event->time;
    }
    for (const auto& line : read_log(folder.path(), "clicks", options, p)) {
      const auto event = parse_line(line);
      delays.push_back(static_cast<double>(event->time - shown.at(event->impression_id)) / 1e3);
    }
  }
  std::sort(delays.begin(), delays.end());
  const double median_s = delays[delays.size() / 2];
  EXPECT_NEAR(median_s, 40, 5);
  EXPECT_GT(delays[delays.size() * 99 / 100], 10 * median_s);
}

TEST(Generate, FeaturesAreOfEveryKindAndMayBeMissing) {
  const ShopOptions options = small_shop();
  const TemporaryFolder folder;
  generate(options, folder.path());
  std::map<std::string, std::uint64_t> forms;
  for (std::uint32_t p = 0; p < options.partitions; ++p) {
    for (const auto& line : read_log(folder.path(), "impressions", options, p)) {
      const json features = json::parse(line)["features"];
      for (const char* part : {"user", "item"}) {
        for (const char* name :
             {"age", "interests", "brands", "quality", "category", "brand", "price"}) {
          const auto at = features[part].find(name);
          ++forms[std::string(part) + "." + name + " " +
                  (at == features[part].end() ? "absent" : at->type_name())];
        }
      }
    }
  }
  for (const char* form :
       {"user.age number", "user.age null", "user.age absent", "user.interests array",
        "user.interests absent", "user.brands object", "user.brands absent", "item.quality number",
        "item.quality null", "item.quality absent", "item.category string", "item.brand number",
        "item.price number"}) {
    EXPECT_GT(forms[form], 0u) << form;
  }
}

TEST(Generate, AFolderThatIsNotEmptyIsKeptUnlessForced) {
  ShopOptions options = small_shop();
  options.impressions = 1'000;
  const TemporaryFolder folder, fresh;
  RealFileSystem files;
  const auto progress = [](std::uint64_t) {};
  options.segments = 3;
  generate(options, folder.path());
  std::ofstream(folder.path() / "notes.txt") << "mine";
  const auto before = digests(folder.path());
  options.segments = 0;
  const auto refused = generate_shop(options, folder.path(), false, files, progress);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::usage);
  EXPECT_THAT(refused.error().message, testing::HasSubstr("--force"));
  EXPECT_EQ(digests(folder.path()), before);

  ASSERT_TRUE(generate_shop(options, folder.path(), true, files, progress));
  EXPECT_EQ(read_file(folder.path() / "notes.txt"), "mine");
  fs::remove(folder.path() / "notes.txt");
  generate(options, fresh.path());
  EXPECT_EQ(digests(folder.path()), digests(fresh.path()));
}

TEST(Generate, OptionsThatCannotBeAreUsageErrors) {
  const auto message = [](auto change) {
    ShopOptions options;
    change(options);
    const Status status = check_options(options);
    EXPECT_FALSE(status);
    return status ? std::string() : status.error().message;
  };
  using testing::HasSubstr;
  EXPECT_THAT(message([](auto& o) { o.late = 1.5; }), HasSubstr("--late"));
  EXPECT_THAT(message([](auto& o) { o.repeats = std::nan(""); }), HasSubstr("--repeats"));
  EXPECT_THAT(message([](auto& o) { o.span = 0; }), HasSubstr("--span"));
  EXPECT_THAT(message([](auto& o) { o.partitions = 0; }), HasSubstr("--partitions"));
  EXPECT_THAT(message([](auto& o) { o.items = 3; }), HasSubstr("--items"));
  EXPECT_THAT(message([](auto& o) { o.disorder = -1; }), HasSubstr("--disorder"));
  EXPECT_TRUE(check_options(ShopOptions()));
}

// A disk that takes some bytes and no more.
class FullDisk final : public FileSystem {
 public:
  Result<std::unique_ptr<WritableFile>> create(const fs::path& path) override {
    return std::unique_ptr<WritableFile>(std::make_unique<File>(*this, path));
  }
  Result<std::unique_ptr<WritableFile>> append_to(const fs::path& path) override {
    return create(path);
  }
  Result<std::string> read(const fs::path& path) override { return stop_error(path.string()); }
  Result<std::uint64_t> size(const fs::path& path) override { return stop_error(path.string()); }
  Status truncate(const fs::path&, std::uint64_t) override { return {}; }
  bool exists(const fs::path&) override { return false; }
  Status create_directories(const fs::path&) override { return {}; }
  Status rename(const fs::path&, const fs::path&) override { return {}; }
  Status remove_all(const fs::path&) override { return {}; }
  Result<std::vector<std::string>> list(const fs::path&) override {
    return std::vector<std::string>();
  }
  Status sync_directory(const fs::path&) override { return {}; }

  std::uint64_t free_bytes = 1 << 20;
  std::vector<std::string> created;

 private:
  class File final : public WritableFile {
   public:
    File(FullDisk& disk, const fs::path& path) : disk_(disk), path_(path) {
      disk_.created.push_back(path.filename());
    }
    Status append(std::string_view bytes) override {
      if (bytes.size() > disk_.free_bytes) return stop_error(path_.string() + ": disk full");
      disk_.free_bytes -= bytes.size();
      return {};
    }
    Status sync() override { return {}; }
    Status close() override { return {}; }

   private:
    FullDisk& disk_;
    fs::path path_;
  };
};

TEST(Generate, AFullDiskIsAnErrorAndLeavesNoExpectedCounts) {
  FullDisk disk;
  const auto summary = generate_shop(small_shop(), "shop", false, disk, [](std::uint64_t) {});
  ASSERT_FALSE(summary);
  EXPECT_EQ(summary.error().kind, ErrorKind::stop);
  EXPECT_THAT(summary.error().message, testing::HasSubstr("disk full"));
  EXPECT_THAT(disk.created, testing::Not(testing::Contains("expected.json")));
}

}  // namespace
}  // namespace sluice
