// One life of the simulated service: the production stages between the edges, opened and driven as
// app/service.cc does, on one thread.
#pragma once

#include <functional>
#include <memory>

#include "app/learning.h"
#include "app/pipeline.h"
#include "base/lanes.h"
#include "tests/simulation/edges.h"
#include "tests/simulation/monitors.h"

namespace sluice::simulation {

// The writer of snapshots: it gets on when the driver lets it, and at the latest when it is waited
// for. What was not written when the process ends is lost.
class SimulatedBackground final : public Background {
 public:
  void start(std::function<void()> job) override;
  bool is_idle() override { return !job_; }
  void wait() override;

 private:
  std::function<void()> job_;
};

// What outlives a process.
struct Machine {
  SimulatedClock& clock;
  SimulatedSource& source;
  SimulatedStore& store;
  CrashFileSystem& files;
};

class Service {
 public:
  // Ends without an error, or with the one for which the real service would exit.
  static Result<std::unique_ptr<Service>> start(const Machine& machine, const Plan& plan,
                                                const Config& config, const EndPolicy& policy);

  // False at the end of the logs.
  Result<bool> join();
  // True where more is there.
  Result<bool> learn(std::size_t max_samples);
  // As after SIGTERM, or at the logs' ends: commits, then a checkpoint, and where everything is
  // learned of closed logs the end of the training.
  Status stop();
  // The writer of snapshots gets on; true where it had something to do.
  bool write();

  bool is_everything_learned() const;
  JoinStage& join_stage() { return *join_; }
  Learning& learning() { return *learning_; }
  std::uint64_t lag() const;
  const Config& config() const { return config_; }
  const EndPolicy& policy() const { return policy_; }

 private:
  Service(const Config& config, const EndPolicy& policy) : config_(config), policy_(policy) {}

  Config config_;
  EndPolicy policy_;
  Handoff handoff_;
  Workers workers_{1};
  SimulatedBackground* background_ = nullptr;  // the learner's; null: it writes itself
  std::unique_ptr<Learning> learning_;
  std::unique_ptr<JoinStage> join_;
};

// All that a finished lineage leaves for others, but what depends on the run.
struct Outcome {
  nlohmann::ordered_json report;  // without throughput
  std::string predictions;
  std::string scores;
  std::uint64_t latest = 0;
  std::vector<OracleRefusal> dead_letters;  // sorted
  // In words what differs; empty where nothing does.
  std::string difference(const Outcome& other) const;
};
Outcome outcome_of(const Machine& machine, Service& service, Findings& findings);

}  // namespace sluice::simulation
