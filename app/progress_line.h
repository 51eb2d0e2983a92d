// One line on stderr that is drawn anew while someone looks at it: nothing where stderr is no
// terminal. For verbs that have no data folder (progress.h has the service's).
#pragma once

#include <unistd.h>

#include <cstdio>
#include <functional>
#include <string>

#include "base/time.h"

namespace sluice {

class ProgressLine {
 public:
  explicit ProgressLine(Clock& clock) : clock_(clock), is_shown_(isatty(STDERR_FILENO) == 1) {}
  ~ProgressLine() {
    if (is_shown_) std::fprintf(stderr, "\r\033[K");
  }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // `text` is asked for only when it is drawn.
  void show(const std::function<std::string()>& text) {
    constexpr DurationMs kInterval = 200;
    if (!is_shown_) return;
    const DurationMs now = clock_.steady_ms();
    if (now < shown_at_ + kInterval) return;
    shown_at_ = now;
    std::fprintf(stderr, "\r\033[K%s", text().c_str());
  }

 private:
  Clock& clock_;
  bool is_shown_;
  DurationMs shown_at_ = 0;
};

}  // namespace sluice
