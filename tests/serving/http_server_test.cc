// The server's connections, by a clock that stands still unless it is moved: what nobody waits for
// takes no time, and what would be waited for never ends.
#include "serving/http_server.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "serving/model_catalog.h"
#include "serving/scoring_api.h"
#include "serving/serving_metrics.h"
#include "tests/serving/no_events.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

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

struct FreeKey {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using KeyPtr = std::unique_ptr<EVP_PKEY, FreeKey>;

// A certificate that is signed by its own key.
struct PemFiles {
  explicit PemFiles(const fs::path& folder)
      : certificate(folder / "chain.pem"), key(folder / "key.pem"), owned(EVP_EC_gen("P-256")) {
    const std::unique_ptr<X509, decltype(&::X509_free)> made(::X509_new(), ::X509_free);
    X509_set_version(made.get(), 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made.get()), 1);
    X509_gmtime_adj(X509_getm_notBefore(made.get()), 0);
    X509_gmtime_adj(X509_getm_notAfter(made.get()), 3'600);
    X509_set_pubkey(made.get(), owned.get());
    SLUICE_CHECK(X509_sign(made.get(), owned.get(), EVP_sha256()) > 0);
    const File file(std::fopen(certificate.c_str(), "w"), std::fclose);
    SLUICE_CHECK(PEM_write_X509(file.get(), made.get()) == 1);
    write_key(nullptr);
  }
  void write_key(const char* passphrase) const {
    const File file(std::fopen(key.c_str(), "w"), std::fclose);
    const EVP_CIPHER* const cipher = passphrase == nullptr ? nullptr : EVP_aes_256_cbc();
    const auto* const bytes = reinterpret_cast<const unsigned char*>(passphrase);
    const int size = passphrase == nullptr ? 0 : static_cast<int>(std::strlen(passphrase));
    SLUICE_CHECK(
        PEM_write_PrivateKey(file.get(), owned.get(), cipher, bytes, size, nullptr, nullptr) == 1);
  }
  using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;
  fs::path certificate, key;
  KeyPtr owned;
};

class HttpServerTest : public ::testing::Test {
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
  // Waits until so many connections are open; false where they stay. The server looks for those
  // whose time is over twice a second, and passes over one that a worker has just then.
  bool have_connections(std::size_t count) {
    for (int i = 0; i < 1'000; ++i) {
      if (server_->connections() == count) return true;
      if (i == 100) clock_.now += 501;
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

// Each refused with its body still on its way: more of them than there are workers.
TEST_F(HttpServerTest, NoWorkerStaysWithARefusedBody) {
  start(2);
  std::vector<std::unique_ptr<Socket>> refused;
  for (int i = 0; i < 5; ++i) {
    refused.push_back(std::make_unique<Socket>(server_->port()));
    EXPECT_THAT(refused.back()->ask("POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\n"
                                    "Content-Length: 100000\r\n\r\nsome"),
                AllOf(StartsWith("HTTP/1.1 413"), HasSubstr("Connection: close")));
  }
  refused.push_back(std::make_unique<Socket>(server_->port()));
  EXPECT_THAT(refused.back()->ask(std::string(Connection::kMaxHeadBytes + 20'000, 'x')),
              StartsWith("HTTP/1.1 431"));
  EXPECT_THAT(Socket(server_->port()).ask(kLive), StartsWith("HTTP/1.1 200"));
  clock_.sleep_ms(200);  // a worker's time to linger begins after its answer is read here
  // What still comes is dropped, and its time does not begin anew.
  for (int i = 0; i < 8; ++i) {
    clock_.now += Connection::kMaxLingerMs / 4;
    for (const auto& socket : refused) socket->send("more");
    EXPECT_THAT(Socket(server_->port()).ask(kLive), StartsWith("HTTP/1.1 200"));
  }
  EXPECT_TRUE(have_connections(0));
}

TEST_F(HttpServerTest, TimeIsRenewedByAnswersOnly) {
  start(2);
  const Socket open(server_->port());
  EXPECT_THAT(open.ask(kLive), StartsWith("HTTP/1.1 200"));
  clock_.now += kIdleTimeout - 1;
  EXPECT_THAT(open.ask(kLive), StartsWith("HTTP/1.1 200"));
  clock_.now += kIdleTimeout - 1;
  EXPECT_TRUE(open.send("GET /v2/hea"));  // a head that is not whole
  clock_.sleep_ms(100);
  clock_.now += kRequestTimeout - 1;
  EXPECT_THAT(open.ask("lth/live HTTP/1.1\r\nHost: a\r\n\r\n"), StartsWith("HTTP/1.1 200"));
  EXPECT_TRUE(open.send("GET "));
  for (int i = 0; i < 3; ++i) {
    clock_.now += kRequestTimeout / 2;
    open.send("x");
    clock_.sleep_ms(20);
  }
  EXPECT_TRUE(have_connections(0));
}

// The beginning of a TLS handshake, byte by byte.
TEST_F(HttpServerTest, AHandshakeThatDribblesEnds) {
  const PemFiles pem(folder_.path());
  auto tls = TlsContext::open(pem.certificate, pem.key);
  ASSERT_TRUE(tls) << tls.error().message;
  start(2, *tls);
  const Socket socket(server_->port());
  ASSERT_TRUE(have_connections(1));
  const std::string hello = {
      0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, static_cast<char>(0xfc)};
  for (const char byte : hello) {
    socket.send(std::string(1, byte));
    clock_.sleep_ms(20);
    clock_.now += kRequestTimeout / 4;
  }
  EXPECT_TRUE(have_connections(0));
}

TEST_F(HttpServerTest, AnEncryptedKeyIsAnErrorAndNoPrompt) {
  const PemFiles pem(folder_.path());
  pem.write_key("secret");
  const auto tls = TlsContext::open(pem.certificate, pem.key);
  ASSERT_FALSE(tls);
  EXPECT_EQ(tls.error().kind, ErrorKind::usage);
  EXPECT_THAT(tls.error().message, AllOf(HasSubstr("serving.key"), HasSubstr("is encrypted")));
}

TEST_F(HttpServerTest, AClientThatIsGoneIsNoSignal) {
  ASSERT_NE(std::signal(SIGPIPE, SIG_DFL), SIG_ERR);
  start(1);
  EXPECT_EQ(std::signal(SIGPIPE, SIG_IGN), SIG_IGN);
}

}  // namespace
}  // namespace sluice
