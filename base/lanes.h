// Work that is cut into numbered pieces whose results do not depend on who computes them: the one
// place that starts threads for computing.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace sluice {

// A fixed set of threads, one of them the caller's. run() is called from one thread at a time.
class Workers {
 public:
  explicit Workers(std::size_t threads);  // at least 1; 1 starts no thread
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  std::size_t threads() const;

  // Calls work(piece, thread) once for each piece in [0, pieces), in any order on any thread
  // (thread in [0, threads())), and returns when all are done; what they wrote is then visible to
  // the caller. `work` must not throw. Denormal floats are zero on every thread while it runs.
  void run(std::size_t pieces,
           const std::function<void(std::size_t piece, std::size_t thread)>& work);

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

// Calls task(n) once for each n in [0, tasks), on at most `threads` threads of which the caller's
// is one, and returns when all are done; what they wrote is then visible to the caller. For tasks
// that take long and use Workers of their own: threads are started for each call, and floats are as
// everywhere outside of Workers. `task` must not throw.
void run_side_by_side(std::size_t tasks, std::size_t threads,
                      const std::function<void(std::size_t task)>& task);

// Denormal floats count as zero, in and out, on this thread until the object ends.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned saved_;
};

}  // namespace sluice
