#include "serving/scoring_api.h"

#include <charconv>
#include <exception>
#include <optional>

#include <nlohmann/json.hpp>

#include "serving/infer_v2.h"
#include "serving/predict_v1.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

constexpr double kNsPerSecond = 1e9;

HttpReply json_reply(int status, const ordered_json& json) {
  HttpReply reply;
  reply.status = status;
  reply.body = json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  return reply;
}

HttpReply error_reply(const HttpRefusal& refusal) {
  HttpReply reply = json_reply(refusal.status, {{"error", refusal.message}});
  if (refusal.status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (refusal.status == 503) reply.headers.emplace_back("Retry-After", "1");
  return reply;
}

std::optional<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool is_whole = error == std::errc() && end == text.data() + text.size();
  return is_whole ? std::optional(number) : std::nullopt;
}

// Takes the part up to the next '/', or all that is left.
std::string_view take_part(std::string_view& path) {
  const std::string_view part = path.substr(0, path.find('/'));
  path.remove_prefix(std::min(part.size() + 1, path.size()));
  return part;
}

// curl's own type for -d among them; a browser's forms are not.
bool is_json_type(std::string_view type) {
  type = type.substr(0, type.find(';'));
  while (!type.empty() && type.back() == ' ') type.remove_suffix(1);
  return type.empty() || type == "application/json" || type == "application/octet-stream" ||
         type == "application/x-www-form-urlencoded";
}

}  // namespace

struct ScoringApi::Route {
  enum class Kind {
    none,
    server,
    live,
    ready,
    metrics,
    model,
    model_ready,
    infer,
    status,
    predict
  };
  Kind kind = Kind::none;
  const char* protocol = "other";
  std::string model;
  std::string version;  // as in the path; empty: the current one
  std::string label;    // an alias
  bool is_post() const { return kind == Kind::infer || kind == Kind::predict; }
};

ScoringApi::ScoringApi(const ModelCatalog& catalog, ServingMetrics& metrics, PredictionLog* log,
                       Clock& clock, RequestLimits limits, std::string program_version)
    : catalog_(catalog),
      metrics_(metrics),
      log_(log),
      clock_(clock),
      limits_(limits),
      program_version_(std::move(program_version)) {}

bool ScoringApi::needs_token(std::string_view path) {
  const Route::Kind kind = route_of(path).kind;
  return kind != Route::Kind::live && kind != Route::Kind::ready;
}

// "/v2/models/M/versions/V/infer", "/v1/models/M/labels/L:predict" and so on.
ScoringApi::Route ScoringApi::route_of(std::string_view path) {
  using Kind = Route::Kind;
  Route route;
  if (path.ends_with('/') && path.size() > 1) path.remove_suffix(1);
  if (path == "/metrics") {
    route.kind = Kind::metrics;
    route.protocol = "metrics";
    return route;
  }
  if (path == "/v2/health/live" || path == "/v2/health/ready") {
    route.kind = path.ends_with("live") ? Kind::live : Kind::ready;
    route.protocol = "health";
    return route;
  }
  const bool is_v2 = path == "/v2" || path.starts_with("/v2/");
  const bool is_v1 = path.starts_with("/v1/");
  if (!is_v1 && !is_v2) return route;
  route.protocol = is_v2 ? "v2" : "v1";
  if (path == "/v2") {
    route.kind = Kind::server;
    return route;
  }
  path.remove_prefix(4);
  if (take_part(path) != "models") return route;
  bool is_predict = false;
  if (constexpr std::string_view kPredict = ":predict"; is_v1 && path.ends_with(kPredict)) {
    path.remove_suffix(kPredict.size());
    is_predict = true;
  }
  route.model = take_part(path);
  std::string_view next = take_part(path);
  if (next == "versions" || (is_v1 && next == "labels")) {
    std::string& named = next == "versions" ? route.version : route.label;
    named = take_part(path);
    if (named.empty()) return route;
    next = take_part(path);
  }
  if (route.model.empty() || !path.empty()) return route;
  if (is_v1) {
    if (next.empty()) route.kind = is_predict ? Kind::predict : Kind::status;
    return route;
  }
  if (next.empty()) route.kind = Kind::model;
  if (next == "ready") route.kind = Kind::model_ready;
  if (next == "infer") route.kind = Kind::infer;
  return route;
}

HttpReply ScoringApi::answer(const HttpRequest& request) const {
  const std::int64_t begin = steady_ns();
  metrics_.add_in_flight(1);
  const Route route = route_of(request.path);
  HttpReply reply;
  try {
    auto answered = dispatch(route, request);
    reply = answered ? *std::move(answered) : error_reply(answered.error());
  } catch (const std::exception&) {
    // Out of memory, or a bug; what it says is not for clients.
    reply = error_reply({500, "the server failed to answer this request"});
  }
  metrics_.add_in_flight(-1);
  metrics_.on_request(route.protocol, reply.status,
                      static_cast<double>(steady_ns() - begin) / kNsPerSecond);
  return reply;
}

HttpReply ScoringApi::refused(const HttpRefusal& refusal, std::string_view path) const {
  metrics_.on_request(route_of(path).protocol, refusal.status, 0);
  return error_reply(refusal);
}

Answer<HttpReply> ScoringApi::dispatch(const Route& route, const HttpRequest& request) const {
  using Kind = Route::Kind;
  if (route.kind == Kind::none) {
    return refuse(404, "there is nothing at this path; docs/serving.md lists what there is");
  }
  const bool is_get = request.method == "GET" || request.method == "HEAD";
  if (route.is_post() ? request.method != "POST" : !is_get) {
    HttpReply reply = error_reply(
        {405, std::string("this path answers ") + (route.is_post() ? "POST" : "GET") + " only"});
    reply.headers.emplace_back("Allow", route.is_post() ? "POST" : "GET, HEAD");
    return reply;
  }
  if (route.is_post() && !is_json_type(request.content_type)) {
    return refuse(415, "the body must be application/json");
  }
  switch (route.kind) {
    case Kind::server:
      return server_metadata();
    case Kind::live:
      return json_reply(200, {{"live", true}});
    case Kind::ready:
      return ready();
    case Kind::metrics:
      return metrics();
    case Kind::model:
      return metadata(route);
    case Kind::model_ready:
      return model_ready(route);
    case Kind::infer:
      return infer(route, request);
    case Kind::status:
      return status(route);
    case Kind::predict:
      return predict(route, request);
    case Kind::none:
      break;
  }
  return refuse(404, "there is nothing at this path");
}

Answer<ModelVersions*> ScoringApi::model_of(const Route& route) const {
  ModelVersions* model = catalog_.find(route.model);
  if (model != nullptr) return model;
  std::string known;
  for (const std::string& name : catalog_.names()) known += (known.empty() ? "" : ", ") + name;
  if (known.empty()) return refuse(503, "there is no model yet");
  return refuse(404, "there is no such model; there is " + known);
}

Answer<ModelVersionPtr> ScoringApi::version_of(const Route& route) const {
  SLUICE_TAKE(ModelVersions * model, model_of(route));
  if (!route.label.empty()) return model->find_alias(route.label);
  if (!route.version.empty()) {
    const std::optional<std::uint64_t> sequence = parse_number(route.version);
    if (!sequence) return refuse(404, "a version is a snapshot's sequence number");
    return model->find(*sequence);
  }
  ModelVersionPtr version = model->current();
  if (version == nullptr) return refuse(503, "the model has no version yet");
  return version;
}

Answer<std::vector<Prediction>> ScoringApi::score(const std::string& model,
                                                  const ModelVersion& version,
                                                  const std::vector<std::string>& events,
                                                  const char* what) const {
  auto results = version.scorer->score(events);
  std::vector<Score> scores;
  std::vector<Prediction> predictions;
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (!results[i]) {
      return refuse(400, std::string(what) + " " + std::to_string(i) + ": " + results[i].error());
    }
    if (!is_finite(results[i]->prediction)) {
      return refuse(
          500, std::string(what) + " " + std::to_string(i) + ": the model gives no number for it");
    }
    predictions.push_back(results[i]->prediction);
    if (log_ != nullptr) scores.push_back(*std::move(results[i]));
  }
  metrics_.on_rows(model, predictions.size());
  if (log_ != nullptr) {
    const bool is_kept = log_->add(model, version.sequence, scores);
    metrics_.on_logged(is_kept ? scores.size() : 0, is_kept ? 0 : scores.size());
  }
  return predictions;
}

Answer<HttpReply> ScoringApi::infer(const Route& route, const HttpRequest& request) const {
  SLUICE_TAKE(const ModelVersionPtr version, version_of(route));
  SLUICE_TAKE(const InferRequest rows, read_infer(request, version->form, limits_));
  SLUICE_TAKE(const std::vector<Prediction> predictions,
              score(route.model, *version, rows.events, "impression"));
  return infer_reply(rows, route.model, std::to_string(version->sequence), predictions);
}

Answer<HttpReply> ScoringApi::predict(const Route& route, const HttpRequest& request) const {
  SLUICE_TAKE(const ModelVersionPtr version, version_of(route));
  SLUICE_TAKE(const std::vector<std::string> events,
              read_predict(request.body, version->form, limits_));
  SLUICE_TAKE(const std::vector<Prediction> predictions,
              score(route.model, *version, events, "instance"));
  HttpReply reply;
  reply.body = predict_reply(predictions);
  // The row form has no place for it.
  reply.headers.emplace_back("Sluice-Model-Version", std::to_string(version->sequence));
  return reply;
}

Answer<HttpReply> ScoringApi::metadata(const Route& route) const {
  SLUICE_TAKE(ModelVersions * model, model_of(route));
  SLUICE_TAKE(const ModelVersionPtr version, version_of(route));
  ordered_json versions = ordered_json::array();
  for (const std::uint64_t sequence : model->available()) {
    versions.push_back(std::to_string(sequence));
  }
  return json_reply(200, {{"name", route.model},
                          {"versions", std::move(versions)},
                          {"platform", "sluice"},
                          {"inputs", input_metadata(version->form)},
                          {"outputs", output_metadata()}});
}

// As TensorFlow Serving tells the state of a model's versions.
Answer<HttpReply> ScoringApi::status(const Route& route) const {
  SLUICE_TAKE(const ModelVersionPtr version, version_of(route));
  const ordered_json ok = {{"error_code", "OK"}, {"error_message", ""}};
  ordered_json one = {
      {"version", std::to_string(version->sequence)}, {"state", "AVAILABLE"}, {"status", ok}};
  return json_reply(200, {{"model_version_status", ordered_json::array({std::move(one)})}});
}

Answer<HttpReply> ScoringApi::model_ready(const Route& route) const {
  SLUICE_TAKE(const ModelVersionPtr version, version_of(route));
  return json_reply(200, {{"name", route.model}, {"ready", true}});
}

HttpReply ScoringApi::server_metadata() const {
  return json_reply(
      200,
      {{"name", "sluice"}, {"version", program_version_}, {"extensions", {"binary_tensor_data"}}});
}

HttpReply ScoringApi::ready() const {
  const bool is_ready = !is_draining_ && catalog_.is_ready();
  return json_reply(is_ready ? 200 : 503, {{"ready", is_ready}});
}

HttpReply ScoringApi::metrics() const {
  const auto [open, refused] = counts_ ? counts_() : std::pair<std::size_t, std::uint64_t>();
  HttpReply reply;
  reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
  reply.body = metrics_.text(clock_.wall_ms(), open, refused);
  return reply;
}

}  // namespace sluice
