#include "app/dead_letter_outbox.h"

#include <algorithm>
#include <utility>

#include <spdlog/spdlog.h>

#include "base/bytes.h"
#include "base/hash.h"

namespace sluice {
namespace {

constexpr const char* kFolderIdKey = "folder_id";
// Offered and not acknowledged: bounds the memory of this set. The sink bounds the bytes.
constexpr std::size_t kMostInFlight = 10'000;
// One call of pump() should not hold up the join.
constexpr std::uint64_t kOfferedAtOnce = 500;
// While so many wait for another try, nothing new is offered.
constexpr std::size_t kMostFailed = 100;
constexpr DurationMs kFirstBackoffMs = 500;
constexpr DurationMs kMostBackoffMs = 30'000;
constexpr DurationMs kPatienceMs = 30'000;  // nothing more counts as sent; then the first word
// An end, however many wait and however steadily they arrive.
constexpr DurationMs kMostDrainMs = 30'000;
constexpr DurationMs kWarnEveryMs = 300'000;
constexpr DurationMs kWaitMs = 20;

}  // namespace

Result<std::string> data_folder_id(KeyValueStore& store, Clock& clock, const std::string& salt) {
  SLUICE_ASSIGN(auto stored, store.get(Space::meta, kFolderIdKey));
  if (stored) return *std::move(stored);
  std::string seed = salt;
  ByteWriter bytes(seed);
  bytes.svarint(clock.wall_ms());
  bytes.svarint(clock.steady_ms());
  const std::string id = hash128(seed).hex().substr(0, 16);
  WriteBatch batch;
  batch.put(Space::meta, kFolderIdKey, id);
  SLUICE_TRY(store.commit(batch));
  return id;
}

DeadLetterOutbox::DeadLetterOutbox(KeyValueStore& store, DeadLetterSink& sink, Clock& clock,
                                   const JoinProgress& committed)
    : store_(store),
      sink_(sink),
      clock_(clock),
      next_(std::max(committed.sent_dead_letters, committed.first_dead_letter)),
      last_progress_(clock.steady_ms()),
      known_sent_(next_),
      last_advance_(last_progress_),
      last_warning_(last_progress_ - kWarnEveryMs) {}

std::uint64_t DeadLetterOutbox::sent_before() const {
  std::uint64_t first = next_;
  if (!in_flight_.empty()) first = std::min(first, *in_flight_.begin());
  if (!failed_.empty()) first = std::min(first, *failed_.begin());
  return first;
}

void DeadLetterOutbox::take_deliveries() {
  const DurationMs now = clock_.steady_ms();
  for (const DeadLetterSink::Delivery& delivery : sink_.take_deliveries()) {
    // One that was trimmed meanwhile is not waited for any more.
    if (in_flight_.erase(delivery.number) == 0) continue;
    if (delivery.is_acknowledged) {
      last_progress_ = now;
      backoff_ = 0;
      continue;
    }
    // Also for what fails again while others still wait for their next try.
    if (now >= retry_at_) {
      backoff_ = std::clamp(2 * backoff_, kFirstBackoffMs, kMostBackoffMs);
      retry_at_ = now + backoff_;
    }
    failed_.insert(delivery.number);
  }
}

void DeadLetterOutbox::forget_trimmed(std::uint64_t first_kept) {
  next_ = std::max(next_, first_kept);
  in_flight_.erase(in_flight_.begin(), in_flight_.lower_bound(first_kept));
  failed_.erase(failed_.begin(), failed_.lower_bound(first_kept));
}

Result<std::uint64_t> DeadLetterOutbox::offer(std::uint64_t from, std::uint64_t to) {
  std::uint64_t next = from;
  Status status;
  SLUICE_TRY(store_.scan(Space::dead_letters, dead_letter_key(from), dead_letter_key(to),
                         [&](std::string_view key, std::string_view value) {
                           const auto letter = decode_dead_letter(key, value);
                           if (!letter) {
                             status = letter.error();
                             return false;
                           }
                           if (!sink_.offer(*letter)) return false;
                           in_flight_.insert(letter->number);
                           next = letter->number + 1;
                           return true;
                         }));
  SLUICE_TRY(std::move(status));
  return next;
}

Status DeadLetterOutbox::pump(const JoinProgress& committed) {
  take_deliveries();
  forget_trimmed(committed.first_dead_letter);
  const DurationMs now = clock_.steady_ms();
  std::uint64_t offered = 0;
  while (!failed_.empty() && now >= retry_at_ && offered < kOfferedAtOnce) {
    // In turn, so that those that fail again and again leave the others theirs.
    auto turn = failed_.lower_bound(retry_from_);
    if (turn == failed_.end()) turn = failed_.begin();
    const std::uint64_t number = *turn;
    SLUICE_ASSIGN(const std::uint64_t next, offer(number, number + 1));
    if (next == number) break;
    failed_.erase(turn);
    retry_from_ = next;
    ++offered;
  }
  // A few that fail hold up no others. Many are a topic that takes nothing: those come first.
  if (failed_.size() < kMostFailed && offered < kOfferedAtOnce &&
      next_ < committed.next_dead_letter && in_flight_.size() < kMostInFlight) {
    const std::uint64_t end =
        std::min(committed.next_dead_letter, next_ + kOfferedAtOnce - offered);
    SLUICE_ASSIGN(next_, offer(next_, end));
  }
  warn_now_and_then(committed);
  return {};
}

void DeadLetterOutbox::warn_now_and_then(const JoinProgress& committed) {
  const DurationMs now = clock_.steady_ms();
  const std::uint64_t waiting = unsent(committed);
  if (waiting == 0) last_progress_ = now;
  // By what counts as sent: one that is refused again and again is told though others arrive.
  if (waiting == 0 || sent_before() != known_sent_) {
    known_sent_ = sent_before();
    last_advance_ = now;
  }
  if (now - last_advance_ < kPatienceMs || now - last_warning_ < kWarnEveryMs) return;
  last_warning_ = now;
  const std::string problem = sink_.problem();
  spdlog::warn("{} dead letters wait for {}{}{}; they stay in the data folder{}", waiting,
               sink_.target(), problem.empty() ? "" : ": ", problem,
               committed.trimmed_unsent_dead_letters == 0
                   ? ""
                   : ", " + std::to_string(committed.trimmed_unsent_dead_letters) +
                         " were trimmed before they were sent");
}

Status DeadLetterOutbox::drain(const JoinProgress& committed, DurationMs patience) {
  const DurationMs begin = clock_.steady_ms();
  SLUICE_TRY(pump(committed));
  while (unsent(committed) > 0) {
    const DurationMs now = clock_.steady_ms();
    if (now - std::max(begin, last_progress_) >= patience || now - begin >= kMostDrainMs) {
      const std::string problem = sink_.problem();
      spdlog::warn(
          "{} dead letters are not yet sent to {}{}{}; they stay in the data folder and the next "
          "start sends them",
          unsent(committed), sink_.target(), problem.empty() ? "" : ": ", problem);
      return {};
    }
    sink_.wait(kWaitMs);
    SLUICE_TRY(pump(committed));
  }
  return {};
}

}  // namespace sluice
