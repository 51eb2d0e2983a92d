#include "app/pipeline.h"

#include <algorithm>
#include <utility>

#include <spdlog/spdlog.h>

namespace sluice {
namespace {

constexpr DurationMs kStepWaitMs = 20;
constexpr std::uint64_t kToldRefusals = 3;
// A log that goes on but gives nothing is told of after so long, and again each so long.
constexpr DurationMs kHeldBackMs = 10'000;
constexpr DurationMs kHeldBackAgainMs = 60'000;
// Samples that one step of advance() should give: enough to be worth it, few enough to hold.
constexpr std::size_t kFewSamples = 1'000;
constexpr std::size_t kManySamples = 10'000;
// A longer stride could meet, without warning, a place where very many windows close.
constexpr std::int64_t kMaxStrideTicks = 64;
// At a stop: so long without an acknowledgement, and what is unsent waits for the next start.
constexpr DurationMs kSendingPatienceMs = 5'000;

}  // namespace

Result<std::unique_ptr<JoinStage>> JoinStage::open(const Config& config, const EndPolicy& policy,
                                                   Source& source, KeyValueStore& store,
                                                   Clock& clock, Handoff& handoff,
                                                   LostRecords lost) {
  std::unique_ptr<JoinStage> stage(new JoinStage(config, policy, source, clock, handoff));
  SLUICE_ASSIGN(const std::uint32_t partitions, source.partitions());
  SLUICE_ASSIGN(stage->join_, Join::open(config, partitions, store));
  const JoinProgress& committed = stage->join_->committed();
  if (committed.is_closed) {
    SLUICE_TRY(stage->check_closed());
  } else {
    stage->reader_ = std::make_unique<LogReader>(config, source, clock, partitions, policy);
    SLUICE_TRY(stage->reader_->start(committed.intakes, !stage->join_->has_committed(),
                                     committed.pinned_ends, lost));
    for (const std::string& range : stage->reader_->passed_over()) {
      spdlog::warn("goes on without lost records (--accept-lost): {}", range);
      stage->join_->mark_irreproducible();
    }
    stage->join_->pin_ends(stage->reader_->pinned_ends());
    // Where reading begins, and ends, is decided once.
    SLUICE_TRY(stage->commit());
  }
  stage->publish();
  return stage;
}

// Nothing more is read, but other logs than those that were must not pass for them.
Status JoinStage::check_closed() {
  if (policy_.is_live && policy_.kind != EndPolicy::Kind::close) {
    return usage_error(
        "this data folder was closed when its logs were replayed to their ends: no service goes on "
        "with it; take a new --data-dir, or begin with replay --at-end hold");
  }
  LogReader reader(config_, source_, clock_, join_->partitions(), EndPolicy{});
  return reader.check_logs(join_->committed().intakes, join_->committed().pinned_ends);
}

void JoinStage::send_dead_letters(KeyValueStore& store, DeadLetterSink& sink) {
  outbox_ = std::make_unique<DeadLetterOutbox>(store, sink, clock_, join_->committed());
  join_->set_sent_dead_letters(outbox_->sent_before());
}

void JoinStage::watch(RecordWatcher& watcher) {
  watcher_ = &watcher;
  join_->watch(&watcher);
}

Result<bool> JoinStage::step() {
  if (is_closed()) return false;
  if (outbox_ != nullptr) {
    SLUICE_TRY(outbox_->pump(join_->committed()));
    join_->set_sent_dead_letters(outbox_->sent_before());
  }
  // The learner is far behind: the sample log would grow without need.
  const std::uint64_t lag =
      join_->committed().next_sequence - 1 -
      std::min(handoff_.trained_sequence(), join_->committed().next_sequence - 1);
  // Less than a whole batch the learner could not make smaller.
  if (lag > std::max(config_.store.max_learner_lag, config_.training.batch_size)) {
    handoff_.wait_for_training(handoff_.trained_sequence(), kStepWaitMs);
    return true;
  }
  // While the source does not answer nothing more is read; what was is joined and committed.
  Status answered;
  if (!is_behind_) {
    answered = read();
    if (!answered && answered.error().kind != ErrorKind::retry) return answered.error();
  }
  SLUICE_ASSIGN(is_behind_, advance());
  if (is_behind_) return true;
  if (!answered || !reader_->is_exhausted()) {
    if (is_commit_due()) SLUICE_TRY(commit());
    if (!answered) return answered.error();
    return true;
  }
  if (policy_.kind == EndPolicy::Kind::close) join_->close();
  SLUICE_TRY(commit());
  return false;
}

Status JoinStage::read() {
  const auto taken = reader_->step(join_->frontier(), kStepWaitMs);
  if (taken && policy_.is_live) tell_held_back();
  records_since_commit_ += taken ? *taken : 0;
  std::vector<RefusedRecord> refused = reader_->take_refused();
  tell_first_refusals(refused);
  if (watcher_ != nullptr) {
    for (const RefusedRecord& record : refused) watcher_->refused_when_read(record);
  }
  join_->refuse(std::move(refused));
  return taken ? Status() : taken.error();
}

// Else nobody could see why event time stands still although the broker has records.
void JoinStage::tell_held_back() {
  const DurationMs now = clock_.steady_ms();
  bool is_answering = true;  // of several questions without an answer one is waited for
  for (const HeldBack& held : reader_->held_back(kHeldBackMs)) {
    const auto told = told_held_back_.find(held.where);
    if (told != told_held_back_.end() && now - told->second < kHeldBackAgainMs) continue;
    told_held_back_[held.where] = now;
    bool is_transaction = false;
    if (is_answering) {
      const auto readable = source_.readable_end(held.where);
      is_answering = readable.has_value();
      is_transaction = readable && *readable <= held.position;
    }
    spdlog::warn(
        "{}: the records up to {} have not been given for {}: {}; event time waits for them",
        source_.describe(held.where, held.position), held.end, format_duration(held.for_ms),
        is_transaction ? "a transaction is open there, neither committed nor aborted"
                       : "the broker holds them back");
  }
}

// The first few of each reason go to the log: without them a wrong field name or a time in seconds
// would show as a number only.
void JoinStage::tell_first_refusals(const std::vector<RefusedRecord>& refused) {
  for (const RefusedRecord& record : refused) {
    std::uint64_t& told = told_refusals_[static_cast<std::size_t>(record.reason)];
    if (told == kToldRefusals) continue;
    spdlog::warn("{}: {}: {}{}", to_string(record.reason),
                 source_.describe(record.where, record.position), record.detail,
                 ++told == kToldRefusals ? " (more of this reason are only counted)" : "");
  }
}

Result<bool> JoinStage::advance() {
  const DurationMs tick = config_.join.tick;
  const TimeMs target = floor_to(reader_->watermark(), tick);
  while (join_->frontier() < target) {
    // Silence is passed over in one step.
    const TimeMs next_work = std::min(reader_->first_buffered(), join_->next_deadline());
    TimeMs frontier = target;
    if (next_work < target && next_work < target - stride_ticks_ * tick) {
      frontier = floor_to(next_work, tick) + stride_ticks_ * tick;
    }
    const std::size_t before = join_->uncommitted_samples();
    const std::uint64_t bytes_before = join_->uncommitted_bytes();
    SLUICE_TRY(join_->process(frontier, reader_->release(frontier)));
    const std::size_t gained = join_->uncommitted_samples() - before;
    const std::uint64_t gained_bytes = join_->uncommitted_bytes() - bytes_before;
    if (gained < kFewSamples && gained_bytes < config_.store.memtable_bytes / 16) {
      stride_ticks_ = std::min(stride_ticks_ * 2, kMaxStrideTicks);
    }
    if (gained > kManySamples || gained_bytes > config_.store.memtable_bytes / 4) {
      stride_ticks_ = std::max<std::int64_t>(stride_ticks_ / 2, 1);
    }
    if (join_->uncommitted_samples() >= config_.store.commit_records || is_commit_large()) {
      SLUICE_TRY(commit());
      return join_->frontier() < target;
    }
  }
  return false;
}

// Records may be long: what waits for a commit is bounded by its size too.
bool JoinStage::is_commit_large() const {
  return join_->uncommitted_bytes() >= config_.store.memtable_bytes;
}

bool JoinStage::is_commit_due() const {
  if (records_since_commit_ >= config_.store.commit_records || is_commit_large()) return true;
  return clock_.steady_ms() - last_commit_steady_ >= config_.store.commit_interval &&
         join_->has_changes(reader_->states());
}

Status JoinStage::commit() {
  last_commit_wall_ = clock_.wall_ms();
  // Of a closed join nothing is read any more.
  SLUICE_TRY(join_->commit(reader_ != nullptr ? reader_->states() : join_->committed().intakes,
                           last_commit_wall_, handoff_.first_needed()));
  records_since_commit_ = 0;
  last_commit_steady_ = clock_.steady_ms();
  publish();
  return {};
}

Status JoinStage::stop() {
  if (!is_closed() && join_->has_changes(reader_->states())) SLUICE_TRY(commit());
  if (outbox_ == nullptr) return {};
  SLUICE_TRY(outbox_->drain(join_->committed(), kSendingPatienceMs));
  join_->set_sent_dead_letters(outbox_->sent_before());
  return outbox_->sent_before() > join_->committed().sent_dead_letters ? commit() : Status();
}

void JoinStage::publish() {
  const JoinProgress& committed = join_->committed();
  handoff_.publish({committed.next_sequence, committed.frontier, committed.samples_digest,
                    committed.is_closed, committed.irreproducible_from});
}

JoinStatus JoinStage::status() const {
  JoinStatus status;
  status.counters = join_->counters();
  status.frontier = join_->frontier();
  status.open_impressions = join_->open_impressions();
  status.waiting_records = join_->waiting_records();
  status.samples = join_->committed().next_sequence - 1;
  status.last_commit_wall_ms = last_commit_wall_;
  if (outbox_ != nullptr) status.unsent_dead_letters = outbox_->unsent(join_->committed());
  if (reader_ != nullptr) {
    status.watermark = reader_->watermark();
    status.slowest = reader_->slowest();
    status.lag_records = reader_->lag_records();
    status.quiet_partitions = reader_->quiet_partitions();
    status.fraction_read = reader_->fraction_read();
  }
  return status;
}

}  // namespace sluice
