// Every operation on a file of the learner (checkpoints, snapshots, LATEST, digests.jsonl,
// predictions, scores.bin, identity.txt) fails, once or from there on; then the process ends or the
// machine does. The next start comes to what an undisturbed run leaves.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "app/learning.h"
#include "app/pipeline.h"
#include "app/shop.h"
#include "base/lanes.h"
#include "config/load.h"
#include "ingest/source.h"
#include "store/published_folder.h"
#include "tests/ingest/scripted_source.h"
#include "tests/store/crash_file_system.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

const fs::path kData = "/out/data";
const fs::path kModel = kData / "models" / "model";
const fs::path kPredictions = "/out/predictions.csv";

// A replay on a disk in memory, on one thread.
class Replay {
 public:
  explicit Replay(const Config& config) : config_(config) {
    EXPECT_TRUE(make_durable_folders(files, "/out"));
    EXPECT_TRUE(make_durable_folders(files, kData));
  }

  Status start() {
    SLUICE_ASSIGN(source_, open_file_source(config_));
    handoff_ = std::make_unique<Handoff>();
    SLUICE_ASSIGN(join_, JoinStage::open(config_, kClose, *source_, *store_, clock_, *handoff_));
    SLUICE_ASSIGN(learning_, Learning::open(config_, {kData, kPredictions, "{}"}, *store_, files,
                                            clock_, workers_));
    tell();
    return {};
  }
  Status finish() {
    for (bool more = true; more;) {
      SLUICE_ASSIGN(more, join_->step());
      for (bool untrained = true; untrained;) {
        SLUICE_ASSIGN(untrained, learning_->learn(handoff_->committed(), 100));
        tell();
      }
    }
    return learning_->finish();
  }
  void end() {
    learning_.reset();
    join_.reset();
    handoff_.reset();
    source_.reset();
  }
  // Both, and the end of the process.
  Status run() {
    Status status = start();
    if (status) status = finish();
    if (status) digest = learning_->trainer().model_digest().hex();
    end();
    return status;
  }

  // Every file but the checkpoints, which are nobody else's.
  std::map<std::string, std::string> outcome() {
    std::map<std::string, std::string> found;
    collect("/out", found);
    return found;
  }
  std::vector<std::uint64_t> checkpoints() {
    return *list_numbered_folders(files, kModel / "checkpoints");
  }

  CrashFileSystem files;
  std::string digest;  // of the model at the end

 private:
  void tell() { handoff_->set_trained(learning_->trained_sequence(), learning_->first_needed()); }
  void collect(const fs::path& folder, std::map<std::string, std::string>& found) {
    const std::vector<std::string> names = *files.list(folder);
    for (const std::string& name : names) {
      const fs::path path = folder / name;
      if (name == "checkpoints" || name == "provenance.json") continue;
      if (files.list(path)) {
        collect(path, found);
      } else {
        found[path.string()] = *files.read(path);
      }
    }
  }

  const Config& config_;
  const std::unique_ptr<KeyValueStore> store_ = make_memory_store();
  ManualClock clock_;
  Workers workers_{1};
  std::unique_ptr<Source> source_;
  std::unique_ptr<Handoff> handoff_;
  std::unique_ptr<JoinStage> join_;
  std::unique_ptr<Learning> learning_;
};

class FileFaults : public ::testing::Test {
 protected:
  FileFaults() {
    ShopOptions options;
    options.impressions = 400;
    options.users = 50;
    options.items = 30;
    options.partitions = 1;
    options.page = 5;
    options.span = 7'200'000;
    options.click_window = 300'000;
    options.conversion_window = 3'600'000;
    RealFileSystem real;
    const auto made =
        generate_shop(options, shop_.path() / "shop", false, real, [](std::uint64_t) {});
    EXPECT_TRUE(made) << made.error().message;
    auto loaded = load_config_or_error(
        shop_.path() / "shop" / "shop.toml",
        {"model.embedding_dim=2", "model.hidden=[4]", "training.batch_size=16", "training.lane=8",
         "snapshots.every=\"20 min\"", "snapshots.keep=2", "snapshots.full_every=3",
         "checkpoints.every=100", "store.commit_records=150"});
    EXPECT_TRUE(loaded) << loaded.error().message;
    config_ = *loaded;
  }

  TemporaryFolder shop_;
  Config config_;
};

TEST_F(FileFaults, SlowEveryOperationFailsAndTheOutcomeIsTheSame) {
  Replay undisturbed(config_);
  ASSERT_TRUE(undisturbed.run());
  const auto expected = undisturbed.outcome();
  ASSERT_GT(expected.size(), 8U);
  ASSERT_GE(undisturbed.checkpoints().size(), 2U);
  int runs = 0;
  for (const bool is_once : {false, true}) {
    std::size_t operation = 0;
    for (bool has_struck = true; has_struck; ++operation) {
      const bool is_machine = (operation % 2 == 0) == is_once;
      SCOPED_TRACE("operation " + std::to_string(operation) + (is_once ? ", once" : "") +
                   (is_machine ? ", then the machine crashes" : ""));
      Replay replay(config_);
      if (is_once) {
        replay.files.fail_once(operation);
      } else {
        replay.files.fail_from(operation);
      }
      const Status failed = replay.run();
      has_struck = replay.files.has_failed();
      ASSERT_EQ(failed.has_value(), !has_struck) << "an error was swallowed or made up";
      if (has_struck) {
        ASSERT_NE(failed.error().message.find("injected"), std::string::npos)
            << failed.error().message;
      }
      if (is_machine) {
        replay.files.crash(operation + 1);
      } else {
        replay.files.heal();
      }
      const Status status = replay.run();
      ASSERT_TRUE(status) << status.error().message;
      ASSERT_EQ(replay.digest, undisturbed.digest);
      ASSERT_EQ(replay.outcome(), expected);
      ++runs;
    }
    EXPECT_GT(operation, 100U);
  }
  std::printf("%d runs\n", runs);
}

// Of the newest checkpoint a byte is another one, at many places of each file: the one before it is
// taken, and the same comes out.
TEST_F(FileFaults, SlowADamagedCheckpointIsPassedOverWhereverTheDamageIs) {
  Replay undisturbed(config_);
  ASSERT_TRUE(undisturbed.run());
  const auto expected = undisturbed.outcome();
  int runs = 0;
  for (const char* name : {"manifest.json", "state.safetensors"}) {
    for (std::size_t part = 0; part < 40; ++part) {
      Replay replay(config_);
      ASSERT_TRUE(replay.run());
      const fs::path path =
          kModel / "checkpoints" / numbered_folder_name(replay.checkpoints().back()) / name;
      const std::size_t offset = part * *replay.files.size(path) / 40;
      SCOPED_TRACE(path.string() + ", byte " + std::to_string(offset));
      replay.files.damage(path, offset);
      const Status status = replay.run();
      ASSERT_TRUE(status) << status.error().message;
      EXPECT_EQ(replay.digest, undisturbed.digest);
      EXPECT_EQ(replay.outcome(), expected);
      EXPECT_TRUE(replay.files.exists(path.parent_path().string() + ".damaged"));
      ++runs;
    }
  }
  std::printf("%d runs\n", runs);
}

}  // namespace
}  // namespace sluice
