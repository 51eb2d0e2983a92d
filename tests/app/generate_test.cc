// `sluice generate`: the bytes on disk, and that expected.json says what a recount of them finds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "app/shop.h"
#include "app/shop_files.h"
#include "base/hash.h"
#include "config/load.h"
#include "tests/app/shop_recount.h"
#include "tests/store/temporary_folder.h"

namespace sluice::shop_test {
namespace {

using nlohmann::json;

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

ShopOptions with_values() {
  ShopOptions options = troubled_shop();
  options.repeats = 0.9;
  options.has_values = true;
  return options;
}

ShopOptions with_actions() {
  ShopOptions options = short_windows();
  options.has_actions = true;
  options.action_window = 30'000;
  return options;
}

class GeneratedShop : public ::testing::TestWithParam<ShopOptions> {};

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
  EXPECT_EQ(expected.contains("value"), GetParam().has_values);
  if (!GetParam().has_values) return;
  EXPECT_GT(expected["labels"]["further_purchases"], 2);
  EXPECT_NEAR(expected["value"].get<double>(), found.value, 1e-6 * found.value);
  EXPECT_GT(found.value, 100);
}

INSTANTIATE_TEST_SUITE_P(Options, GeneratedShop,
                         ::testing::Values(small_shop(), troubled_shop(), short_windows(),
                                           beyond_the_bound(), in_segments(), with_values(),
                                           with_actions()));

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
  for (const char* stream : {"impressions", "clicks", "purchases"}) {
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
  for (const char* stream : {"impressions", "clicks", "purchases"}) {
    for (std::uint32_t p = 0; p < options.partitions; ++p) {
      EXPECT_EQ(read_log(plain.path(), stream, options, p),
                read_log(compressed.path(), stream, zstd, p));
    }
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
  EXPECT_THAT(refused.error().message, ::testing::HasSubstr("--force"));
  EXPECT_EQ(digests(folder.path()), before);

  ASSERT_TRUE(generate_shop(options, folder.path(), true, files, progress));
  EXPECT_EQ(read_file(folder.path() / "notes.txt"), "mine");
  fs::remove(folder.path() / "notes.txt");
  generate(options, fresh.path());
  EXPECT_EQ(digests(folder.path()), digests(fresh.path()));
}

TEST(Generate, ItsConfigLoadsAndSaysWhatWasGenerated) {
  const ShopOptions options = short_windows();
  const TemporaryFolder folder;
  generate(options, folder.path());
  const auto config = load_config_or_error(folder.path() / "shop.toml", {});
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_TRUE(fs::equivalent(config->source.root, folder.path()));
  EXPECT_EQ(config->join.click_window, options.click_window);
  EXPECT_EQ(config->join.conversion_window, options.conversion_window);
  for (const DurationMs bound : config->streams.max_out_of_orderness) {
    EXPECT_EQ(bound, options.max_out_of_orderness);
  }
  std::map<FeatureConfig::Type, int> kinds;
  int dense = 0;
  for (const FeatureConfig& feature : config->features) {
    ++kinds[feature.type];
    dense += feature.is_dense() ? 1 : 0;
    // Every path leads somewhere in some impression.
    bool is_found = false;
    std::string pointer = "/" + feature.path;
    std::replace(pointer.begin(), pointer.end(), '.', '/');
    for (std::uint32_t p = 0; p < options.partitions && !is_found; ++p) {
      for (const auto& line : read_log(folder.path(), "impressions", options, p)) {
        const json event = json::parse(line, nullptr, false);
        is_found = is_found || (event.is_object() && event.contains(json::json_pointer(pointer)));
      }
    }
    EXPECT_TRUE(is_found) << feature.path;
  }
  EXPECT_EQ(kinds.size(), 4u);
  EXPECT_GT(dense, 0);
  EXPECT_LT(dense, kinds[FeatureConfig::Type::number]);
}

// Purchases and the config apart, a shop with values is the shop without.
TEST(Generate, ValuesAreAFieldMoreOfPurchases) {
  ShopOptions options = small_shop();
  const TemporaryFolder without, with;
  generate(options, without.path());
  options.has_values = true;
  generate(options, with.path());
  for (const char* stream : {"impressions", "clicks", "purchases"}) {
    for (std::uint32_t p = 0; p < options.partitions; ++p) {
      const auto plain = read_log(without.path(), stream, options, p);
      const auto valued = read_log(with.path(), stream, options, p);
      ASSERT_EQ(plain.size(), valued.size());
      for (std::size_t n = 0; n < plain.size(); ++n) {
        json event = json::parse(valued[n]);
        if (std::string(stream) == "purchases") {
          EXPECT_GT(event.at("value"), 0);
          event.erase("value");
        }
        ASSERT_EQ(event, json::parse(plain[n]));
      }
    }
  }
  const auto config = load_config_or_error(with.path() / "shop.toml", {});
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_TRUE(config->join.sums_values());
  EXPECT_FALSE(load_config_or_error(without.path() / "shop.toml", {})->join.sums_values());
}

// Actions are a log more: nothing else of the shop changes.
TEST(Generate, ActionsAreAStreamMore) {
  ShopOptions options = troubled_shop();
  const TemporaryFolder plain;
  generate(options, plain.path());
  options.has_actions = true;
  const TemporaryFolder acting;
  const auto counts = generate(options, acting.path()).counts;
  EXPECT_GT(counts.acted, 20u);
  EXPECT_FALSE(fs::exists(plain.path() / "actions"));
  for (std::uint32_t p = 0; p < options.partitions; ++p) {
    for (const char* stream : {"impressions", "clicks", "purchases"}) {
      const std::string name = file_number(p) + ".jsonl";
      EXPECT_EQ(read_file(plain.path() / stream / name), read_file(acting.path() / stream / name));
    }
    for (const std::string& line : read_log(acting.path(), "actions", options, p)) {
      const auto event = json::parse(line, nullptr, false);
      if (!parse_line(line)) continue;
      EXPECT_TRUE(event["action"] == "cart" || event["action"] == "favourite") << line;
    }
  }
  const auto before = read_truth(plain.path(), options.partitions);
  const auto after = read_truth(acting.path(), options.partitions);
  ASSERT_EQ(before.size(), after.size());
  for (const auto& [id, rates] : after) {
    EXPECT_EQ(rates.pcvr, before.at(id).pcvr);
    // Six digits each.
    EXPECT_NEAR(rates.pcvr,
                rates.paction * rates.pcvr_acted + (1 - rates.paction) * rates.pcvr_unacted, 1e-5);
    EXPECT_GT(rates.paction, rates.pcvr);
    EXPECT_GT(rates.pcvr_acted, rates.pcvr_unacted);
    EXPECT_GT(rates.pcvr_unacted, 0);
    EXPECT_LE(rates.pcvr_acted, 1);
  }
}

// The labels drawn follow the rates; some purchases come without an action.
TEST(Generate, ActionsHaveTheirTrueRates) {
  ShopOptions options = small_shop();
  options.impressions = 150'000;
  options.has_actions = true;
  options.repeats = options.late_clicks = options.late_purchases = 0;
  const TemporaryFolder folder;
  generate(options, folder.path());
  std::map<std::string, int> seen;  // 1 a click, 2 an action, 4 a purchase
  for (std::uint32_t p = 0; p < options.partitions; ++p) {
    const std::pair<const char*, int> streams[] = {{"clicks", 1}, {"actions", 2}, {"purchases", 4}};
    for (const auto& [stream, bit] : streams) {
      for (const std::string& line : read_log(folder.path(), stream, options, p)) {
        seen[parse_line(line)->impression_id] |= bit;
      }
    }
  }
  double clicked = 0, acted = 0, purchased = 0, unacted = 0;
  double expected_acted = 0, expected_unacted = 0, variance = 0;
  for (const auto& [id, rates] : read_truth(folder.path(), options.partitions)) {
    const auto found = seen.find(id);
    if (found == seen.end()) continue;
    ASSERT_NE(found->second & 1, 0);
    ++clicked;
    acted += (found->second & 2) != 0 ? 1 : 0;
    purchased += (found->second & 4) != 0 ? 1 : 0;
    unacted += (found->second & 6) == 4 ? 1 : 0;
    expected_acted += rates.paction;
    expected_unacted += (1 - rates.paction) * rates.pcvr_unacted;
    variance += rates.paction * (1 - rates.paction);
  }
  EXPECT_GT(clicked, 4'000);
  EXPECT_NEAR(acted, expected_acted, 4 * std::sqrt(variance));
  EXPECT_GT(unacted, 0);
  EXPECT_GT(purchased, unacted);
  EXPECT_NEAR(unacted, expected_unacted, 4 * std::sqrt(expected_unacted));
}

TEST(Generate, OptionsThatCannotBeAreUsageErrors) {
  const auto message = [](auto change) {
    ShopOptions options;
    change(options);
    const Status status = check_options(options);
    EXPECT_FALSE(status);
    return status ? std::string() : status.error().message;
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(message([](auto& o) { o.late = 1.5; }), HasSubstr("--late"));
  EXPECT_THAT(message([](auto& o) { o.repeats = std::nan(""); }), HasSubstr("--repeats"));
  EXPECT_THAT(message([](auto& o) { o.span = 0; }), HasSubstr("--span"));
  EXPECT_THAT(message([](auto& o) { o.partitions = 0; }), HasSubstr("--partitions"));
  EXPECT_THAT(message([](auto& o) { o.items = 3; }), HasSubstr("--items"));
  EXPECT_THAT(message([](auto& o) { o.disorder = -1; }), HasSubstr("--disorder"));
  EXPECT_THAT(message([](auto& o) { o.start = 0; }), HasSubstr("--start"));
  EXPECT_THAT(message([](auto& o) { o.action_window = 5; }), HasSubstr("needs --actions"));
  EXPECT_THAT(message([](auto& o) {
                o.has_actions = true;
                o.action_window = 0;
              }),
              HasSubstr("--action-window"));
  // As a command line's -5 arrives.
  EXPECT_THAT(message([](auto& o) { o.impressions = 0 - std::uint64_t{5}; }),
              HasSubstr("--impressions"));
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
  Result<std::string> read_range(const fs::path& path, std::uint64_t, std::uint64_t) override {
    return stop_error(path.string());
  }
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
  EXPECT_THAT(summary.error().message, ::testing::HasSubstr("disk full"));
  EXPECT_THAT(disk.created, ::testing::Not(::testing::Contains("expected.json")));
}

}  // namespace
}  // namespace sluice::shop_test
