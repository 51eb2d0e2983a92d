#include "tests/simulation/simulate.h"

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "joiner/sample_log.h"
#include "tests/joiner/stages.h"
#include "tests/simulation/driver.h"

namespace sluice::simulation {
namespace {

// The model of these samples, learned in one go, whatever the logs were.
struct Relearned {
  ExpectedModel model;
  std::string predictions;
  std::string scores;
};

Relearned relearn(const Plan& plan, const JoinMonitor& join, Findings& findings) {
  Relearned result;
  Config config = plan.config;
  config.checkpoints.every = 1;
  config.checkpoints.keep = 2;
  config.snapshots.keep = 1'000'000;
  SimulatedClock clock(kLogBegin);
  CrashFileSystem files;
  const auto store = make_memory_store();
  WriteBatch batch;
  append_samples(join.samples(), batch);
  SLUICE_CHECK(store->commit(batch).has_value());
  SLUICE_CHECK(files.create_directories(kDataDir).has_value());
  Workers workers(1);
  LearningOptions options{kDataDir, std::nullopt, "{}"};
  if (plan.has_predictions) options.predictions = kPredictions;
  const JoinProgress& progress = *join.progress();
  const Committed committed{progress.next_sequence, progress.frontier, progress.samples_digest,
                            true, progress.irreproducible_from};
  auto learning = Learning::open(config, options, *store, files, clock, workers);
  Status status = learning ? Status() : Status(learning.error());
  for (bool more = true; status && more;) {
    const auto learned = (*learning)->learn(committed, 50);
    more = learned && *learned;
    if (!learned) status = learned.error();
  }
  if (status) status = (*learning)->finish();
  if (!status) findings.fail("learned again: " + status.error().message);
  ModelMonitor monitor(plan, files, join, findings);
  monitor.after_step(false, config);
  result.model = monitor.seen();
  const auto read = [&](const fs::path& path) {
    auto bytes = files.read(path);
    return bytes ? *std::move(bytes) : std::string();
  };
  result.predictions = read(kPredictions);
  result.scores = read(model_dir(config) / "scores.bin");
  return result;
}

void compare_with_oracle(const Driver& driver, const OracleResult& expected, Findings& findings) {
  const JoinMonitor& join = driver.join_monitor();
  const std::string samples = difference(join.samples(), expected.samples);
  if (!samples.empty()) findings.fail("the samples are not the oracle's\n" + samples);
  const std::string counters = difference(join.progress()->counters, expected);
  if (!counters.empty()) findings.fail("the counters are not the oracle's\n" + counters);
  std::vector<OracleRefusal> letters;
  for (const OracleRefusal& refusal : expected.refusals) {
    if (is_dead_letter(refusal.reason)) letters.push_back(refusal);
  }
  if (driver.outcome().dead_letters != letters) {
    findings.fail("the dead letters are not the oracle's: " +
                  std::to_string(driver.outcome().dead_letters.size()) + " for " +
                  std::to_string(letters.size()));
  }
}

// Records were late after quiet: then the outcome is that of logs without them, nothing else is
// lost, and what was published before any of them matters is the undisturbed run's.
void compare_late(const Plan& plan, const ShopLog& log, const Driver& driver,
                  const OracleResult& undisturbed, const ExpectedModel& undisturbed_model,
                  Findings& findings, Reached& reached) {
  const auto late = driver.join_monitor().late_after_quiet();
  OracleLogs facts = log.facts;
  TimeMs first_time = kTimeMax;
  for (auto& [where, records] : facts) {
    for (OracleRecord& record : records) {
      record.came_after_quiet = late.contains({where, record.position});
      if (record.came_after_quiet) first_time = std::min(first_time, record.time);
    }
  }
  compare_with_oracle(
      driver, expected_join(facts, plan.shape.partitions, plan.config.streams, plan.config.join),
      findings);
  if (!findings.ok()) return;
  const Relearned again = relearn(plan, driver.join_monitor(), findings);
  const Outcome& outcome = driver.outcome();
  if (outcome.predictions != again.predictions) findings.fail("other predictions, learned again");
  if (outcome.scores != again.scores) findings.fail("other scores, learned again");
  const ExpectedModel& seen = driver.model_monitor().seen();
  for (const auto& [sequence, digest] : seen.digests) {
    const auto found = again.model.digests.find(sequence);
    if (found == again.model.digests.end() || found->second != digest) {
      findings.fail("another model at " + std::to_string(sequence) + ", learned again");
    }
  }
  // The first sample that a late record could have changed.
  const auto changed =
      std::find_if(undisturbed.samples.begin(), undisturbed.samples.end(),
                   [first_time](const Sample& sample) { return sample.time >= first_time; });
  const auto first_changed = static_cast<std::uint64_t>(changed - undisturbed.samples.begin()) + 1;
  for (const auto& [sequence, bytes] : seen.snapshots) {
    const auto found = again.model.snapshots.find(sequence);
    if (found == again.model.snapshots.end() || found->second != bytes) {
      findings.fail("snapshot " + std::to_string(sequence) + " is another one, learned again");
    }
    const bool is_marked = bytes.find("\"reproducible\": false") != std::string::npos;
    // The last one of closed logs bears the mark also where all of its samples are from before.
    const JoinProgress& progress = *driver.join_monitor().progress();
    const bool should_be = sequence >= *progress.irreproducible_from;
    const bool may_be = should_be || sequence + 1 == progress.next_sequence;
    if ((should_be && !is_marked) || (is_marked && !may_be)) {
      findings.fail("snapshot " + std::to_string(sequence) + " is wrongly marked");
    }
    const auto replayed = undisturbed_model.snapshots.find(sequence);
    const bool is_same = replayed != undisturbed_model.snapshots.end() && replayed->second == bytes;
    if (is_marked || is_same) continue;
    if (sequence < first_changed) {
      findings.fail("snapshot " + std::to_string(sequence) +
                    " is said to be reproducible and is none of the undisturbed run");
    }
    ++reached.overtaken_snapshots;
  }
}

Reached reached_by(const Plan& plan, const ShopLog& log, const Driver& driver) {
  Reached reached;
  ++reached.modes[static_cast<std::size_t>(plan.mode)];
  for (const auto& [where, facts] : log.facts) reached.records += facts.size();
  if (!driver.join_monitor().progress()) return reached;
  const JoinCounters& counters = driver.join_monitor().progress()->counters;
  for (std::size_t reason = 0; reason < kRefusals; ++reason) {
    reached.refused[reason] = counters.refused_for(static_cast<Refusal>(reason));
  }
  reached.samples = driver.join_monitor().samples().size();
  reached.converted = counters.converted;
  reached.lives = driver.lives();
  reached.quiet_commits = driver.join_monitor().quiet_commits();
  reached.checkpoints = driver.model_monitor().seen().digests.size();
  reached.snapshots = driver.model_monitor().seen().snapshots.size();
  return reached;
}

}  // namespace

Verdict simulate(std::uint64_t seed, bool with_trace) {
  Verdict verdict;
  const Plan plan = draw_plan(seed);
  verdict.plan = describe(plan);
  const ShopLog log = write_shop_log(plan);
  const OracleResult expected =
      expected_join(log.facts, plan.shape.partitions, plan.config.streams, plan.config.join);
  Trace trace(with_trace);
  Trace no_trace(false);
  Findings findings;

  Driver undisturbed(plan, log, expected, false, no_trace);
  undisturbed.run();
  if (!undisturbed.findings().ok()) {
    verdict.failure = "the undisturbed run: " + undisturbed.findings().text();
    return verdict;
  }
  compare_with_oracle(undisturbed, expected, findings);
  const ExpectedModel& model = undisturbed.model_monitor().seen();

  Driver disturbed(plan, log, expected, true, trace);
  if (!plan.may_be_late_quiet) disturbed.expect(&model);
  disturbed.run();
  verdict.trace = trace.lines();
  verdict.faults.add_seed(disturbed.counts());
  verdict.reached = reached_by(plan, log, disturbed);
  if (!disturbed.findings().ok()) {
    verdict.failure = disturbed.findings().text();
    return verdict;
  }
  const bool is_late = disturbed.join_monitor().progress()->irreproducible_from.has_value();
  if (is_late) {
    ++verdict.reached.seeds_late_after_quiet;
    compare_late(plan, log, disturbed, expected, model, findings, verdict.reached);
  } else {
    compare_with_oracle(disturbed, expected, findings);
    const std::string difference = disturbed.outcome().difference(undisturbed.outcome());
    if (!difference.empty()) findings.fail(difference);
    for (const auto& [sequence, bytes] : disturbed.model_monitor().seen().snapshots) {
      const auto found = model.snapshots.find(sequence);
      if (found == model.snapshots.end() || found->second != bytes) {
        findings.fail("snapshot " + std::to_string(sequence) + " is none of the undisturbed run");
      }
    }
  }
  verdict.failure = findings.text();
  return verdict;
}

void Reached::add(const Reached& other) {
  for (std::size_t index = 0; index < kRefusals; ++index) refused[index] += other.refused[index];
  for (std::size_t index = 0; index < modes.size(); ++index) modes[index] += other.modes[index];
  records += other.records;
  samples += other.samples;
  converted += other.converted;
  lives += other.lives;
  quiet_commits += other.quiet_commits;
  checkpoints += other.checkpoints;
  snapshots += other.snapshots;
  seeds_late_after_quiet += other.seeds_late_after_quiet;
  overtaken_snapshots += other.overtaken_snapshots;
}

std::string Reached::table() const {
  std::ostringstream out;
  out << "seeds:";
  for (std::size_t index = 0; index < modes.size(); ++index) {
    out << " " << modes[index] << " " << simulation::to_string(static_cast<Mode>(index));
  }
  out << "; " << seeds_late_after_quiet << " with records late after quiet\n"
      << records << " records, " << samples << " samples, " << converted << " converted, " << lives
      << " starts, " << quiet_commits << " commits with quiet advances, " << checkpoints
      << " batch ends with digests, " << snapshots << " snapshots (" << overtaken_snapshots
      << " overtaken by a record late after quiet)\nrefused:";
  for (std::size_t index = 0; index < kRefusals; ++index) {
    out << " " << refused[index] << " " << sluice::to_string(static_cast<Refusal>(index));
  }
  out << "\n";
  return out.str();
}

}  // namespace sluice::simulation
