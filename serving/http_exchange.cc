#include "serving/http_exchange.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include <httplib.h>
#include <openssl/crypto.h>

namespace sluice {
namespace {

using httplib::Request;
using httplib::Response;
using Handled = httplib::Server::HandlerResponse;

constexpr std::size_t kMaxPathBytes = 2'048;

// What httplib reads from and writes to. Who the other side is, nobody asks.
class Bytes final : public httplib::Stream {
 public:
  explicit Bytes(Connection& connection) : connection_(connection) {}
  bool is_readable() const override { return true; }
  bool is_writable() const override { return true; }
  ssize_t read(char* out, std::size_t size) override { return connection_.read(out, size); }
  ssize_t write(const char* bytes, std::size_t size) override {
    return connection_.write(bytes, size) ? static_cast<ssize_t>(size) : -1;
  }
  void get_remote_ip_and_port(std::string&, int&) const override {}
  void get_local_ip_and_port(std::string&, int&) const override {}
  // Asked for to see whether select() could take it, which nothing here uses.
  socket_t socket() const override { return -1; }

 private:
  Connection& connection_;
};

std::optional<std::uint64_t> parse_length(const std::string& text) {
  std::uint64_t length = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
  const bool is_number = error == std::errc() && end == text.data() + text.size();
  return is_number && !text.empty() ? std::optional(length) : std::nullopt;
}

// The scheme in any case, the token as it is; the time taken does not tell how much was right.
bool has_token(const Request& request, const std::string& token) {
  constexpr std::string_view kScheme = "bearer ";
  const std::string given = request.get_header_value("Authorization");
  if (given.size() != kScheme.size() + token.size()) return false;
  for (std::size_t i = 0; i < kScheme.size(); ++i) {
    const char c = given[i];
    if ((c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c) != kScheme[i]) return false;
  }
  return CRYPTO_memcmp(given.data() + kScheme.size(), token.data(), token.size()) == 0;
}

// A body whose end two readers could see at different places is nothing to guess at.
std::optional<HttpRefusal> judge_framing(const Request& request) {
  const std::size_t lengths = request.get_header_value_count("Content-Length");
  const std::size_t codings = request.get_header_value_count("Transfer-Encoding");
  if (lengths + codings > 1) return HttpRefusal{400, "the body's length is told more than once"};
  if (lengths == 1 && !parse_length(request.get_header_value("Content-Length"))) {
    return HttpRefusal{400, "Content-Length is no number"};
  }
  if (codings == 1 && request.get_header_value("Transfer-Encoding") != "chunked") {
    return HttpRefusal{501, "Transfer-Encoding may be chunked, or absent"};
  }
  if (request.method == "POST" && lengths + codings == 0) {
    return HttpRefusal{411, "a POST needs Content-Length"};
  }
  return std::nullopt;
}

}  // namespace

class HttpExchange::Parser final : public httplib::Server {
 public:
  Parser(const ExchangeOptions& options, const ScoringApi& api, Clock& clock,
         std::function<bool()> is_draining)
      : options_(options), api_(api), clock_(clock), is_draining_(std::move(is_draining)) {
    set_pre_routing_handler(
        [this](const Request& request, Response& response) { return route(request, response); });
    Post("[\\s\\S]*",
         [this](const Request& request, Response& response, const httplib::ContentReader& reader) {
           answer_post(request, response, reader);
         });
    set_expect_100_continue_handler([this](const Request& request, Response& response) {
      const auto refusal = judge(request);
      if (!refusal) return 100;
      fill(response, api_.refused(*refusal, request.path));
      return response.status;
    });
    // httplib's own refusals have no body; ours have.
    set_error_handler(HandlerWithResponse([this](const Request& request, Response& response) {
      if (response.body.empty()) {
        fill(response,
             api_.refused({response.status, "not understood as an HTTP request"}, request.path));
      }
      return Handled::Handled;
    }));
    set_post_routing_handler([this](const Request&, Response& response) {
      response.headers.erase("Keep-Alive");
      if (!must_close()) return;
      response.headers.erase("Connection");
      response.set_header("Connection", "close");
    });
  }

  Then answer(Connection& connection) {
    connection_ = &connection;
    has_head_ = false;
    is_body_left_ = false;
    is_refused_ = false;
    // A chunked body has lengths between its parts; one that is packed may be a little longer.
    const std::uint64_t most = Connection::kMaxHeadBytes + 2 * options_.max_body_bytes + (64 << 10);
    connection.begin_request(clock_.steady_ms() + options_.request_timeout, most);
    Bytes bytes(connection);
    bool is_last = false;
    const bool is_written =
        process_request(bytes, false, is_last, [this](Request& request) { begin(request); });
    connection.set_deadline(clock_.steady_ms() + options_.request_timeout);
    if (!connection.flush() || !is_written) return Then::close;
    if (is_body_left_) return Then::linger;
    return is_last || must_close() ? Then::close : Then::go_on;
  }

 private:
  // After what was refused or not understood, it is not known where the next request begins.
  bool must_close() const { return !has_head_ || is_body_left_ || is_refused_ || is_draining_(); }

  // The head is read; nothing of the body.
  void begin(Request& request) {
    has_head_ = true;
    // To pack an answer takes longer than to send it; parts of one make no sense.
    request.headers.erase("Accept-Encoding");
    request.ranges.clear();
    const std::string length = request.get_header_value("Content-Length");
    is_body_left_ = request.has_header("Transfer-Encoding") || (!length.empty() && length != "0");
  }

  // What can be said before the body is read.
  std::optional<HttpRefusal> judge(const Request& request) const {
    if (auto refusal = judge_framing(request)) return refusal;
    if (request.path.size() > kMaxPathBytes) return HttpRefusal{414, "the path is too long"};
    if (!options_.token.empty() && ScoringApi::needs_token(request.path) &&
        !has_token(request, options_.token)) {
      return HttpRefusal{401, "the header \"Authorization: Bearer TOKEN\" is missing or wrong"};
    }
    const auto length = parse_length(request.get_header_value("Content-Length"));
    if (length.value_or(0) > options_.max_body_bytes) return too_large();
    return std::nullopt;
  }
  HttpRefusal too_large() const {
    return {413, "the body is longer than " + std::to_string(options_.max_body_bytes) +
                     " bytes (serving.max_body_bytes)"};
  }

  // Everything but a POST that may be read.
  Handled route(const Request& request, Response& response) {
    if (const auto refusal = judge(request)) {
      is_refused_ = is_body_left_;
      fill(response, api_.refused(*refusal, request.path));
      return Handled::Handled;
    }
    if (request.method == "POST") return Handled::Unhandled;
    fill(response, api_.answer({request.method, request.path, "", "", std::nullopt}));
    return Handled::Handled;
  }

  void answer_post(const Request& request, Response& response,
                   const httplib::ContentReader& reader) {
    HttpRequest http{request.method, request.path, request.get_header_value("Content-Type"), "",
                     std::nullopt};
    if (http.content_type.starts_with("multipart/")) {
      return fill(response, api_.refused({415, "the body must be application/json"}, request.path));
    }
    const auto length = parse_length(request.get_header_value("Content-Length"));
    http.body.reserve(static_cast<std::size_t>(length.value_or(0)));
    bool is_too_large = false;
    const bool is_read = reader([&](const char* bytes, std::size_t size) {
      is_too_large = http.body.size() + size > options_.max_body_bytes;
      if (!is_too_large) http.body.append(bytes, size);
      return !is_too_large;
    });
    if (!is_read) {
      const HttpRefusal refusal = is_too_large ? too_large()
                                  : connection_->is_timed_out()
                                      ? HttpRefusal{408, "the body did not come in in time"}
                                      : HttpRefusal{400,
                                                    "the body was cut off or is not packed "
                                                    "as its head says"};
      is_refused_ = true;
      return fill(response, api_.refused(refusal, request.path));
    }
    is_body_left_ = false;
    const std::string json_bytes = request.get_header_value("Inference-Header-Content-Length");
    if (!json_bytes.empty()) {
      http.json_bytes = parse_length(json_bytes);
      if (!http.json_bytes) {
        return fill(response, api_.refused({400, "Inference-Header-Content-Length is no number"},
                                           request.path));
      }
    }
    fill(response, api_.answer(http));
  }

  static void fill(Response& response, HttpReply reply) {
    response.status = reply.status;
    response.set_content(reply.body, reply.content_type);
    for (auto& [name, value] : reply.headers) response.set_header(name, value);
  }

  const ExchangeOptions options_;
  const ScoringApi& api_;
  Clock& clock_;
  std::function<bool()> is_draining_;
  // Of the request that is answered now.
  Connection* connection_ = nullptr;
  bool has_head_ = false;      // it was understood so far
  bool is_body_left_ = false;  // unread on the connection
  bool is_refused_ = false;    // amid its body
};

HttpExchange::HttpExchange(const ExchangeOptions& options, const ScoringApi& api, Clock& clock,
                           std::function<bool()> is_draining)
    : parser_(std::make_unique<Parser>(options, api, clock, std::move(is_draining))) {}
HttpExchange::~HttpExchange() = default;

HttpExchange::Then HttpExchange::answer(Connection& connection) {
  return parser_->answer(connection);
}

HttpExchange::Then HttpExchange::answer_too_long(Connection& connection) {
  constexpr std::string_view kReply =
      "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n"
      "Content-Type: application/json\r\nContent-Length: 34\r\n\r\n"
      "{\"error\":\"the head is too long  \"}";
  const bool is_written = connection.write(kReply.data(), kReply.size()) && connection.flush();
  return is_written ? Then::linger : Then::close;
}

}  // namespace sluice
