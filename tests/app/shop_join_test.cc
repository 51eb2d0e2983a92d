// Generated shops with much disorder and every trouble there is, through the file source and the
// join, against the oracle: every sample, every refusal.
#include <cmath>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "app/shop.h"
#include "tests/joiner/oracle.h"
#include "tests/joiner/stages.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

std::string id_text(const Json& record, const char* name) {
  if (!record.contains(name) || record[name].is_null()) return "";
  return record[name].is_string() ? record[name].get<std::string>() : record[name].dump();
}

// By another JSON parser than the decoder's.
OracleRecord parse(Stream, const Record& record) {
  OracleRecord fact;
  fact.position = record.position;
  const Json json = Json::parse(record.bytes, nullptr, false);
  const bool is_readable = json.is_object() && json.contains("ts") &&
                           json["ts"].is_number_integer() &&
                           json["ts"].get<TimeMs>() >= StreamsConfig{}.not_before &&
                           !id_text(json, "impression_id").empty();
  if (!is_readable) {
    fact.unreadable = Refusal::malformed;
    return fact;
  }
  fact.time = json["ts"].get<TimeMs>();
  fact.event_id = id_text(json, "event_id");
  fact.impression_id = id_text(json, "impression_id");
  fact.user_id = id_text(json, "user_id");
  fact.item_id = id_text(json, "item_id");
  if (json.contains("value")) {
    fact.value = std::llround(json["value"].get<double>() * 100) * 10'000;  // of cents
  }
  return fact;
}

struct Case {
  const char* name;
  ShopOptions options;
  JoinConfig join;
};

Case with_actions(Case one) {
  one.name = "actions";
  one.options.has_actions = true;
  one.join.attributed_click = JoinConfig::AttributedClick::last;
  one.join.attribution = JoinConfig::Attribution::user_item;
  one.join.action_window = 3'600'000;
  return one;
}

std::vector<Case> cases() {
  ShopOptions rough;
  rough.impressions = 4'000;
  rough.users = 60;
  rough.items = 40;
  rough.partitions = 3;
  rough.span = 2 * 3'600'000;
  rough.repeats = 0.3;
  rough.late_clicks = 0.2;
  rough.late_purchases = 0.3;
  rough.duplicates = 0.05;
  rough.orphans = 0.02;
  rough.malformed = 0.02;
  rough.late = 0.02;
  ShopOptions beyond = rough;  // many records come later than the bound allows
  beyond.seed = 2;
  beyond.disorder = 40'000;
  beyond.segments = 3;
  JoinConfig by_user;
  by_user.attribution = JoinConfig::Attribution::user_item;
  JoinConfig skewed;
  skewed.clock_skew = 3'000;
  skewed.purchase_label = JoinConfig::PurchaseLabel::at_close;
  skewed.click_window = 60'000;
  skewed.conversion_window = 20 * 60'000;
  ShopOptions valued = rough;
  valued.has_values = true;
  valued.repeats = 0.8;
  JoinConfig sums = skewed;
  sums.attributed_click = JoinConfig::AttributedClick::last;
  sums.purchase_value = JoinConfig::PurchaseValue::sum;
  return {{"rough", rough, {}},
          {"values", valued, sums},
          {"disorder beyond the bound", beyond, {}},
          {"user and item", rough, by_user},
          with_actions({"", rough, {}}),
          {"skew, labels at close", beyond, skewed}};
}

TEST(ShopJoin, EverySampleAndRefusalEqualsTheOracles) {
  RealFileSystem files;
  for (const Case& it : cases()) {
    SCOPED_TRACE(it.name);
    const TemporaryFolder folder;
    const auto shop =
        generate_shop(it.options, folder.path() / "shop", false, files, [](std::uint64_t) {});
    ASSERT_TRUE(shop.has_value());
    Config config;
    config.source.root = (folder.path() / "shop").string();
    config.join = it.join;
    if (it.options.has_actions) config.streams.topic[3] = "actions";
    auto source = open_file_source(config);
    ASSERT_TRUE(source.has_value());
    const auto partitions = (*source)->partitions();
    ASSERT_EQ(partitions.value(), it.options.partitions);
    const OracleResult oracle =
        expected_join(read_facts(**source, *partitions, parse, config.streams.count()), *partitions,
                      config.streams, config.join);
    ASSERT_EQ(oracle.acted > 10, it.options.has_actions);
    ASSERT_GT(oracle.clicked, 50u);
    ASSERT_GT(oracle.refusals.size(), 100u);

    for (const Rhythm& rhythm : {Rhythm{}, Rhythm{7, 300, 4, 11, true, true, false}}) {
      auto again = open_file_source(config);
      ASSERT_TRUE(again.has_value());
      const auto store = make_memory_store();
      Decoder decoder(config.streams, config.join, config.features);
      Stages stages(config, **again, decoder, *store, rhythm);
      const auto samples = stages.run([](const Stages&, const std::vector<Sample>&) {});
      EXPECT_EQ(difference(samples, oracle.samples), "");
      EXPECT_EQ(difference(stages.join().committed().counters, oracle), "");
      EXPECT_EQ(stages.join().open_impressions(), 0u);
      EXPECT_EQ(count_keys(*store, Space::state), 0u);
    }
  }
}

}  // namespace
}  // namespace sluice
