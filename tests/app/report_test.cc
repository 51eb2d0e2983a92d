// What people read: the report's summary and the status line.
#include "app/report.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "app/progress.h"
#include "config/load.h"
#include "tests/app/driven_pipeline.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

// Logs without clicks and purchases, or without anything.
nlohmann::ordered_json report_of(int impressions, std::string* summary) {
  const TemporaryFolder folder;
  for (const char* stream : kStreamNames) {
    fs::create_directories(folder.path() / stream);
    std::ofstream(folder.path() / stream / "0.jsonl");
  }
  std::ofstream log(folder.path() / "impressions" / "0.jsonl");
  for (int index = 0; index < impressions; ++index) {
    log << event_line(1'700'000'000'000 + index, "i" + std::to_string(index)) << '\n';
  }
  log.close();
  const auto loaded = parse_config(R"([source]
root = "."
[features]
item = { path = "impression_id", type = "id" }
price = { path = "features.prise", type = "number" }
[model]
embedding_dim = 2
hidden = [2]
)",
                                   "test.toml", folder.path(), {});
  EXPECT_TRUE(loaded.problems.empty());
  DrivenPipeline pipeline(loaded.config, folder.path(), {EndPolicy::Kind::close, 0, false});
  EXPECT_TRUE(pipeline.start());
  EXPECT_TRUE(pipeline.finish());
  Throughput throughput;
  throughput.events = throughput.samples = static_cast<std::uint64_t>(impressions);
  auto report = make_report(pipeline.join_stage(), pipeline.learning(), throughput, true);
  EXPECT_TRUE(report);
  *summary = summarize(*report);
  return *report;
}

TEST(ReportTest, WhatIsUndefinedIsNull) {
  std::string summary;
  const auto report = report_of(10, &summary);
  EXPECT_EQ(report["events"]["impressions"], 10);
  EXPECT_EQ(report["labels"]["clicked"], 0);
  EXPECT_EQ(report["samples"], 10);
  EXPECT_EQ(report["trained"], 10);
  EXPECT_EQ(report["closed"], true);
  EXPECT_EQ(report["reproducible"], true);
  for (const auto* metrics : {&report["metrics"], &report["metrics"]["second_half"]}) {
    for (const char* rate : {"ctr", "ctcvr", "cvr"}) {
      EXPECT_TRUE((*metrics)[rate]["auc"].is_null()) << rate;
      EXPECT_TRUE((*metrics)[rate]["normalized_entropy"].is_null()) << rate;
      EXPECT_TRUE((*metrics)[rate]["calibration"].is_null()) << rate;
    }
    EXPECT_TRUE((*metrics)["ctr"]["log_loss"].is_number());
    EXPECT_TRUE((*metrics)["cvr"]["log_loss"].is_null());
  }
  EXPECT_EQ(report["throughput"]["events_per_s"], 0);  // no time passed: no division by it
  EXPECT_NE(summary.find("read      10 impressions, 0 clicks, 0 purchases\n"), std::string::npos);
  EXPECT_NE(summary.find("refused   nothing\n"), std::string::npos);
  EXPECT_EQ(report["absent"]["item"], 0);
  EXPECT_EQ(report["absent"]["price"], 10);
  EXPECT_NE(summary.find("warning   feature price: no impression has a value"), std::string::npos);
  EXPECT_EQ(summary.find("feature item"), std::string::npos);
  EXPECT_NE(summary.find("  CVR            -          -           -             -\n"),
            std::string::npos)
      << summary;
}

TEST(ReportTest, EmptyLogsHaveAReportToo) {
  std::string summary;
  const auto report = report_of(0, &summary);
  EXPECT_EQ(report["samples"], 0);
  EXPECT_EQ(report["closed"], true);
  EXPECT_FALSE(report.contains("snapshot"));
  for (const auto& [reason, count] : report["refused"].items()) EXPECT_EQ(count, 0) << reason;
  EXPECT_EQ(report["refused"].size(), kRefusals);
  EXPECT_NE(summary.find("labels    0 impressions, 0 clicked, 0 converted\n"), std::string::npos);
}

// One converted impression with these further keys of [join]; its two purchases have these values.
nlohmann::ordered_json report_of_purchases(const std::string& join_keys, const std::string& first,
                                           const std::string& second, std::string* summary) {
  const TemporaryFolder folder;
  const char* const values[] = {first.c_str(), second.c_str()};
  for (const char* stream : kStreamNames) {
    fs::create_directories(folder.path() / stream);
    std::ofstream log(folder.path() / stream / "0.jsonl");
    const bool is_purchases = std::string(stream) == "purchases";
    for (int index = 0; index < (is_purchases ? 2 : 1); ++index) {
      log << "{\"ts\":" << 1'700'000'000'000 + index << ",\"impression_id\":\"a\"";
      if (is_purchases) log << ",\"value\":" << values[index];
      log << "}\n";
    }
  }
  const auto loaded = parse_config("[source]\nroot = \".\"\n[join]\n" + join_keys +
                                       "\n[features]\n"
                                       "item = { path = \"impression_id\", type = \"id\" }\n"
                                       "[model]\nembedding_dim = 2\nhidden = [2]\n",
                                   "test.toml", folder.path(), {});
  EXPECT_TRUE(loaded.problems.empty());
  DrivenPipeline pipeline(loaded.config, folder.path(), {EndPolicy::Kind::close, 0, false});
  EXPECT_TRUE(pipeline.start());
  EXPECT_TRUE(pipeline.finish());
  auto report = make_report(pipeline.join_stage(), pipeline.learning(), {}, true);
  EXPECT_TRUE(report);
  *summary = summarize(*report);
  return *report;
}

TEST(ReportTest, ValuesAreToldWhereTheyAreSummed) {
  const std::string sums = "purchase_label = \"at_close\"\npurchase_value = \"sum\"";
  std::string summary;
  auto report = report_of_purchases(sums, "19.99", "null", &summary);
  EXPECT_EQ(report["used"]["purchases"], 2);
  EXPECT_EQ(report["labels"]["converted"], 1);
  EXPECT_EQ(report["labels"]["value"], 19.99);
  EXPECT_EQ(report["labels"]["without_value"], 1);
  EXPECT_NE(summary.find("1 clicked, 1 converted, value 19.99\n"), std::string::npos) << summary;
  EXPECT_EQ(summary.find("streams.value"), std::string::npos) << summary;

  report = report_of_purchases(sums, "\"7\"", "[]", &summary);
  EXPECT_EQ(report["labels"]["value"], 0);
  EXPECT_EQ(report["labels"]["without_value"], 2);
  EXPECT_NE(summary.find("warning   no purchase that counts has a number"), std::string::npos);

  report = report_of_purchases("", "7", "8", &summary);
  EXPECT_FALSE(report["labels"].contains("value"));
  EXPECT_FALSE(report["labels"].contains("without_value"));
  EXPECT_EQ(report["refused"]["repeat"], 1);
  EXPECT_NE(summary.find("1 converted\n"), std::string::npos) << summary;
}

TEST(ReportTest, ActionsAreToldWhereThereAre) {
  std::string summary;
  auto report = report_of_purchases("[streams.actions]\ntopic = \"actions\"", "7", "8", &summary);
  EXPECT_EQ(report["events"]["actions"], 1);
  EXPECT_EQ(report["used"]["actions"], 1);
  EXPECT_EQ(report["labels"]["acted"], 1);
  EXPECT_EQ(report["samples"], 1);
  EXPECT_NE(summary.find("1 clicks, 1 actions, 2 purchases"), std::string::npos) << summary;
  EXPECT_NE(summary.find("1 clicked, 1 acted, 1 converted"), std::string::npos) << summary;

  report = report_of_purchases("", "7", "8", &summary);
  EXPECT_FALSE(report["events"].contains("actions"));
  EXPECT_FALSE(report["used"].contains("actions"));
  EXPECT_FALSE(report["labels"].contains("acted"));
}

TEST(StatusLineTest, SaysWhoHoldsEventTimeBack) {
  ServiceStatus status;
  status.join.slowest = {Stream::purchases, 3};
  EXPECT_EQ(
      status_line(status),
      "no event time yet, waiting for purchases/3; 0 events, 0 impressions open, 0 samples, 0 "
      "learned");
  status.join.watermark = 1'700'000'000'000;
  status.wall_ms = status.join.watermark + 90'999;
  status.join.lag_records = 12;
  status.join.quiet_partitions = 2;
  status.join.counters.used = {5, 3, 1, 0};
  status.join.counters.refused[1][static_cast<std::size_t>(Refusal::late)] = 4;
  status.join.open_impressions = 7;
  status.join.samples = 20;
  status.trained = 16;
  status.join.last_commit_wall_ms = status.wall_ms;
  status.last_snapshot = 8;
  EXPECT_EQ(status_line(status),
            "lag 12 records, event time 2023-11-14T22:13:20Z (90 s behind, held by purchases/3), 2 "
            "partitions quiet; 13 events, 7 impressions open, 20 samples, 16 learned, 4 late; last "
            "commit 2023-11-14T22:14:50.999Z, snapshot 8");
  status.freshness = FreshnessFigures{150, 280, 400};
  EXPECT_TRUE(status_line(status).ends_with(
      "; last commit 2023-11-14T22:14:50.999Z; freshness 150 ms, p99 280 ms, snapshot 8"))
      << status_line(status);
  // After a standstill the milliseconds say nothing.
  status.freshness = FreshnessFigures{9'999, 12'582'911, 12'582'911};
  EXPECT_TRUE(status_line(status).ends_with("; freshness 9999 ms, p99 12582 s, snapshot 8"))
      << status_line(status);
  // Events from the future: nothing is behind.
  status.wall_ms = status.join.watermark - 5'000;
  EXPECT_NE(status_line(status).find("(0 s behind"), std::string::npos) << status_line(status);
  status.join.watermark = kTimeMax;
  EXPECT_NE(status_line(status).find("event time is over, 2 partitions quiet"), std::string::npos);
}

TEST(ProgressTest, ALineOfAServiceTellsTheFreshnessSinceTheLineBefore) {
  Config config;
  config.join.tick = 1'000;
  config.streams.max_out_of_orderness = {0, 0, 0};
  Freshness freshness(config);
  Progress progress(true, 0, &freshness);
  const auto line_at = [&](DurationMs now_ms) {
    ::testing::internal::CaptureStdout();
    progress.show({}, now_ms);
    return ::testing::internal::GetCapturedStdout();
  };
  std::vector<Sample> samples(1);
  samples[0].time = 1'700'000'000'000;
  freshness.add(samples, samples[0].time + 1'050);
  EXPECT_EQ(line_at(9'999), "");  // too early for a line, which would take it
  EXPECT_NE(line_at(10'000).find("; freshness 50 ms, p99 50 ms\n"), std::string::npos);
  const std::string nothing_new = line_at(20'000);
  EXPECT_NE(nothing_new.find(" learned\n"), std::string::npos) << nothing_new;
  freshness.add(samples, samples[0].time + 1'010);
  EXPECT_NE(line_at(30'000).find("; freshness 10 ms, p99 10 ms\n"), std::string::npos);
  EXPECT_EQ(freshness.all()->longest, 50);
}

}  // namespace
}  // namespace sluice
