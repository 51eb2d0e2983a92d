// What must hold all the way, checked whenever something has become durable.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "app/pipeline.h"
#include "joiner/join.h"
#include "joiner/sample.h"
#include "store/key_value.h"
#include "tests/simulation/edges.h"
#include "tests/simulation/plan.h"
#include "tests/simulation/shop_log.h"
#include "tests/store/crash_file_system.h"

namespace sluice::simulation {

// The first thing that was found wrong; later ones mostly follow from it.
class Findings {
 public:
  void fail(const std::string& text) {
    if (text_.empty()) text_ = text;
  }
  bool ok() const { return text_.empty(); }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// Everything that the committed state says of the join, against the logs and the oracle. Decodes
// what lies in the store; asks the join nothing.
class JoinMonitor {
 public:
  // `is_strict`: nothing can be late after quiet, so every sample must be the oracle's at once.
  JoinMonitor(const Plan& plan, const ShopLog& log, const OracleResult& expected, bool is_strict,
              KeyValueStore& store, Findings& findings);

  // Of the process that runs from now on.
  void begin_life(const Config& config, const EndPolicy& policy);
  // A commit is durable.
  void after_commit();
  // A step of the join is over: what it holds in memory is bounded.
  void after_step(const SimulatedSource& source, TimeMs frontier);
  // The logs are closed.
  void check_end();

  const std::optional<JoinProgress>& progress() const { return progress_; }
  std::uint64_t durable() const { return progress_ ? progress_->next_sequence - 1 : 0; }
  const std::vector<Sample>& samples() const { return samples_; }
  // Chained over the durable samples 1..sequence.
  const Digest& digest_at(std::uint64_t sequence) const { return digests_.at(sequence); }
  std::uint64_t quiet_commits() const { return quiet_commits_; }  // that advanced a quiet partition
  // The records that were refused as late after quiet.
  std::set<std::pair<StreamPartition, Position>> late_after_quiet() const;

 private:
  // A record as its own log judges it.
  struct Judged {
    Position position = 0;
    TimeMs time = 0;
    std::optional<Refusal> refusal;  // none: accepted
  };

  void check_forward(const JoinProgress& now);
  void check_samples(const JoinProgress& now);
  void check_sample(const Sample& sample, const JoinProgress& now);
  void check_partition(std::size_t index, const JoinProgress& now);
  void check_counters(const JoinProgress& now);
  void check_watermarks(const JoinProgress& now);
  std::array<std::uint64_t, kStreams> waiting() const;
  TimeMs tick_of(TimeMs time) const { return floor_to(time, plan_.config.join.tick); }

  const Plan& plan_;
  const OracleResult& expected_;
  bool is_strict_;
  KeyValueStore& store_;
  Findings& findings_;
  Config config_;
  EndPolicy policy_;
  std::vector<std::vector<Judged>> judged_;  // stream-major, as the intakes
  std::vector<std::size_t> window_;  // of after_step(): records not older than the watermark
  std::vector<Position> read_up_to_;
  std::uint64_t quiet_commits_ = 0;
  std::optional<JoinProgress> progress_;
  std::vector<Sample> samples_;
  std::vector<Digest> digests_ = {Digest{}};
  // Labels told of each impression: 1 y, 2 z, 4 action.
  std::map<std::tuple<std::uint32_t, std::string, TimeMs>, int> told_;
};

// What an undisturbed run leaves: all of its snapshots, and the digests at every batch end.
struct ExpectedModel {
  std::map<std::uint64_t, std::string> digests;
  std::map<std::uint64_t, std::string> snapshots;  // manifest and weights
};

// Everything that lies under the data folder, against the durable samples and an undisturbed run.
class ModelMonitor {
 public:
  ModelMonitor(const Plan& plan, CrashFileSystem& files, const JoinMonitor& join,
               Findings& findings)
      : plan_(plan), files_(files), join_(join), findings_(findings) {}

  // From now on everything that appears must be as here.
  void expect(const ExpectedModel* expected) { expected_ = expected; }
  // A step of the learner is over. `is_whole`: without an error, so all of it must last.
  void after_step(bool is_whole, const Config& config);
  // The machine was off: looks at everything again.
  void after_machine_crash() {
    verified_.clear();
    present_.clear();  // one whose publishing failed may be gone, and be made again
    changes_ = ~std::uint64_t{0};
  }
  // A checkpoint that was damaged on purpose.
  void exempt(std::uint64_t sequence) {
    damaged_.insert(sequence);
    verified_.erase({"checkpoints", sequence});  // it may be made again
  }
  // Of the checkpoints that were whole when last looked at.
  std::vector<std::uint64_t> whole_checkpoints();

  // All that was ever there, also what was pruned since.
  const ExpectedModel& seen() const { return seen_; }
  std::uint64_t latest() const { return latest_; }

 private:
  void check_digest_lines(bool is_whole);
  void check_digest_line(const std::string& line);
  void check_folders(const char* kind, bool is_whole, const Config& config);
  void check_folder(const char* kind, std::uint64_t sequence);
  void check_snapshot(std::uint64_t sequence, const fs::path& path);
  std::size_t most_snapshots(const std::vector<std::uint64_t>& numbers, std::size_t keep) const;
  void check_latest(bool is_whole);
  void check_log_reach();

  const Plan& plan_;
  CrashFileSystem& files_;
  const JoinMonitor& join_;
  Findings& findings_;
  const ExpectedModel* expected_ = nullptr;
  std::uint64_t changes_ = ~std::uint64_t{0};
  std::set<std::string> lines_, lasting_lines_;
  ExpectedModel seen_;
  std::set<std::pair<std::string, std::uint64_t>> verified_;
  std::set<std::uint64_t> damaged_;
  std::set<std::uint64_t> present_, gone_;        // snapshots
  std::map<std::uint64_t, std::uint64_t> bases_;  // of deltas
  std::uint64_t latest_ = 0;
};

// Where a simulated service keeps its things.
inline const fs::path kDataDir = "/disk/data";
inline const fs::path kPredictions = "/disk/predictions.csv";
fs::path model_dir(const Config& config);

}  // namespace sluice::simulation
