#include "tests/simulation/driver.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "store/published_folder.h"

namespace sluice::simulation {
namespace {

// Far more than a calm run needs.
constexpr std::uint64_t kMaxTurns = 60'000;
constexpr DurationMs kHour = 3'600'000;

Config undisturbed(const Plan& plan) {
  Config config = plan.config;
  Random random(plan.seed, 5);
  draw_operational(random, config);
  // All that it publishes is kept, and it tells the digests of every batch end.
  config.checkpoints.every = 1;
  config.checkpoints.keep = 2;
  config.snapshots.keep = 1'000'000;
  return config;
}

}  // namespace

Driver::Driver(const Plan& plan, const ShopLog& log, const OracleResult& expected, bool has_faults,
               Trace& trace)
    : plan_(plan),
      log_(log),
      has_faults_(has_faults),
      trace_(trace),
      random_(plan.seed, has_faults ? 4 : 6),
      lanes_(plan.seed, 9),
      writer_(plan.seed, 14),
      clock_(log.first_arrival - 1'000),
      source_(plan, log, clock_, counts_),
      join_(plan, log, expected, !(plan.may_be_late_quiet && has_faults), store_, findings_),
      model_(plan, files_, join_, findings_),
      machine_{clock_, source_, store_, files_},
      config_(has_faults ? plan.config : undisturbed(plan)),
      is_calm_(!has_faults) {
  // The folders that are there before the service is.
  SLUICE_CHECK(files_.create_directories(kDataDir.parent_path()).has_value());
  SLUICE_CHECK(files_.sync_directory("/").has_value());
  store_.on_durable = [this] {
    join_.after_commit();
    const auto& progress = join_.progress();
    const bool is_pinned = progress && !progress->pinned_ends.empty();
    if (is_pinned && plan_.mode == Mode::growing && !source_.has_grown()) {
      counts_.note(Fault::log_grows_behind_pin);
      source_.grow();
    }
  };
  store_.on_commit = [this] { inside_commit(); };
  files_.on_operation = [this] { inside_write(); };
  if (!has_faults_) source_.calm();
  if (!is_live()) source_.reveal_all();
}

void Driver::tell(const std::string& line) {
  trace_.add("turn " + std::to_string(turns_) + ": " + line);
}

bool Driver::is_fault(std::uint64_t one_in, Fault fault) {
  if (is_calm_ || !random_.one_in(one_in)) return false;
  counts_.note(fault);
  tell(text_of(fault).name);
  return true;
}

void Driver::run() {
  while (!is_complete_ && findings_.ok()) {
    if (++turns_ > kMaxTurns) return findings_.fail("it does not come to its end");
    if (!is_calm_ && service_ == nullptr && lives_ >= plan_.lives) {
      is_calm_ = true;
      lasting_errors_ = 0;
      source_.calm();
      clock_.wall_offset = 0;
      tell("no more faults");
    }
    turn();
  }
  if (findings_.ok()) join_.check_end();
}

void Driver::turn() {
  if (service_ == nullptr) return start();
  pass_time();
  source_.poll();
  if (is_fault(plan_.rates.process_crash, Fault::process_crash)) return crash_process();
  if (is_fault(plan_.rates.machine_crash, Fault::machine_crash)) {
    return crash_machine(Fault::count);
  }
  if (is_fault(plan_.rates.stop, Fault::stop_and_start)) return stop();
  // The logs are written to their ends: a replay closes them.
  const bool is_over = service_->policy().is_live && source_.is_all_revealed();
  if (is_over && random_.one_in(is_calm_ ? 40 : 100)) {
    const JoinStatus status = service_->join_stage().status();
    tell("the logs are whole, stop; event time is " +
         std::to_string(clock_.truth - status.frontier) + " ms behind, " +
         std::to_string(status.quiet_partitions) + " partitions are quiet, held by " +
         to_string(status.slowest));
    return stop();
  }
  if (share_left_-- == 0) {
    share_left_ = 10 + random_.below(100);
    join_share_ = static_cast<std::uint64_t>(random_.pick({500, 500, 100, 900, 990}));
    if (!is_calm_ && (join_share_ == 100 || join_share_ == 990)) {
      counts_.note(Fault::learner_starves);
    }
  }
  if (is_join_done_) {
    // The real service then learns to the end and stops.
    if (service_->lag() > 0 && !random_.one_in(10)) return learn();
    return stop();
  }
  if (writer_.one_in(8)) write();
  // A join that failed while files were written takes no step any more.
  random_.permille(join_share_) && !is_join_lost_ ? join() : learn();
}

// ---- lives

void Driver::start() {
  ++lives_;
  change_things();
  const EndPolicy policy = draw_policy();
  join_.begin_life(config_, policy);
  arm();
  tell("start: " + std::string(policy.is_live ? "live, " : "") +
       (policy.kind == EndPolicy::Kind::close  ? "close"
        : policy.kind == EndPolicy::Kind::hold ? "hold"
                                               : "until " + std::to_string(policy.time)));
  is_join_done_ = is_join_lost_ = is_learn_lost_ = false;
  is_in_join_ = is_in_learn_ = true;
  auto started = Service::start(machine_, plan_, config_, policy);
  is_in_join_ = is_in_learn_ = false;
  Status status;
  if (started) {
    service_ = *std::move(started);
  } else {
    status = started.error();
  }
  after_step(status);
}

// What may be different at a start.
void Driver::change_things() {
  if (is_calm_) return;
  if (lives_ > 1 && is_fault(plan_.rates.config_change, Fault::config_change)) {
    draw_operational(random_, config_);
    draw_lane(lanes_, config_);
  }
  if (random_.one_in(plan_.rates.damaged_checkpoint)) damage_checkpoint();
  if (random_.one_in(plan_.rates.retention)) lose_records();
}

EndPolicy Driver::draw_policy() {
  using Kind = EndPolicy::Kind;
  EndPolicy policy{Kind::close, 0, false};
  if (is_live() && !source_.is_all_revealed()) {
    policy = {Kind::hold, 0, true};
    if (is_calm_ || !random_.one_in(6)) return policy;
    counts_.note(Fault::policy_change);
    // A replay that holds where a growing log ends, or a service that stops at a time.
    if (random_.one_in(2)) return {Kind::hold, 0, false};
    return {Kind::at_time, kLogBegin + random_.between(0, plan_.shape.span), true};
  }
  if (is_calm_) return policy;
  const bool may_hold = plan_.mode == Mode::staged || is_live();
  const bool is_pinned = join_.progress() && !join_.progress()->pinned_ends.empty();
  const bool is_closed = join_.progress() && join_.progress()->is_closed;
  if (!may_hold || is_pinned || is_closed || random_.one_in(3)) return policy;
  counts_.note(Fault::policy_change);
  if (random_.one_in(3)) return {Kind::hold, 0, is_live()};
  const TimeMs time = kLogBegin + random_.between(0, plan_.shape.span * 3 / 2);
  return {Kind::at_time, time, false};
}

void Driver::arm() {
  if (is_calm_) return;
  if (lasting_errors_ > 0) {
    --lasting_errors_;
    files_.fail_from(random_.below(20));
    counts_.note(Fault::lasting_file_error);
    tell("the disk still fails");
  } else if (random_.one_in(plan_.rates.file_error)) {
    files_.fail_from(random_.below(random_.one_in(3) ? 30 : 300));
    if (random_.one_in(4)) lasting_errors_ = 1 + random_.below(3);
  }
  if (random_.one_in(plan_.rates.commit_error)) {
    store_.fail_after(random_.below(random_.one_in(3) ? 3 : 20), random_.one_in(2));
  }
}

void Driver::damage_checkpoint() {
  const auto whole = model_.whole_checkpoints();
  // One is left, or the log reaches back to the untrained model.
  const bool can_do_without = whole.size() > 1 || !join_.progress() ||
                              (whole.size() == 1 && join_.progress()->first_logged == 1);
  if (whole.empty() || !can_do_without) return;
  const std::string name = numbered_folder_name(whole.back());
  const fs::path folder = model_dir(plan_.config) / "checkpoints" / name;
  const fs::path path = folder / (random_.one_in(2) ? "manifest.json" : "state.safetensors");
  const auto size = files_.size(path);
  if (!size) return;
  files_.damage(path, random_.below(*size));
  model_.exempt(whole.back());
  counts_.note(Fault::damaged_checkpoint);
  tell("damaged " + path.string());
}

// Retention: what was processed is not there any more.
void Driver::lose_records() {
  if (!join_.progress() || plan_.shape.is_like_files || plan_.mode == Mode::growing) return;
  counts_.note(Fault::retention);
  std::size_t index = 0;
  for (const auto& [where, partition] : log_.partitions) {
    source_.lose_before(where, join_.progress()->intakes[index++].resume_position);
  }
}

void Driver::end_process(const std::string& why) {
  tell("the process ends: " + why);
  service_.reset();
  source_.forget();
  store_.restart();
  files_.heal();
}

void Driver::crash_process() {
  end_process("killed");
}

void Driver::crash_machine(Fault fault) {
  if (fault != Fault::count) {
    counts_.note(fault);
    tell(text_of(fault).name);
  }
  service_.reset();
  files_.crash(random_.next());
  end_process("the machine is off");
  model_.after_machine_crash();
  model_.after_step(false, config_);
}

// ---- steps

// In steps that bring a live run to its logs' ends in about plan.turns turns.
void Driver::pass_time() {
  const DurationMs whole = std::max<DurationMs>(log_.last_arrival - log_.first_arrival, 1);
  const DurationMs usual =
      is_live() ? whole / static_cast<DurationMs>(plan_.turns) + 1 : DurationMs{10};
  clock_.pass(random_.between(0, 2 * usual));
  if (is_fault(plan_.rates.stall, Fault::stall)) {
    clock_.pass(random_.between(1, is_live() ? whole / 10 + 1 : kHour));
  }
  if (!is_calm_ && random_.one_in(plan_.rates.wall_step)) {
    // In a live run a wall clock that goes ahead makes records late after quiet.
    const bool is_forward = plan_.rates.may_step_forward && random_.one_in(2);
    counts_.note(is_forward ? Fault::wall_step_forward : Fault::wall_step_back);
    clock_.wall_offset = is_forward ? random_.between(0, kHour) : -random_.between(0, kHour);
    tell("the wall clock is wrong by " + std::to_string(clock_.wall_offset) + " ms");
  }
}

void Driver::join() {
  const std::uint64_t lag = service_->lag();
  const bool must_wait = lag > std::max(config_.store.max_learner_lag, config_.training.batch_size);
  const std::uint64_t durable = join_.durable();
  is_in_join_ = true;
  const auto more = service_->join();
  is_in_join_ = false;
  if (must_wait && join_.durable() != durable) {
    findings_.fail("the join went on although the learner is " + std::to_string(lag) +
                   " samples behind");
  }
  join_.after_step(source_, service_->join_stage().status().frontier);
  if (more) {
    is_join_done_ = !*more;
    return after_step({});
  }
  if (more.error().kind == ErrorKind::retry &&
      more.error().message.find("injected") != std::string::npos) {
    return;  // tried again in a later turn
  }
  is_join_lost_ = true;
  // The learner's thread hears of it a moment later.
  while (!is_learn_lost_ && is_fault(2, Fault::learner_after_failure)) {
    is_in_learn_ = true;
    const auto learned = service_->learn(1 + random_.below(100));
    is_in_learn_ = false;
    is_learn_lost_ = !learned;
    // What it was told of is durable.
    if (!learned && learned.error().message.find("injected") == std::string::npos) {
      findings_.fail("unexpected, after the join has failed: " + learned.error().message);
    }
    model_.after_step(false, config_);
  }
  after_step(more.error());
}

void Driver::learn() {
  is_in_learn_ = true;
  const auto more = service_->learn(1 + random_.below(random_.one_in(2) ? 30 : 1'000));
  is_in_learn_ = false;
  after_step(more ? Status() : Status(more.error()));
}

// What fails here the learner hears of at its next step.
void Driver::write() {
  is_in_learn_ = true;
  const bool has_written = service_->write();
  is_in_learn_ = false;
  if (!has_written) return;
  tell("a snapshot was written beside");
  model_.after_step(!files_.has_failed() && !is_join_lost_, config_);
}

void Driver::stop() {
  is_in_join_ = is_in_learn_ = true;
  const Status status = service_->stop();
  is_in_join_ = is_in_learn_ = false;
  const bool is_done = status && service_->is_everything_learned() && is_join_done_;
  if (is_done && findings_.ok()) {
    model_.after_step(true, config_);
    files_.heal();
    const JoinStatus join = service_->join_stage().status();
    if (join.open_impressions + join.waiting_records > 0) {
      findings_.fail("impressions are open, or records wait, in closed logs");
    }
    const Outcome before = std::exchange(outcome_, outcome_of(machine_, *service_, findings_));
    if (was_done_before_) {
      const std::string difference = outcome_.difference(before);
      if (!difference.empty()) findings_.fail("started again when all was done: " + difference);
    }
    // Started again it must say the same.
    if (!was_done_before_ && !is_calm_ && lives_ < plan_.lives) {
      was_done_before_ = true;
      counts_.note(Fault::restart_when_done);
      tell("all is done; once more");
    } else {
      is_complete_ = true;
    }
  }
  after_step(status);
  if (status && service_ != nullptr) end_process("stopped");
}

// While the join's thread commits, the learner's may run.
void Driver::inside_commit() {
  if (!is_in_join_ || is_in_learn_ || is_learn_lost_ || service_ == nullptr) return;
  if (is_calm_ || !random_.one_in(plan_.rates.learner_inside_commit)) return;
  counts_.note(Fault::learner_inside_commit);
  is_in_learn_ = true;
  const auto more = service_->learn(1 + random_.below(200));
  is_in_learn_ = false;
  if (more) return;
  is_learn_lost_ = true;
  if (more.error().message.find("injected") == std::string::npos) {
    findings_.fail("unexpected: " + more.error().message);
  }
}

// While the learner's thread writes files, the join's may run.
void Driver::inside_write() {
  if (!is_in_learn_ || is_in_join_ || is_join_lost_ || is_join_done_ || service_ == nullptr) return;
  if (is_calm_ || !random_.one_in(plan_.rates.join_inside_write)) return;
  counts_.note(Fault::join_inside_write);
  is_in_join_ = true;
  const auto more = service_->join();
  is_in_join_ = false;
  join_.after_step(source_, service_->join_stage().status().frontier);
  if (more) {
    is_join_done_ = !*more;
    return;
  }
  if (more.error().message.find("injected") == std::string::npos) {
    findings_.fail("unexpected: " + more.error().message);
  }
  if (more.error().kind != ErrorKind::retry) is_join_lost_ = true;
}

void Driver::after_step(const Status& status) {
  if (service_ != nullptr && service_->learning().trained_sequence() > join_.durable()) {
    findings_.fail("trained up to " + std::to_string(service_->learning().trained_sequence()) +
                   ", durable are " + std::to_string(join_.durable()));
  }
  const bool is_whole = status && !is_join_lost_ && !is_learn_lost_;
  model_.after_step(is_whole, config_);
  if (is_whole) return;
  const std::string why = status ? "an error of the other thread" : status.error().message;
  if (!status && why.find("injected") == std::string::npos) {
    return findings_.fail("unexpected: " + why);
  }
  if (!is_calm_) {
    if (files_.has_failed()) counts_.note(Fault::file_error);
    if (store_.has_failed()) {
      counts_.note(store_.is_kept() ? Fault::commit_kept : Fault::commit_lost);
    }
  }
  if (!is_calm_ && random_.one_in(4)) return crash_machine(Fault::machine_crash_in_write);
  end_process(why);
}

}  // namespace sluice::simulation
