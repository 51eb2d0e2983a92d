#include "app/background.h"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "base/check.h"

namespace sluice {
namespace {

class BackgroundThread final : public Background {
 public:
  BackgroundThread() : thread_([this] { loop(); }) {}
  ~BackgroundThread() override {
    {
      const std::lock_guard lock(mutex_);
      is_ending_ = true;
      changed_.notify_all();
    }
    thread_.join();
  }

  void start(std::function<void()> job) override {
    const std::lock_guard lock(mutex_);
    SLUICE_CHECK(!job_);
    job_ = std::move(job);
    changed_.notify_all();
  }
  bool is_idle() override {
    const std::lock_guard lock(mutex_);
    return !job_;
  }
  void wait() override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !job_; });
  }

 private:
  void loop() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return is_ending_ || job_; });
      if (is_ending_) return;
      lock.unlock();
      job_();
      lock.lock();
      job_ = nullptr;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> job_;  // waiting or running; none: idle
  bool is_ending_ = false;
  std::thread thread_;
};

class Foreground final : public Background {
 public:
  void start(std::function<void()> job) override { job(); }
  bool is_idle() override { return true; }
  void wait() override {}
};

}  // namespace

std::unique_ptr<Background> make_background_thread() {
  return std::make_unique<BackgroundThread>();
}

std::unique_ptr<Background> make_foreground() {
  return std::make_unique<Foreground>();
}

}  // namespace sluice
