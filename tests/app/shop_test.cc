// The synthetic shop's own properties: pages, features, delays, true rates and their ceiling.
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "app/shop.h"
#include "tests/app/shop_recount.h"
#include "tests/store/temporary_folder.h"

namespace sluice::shop_test {
namespace {

using nlohmann::json;

TEST(Shop, TruthHasEveryImpressionOnceBesideItsPartition) {
  const ShopOptions options = small_shop();
  const TemporaryFolder folder;
  generate(options, folder.path());
  const auto truth = read_truth(folder.path(), options.partitions);
  EXPECT_EQ(truth.size(), options.impressions);
  std::uint64_t impressions = 0;
  for (std::uint32_t p = 0; p < options.partitions; ++p) {
    for (std::size_t stream = 0; stream < kStreamsWithoutActions; ++stream) {
      for (const std::string& line : read_log(folder.path(), kStreamNames[stream], options, p)) {
        const json event = json::parse(line);
        const auto& rates = truth.at(event["impression_id"].get<std::string>());
        EXPECT_EQ(rates.partition, p);
        const std::string user = event["user_id"].get<std::string>();
        const auto* bytes = reinterpret_cast<const Bytef*>(user.data());
        EXPECT_EQ(crc32(0, bytes, static_cast<uInt>(user.size())) % options.partitions, p);
        impressions += stream == 0 ? 1 : 0;
      }
    }
  }
  EXPECT_EQ(impressions, options.impressions);
}

TEST(Shop, PagesShareUserContextAndMoment) {
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

TEST(Shop, RatesAreThoseOfAShopWithSelectionBias) {
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

TEST(Shop, TheCeilingIsTheAucOfTheTrueRates) {
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

TEST(Shop, SlowDelaysHaveLongTails) {
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

TEST(Shop, FeaturesAreOfEveryKindAndMayBeMissing) {
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
}  // namespace
}  // namespace sluice::shop_test
