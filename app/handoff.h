// What the joining and the learning thread tell each other. The samples themselves go through the
// sample log in the store: what is committed there is all that the learner may see.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>

#include "base/hash.h"
#include "base/time.h"

namespace sluice {

// The join as of its last commit.
struct Committed {
  std::uint64_t next_sequence = 1;
  TimeMs frontier = kTimeMin;
  Digest samples_digest;
  bool is_closed = false;
  std::optional<std::uint64_t> irreproducible_from;
};

// Thread-safe.
class Handoff {
 public:
  void publish(const Committed& committed) {
    const std::lock_guard lock(mutex_);
    committed_ = committed;
    changed_.notify_all();
  }
  Committed committed() const {
    const std::lock_guard lock(mutex_);
    return committed_;
  }

  void set_trained(std::uint64_t trained_sequence, std::uint64_t first_needed) {
    const std::lock_guard lock(mutex_);
    trained_sequence_ = trained_sequence;
    first_needed_ = first_needed;
    changed_.notify_all();
  }
  std::uint64_t trained_sequence() const {
    const std::lock_guard lock(mutex_);
    return trained_sequence_;
  }
  // Samples before it are in verified checkpoints and may leave the log.
  std::uint64_t first_needed() const {
    const std::lock_guard lock(mutex_);
    return first_needed_;
  }

  // Nothing more will be committed.
  void end_join() {
    const std::lock_guard lock(mutex_);
    is_join_ended_ = true;
    changed_.notify_all();
  }
  bool is_join_ended() const {
    const std::lock_guard lock(mutex_);
    return is_join_ended_;
  }

  // Asks both threads to come to their ends.
  void stop() {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
    changed_.notify_all();
  }
  bool is_stopping() const {
    const std::lock_guard lock(mutex_);
    return is_stopping_;
  }

  // Until a commit goes beyond `seen`, or end_join(), or stop(), or the time is over.
  void wait_for_commit(const Committed& seen, DurationMs timeout) {
    wait(timeout, [&] {
      return is_stopping_ || is_join_ended_ || committed_.next_sequence != seen.next_sequence ||
             committed_.frontier != seen.frontier || committed_.is_closed != seen.is_closed;
    });
  }
  // Until more was trained than `seen`, or stop(), or the time is over.
  void wait_for_training(std::uint64_t seen, DurationMs timeout) {
    wait(timeout, [&] { return is_stopping_ || trained_sequence_ != seen; });
  }

 private:
  template <class Condition>
  void wait(DurationMs timeout, Condition condition) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(timeout), condition);
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Committed committed_;
  std::uint64_t trained_sequence_ = 0;
  std::uint64_t first_needed_ = 1;
  bool is_join_ended_ = false;
  bool is_stopping_ = false;
};

}  // namespace sluice
