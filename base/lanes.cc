#include "base/lanes.h"

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

struct Workers::Shared {
  std::mutex mutex;
  std::condition_variable work_there;
  std::condition_variable work_done;
  const std::function<void(std::size_t, std::size_t)>* work = nullptr;  // null between runs
  std::size_t pieces = 0;
  std::atomic<std::size_t> next_piece{0};
  std::size_t busy = 0;  // other threads that have not finished this run
  std::uint64_t run = 0;
  bool stopping = false;
  std::vector<std::thread> others;

  void take_pieces(std::size_t thread) {
    const FlushDenormals flush;
    for (std::size_t piece = next_piece.fetch_add(1); piece < pieces;
         piece = next_piece.fetch_add(1)) {
      (*work)(piece, thread);
    }
  }

  void loop(std::size_t thread) {
    std::uint64_t seen = 0;
    std::unique_lock lock(mutex);
    while (true) {
      work_there.wait(lock, [&] { return stopping || run != seen; });
      if (stopping) return;
      seen = run;
      lock.unlock();
      take_pieces(thread);
      lock.lock();
      if (--busy == 0) work_done.notify_one();
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
  {
    const std::lock_guard lock(shared.mutex);
    SLUICE_CHECK(shared.work == nullptr);
    shared.work = &work;
    shared.pieces = pieces;
    shared.next_piece = 0;
    if (!alone) {
      shared.busy = shared.others.size();
      ++shared.run;
    }
  }
  if (!alone) shared.work_there.notify_all();
  shared.take_pieces(0);
  std::unique_lock lock(shared.mutex);
  shared.work_done.wait(lock, [&] { return shared.busy == 0; });
  shared.work = nullptr;
}

}  // namespace sluice
