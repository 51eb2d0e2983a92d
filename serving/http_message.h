// Requests and replies as the protocols see them, whatever carries them.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <tl/expected.hpp>

#include "base/result.h"

namespace sluice {

struct HttpRequest {
  std::string method;
  std::string path;  // decoded, without a query
  std::string content_type;
  std::string body;
  // Inference-Header-Content-Length: the JSON's part of the body, before binary tensors.
  std::optional<std::size_t> json_bytes;
};

struct HttpReply {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
};

// Why a request is not answered, as a reply will say it: {"error": message}.
struct HttpRefusal {
  int status = 400;
  std::string message;
};

template <class T>
using Answer = tl::expected<T, HttpRefusal>;

inline tl::unexpected<HttpRefusal> refuse(int status, std::string message) {
  return tl::make_unexpected(HttpRefusal{status, std::move(message)});
}

// Bounds on one request beside the length of its body.
struct RequestLimits {
  std::size_t max_rows = 10'000;
  std::size_t max_elements = 1'000'000;  // of all tensors: each is a text of its own meanwhile
};

}  // namespace sluice

// `SLUICE_TAKE(auto x, f());` declares x with the Answer's value, or leaves the function with its
// refusal.
#define SLUICE_TAKE(declaration, expression)                                                \
  auto SLUICE_CONCAT(take_result_, __LINE__) = (expression);                                \
  if (!SLUICE_CONCAT(take_result_, __LINE__)) {                                             \
    return ::tl::make_unexpected(std::move(SLUICE_CONCAT(take_result_, __LINE__)).error()); \
  }                                                                                         \
  declaration = *std::move(SLUICE_CONCAT(take_result_, __LINE__))
