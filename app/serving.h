// Serving as one part of a process: follows the snapshots of a place, and answers over HTTP.
//
// Threads: one polls and loads new versions; the server's workers answer (serving/http_server.h);
// one writes the log of predictions where there is one. None of them writes into a data folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/time.h"
#include "config/config.h"

namespace sluice {

class Serving {
 public:
  // Listens from its return on; not ready before the first version is loaded. `where`: a data
  // folder, which may hold nothing yet, or a folder of snapshots; `model` names that of the latter
  // where its path does not. The clock outlives it.
  static Result<std::unique_ptr<Serving>> start(const ServingConfig& config,
                                                const std::filesystem::path& where,
                                                const std::string& model, Clock& clock);
  // As stop(), without patience.
  ~Serving();

  std::string url() const;  // "http://127.0.0.1:8080"

  // Says that it is not ready, answers what was begun, for serving.drain_timeout at most, and ends.
  // A second call does nothing.
  void stop();

 private:
  struct Impl;
  explicit Serving(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice
