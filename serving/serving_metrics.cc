#include "serving/serving_metrics.h"

#include <map>
#include <mutex>

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace sluice {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;

// Seconds: 50 µs to 10 s.
const Histogram::BucketBoundaries kLatencies = {
    5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0};

constexpr double kMsPerSecond = 1e3;

}  // namespace

struct ServingMetrics::Impl {
  prometheus::Registry registry;
  Family<Counter>& requests = BuildCounter()
                                  .Name("sluice_requests_total")
                                  .Help("Requests answered, by protocol and HTTP status")
                                  .Register(registry);
  Family<Histogram>& latency = BuildHistogram()
                                   .Name("sluice_request_seconds")
                                   .Help("From a request read whole to its answer being ready")
                                   .Register(registry);
  Family<Counter>& rows = BuildCounter()
                              .Name("sluice_rows_total")
                              .Help("Impressions scored, by model")
                              .Register(registry);
  Family<Gauge>& version = BuildGauge()
                               .Name("sluice_served_version")
                               .Help("The sequence number of the snapshot that is served")
                               .Register(registry);
  Family<Counter>& swaps = BuildCounter()
                               .Name("sluice_swaps_total")
                               .Help("Times that another version came to be served")
                               .Register(registry);
  Family<Counter>& load_errors =
      BuildCounter()
          .Name("sluice_load_errors_total")
          .Help("Versions that could not be read, by model; the one before was kept")
          .Register(registry);
  Family<Gauge>& held = BuildGauge()
                            .Name("sluice_held_snapshots")
                            .Help("Snapshots that snapshots.gate has kept from becoming LATEST")
                            .Register(registry);
  Family<Gauge>& age = BuildGauge()
                           .Name("sluice_served_event_age_seconds")
                           .Help("The wall clock less the event time up to which it has learned")
                           .Register(registry);
  Gauge& in_flight = BuildGauge()
                         .Name("sluice_requests_in_flight")
                         .Help("Requests being answered now")
                         .Register(registry)
                         .Add({});
  Gauge& connections =
      BuildGauge().Name("sluice_connections").Help("Open connections").Register(registry).Add({});
  Gauge& refused = BuildGauge()
                       .Name("sluice_connections_refused")
                       .Help("Connections closed at once, beyond serving.max_connections")
                       .Register(registry)
                       .Add({});
  Family<Counter>& log_lines = BuildCounter()
                                   .Name("sluice_prediction_log_lines_total")
                                   .Help("Lines for serving.log_predictions, kept or dropped")
                                   .Register(registry);
  Counter& kept_lines = log_lines.Add({{"result", "kept"}});
  Counter& dropped_lines = log_lines.Add({{"result", "dropped"}});

  std::mutex mutex;  // guards the next one
  std::map<std::string, TimeMs> event_times;
};

ServingMetrics::ServingMetrics() : impl_(std::make_unique<Impl>()) {}
ServingMetrics::~ServingMetrics() = default;

void ServingMetrics::on_request(const std::string& protocol, int code, double seconds) {
  impl_->requests.Add({{"protocol", protocol}, {"code", std::to_string(code)}}).Increment();
  if (protocol != "v1" && protocol != "v2") return;
  impl_->latency.Add({{"protocol", protocol}}, kLatencies).Observe(seconds);
}

void ServingMetrics::on_rows(const std::string& model, std::size_t rows) {
  impl_->rows.Add({{"model", model}}).Increment(static_cast<double>(rows));
}

void ServingMetrics::on_current(const std::string& model, std::uint64_t sequence,
                                std::optional<TimeMs> event_time) {
  impl_->version.Add({{"model", model}}).Set(static_cast<double>(sequence));
  impl_->swaps.Add({{"model", model}}).Increment();
  impl_->load_errors.Add({{"model", model}});  // shown as 0 from the start
  const std::scoped_lock lock(impl_->mutex);
  if (event_time) {
    impl_->event_times[model] = *event_time;
  } else {
    impl_->event_times.erase(model);
  }
}

void ServingMetrics::on_load_error(const std::string& model) {
  impl_->load_errors.Add({{"model", model}}).Increment();
}

void ServingMetrics::on_held(const std::string& model, std::size_t snapshots) {
  impl_->held.Add({{"model", model}}).Set(static_cast<double>(snapshots));
}

void ServingMetrics::on_logged(std::size_t lines, std::size_t dropped) {
  impl_->kept_lines.Increment(static_cast<double>(lines));
  if (dropped > 0) impl_->dropped_lines.Increment(static_cast<double>(dropped));
}

void ServingMetrics::add_in_flight(int change) {
  impl_->in_flight.Increment(change);
}

std::string ServingMetrics::text(TimeMs wall_ms, std::size_t connections,
                                 std::uint64_t refused_connections) {
  {
    const std::scoped_lock lock(impl_->mutex);
    for (const auto& [model, time] : impl_->event_times) {
      impl_->age.Add({{"model", model}}).Set(static_cast<double>(wall_ms - time) / kMsPerSecond);
    }
  }
  impl_->connections.Set(static_cast<double>(connections));
  impl_->refused.Set(static_cast<double>(refused_connections));
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace sluice
