#include "app/stop_signal.h"

#include <atomic>
#include <csignal>

namespace sluice {
namespace {

// Set by the handler; a lock-free atomic is all that it may touch.
std::atomic<int> noted_signal{0};
static_assert(std::atomic<int>::is_always_lock_free);

void note_signal(int signal) {
  noted_signal = signal;
}

}  // namespace

void watch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = note_signal;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
}

int stop_signal() {
  return noted_signal;
}

}  // namespace sluice
