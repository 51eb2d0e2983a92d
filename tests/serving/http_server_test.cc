// The server's connections, by a clock that stands still unless it is moved: what nobody waits for
// takes no time, and what would be waited for never ends.
#include "serving/http_server.h"

#include <atomic>
#include <stdexcept>
#include <string>

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "serving/model_catalog.h"
#include "serving/scoring_api.h"
#include "serving/serving_metrics.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr DurationMs kRequestTimeout = 10'000;
constexpr DurationMs kIdleTimeout = 60'000;
constexpr const char* kLive = "GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n";

class HandClock final : public Clock {
 public:
  TimeMs wall_ms() override { return 0; }
  DurationMs steady_ms() override {
    if (is_failing) throw std::runtime_error("no time");
    return now;
  }
  void sleep_ms(DurationMs duration) override { real_.sleep_ms(duration); }
  std::atomic<DurationMs> now = 0;
  std::atomic<bool> is_failing = false;

 private:
  SystemClock real_;
};

class NoEvents final : public VersionEvents {
  void on_current(const std::string&, const ModelVersion&) override {}
  void on_look_error(const std::string&) override {}
  void on_load_error(const std::string&, const std::string&) override {}
};

// A client's end; what does not come within ten seconds does not come.
class Socket {
 public:
  explicit Socket(std::uint16_t port) : descriptor_(::socket(AF_INET, SOCK_STREAM, 0)) {
    const timeval patience{10, 0};
    ::setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    SLUICE_CHECK(
        ::connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  }
  ~Socket() { ::close(descriptor_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  bool send(const std::string& bytes) const {
    return ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  }
  // What comes next; "closed" at the end of the stream or where it broke, "silent" at neither.
  std::string receive() const {
    std::string bytes(4'096, '\0');
    const ssize_t size = ::recv(descriptor_, bytes.data(), bytes.size(), 0);
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return "silent";
    if (size <= 0) return "closed";
    bytes.resize(static_cast<std::size_t>(size));
    return bytes;
  }
  std::string ask(const std::string& bytes) const { return send(bytes) ? receive() : "closed"; }

 private:
  int descriptor_;
};

class HttpServerTest : public testing::Test {
 protected:
  void start(std::size_t threads, std::shared_ptr<TlsContext> tls = {}) {
    HttpServerOptions options;
    options.threads = threads;
    options.max_body_bytes = 1'000;
    options.request_timeout = kRequestTimeout;
    options.idle_timeout = kIdleTimeout;
    options.tls = std::move(tls);
    auto server = HttpServer::start(std::move(options), api_, clock_);
    ASSERT_TRUE(server) << server.error().message;
    server_ = *std::move(server);
  }
  // Waits until so many connections are open; false where they stay.
  bool have_connections(std::size_t count) {
    for (int i = 0; i < 1'000; ++i) {
      if (server_->connections() == count) return true;
      clock_.sleep_ms(10);
    }
    return false;
  }

  TemporaryFolder folder_;
  RealFileSystem files_;
  HandClock clock_;
  NoEvents events_;
  ServingMetrics metrics_;
  ModelCatalog catalog_{{folder_.path(), "", "", 2}, files_, clock_, events_};
  ScoringApi api_{catalog_, metrics_, nullptr, clock_, {}, "1"};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AnExceptionEndsAConnectionAndNoMore) {
  start(2);
  const Socket open(server_->port());
  EXPECT_THAT(open.ask(kLive), StartsWith("HTTP/1.1 200"));
  clock_.is_failing = true;
  EXPECT_EQ(open.ask(kLive), "closed");
  EXPECT_EQ(Socket(server_->port()).receive(), "closed");  // it was not even admitted
  clock_.is_failing = false;
  EXPECT_THAT(Socket(server_->port()).ask(kLive), StartsWith("HTTP/1.1 200"));
}

}  // namespace
}  // namespace sluice
