// Drives one service through its lives: first with faults, then without, to the closed logs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/simulation/edges.h"
#include "tests/simulation/monitors.h"
#include "tests/simulation/service.h"

namespace sluice::simulation {

// What the driver did, for the one who repeats a seed.
class Trace {
 public:
  explicit Trace(bool is_kept) : is_kept_(is_kept) {}
  void add(const std::string& line) {
    if (is_kept_) lines_.push_back(line);
  }
  const std::vector<std::string>& lines() const { return lines_; }

 private:
  bool is_kept_;
  std::vector<std::string> lines_;
};

class Driver {
 public:
  // `has_faults`: as the plan says; else one undisturbed go in a rhythm of its own. Only a run
  // with faults follows the logs live.
  Driver(const Plan& plan, const ShopLog& log, const OracleResult& expected, bool has_faults,
         Trace& trace);

  // To the end; what went wrong stands in findings() then.
  void run();

  const Findings& findings() const { return findings_; }
  void expect(const ExpectedModel* expected) { model_.expect(expected); }
  const JoinMonitor& join_monitor() const { return join_; }
  const ModelMonitor& model_monitor() const { return model_; }
  const Outcome& outcome() const { return outcome_; }
  const FaultCounts& counts() const { return counts_; }
  std::uint64_t lives() const { return lives_; }

 private:
  bool is_live() const { return plan_.mode == Mode::live && has_faults_; }
  void turn();
  void start();
  EndPolicy draw_policy();
  void arm();  // draws where this life's writes will fail
  void change_things();
  void pass_time();
  void join();
  void learn();
  void write();
  void stop();
  void inside_commit();
  void inside_write();
  // A step of the service is over, well or with an error.
  void after_step(const Status& status);
  void end_process(const std::string& why);
  void crash_process();
  void crash_machine(Fault fault);
  void damage_checkpoint();
  void lose_records();
  bool is_fault(std::uint64_t one_in, Fault fault);
  void tell(const std::string& line);

  const Plan& plan_;
  const ShopLog& log_;
  const bool has_faults_;
  Trace& trace_;
  Random random_;
  Random lanes_;  // of its own: a seed's faults stay where they are
  Random writer_;
  FaultCounts counts_;
  Findings findings_;
  SimulatedClock clock_;
  SimulatedSource source_;
  SimulatedStore store_;
  CrashFileSystem files_;
  JoinMonitor join_;
  ModelMonitor model_;
  Machine machine_;

  Config config_;  // of the next start
  std::unique_ptr<Service> service_;
  std::uint64_t lives_ = 0;
  std::uint64_t turns_ = 0;
  bool is_calm_ = false;  // no more faults
  bool is_complete_ = false;
  bool is_join_done_ = false;
  bool is_join_lost_ = false;  // in this life it has failed, and may not be called again
  bool is_learn_lost_ = false;
  std::uint64_t lasting_errors_ = 0;  // starts at which the disk still fails
  bool is_in_join_ = false, is_in_learn_ = false;
  std::uint64_t join_share_ = 500;  // of 1,000 turns
  std::uint64_t share_left_ = 0;    // turns until it is drawn anew
  bool was_done_before_ = false;
  Outcome outcome_;
};

}  // namespace sluice::simulation
