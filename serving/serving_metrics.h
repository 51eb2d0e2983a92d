// What serving counts, in the text form of Prometheus. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/time.h"

namespace sluice {

class ServingMetrics {
 public:
  ServingMetrics();
  ~ServingMetrics();

  // `protocol` is one of a few words (v1, v2, health, metrics, other); of health and metrics no
  // latency is kept.
  void on_request(const std::string& protocol, int code, double seconds);
  void on_rows(const std::string& model, std::size_t rows);
  void on_current(const std::string& model, std::uint64_t sequence,
                  std::optional<TimeMs> event_time);
  void on_load_error(const std::string& model);
  void on_held(const std::string& model, std::size_t snapshots);
  void on_logged(std::size_t lines, std::size_t dropped);
  void add_in_flight(int change);

  // `wall_ms`: now, for the age of what is served.
  std::string text(TimeMs wall_ms, std::size_t connections, std::uint64_t refused_connections);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice
