// From the store to dead_letters.topic: an outbox. The store is the truth: a dead letter is
// committed there with everything else; what is committed is then offered to the sink, and the
// number before which all is acknowledged goes into a later commit. So after a crash some are sent
// twice, and none is missed. A sink that takes nothing blocks nothing: what waits stays in the
// store, as long as dead_letters.keep allows.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "base/result.h"
#include "base/time.h"
#include "ingest/dead_letter.h"
#include "joiner/join.h"
#include "store/key_value.h"

namespace sluice {

// The data folder's name in what is sent, so that two folders' numbers are not mixed up: 16 hex
// digits, made from the time and `salt` at the first call and kept in the store.
Result<std::string> data_folder_id(KeyValueStore& store, Clock& clock, const std::string& salt);

// Owned by the joining thread.
class DeadLetterOutbox {
 public:
  // The references outlive it. Goes on where `committed` says.
  DeadLetterOutbox(KeyValueStore& store, DeadLetterSink& sink, Clock& clock,
                   const JoinProgress& committed);

  // Hears what was acknowledged and offers what is committed and not yet offered. Never waits for
  // the sink. An error is one of the store.
  Status pump(const JoinProgress& committed);

  // Pumps until all that is committed is acknowledged, or nothing was for `patience`, and for 30 s
  // at the most. For an end.
  Status drain(const JoinProgress& committed, DurationMs patience);

  // All before it are acknowledged, or were trimmed.
  std::uint64_t sent_before() const;
  // Those that are not acknowledged; some may lie before others that are.
  std::uint64_t unsent(const JoinProgress& committed) const {
    return in_flight_.size() + failed_.size() + committed.next_dead_letter -
           std::min(next_, committed.next_dead_letter);
  }

 private:
  void take_deliveries();
  void forget_trimmed(std::uint64_t first_kept);
  // Offers the committed letters [from, to) until the sink is full; returns the first not taken.
  Result<std::uint64_t> offer(std::uint64_t from, std::uint64_t to);
  void warn_now_and_then(const JoinProgress& committed);

  KeyValueStore& store_;
  DeadLetterSink& sink_;
  Clock& clock_;
  std::uint64_t next_;                 // the first that was never offered
  std::set<std::uint64_t> in_flight_;  // offered, nothing heard of them yet
  std::set<std::uint64_t> failed_;     // to be offered again at retry_at_
  std::uint64_t retry_from_ = 0;       // whose turn of the failed ones it is
  DurationMs retry_at_ = 0;            // steady
  DurationMs backoff_ = 0;
  DurationMs last_progress_;  // steady: something was acknowledged, or nothing waited
  std::uint64_t known_sent_;  // sent_before() as it was at last_advance_
  DurationMs last_advance_;   // steady: it changed, or nothing waited
  DurationMs last_warning_;
};

}  // namespace sluice
