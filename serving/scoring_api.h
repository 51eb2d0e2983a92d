// Which request is answered how: the two protocols, health, metadata and metrics. Any thread.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <string_view>

#include "base/time.h"
#include "serving/http_message.h"
#include "serving/model_catalog.h"
#include "serving/prediction_log.h"
#include "serving/serving_metrics.h"

namespace sluice {

class ScoringApi {
 public:
  // The references outlive it; `log` may be null. `program_version` is told as the server's.
  ScoringApi(const ModelCatalog& catalog, ServingMetrics& metrics, PredictionLog* log, Clock& clock,
             RequestLimits limits, std::string program_version);

  // Every request gets a reply; errors are {"error": why}.
  HttpReply answer(const HttpRequest& request) const;
  // A reply that was decided before there was a request to answer, as without a token.
  HttpReply refused(const HttpRefusal& refusal, std::string_view path) const;

  // Health alone is told to everyone.
  static bool needs_token(std::string_view path);

  // From now on not ready.
  void set_draining() { is_draining_ = true; }

  // What /metrics asks of the server: open connections, and those refused so far.
  using ConnectionCounts = std::function<std::pair<std::size_t, std::uint64_t>()>;
  void set_connections(ConnectionCounts counts) { counts_ = std::move(counts); }

 private:
  struct Route;
  static Route route_of(std::string_view path);
  Answer<HttpReply> dispatch(const Route& route, const HttpRequest& request) const;
  Answer<HttpReply> infer(const Route& route, const HttpRequest& request) const;
  Answer<HttpReply> predict(const Route& route, const HttpRequest& request) const;
  Answer<HttpReply> metadata(const Route& route) const;
  Answer<HttpReply> status(const Route& route) const;
  Answer<HttpReply> model_ready(const Route& route) const;
  HttpReply server_metadata() const;
  HttpReply ready() const;
  HttpReply metrics() const;
  Answer<ModelVersions*> model_of(const Route& route) const;
  Answer<ModelVersionPtr> version_of(const Route& route) const;
  Answer<std::vector<Prediction>> score(const std::string& model, const ModelVersion& version,
                                        const std::vector<std::string>& events,
                                        const char* what) const;

  const ModelCatalog& catalog_;
  ServingMetrics& metrics_;
  PredictionLog* log_;
  Clock& clock_;
  RequestLimits limits_;
  std::string program_version_;
  std::atomic<bool> is_draining_{false};
  ConnectionCounts counts_;
};

}  // namespace sluice
