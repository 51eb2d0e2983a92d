#include "tests/simulation/service.h"

#include <algorithm>
#include <utility>

#include "app/report.h"
#include "store/published_folder.h"
#include "tests/joiner/stages.h"

namespace sluice::simulation {

void SimulatedBackground::start(std::function<void()> job) {
  SLUICE_CHECK(!job_);
  job_ = std::move(job);
}

void SimulatedBackground::wait() {
  if (job_) std::exchange(job_, nullptr)();
}

Result<std::unique_ptr<Service>> Service::start(const Machine& machine, const Plan& plan,
                                                const Config& config, const EndPolicy& policy) {
  std::unique_ptr<Service> service(new Service(config, policy));
  // Without it the join would wait for a learner that runs on the same thread.
  service->handoff_.stop();
  SLUICE_TRY(machine.files.create_directories(kDataDir));
  LearningOptions options{kDataDir, std::nullopt, "{}"};
  if (plan.has_predictions) options.predictions = kPredictions;
  options.rows_at_once = plan.rows_at_once;
  if (plan.writes_beside) {
    options.make_background = [&service] {
      auto background = std::make_unique<SimulatedBackground>();
      service->background_ = background.get();
      return std::unique_ptr<Background>(std::move(background));
    };
  }
  SLUICE_ASSIGN(service->learning_,
                Learning::open(service->config_, options, machine.store, machine.files,
                               machine.clock, service->workers_));
  SLUICE_ASSIGN(service->join_, JoinStage::open(service->config_, service->policy_, machine.source,
                                                machine.store, machine.clock, service->handoff_));
  service->handoff_.set_trained(service->learning_->trained_sequence(),
                                service->learning_->first_needed());
  return service;
}

Result<bool> Service::join() {
  return join_->step();
}

Result<bool> Service::learn(std::size_t max_samples) {
  SLUICE_ASSIGN(const bool more, learning_->learn(handoff_.committed(), max_samples));
  handoff_.set_trained(learning_->trained_sequence(), learning_->first_needed());
  return more;
}

bool Service::write() {
  if (background_ == nullptr || background_->is_idle()) return false;
  background_->wait();
  return true;
}

bool Service::is_everything_learned() const {
  const Committed committed = handoff_.committed();
  return committed.is_closed && learning_->trainer().next_sequence() == committed.next_sequence;
}

Status Service::stop() {
  SLUICE_TRY(join_->stop());
  SLUICE_TRY(learn(100));
  return is_everything_learned() ? learning_->finish() : learning_->stop();
}

std::uint64_t Service::lag() const {
  const std::uint64_t committed = handoff_.committed().next_sequence - 1;
  return committed - std::min(handoff_.trained_sequence(), committed);
}

Outcome outcome_of(const Machine& machine, Service& service, Findings& findings) {
  Outcome outcome;
  auto report = make_report(service.join_stage(), service.learning(), {}, true);
  if (!report) {
    findings.fail("no report: " + report.error().message);
    return outcome;
  }
  outcome.report = *std::move(report);
  outcome.report.erase("throughput");
  const auto read = [&](const fs::path& path) {
    auto bytes = machine.files.read(path);
    return bytes ? *std::move(bytes) : std::string();
  };
  outcome.predictions = read(kPredictions);
  outcome.scores = read(model_dir(service.config()) / "scores.bin");
  const auto latest = read_latest(machine.files, model_dir(service.config()) / "snapshots");
  if (latest) outcome.latest = latest->value_or(0);
  for (const StoredDeadLetter& letter : read_dead_letters(machine.store)) {
    outcome.dead_letters.push_back(letter.refusal);
  }
  std::sort(outcome.dead_letters.begin(), outcome.dead_letters.end());
  return outcome;
}

std::string Outcome::difference(const Outcome& other) const {
  std::string text;
  if (report != other.report) {
    text += "the report is\n" + report.dump() + "\nexpected\n" + other.report.dump() + "\n";
  }
  const auto compare = [&text](const char* name, const std::string& is, const std::string& should) {
    if (is == should) return;
    const auto at = std::mismatch(is.begin(), is.end(), should.begin(), should.end()).first;
    text += std::string(name) + " has " + std::to_string(is.size()) + " bytes, expected " +
            std::to_string(should.size()) + ", equal up to byte " +
            std::to_string(at - is.begin()) + "\n";
  };
  compare("the predictions file", predictions, other.predictions);
  compare("scores.bin", scores, other.scores);
  if (latest != other.latest) {
    text +=
        "LATEST is " + std::to_string(latest) + ", expected " + std::to_string(other.latest) + "\n";
  }
  if (dead_letters != other.dead_letters) text += "other dead letters\n";
  return text;
}

}  // namespace sluice::simulation
