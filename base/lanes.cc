#include "base/lanes.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include <xmmintrin.h>

#include "base/check.h"

namespace sluice {

namespace {
constexpr unsigned kFlushToZero = 0x8000;
constexpr unsigned kDenormalsAreZero = 0x0040;
}  // namespace

FlushDenormals::FlushDenormals() : saved_(_mm_getcsr()) {
  _mm_setcsr(saved_ | kFlushToZero | kDenormalsAreZero);
}
FlushDenormals::~FlushDenormals() {
  _mm_setcsr(saved_);
}

// Runs follow each other within microseconds while a batch is computed, so a thread first looks
// for the next one for a while; then it waits in the system, so that a thread without work takes no
// core from others. A run is open until its caller finds no more pieces: a thread that the system
// did not let run until then is not waited for.
struct Workers::Shared {
  static constexpr int kLooks = 2'000;  // some tens of microseconds

  // Of the current run: threads that take its pieces beside the caller, whether more may join, and
  // above these bits the run's number.
  static constexpr std::uint64_t kJoined = 0xffff;
  static constexpr std::uint64_t kOpen = 1 << 16;
  static constexpr std::uint64_t kNumber = 1 << 17;

  std::mutex mutex;
  std::condition_variable work_there;
  std::condition_variable work_done;
  const std::function<void(std::size_t, std::size_t)>* work = nullptr;  // null between runs
  std::size_t pieces = 0;
  std::atomic<std::size_t> next_piece{0};
  std::atomic<std::uint64_t> state{0};
  std::atomic<bool> stopping{false};
  std::vector<std::thread> others;

  template <class Condition>
  static bool look_for(const Condition& condition) {
    for (int look = 0; look < kLooks; ++look) {
      if (condition()) return true;
      _mm_pause();
    }
    return false;
  }

  void take_pieces(std::size_t thread) noexcept {
    const FlushDenormals flush;
    for (std::size_t piece = next_piece.fetch_add(1); piece < pieces;
         piece = next_piece.fetch_add(1)) {
      (*work)(piece, thread);
    }
  }

  void loop(std::size_t thread) {
    std::uint64_t seen = 0;  // number of the last run that this thread joined
    const auto is_called = [&] {
      const std::uint64_t now = state;
      return stopping || ((now & kOpen) != 0 && now / kNumber != seen);
    };
    while (true) {
      if (!look_for(is_called)) {
        std::unique_lock lock(mutex);
        work_there.wait(lock, is_called);
      }
      if (stopping) return;
      std::uint64_t now = state;
      if ((now & kOpen) == 0 || !state.compare_exchange_strong(now, now + 1)) continue;
      seen = now / kNumber;
      take_pieces(thread);
      if (((state.fetch_sub(1) - 1) & (kJoined | kOpen)) != 0) continue;
      const std::lock_guard lock(mutex);  // whoever is about to wait has looked at the state
      work_done.notify_one();
    }
  }
};

Workers::Workers(std::size_t threads) : shared_(std::make_unique<Shared>()) {
  SLUICE_CHECK(threads >= 1);
  for (std::size_t thread = 1; thread < threads; ++thread) {
    shared_->others.emplace_back([shared = shared_.get(), thread] { shared->loop(thread); });
  }
}

Workers::~Workers() {
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->stopping = true;
  }
  shared_->work_there.notify_all();
  for (std::thread& other : shared_->others) other.join();
}

std::size_t Workers::threads() const {
  return shared_->others.size() + 1;
}

void Workers::run(std::size_t pieces, const std::function<void(std::size_t, std::size_t)>& work) {
  Shared& shared = *shared_;
  const bool alone = shared.others.empty() || pieces < 2;
  SLUICE_CHECK(shared.work == nullptr);
  shared.work = &work;
  shared.pieces = pieces;
  shared.next_piece = 0;
  if (!alone) {
    {
      const std::lock_guard lock(shared.mutex);
      shared.state = (shared.state / Shared::kNumber + 1) * Shared::kNumber | Shared::kOpen;
    }
    shared.work_there.notify_all();
  }
  shared.take_pieces(0);
  if (!alone) {
    shared.state &= ~Shared::kOpen;
    const auto is_done = [&] { return (shared.state & Shared::kJoined) == 0; };
    if (!Shared::look_for(is_done)) {
      std::unique_lock lock(shared.mutex);
      shared.work_done.wait(lock, is_done);
    }
  }
  shared.work = nullptr;
}

void run_side_by_side(std::size_t tasks, std::size_t threads,
                      const std::function<void(std::size_t)>& task) {
  std::atomic<std::size_t> next{0};
  const auto take_tasks = [&]() noexcept {
    for (std::size_t n = next.fetch_add(1); n < tasks; n = next.fetch_add(1)) task(n);
  };
  std::vector<std::jthread> others;
  for (std::size_t thread = 1; thread < std::min(threads, tasks); ++thread) {
    others.emplace_back(take_tasks);
  }
  take_tasks();
}

}  // namespace sluice
