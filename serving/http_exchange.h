// One request and its reply on a connection, by cpp-httplib. Internal to serving/.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "serving/connection.h"
#include "serving/scoring_api.h"

namespace sluice {

struct ExchangeOptions {
  std::uint64_t max_body_bytes = 0;
  DurationMs request_timeout = 0;
  std::string token;
};

// Of one worker thread, for one connection after the other.
class HttpExchange {
 public:
  // `is_draining`: whether connections are to be closed after their answers.
  HttpExchange(const ExchangeOptions& options, const ScoringApi& api, Clock& clock,
               std::function<bool()> is_draining);
  ~HttpExchange();

  // What is to be done with the connection afterwards.
  enum class Then {
    go_on,
    close,
    linger,  // close it when what the client still sends was dropped (Connection::begin_linger)
  };
  // Answers the request whose head has come in.
  Then answer(Connection& connection);
  // The same for one whose head is too long.
  Then answer_too_long(Connection& connection);

 private:
  class Parser;
  std::unique_ptr<Parser> parser_;
};

}  // namespace sluice
