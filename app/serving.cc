#include "app/serving.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <thread>
#include <utility>

#include <spdlog/spdlog.h>

#include "base/file.h"
#include "serving/http_server.h"
#include "serving/model_catalog.h"
#include "serving/prediction_log.h"
#include "serving/scoring_api.h"
#include "serving/serving_metrics.h"

namespace sluice {
namespace {

constexpr std::size_t kThreadsPerCore = 4;
constexpr std::size_t kMinTokenBytes = 16;
constexpr DurationMs kModelWatchMs = 20;

Result<std::string> read_token(const ServingConfig& config, FileSystem& files) {
  std::string token;
  std::string where;
  if (!config.token_env.empty()) {
    where = "serving.token_env: the variable " + config.token_env;
    const char* value = std::getenv(config.token_env.c_str());
    if (value == nullptr) return usage_error(where + " is not set");
    token = value;
  } else if (!config.token_file.empty()) {
    where = "serving.token_file: " + config.token_file;
    SLUICE_ASSIGN(token, files.read(config.token_file));
    token = token.substr(0, token.find_first_of("\r\n"));
  } else {
    return token;
  }
  const bool is_plain = std::all_of(token.begin(), token.end(), [](char c) { return c > ' '; });
  if (token.size() < kMinTokenBytes || !is_plain) {
    return usage_error(where +
                       " holds no token: 16 or more letters, digits or signs without "
                       "spaces are one");
  }
  return token;
}

Result<std::shared_ptr<TlsContext>> open_tls(const ServingConfig& config) {
  if (config.certificate.empty() && config.key.empty()) return std::shared_ptr<TlsContext>();
  if (config.certificate.empty() || config.key.empty()) {
    return usage_error("TLS needs both serving.certificate and serving.key");
  }
  return TlsContext::open(config.certificate, config.key);
}

// What happens to versions, counted and told.
class ToldEvents final : public VersionEvents {
 public:
  explicit ToldEvents(ServingMetrics& metrics) : metrics_(metrics) {}
  void on_current(const std::string& model, const ModelVersion& version) override {
    metrics_.on_current(model, version.sequence, version.event_time);
    spdlog::info("{}: serves version {}{}", model, version.sequence,
                 version.event_time ? " of " + format_time(*version.event_time) : "");
  }
  void on_look_error(const std::string& why) override {
    spdlog::warn("cannot look for models: {}; those that are served are kept", why);
  }
  void on_load_error(const std::string& model, const std::string& why) override {
    metrics_.on_load_error(model);
    spdlog::warn("{}: {}; what is served stays, and this is tried again", model, why);
  }
  void on_held(const std::string& model, std::size_t snapshots) override {
    metrics_.on_held(model, snapshots);
  }

 private:
  ServingMetrics& metrics_;
};

}  // namespace

struct Serving::Impl {
  Impl(const ServingConfig& chosen, const fs::path& place, const std::string& model, Clock& a_clock)
      : config(chosen),
        where(place),
        clock(a_clock),
        events(metrics),
        catalog({where, model, chosen.alias, static_cast<std::size_t>(chosen.versions)}, files,
                a_clock, events) {}

  void poll() {
    look_for_versions();
    if (!catalog.is_ready()) {
      spdlog::info("{} has no {} to serve yet: not ready until there is one", where.string(),
                   config.alias.empty() ? "snapshot" : "snapshot of alias " + config.alias);
    }
    while (!is_stopping) {
      if (log != nullptr && !is_log_error_told) tell_log_error();
      const DurationMs end = clock.steady_ms() + config.poll_interval;
      while (!is_stopping && clock.steady_ms() < end) {
        clock.sleep_ms(std::min(kModelWatchMs, config.poll_interval));
      }
      if (!is_stopping) look_for_versions();
    }
  }
  // No exception ends the program that answers: this is tried again.
  void look_for_versions() {
    try {
      catalog.poll();
    } catch (const std::exception& error) {
      spdlog::warn("cannot look for new versions: {}; what is served is kept", error.what());
    }
  }
  void tell_log_error() {
    const auto error = log->error();
    if (!error) return;
    spdlog::warn("serving.log_predictions: {}; nothing more is written to it", error->message);
    is_log_error_told = true;
  }

  const ServingConfig config;
  const fs::path where;
  Clock& clock;
  RealFileSystem files;
  ServingMetrics metrics;
  ToldEvents events;
  ModelCatalog catalog;
  std::unique_ptr<PredictionLog> log;
  bool is_log_error_told = false;
  std::unique_ptr<ScoringApi> api;
  std::unique_ptr<HttpServer> server;
  std::atomic<const HttpServer*> running{nullptr};  // the server, for those who may come before it
  bool is_stopped = false;
  std::atomic<bool> is_stopping{false};
  std::thread poller;
};

Serving::Serving(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Serving>> Serving::start(const ServingConfig& config, const fs::path& where,
                                                const std::string& model, Clock& clock) {
  auto impl = std::make_unique<Impl>(config, where, model, clock);
  HttpServerOptions options;
  options.address = config.address;
  options.port = static_cast<std::uint16_t>(config.port);
  options.threads = config.threads != 0
                        ? static_cast<std::size_t>(config.threads)
                        : kThreadsPerCore * std::max(2U, std::thread::hardware_concurrency());
  options.max_connections = static_cast<std::size_t>(config.max_connections);
  options.max_body_bytes = config.max_body_bytes;
  options.request_timeout = config.request_timeout;
  options.idle_timeout = config.idle_timeout;
  SLUICE_ASSIGN(options.token, read_token(config, impl->files));
  const bool is_local = config.address.starts_with("127.") || config.address == "::1";
  if (!is_local && options.token.empty()) {
    spdlog::warn(
        "{} is open to whoever reaches {}: serving.token_env or token_file asks for a token",
        "serving", config.address);
  }
  SLUICE_ASSIGN(options.tls, open_tls(config));
  if (!config.log_predictions.empty()) {
    SLUICE_ASSIGN(impl->log,
                  PredictionLog::open(impl->files, config.log_predictions, config.log_size));
  }
  RequestLimits limits;
  limits.max_rows = static_cast<std::size_t>(config.max_rows);
  impl->api = std::make_unique<ScoringApi>(impl->catalog, impl->metrics, impl->log.get(), clock,
                                           limits, SLUICE_VERSION);
  impl->api->set_connections([raw = impl.get()] {
    const HttpServer* server = raw->running;
    if (server == nullptr) return std::pair<std::size_t, std::uint64_t>();
    return std::pair(server->connections(), server->refused_connections());
  });
  SLUICE_ASSIGN(impl->server, HttpServer::start(std::move(options), *impl->api, clock));
  impl->running = impl->server.get();
  impl->poller = std::thread([raw = impl.get()] { raw->poll(); });
  return std::unique_ptr<Serving>(new Serving(std::move(impl)));
}

Serving::~Serving() {
  impl_->is_stopping = true;
  if (impl_->poller.joinable()) impl_->poller.join();
}

std::string Serving::url() const {
  const ServingConfig& config = impl_->config;
  const bool is_v6 = config.address.find(':') != std::string::npos;
  return std::string(config.certificate.empty() ? "http://" : "https://") +
         (is_v6 ? "[" + config.address + "]" : config.address) + ":" +
         std::to_string(impl_->server->port());
}

void Serving::stop() {
  if (std::exchange(impl_->is_stopped, true)) return;
  impl_->api->set_draining();
  if (!impl_->server->stop(impl_->config.drain_timeout)) {
    spdlog::warn("requests were not answered within serving.drain_timeout; they are cut off");
  }
}

}  // namespace sluice
