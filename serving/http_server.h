// HTTP/1.1 for the scoring API. Requests are parsed and replies written by cpp-httplib; who is
// served when is decided here, as its own server gives each connection a thread for as long as it
// is open, so that idle ones would keep others out.
//
// Threads: each worker waits at one epoll for whatever is next: a new connection, or one whose
// next request's head has come in. It answers what is there and puts the connection back. So an
// idle connection, or one whose head comes in slowly, costs a descriptor and a buffer, no thread;
// a body that comes in slowly holds a worker until request_timeout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/time.h"
#include "serving/connection.h"
#include "serving/scoring_api.h"

namespace sluice {

struct HttpServerOptions {
  std::string address = "127.0.0.1";
  std::uint16_t port = 0;
  std::size_t threads = 8;
  std::size_t max_connections = 1'000;
  std::uint64_t max_body_bytes = 8 << 20;  // unpacked
  DurationMs request_timeout = 10'000;
  DurationMs idle_timeout = 60'000;
  std::string token;  // empty: none is asked for
  std::shared_ptr<TlsContext> tls;
};

class HttpServer {
 public:
  // Listens and answers from its return on. The references outlive it. A usage error where it
  // cannot listen there. SIGPIPE is ignored in the whole process from now on.
  static Result<std::unique_ptr<HttpServer>> start(HttpServerOptions options, const ScoringApi& api,
                                                   Clock& clock);
  // As stop(0).
  ~HttpServer();

  std::uint16_t port() const;  // also where any was asked for
  std::size_t connections() const;
  std::uint64_t refused_connections() const;

  // Takes no further connection; answers what was begun, for `timeout` at most, then closes all.
  // Whether all was answered. Once.
  bool stop(DurationMs timeout);

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice
