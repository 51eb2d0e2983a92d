// A job beside the thread that gives it: what takes long and must not halt that thread.
#pragma once

#include <functional>
#include <memory>

namespace sluice {

// One job at a time. Given to and asked by one thread. Its end waits for the job, or drops one that
// has not begun.
class Background {
 public:
  virtual ~Background() = default;
  // None may be running. What the job did is visible to whoever has seen is_idle() or wait().
  virtual void start(std::function<void()> job) = 0;
  virtual bool is_idle() = 0;
  virtual void wait() = 0;  // until it is idle
};

// On a thread of its own.
std::unique_ptr<Background> make_background_thread();

// At once, inside start(): for whoever has one thread and wants no other.
std::unique_ptr<Background> make_foreground();

}  // namespace sluice
