// The promise, with the stages driven by hand: however they are interleaved and wherever the
// process ends, the outcome is that of an undisturbed run.
#include "app/pipeline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "app/shop.h"
#include "app/shop_files.h"
#include "base/check.h"
#include "base/hash.h"
#include "config/load.h"
#include "joiner/sample_log.h"
#include "serving/snapshots.h"
#include "store/published_folder.h"
#include "store/tensors.h"
#include "tests/app/driven_pipeline.h"
#include "tests/app/shop_recount.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

// A shop of a few thousand records with every kind of mistake in it, made once.
class PipelineTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = new TemporaryFolder();
    ShopOptions options;
    options.impressions = 3'000;
    options.users = 200;
    options.items = 100;
    options.partitions = 2;
    options.page = 5;
    options.span = 7'200'000;
    options.click_window = 300'000;
    options.conversion_window = 36'000'000;
    options.duplicates = options.orphans = options.malformed = options.late = 0.02;
    RealFileSystem files;
    const auto made =
        generate_shop(options, shop_->path() / "shop", false, files, [](std::uint64_t) {});
    ASSERT_TRUE(made) << made.error().message;
    for (std::uint32_t partition = 0; partition < options.partitions; ++partition) {
      add_clicks_and_purchases(shop_->path() / "shop", file_number(partition) + ".jsonl");
    }
  }
  static void TearDownTestSuite() {
    delete shop_;
    shop_ = nullptr;
  }

  // So small a shop sells next to nothing: every sixth impression is clicked once more, and every
  // second of these clicks buys, within five hours.
  static void add_clicks_and_purchases(const fs::path& root, const std::string& file) {
    std::multimap<TimeMs, std::string> logs[kStreamsWithoutActions];
    for (std::size_t stream = 0; stream < kStreamsWithoutActions; ++stream) {
      TimeMs time = 0;  // a malformed line stays behind the line before it
      for (const std::string& line :
           shop_test::lines_of(read_bytes(root / kStreamNames[stream] / file))) {
        const auto event = nlohmann::json::parse(line, nullptr, false);
        if (event.is_object() && event.contains("ts") && event["ts"].is_number_integer()) {
          time = event["ts"].get<TimeMs>();
        }
        logs[stream].emplace(time, line);
      }
    }
    std::uint64_t count = 0;
    for (const auto& [time, line] : logs[0]) {
      auto event = nlohmann::json::parse(line, nullptr, false);
      if (++count % 6 != 0 || !event.is_object() || !event["impression_id"].is_string()) continue;
      const auto name = event["impression_id"].get<std::string>();
      const TimeMs click = time + 1'000 + static_cast<TimeMs>(mix64(count) % 280'000);
      logs[1].emplace(click, event_line(click, name));
      const TimeMs purchase = click + static_cast<TimeMs>(mix64(click) % 18'000'000);
      if (count % 12 == 0) logs[2].emplace(purchase, event_line(purchase, name));
    }
    for (std::size_t stream = 1; stream < kStreamsWithoutActions; ++stream) {
      std::ofstream out(root / kStreamNames[stream] / file, std::ios::binary);
      for (const auto& [time, line] : logs[stream]) out << line << '\n';
    }
  }

  static Config shop_config(std::vector<std::string> overrides) {
    overrides.insert(overrides.begin(),
                     {"model.embedding_dim=4", "model.hidden=[8]", "training.batch_size=64",
                      "training.lane=16", "snapshots.every=\"20 min\"", "snapshots.keep=2",
                      "checkpoints.every=500", "store.commit_records=300"});
    auto loaded = load_config_or_error(shop_->path() / "shop" / "shop.toml", overrides);
    EXPECT_TRUE(loaded) << loaded.error().message;
    return *loaded;
  }

  static ReplayOutcome undisturbed(const Config& config) {
    const TemporaryFolder folder;
    DrivenPipeline pipeline(config, folder.path(), kClose);
    Status status = pipeline.start();
    EXPECT_TRUE(status) << status.error().message;
    status = pipeline.finish();
    EXPECT_TRUE(status) << status.error().message;
    return pipeline.outcome();
  }

  static TemporaryFolder* shop_;
};
TemporaryFolder* PipelineTest::shop_ = nullptr;

// Drives a pipeline at random: first with faults, then to its end without.
class Disturber {
 public:
  Disturber(DrivenPipeline& pipeline, std::uint64_t seed) : pipeline_(pipeline), seed_(seed) {}

  void run(int crashes) {
    const Config config = pipeline_.config;
    while (crashes > 0) {
      if (!pipeline_.is_running()) {
        // Operational keys may change at each start.
        pipeline_.config.store.commit_records = 20 + below(2'000);
        pipeline_.config.store.commit_interval = static_cast<DurationMs>(1 + below(5'000));
        pipeline_.config.source.read_records = 1 + below(300);
        pipeline_.config.source.max_queued_bytes = std::uint64_t{1} << (12 + below(10));
        pipeline_.threads = 1 + below(3);
        inject();
      }
      const bool has_failed = !act();
      check();
      if (has_failed || one_in(150)) {
        pipeline_.crash();
        --crashes;
      }
    }
    pipeline_.crash();
    pipeline_.config = config;
    ASSERT_TRUE(pipeline_.start());
    const Status status = pipeline_.finish();
    ASSERT_TRUE(status) << status.error().message;
    check();
  }

  int crashes_in_writes = 0;

 private:
  std::uint64_t below(std::uint64_t bound) { return mix64(mix64(seed_) + draws_++) % bound; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }

  void inject() {
    if (one_in(2)) pipeline_.files.fail_from(below(300));
    if (one_in(4)) pipeline_.store.fail_from(1 + below(20));
  }

  // False where a fault stopped it; any other error fails the test.
  bool act() {
    Status status;
    if (!pipeline_.is_running()) {
      status = pipeline_.start();
    } else if (is_finished_ && one_in(2)) {
      const Status ended = pipeline_.learning().trainer().next_sequence() ==
                                   pipeline_.join_stage().committed().next_sequence
                               ? pipeline_.learning().finish()
                               : Status();
      status = ended;
      if (ended) return false;  // nothing is left to do: end here
    } else if (one_in(2)) {
      const auto more = pipeline_.learn(1 + below(400));
      if (!more) status = more.error();
    } else {
      pipeline_.clock.pass(static_cast<DurationMs>(below(2'000)));
      const auto more = pipeline_.join();
      if (!more) status = more.error();
      if (more) is_finished_ = !*more;
    }
    if (status) return true;
    EXPECT_NE(status.error().message.find("injected"), std::string::npos) << status.error().message;
    ++crashes_in_writes;
    return false;
  }

  // LATEST never goes back and names what is there; a snapshot that was pruned stays away.
  void check() {
    const fs::path parent = pipeline_.model_dir() / "snapshots";
    if (!fs::exists(parent)) return;
    RealFileSystem files;
    const auto latest = read_latest(files, parent);
    ASSERT_TRUE(latest);
    if (!*latest) return;
    ASSERT_GE(**latest, latest_);
    latest_ = **latest;
    ASSERT_TRUE(fs::exists(parent / numbered_folder_name(latest_)));
    const std::vector<std::string> present = pipeline_.folders("snapshots");
    for (const std::string& name : present) {
      if (!folder_number(name)) continue;
      ASSERT_FALSE(gone_.contains(name)) << name << " came back";
      seen_.insert(name);
    }
    for (const std::string& name : seen_) {
      if (std::find(present.begin(), present.end(), name) == present.end()) gone_.insert(name);
    }
  }

  DrivenPipeline& pipeline_;
  std::uint64_t seed_;
  std::uint64_t draws_ = 0;
  bool is_finished_ = false;
  std::uint64_t latest_ = 0;
  std::set<std::string> seen_, gone_;
};

TEST_F(PipelineTest, WhereverItIsStoppedTheOutcomeIsTheSame) {
  struct Variant {
    std::vector<std::string> overrides;
    std::uint64_t runs;
    int crashes;
    bool writes_beside = false;
  };
  int crashes_in_writes = 0;
  for (const Variant& variant : {
           Variant{{}, 5, 8},
           // Batches that are also cut by event time, and labels that wait.
           Variant{{"training.batch_span=\"20 s\"", "join.purchase_label=at_close"}, 2, 6},
           // No checkpoint before the end: each start learns everything again.
           Variant{{"checkpoints.every=1000000"}, 2, 4},
           // Periods of snapshots that begin inside a tick.
           Variant{{"join.tick=\"1 min\"", "snapshots.every=\"90 s\"", "snapshots.keep=5"}, 2, 6},
           // Deltas; written on the learning thread, and on one of their own.
           Variant{{"snapshots.full_every=3"}, 3, 8},
           Variant{{"snapshots.full_every=4", "snapshots.every=\"10 min\""}, 3, 8, true},
       }) {
    const Config config = shop_config(variant.overrides);
    const ReplayOutcome expected = undisturbed(config);
    ASSERT_GT(expected.report["samples"].get<int>(), 2'000);
    ASSERT_GT(expected.report["labels"]["converted"].get<int>(), 5) << expected.report;
    ASSERT_GT(expected.dead_letters.size(), 10U);
    ASSERT_GT(expected.digest_lines.size(), 5U);
    for (std::uint64_t seed = 1; seed <= variant.runs; ++seed) {
      SCOPED_TRACE("seed " + std::to_string(seed) + " of " +
                   (variant.overrides.empty() ? "the plain config" : variant.overrides.front()));
      const TemporaryFolder folder;
      DrivenPipeline pipeline(config, folder.path(), kClose);
      pipeline.writes_beside = variant.writes_beside;
      pipeline.rows_at_once = variant.writes_beside ? 1 : 32'768;
      Disturber disturber(pipeline, seed);
      disturber.run(variant.crashes);
      crashes_in_writes += disturber.crashes_in_writes;
      if (HasFatalFailure()) return;
      ASSERT_EQ(pipeline.outcome().difference(expected), "");
    }
  }
  EXPECT_GT(crashes_in_writes, 10);
}

// All snapshots by sequence: what read_flat_snapshot() makes of each, encoded, and its manifest.
struct FlatSnapshot {
  std::string weights;
  nlohmann::ordered_json manifest;
};
std::map<std::uint64_t, FlatSnapshot> flat_snapshots(const fs::path& parent) {
  RealFileSystem files;
  std::map<std::uint64_t, FlatSnapshot> flat;
  const auto numbers = list_numbered_folders(files, parent);
  SLUICE_CHECK(numbers.has_value());
  for (const std::uint64_t number : *numbers) {
    auto snapshot = read_flat_snapshot(files, parent / numbered_folder_name(number));
    EXPECT_TRUE(snapshot) << snapshot.error().message;
    if (snapshot) flat[number] = {encode_tensors(snapshot->tensors), snapshot->manifest};
  }
  return flat;
}

TEST_F(PipelineTest, AChainFlattenedIsTheFullSnapshotByteForByte) {
  const std::vector<std::string> all = {"snapshots.keep=1000", "snapshots.every=\"10 min\""};
  const TemporaryFolder folder;
  DrivenPipeline full(shop_config(all), folder.path() / "full", kClose);
  ASSERT_TRUE(full.start());
  ASSERT_TRUE(full.finish());
  const auto expected = flat_snapshots(full.model_dir() / "snapshots");
  ASSERT_GT(expected.size(), 10U);
  for (const auto& [number, snapshot] : expected) {
    const fs::path path = full.model_dir() / "snapshots" / numbered_folder_name(number);
    EXPECT_EQ(snapshot.weights, read_bytes(path / "weights.safetensors"));
  }

  auto with_deltas = all;
  with_deltas.emplace_back("snapshots.full_every=4");
  DrivenPipeline chain(shop_config(with_deltas), folder.path() / "chain", kClose);
  chain.rows_at_once = 7;
  chain.writes_beside = true;
  chain.threads = 2;
  ASSERT_TRUE(chain.start());
  ASSERT_TRUE(chain.finish());
  const auto flat = flat_snapshots(chain.model_dir() / "snapshots");
  ASSERT_EQ(flat.size(), expected.size());
  std::uint64_t ordinal = 0;
  std::uint64_t before = 0;
  for (const auto& [number, snapshot] : flat) {
    SCOPED_TRACE(number);
    ASSERT_TRUE(expected.contains(number));
    EXPECT_TRUE(snapshot.weights == expected.at(number).weights);
    const auto& manifest = snapshot.manifest;
    for (const char* key : {"model_digest", "weights_digest", "samples_digest", "ordinal"}) {
      EXPECT_EQ(manifest[key], expected.at(number).manifest[key]) << key;
    }
    const bool is_full = ordinal++ % 4 == 0;
    EXPECT_EQ(manifest["ordinal"], ordinal);
    EXPECT_EQ(manifest["kind"], is_full ? "full" : "delta");
    EXPECT_EQ(manifest.contains("base"), !is_full);
    if (!is_full) {
      EXPECT_EQ(manifest["base"]["sequence"], before);
    }
    before = number;
  }
}

TEST_F(PipelineTest, WhatKeptDeltasNeedIsKept) {
  const TemporaryFolder folder;
  DrivenPipeline pipeline(
      shop_config({"snapshots.keep=2", "snapshots.every=\"10 min\"", "snapshots.full_every=5"}),
      folder.path(), kClose);
  ASSERT_TRUE(pipeline.start());
  std::size_t most = 0;
  std::set<std::size_t> sizes;
  for (bool more = true; more;) {
    const auto joined = pipeline.join();
    ASSERT_TRUE(joined);
    more = *joined;
    for (bool untrained = true; untrained;) {
      const auto learned = pipeline.learn(50);
      ASSERT_TRUE(learned);
      untrained = *learned;
      const auto present = flat_snapshots(pipeline.model_dir() / "snapshots");
      sizes.insert(present.size());
      most = std::max(most, present.size());
    }
  }
  ASSERT_TRUE(pipeline.finish());
  EXPECT_EQ(most, 6U);  // a whole chain, and the full one after it
  EXPECT_TRUE(sizes.contains(2));
}

TEST_F(PipelineTest, AFinishedReplayThatIsStartedAgainSaysTheSame) {
  const TemporaryFolder folder;
  DrivenPipeline pipeline(shop_config({}), folder.path(), kClose);
  ASSERT_TRUE(pipeline.start());
  ASSERT_TRUE(pipeline.finish());
  const ReplayOutcome expected = pipeline.outcome();
  pipeline.crash();
  ASSERT_TRUE(pipeline.start());
  ASSERT_TRUE(pipeline.finish());
  EXPECT_EQ(pipeline.outcome().difference(expected), "");
}

// The first batch lies in one tick, behind the middle of it, where a period of snapshots begins.
TEST_F(PipelineTest, TheFirstPeriodOfSnapshotsIsTheSameAfterARestart) {
  const Config config =
      shop_config({"join.tick=\"1 min\"", "snapshots.every=\"90 s\"", "join.click_window=\"100 s\"",
                   "training.batch_size=4", "checkpoints.every=4", "checkpoints.keep=100000",
                   "snapshots.keep=100000"});
  const TemporaryFolder folder;
  DrivenPipeline pipeline(config, folder.path(), kClose);
  ASSERT_TRUE(pipeline.start());
  while (pipeline.learning().trained_sequence() < 100) {
    ASSERT_TRUE(pipeline.join());
    ASSERT_TRUE(pipeline.learn(1));
  }
  const auto samples = read_samples(pipeline.store, 1, 4);
  ASSERT_TRUE(samples);
  for (std::size_t index = 0; index < 4; ++index) {
    ASSERT_EQ(floor_to((*samples)[index].time, 60'000) % 180'000, 60'000);
    ASSERT_GE((*samples)[index].time % 180'000, 90'000);
  }
  const std::vector<std::string> snapshots = pipeline.folders("snapshots");
  const std::uint64_t trained = pipeline.learning().trained_sequence();
  pipeline.crash();
  for (const std::string& name : pipeline.folders("checkpoints")) {
    if (folder_number(name) > 4U) fs::remove_all(pipeline.model_dir() / "checkpoints" / name);
  }
  // All that could hide a snapshot that is made at another place.
  fs::remove_all(pipeline.model_dir() / "snapshots");
  fs::remove(pipeline.data_dir() / "digests.jsonl");
  ASSERT_TRUE(pipeline.start());
  ASSERT_EQ(pipeline.learning().trained_sequence(), 4U);
  while (pipeline.learning().trained_sequence() < trained) {
    const auto learned = pipeline.learn(1);
    ASSERT_TRUE(learned) << learned.error().message;
  }
  EXPECT_EQ(pipeline.folders("snapshots"), snapshots);
}

// Graceful stops make checkpoints of their own, so digests.jsonl has more lines: of the others none
// may be missing.
TEST_F(PipelineTest, StoppedOnRequestItGoesOn) {
  const Config config = shop_config({});
  const ReplayOutcome expected = undisturbed(config);
  const TemporaryFolder folder;
  DrivenPipeline pipeline(config, folder.path(), kClose);
  pipeline.config.source.read_records = 50;
  pipeline.config.checkpoints.every = 777;
  for (int start = 0; start < 5; ++start) {
    ASSERT_TRUE(pipeline.start());
    for (int step = 0; step < 20; ++step) {
      pipeline.clock.pass(300);
      ASSERT_TRUE(pipeline.join());
      ASSERT_TRUE(pipeline.learn(100));
    }
    ASSERT_TRUE(pipeline.stop());
    EXPECT_EQ(pipeline.learning().trained_sequence() == 0, pipeline.folders("checkpoints").empty());
    pipeline.crash();
  }
  pipeline.config = config;
  ASSERT_TRUE(pipeline.start());
  ASSERT_TRUE(pipeline.finish());
  ReplayOutcome outcome = pipeline.outcome();
  std::set<std::string> snapshot_lines;
  for (const std::string& line : expected.digest_lines) {
    if (line.find("\"snapshot\"") != std::string::npos) snapshot_lines.insert(line);
  }
  EXPECT_TRUE(std::includes(outcome.digest_lines.begin(), outcome.digest_lines.end(),
                            snapshot_lines.begin(), snapshot_lines.end()));
  outcome.digest_lines = expected.digest_lines;
  EXPECT_EQ(outcome.difference(expected), "");
}

TEST_F(PipelineTest, ALearnerThatMayNotLagABatchBehindStillFinishes) {
  const Config plain = shop_config({});
  const TemporaryFolder folder;
  DrivenPipeline pipeline(shop_config({"store.max_learner_lag=1"}), folder.path(), kClose);
  ASSERT_TRUE(pipeline.start());
  for (int round = 0; round < 1'000; ++round) {
    const auto more = pipeline.join();
    ASSERT_TRUE(more);
    ASSERT_TRUE(pipeline.learn(10'000));
    if (!*more) break;
  }
  EXPECT_TRUE(pipeline.join_stage().is_closed());
  ASSERT_TRUE(pipeline.finish());
  EXPECT_EQ(pipeline.outcome().difference(undisturbed(plain)), "");
}

// ---- damage

class DamageTest : public PipelineTest {
 protected:
  // Until there are two checkpoints and more is learned, then the process ends.
  void run_halfway(DrivenPipeline& pipeline) {
    pipeline.config.source.read_records = 20;
    ASSERT_TRUE(pipeline.start());
    while (pipeline.learning().trained_sequence() < 1'600) {
      ASSERT_TRUE(pipeline.join());
      ASSERT_TRUE(pipeline.learn(10'000));
    }
    ASSERT_FALSE(pipeline.join_stage().is_closed());
    pipeline.crash();
  }
  static void flip_byte(const fs::path& path) {
    std::string bytes = read_bytes(path);
    ASSERT_FALSE(bytes.empty());
    bytes[bytes.size() / 2] ^= 1;
    std::ofstream(path, std::ios::binary) << bytes;
  }
};

TEST_F(DamageTest, ADamagedNewestCheckpointIsPassedOver) {
  const Config config = shop_config({});
  const ReplayOutcome expected = undisturbed(config);
  for (const char* file : {"state.safetensors", "manifest.json"}) {
    const TemporaryFolder folder;
    DrivenPipeline pipeline(config, folder.path(), kClose);
    run_halfway(pipeline);
    const auto checkpoints = pipeline.folders("checkpoints");
    ASSERT_EQ(checkpoints.size(), 2U);
    flip_byte(pipeline.model_dir() / "checkpoints" / checkpoints.back() / file);
    ASSERT_TRUE(pipeline.start());
    EXPECT_EQ(pipeline.learning().trained_sequence(), folder_number(checkpoints.front()));
    ASSERT_TRUE(pipeline.finish());
    EXPECT_EQ(pipeline.outcome().difference(expected), "") << file;
  }
}

TEST_F(DamageTest, WithoutACheckpointAndWithoutTheLogItSaysWhatToDo) {
  const TemporaryFolder folder;
  DrivenPipeline pipeline(shop_config({}), folder.path(), kClose);
  run_halfway(pipeline);
  ASSERT_TRUE(pipeline.start());
  ASSERT_GT(pipeline.join_stage().committed().first_logged, 1U);
  pipeline.crash();
  for (const std::string& name : pipeline.folders("checkpoints")) {
    flip_byte(pipeline.model_dir() / "checkpoints" / name / "manifest.json");
  }
  ASSERT_TRUE(pipeline.start());
  const auto learned = pipeline.learn(1'000);
  ASSERT_FALSE(learned);
  EXPECT_EQ(learned.error().kind, ErrorKind::stop);
  EXPECT_NE(learned.error().message.find("replay into a new"), std::string::npos)
      << learned.error().message;
}

TEST_F(DamageTest, AnotherDigestThanBeforeStops) {
  for (const char* field : {"samples_digest", "model_digest"}) {
    const TemporaryFolder folder;
    DrivenPipeline pipeline(shop_config({"checkpoints.every=1000000"}), folder.path(), kClose);
    run_halfway(pipeline);
    const fs::path path = pipeline.data_dir() / "digests.jsonl";
    std::string text = read_bytes(path);
    const std::size_t digest = text.rfind(field) + std::string(field).size() + 3;
    text[digest] = text[digest] == '0' ? '1' : '0';
    std::ofstream(path, std::ios::binary) << text;
    ASSERT_TRUE(pipeline.start());
    const Status status = pipeline.finish();
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().kind, ErrorKind::stop);
    EXPECT_NE(status.error().message.find("other digests than before"), std::string::npos)
        << status.error().message;
  }
}

TEST_F(DamageTest, ADigestLineThatIsNoneOfOursStopsTheStart) {
  const TemporaryFolder folder;
  DrivenPipeline pipeline(shop_config({"checkpoints.every=1000000"}), folder.path(), kClose);
  run_halfway(pipeline);
  const fs::path path = pipeline.data_dir() / "digests.jsonl";
  const std::string text = read_bytes(path);
  for (const char* line : {"nonsense\n", "[]\n", "{\"sequence\":-1}\n", "\n"}) {
    std::ofstream(path, std::ios::binary) << text << line;
    const Status status = pipeline.start();
    ASSERT_FALSE(status) << line;
    EXPECT_NE(status.error().message.find("none of ours"), std::string::npos);
    pipeline.crash();
  }
  // A line that a crash cut is none at all, one of another model no matter of ours.
  std::ofstream(path, std::ios::binary) << text << "{\"sequence\":64,\"model\":1}\n{\"sequ";
  ASSERT_TRUE(pipeline.start());
  const Status status = pipeline.finish();
  EXPECT_TRUE(status) << status.error().message;
}

TEST_F(DamageTest, SamplesThatAreMissingInTheLogStop) {
  const TemporaryFolder folder;
  DrivenPipeline pipeline(shop_config({}), folder.path(), kClose);
  run_halfway(pipeline);
  WriteBatch batch;
  batch.remove_range(Space::samples, "", std::string(16, '\xff'));
  ASSERT_TRUE(pipeline.store.commit(batch));
  ASSERT_TRUE(pipeline.start());
  const auto learned = pipeline.learn(1'000);
  ASSERT_FALSE(learned);
  EXPECT_EQ(learned.error().kind, ErrorKind::stop);
}

// ---- another config

TEST_F(PipelineTest, AnotherSemanticConfigIsRefusedByName) {
  const TemporaryFolder folder;
  DrivenPipeline pipeline(shop_config({}), folder.path(), kClose);
  ASSERT_TRUE(pipeline.start());
  pipeline.crash();
  for (const auto& [key, value] :
       std::map<std::string, std::string>{{"model.seed", "8"},
                                          {"training.batch_size", "65"},
                                          {"snapshots.every", "\"21 min\""},
                                          {"join.click_window", "\"6 min\""},
                                          {"streams.max_out_of_orderness", "\"11 s\""}}) {
    pipeline.config = shop_config({key + "=" + value});
    const Status status = pipeline.start();
    ASSERT_FALSE(status) << key;
    EXPECT_EQ(status.error().kind, ErrorKind::usage);
    EXPECT_NE(status.error().message.find(key.substr(0, key.find("max_"))), std::string::npos)
        << status.error().message;
    EXPECT_EQ(status.error().message.find("model.recipe"), std::string::npos);
    pipeline.crash();
  }
  pipeline.config = shop_config({});
  EXPECT_TRUE(pipeline.start());
}

// ---- a source that does not answer

// A scripted source that is away now and then.
class AbsentSource final : public Source {
 public:
  ScriptedSource logs{1};
  bool is_away = false;

  Result<std::uint32_t> partitions() override { return logs.partitions(); }
  Result<Position> first_position(StreamPartition where) override {
    return logs.first_position(where);
  }
  Result<Position> end_position(StreamPartition where) override { return logs.end_position(where); }
  Status seek(StreamPartition where, Position position) override {
    return logs.seek(where, position);
  }
  Result<ReadResult> read(StreamPartition where, std::size_t max_records,
                          DurationMs wait_ms) override {
    if (is_away) return retry_error("away");
    return logs.read(where, max_records, wait_ms);
  }
  Result<std::optional<Record>> record_at(StreamPartition where, Position position) override {
    return logs.record_at(where, position);
  }
  std::optional<EndConfirmation> confirmed_end(StreamPartition where) override {
    return logs.confirmed_end(where);
  }
  std::string describe(StreamPartition where, Position position) const override {
    return logs.describe(where, position);
  }
};

TEST_F(PipelineTest, WhatWasReadIsCommittedWhileTheSourceDoesNotAnswer) {
  Config config = shop_config({"store.commit_records=1000000", "store.commit_interval=\"5 s\""});
  config.source.read_records = 100;
  AbsentSource source;
  const TemporaryFolder folder;
  DrivenPipeline pipeline(config, folder.path(), {EndPolicy::Kind::hold, 0, true}, &source);
  for (int second = 0; second < 50; ++second) {
    for (const Stream stream : {Stream::impressions, Stream::clicks, Stream::purchases}) {
      const TimeMs time = pipeline.clock.wall - 1'000'000 + second * 1'000;
      source.logs.append({stream, 0}, event_line(time, "e" + std::to_string(second)));
    }
  }
  ASSERT_TRUE(pipeline.start());
  for (int step = 0; step < 6; ++step) ASSERT_TRUE(pipeline.join());
  const auto read_of = [&] { return pipeline.join_stage().committed().intakes[0].read_position; };
  ASSERT_EQ(read_of(), 0U);
  source.is_away = true;
  pipeline.clock.pass(6'000);
  const auto more = pipeline.join();
  ASSERT_FALSE(more);
  EXPECT_EQ(more.error().kind, ErrorKind::retry);
  EXPECT_EQ(read_of(), 50U);
  // It goes on when the source is there again.
  source.logs.append({Stream::impressions, 0}, event_line(pipeline.clock.wall, "last"));
  source.is_away = false;
  for (int step = 0; step < 6; ++step) {
    pipeline.clock.pass(1'000);
    ASSERT_TRUE(pipeline.join());
  }
  EXPECT_EQ(read_of(), 51U);
}

// ---- late_after_quiet

TEST(IrreproducibleTest, SnapshotsSayItFromTheFirstSampleOn) {
  const auto loaded = parse_config(R"([source]
root = "."
idle_after = "10 s"
max_delay = "1 min"
read_records = 1
[streams]
max_out_of_orderness = "1 s"
[join]
click_window = "10 s"
conversion_window = "20 s"
[features]
item = { path = "item_id", type = "id" }
[model]
embedding_dim = 2
hidden = [2]
[training]
batch_size = 2
[snapshots]
every = "30 s"
keep = 100
)",
                                   "test.toml", ".", {});
  ASSERT_TRUE(loaded.problems.empty()) << loaded.problems.front().text();
  constexpr StreamPartition kImpressions{Stream::impressions, 0};
  constexpr StreamPartition kClicks{Stream::clicks, 0};
  constexpr StreamPartition kPurchases{Stream::purchases, 0};
  const TemporaryFolder folder;
  ScriptedSource source(1);
  DrivenPipeline pipeline(loaded.config, folder.path(), {EndPolicy::Kind::hold, 0, true}, &source);
  const TimeMs begin = pipeline.clock.wall - 1'000'000;
  int names = 0;
  const auto shop_time = [&](TimeMs time) {
    source.append(kImpressions, event_line(begin + time, "i" + std::to_string(names++)));
    source.append(kClicks, event_line(begin + time, "none"));
  };
  const auto run = [&] {
    for (int round = 0; round < 300; ++round) {
      ASSERT_TRUE(pipeline.join());
      pipeline.clock.pass(10);
      ASSERT_TRUE(pipeline.learn(1'000));
    }
  };
  source.append(kPurchases, event_line(begin, "none"));
  ASSERT_TRUE(pipeline.start());
  run();
  pipeline.clock.pass(10'000);
  for (int index = 0; index < 20; ++index) shop_time(index * 10'000);
  source.confirm(kPurchases, {1, pipeline.clock.wall, pipeline.clock.steady});
  run();
  EXPECT_FALSE(pipeline.join_stage().committed().irreproducible_from);
  source.append(kPurchases, event_line(begin + 50'000, "none"));  // its tick is long over
  run();
  const auto from = pipeline.join_stage().committed().irreproducible_from;
  ASSERT_TRUE(from);
  ASSERT_GT(pipeline.folders("snapshots").size(), 2U);
  EXPECT_GT(*from, *folder_number(pipeline.folders("snapshots").back()));
  // It stays so after a restart.
  pipeline.crash();
  ASSERT_TRUE(pipeline.start());
  for (int index = 20; index < 40; ++index) shop_time(index * 10'000);
  source.append(kPurchases, event_line(begin + 400'000, "none"));
  run();
  EXPECT_EQ(pipeline.join_stage().committed().irreproducible_from, from);
  EXPECT_EQ(pipeline.outcome().report["reproducible"], false);
  EXPECT_EQ(pipeline.outcome().report["refused"]["late_after_quiet"], 1);
  std::set<bool> said;
  RealFileSystem files;
  for (const std::string& name : pipeline.folders("snapshots")) {
    const auto manifest = read_manifest(files, pipeline.model_dir() / "snapshots" / name);
    ASSERT_TRUE(manifest);
    EXPECT_EQ((*manifest)["reproducible"].get<bool>(), *folder_number(name) < *from) << name;
    said.insert((*manifest)["reproducible"].get<bool>());
  }
  EXPECT_EQ(said.size(), 2U);
}

}  // namespace
}  // namespace sluice
