#include "serving/connection.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace sluice {
namespace {

constexpr std::size_t kChunk = 16 << 10;
constexpr std::size_t kMaxUnsent = 64 << 10;
constexpr std::size_t kMaxLingerBytes = 64 << 20;
constexpr ssize_t kNotNow = -2;

std::string tls_reason() {
  std::array<char, 256> text{};
  const unsigned long code = ERR_get_error();
  ERR_error_string_n(code, text.data(), text.size());
  ERR_clear_error();
  return code == 0 ? "unknown" : text.data();
}

// For an encrypted key OpenSSL would otherwise ask at the terminal, and wait.
int refuse_password(char*, int, int, void* is_asked) {
  *static_cast<bool*>(is_asked) = true;
  return 0;
}

}  // namespace

Result<std::shared_ptr<TlsContext>> TlsContext::open(const std::string& certificate,
                                                     const std::string& key) {
  std::shared_ptr<TlsContext> tls(new TlsContext(SSL_CTX_new(TLS_server_method())));
  SSL_CTX* context = tls->context_;
  if (context == nullptr) return stop_error("TLS cannot be used: " + tls_reason());
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                SSL_MODE_RELEASE_BUFFERS);
  bool is_encrypted = false;
  SSL_CTX_set_default_passwd_cb(context, refuse_password);
  SSL_CTX_set_default_passwd_cb_userdata(context, &is_encrypted);
  if (SSL_CTX_use_certificate_chain_file(context, certificate.c_str()) != 1) {
    return usage_error("serving.certificate: cannot use " + certificate + ": " + tls_reason());
  }
  if (SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_check_private_key(context) != 1) {
    const std::string why = tls_reason();
    if (is_encrypted) {
      return usage_error("serving.key: " + key +
                         " is encrypted; a key without a passphrase is needed, in a file that only "
                         "the server may read");
    }
    return usage_error("serving.key: cannot use " + key + " with the certificate: " + why);
  }
  SSL_CTX_set_default_passwd_cb_userdata(context, nullptr);
  return tls;
}

TlsContext::~TlsContext() {
  SSL_CTX_free(context_);
}

Connection::Connection(int socket, const TlsContext* tls, Clock& clock)
    : socket_(socket), clock_(clock) {
  if (tls == nullptr) return;
  tls_ = SSL_new(tls->get());
  if (tls_ == nullptr) return;  // read() fails then
  SSL_set_fd(tls_, socket_);
  SSL_set_accept_state(tls_);
}

Connection::~Connection() {
  if (tls_ != nullptr) {
    if (SSL_is_init_finished(tls_) != 0) SSL_shutdown(tls_);  // says goodbye, waits for nothing
    SSL_free(tls_);
    ERR_clear_error();
  }
  ::close(socket_);
}

ssize_t Connection::tls_result(int result) {
  switch (SSL_get_error(tls_, result)) {
    case SSL_ERROR_WANT_READ:
      wants_write_ = false;
      return kNotNow;
    case SSL_ERROR_WANT_WRITE:
      wants_write_ = true;
      return kNotNow;
    case SSL_ERROR_ZERO_RETURN:
      return 0;
    default:
      ERR_clear_error();
      return -1;
  }
}

ssize_t Connection::receive(char* out, std::size_t size) {
  if (tls_ != nullptr) {
    ERR_clear_error();
    const int result = SSL_read(tls_, out, static_cast<int>(std::min(size, kChunk)));
    return result > 0 ? result : tls_result(result);
  }
  while (true) {
    const ssize_t result = ::recv(socket_, out, size, 0);
    if (result >= 0) return result;
    if (errno == EINTR) continue;
    return errno == EAGAIN || errno == EWOULDBLOCK ? kNotNow : -1;
  }
}

ssize_t Connection::send_some(const char* bytes, std::size_t size) {
  if (tls_ != nullptr) {
    ERR_clear_error();
    const int result = SSL_write(tls_, bytes, static_cast<int>(std::min(size, kMaxUnsent)));
    return result > 0 ? result : tls_result(result);
  }
  while (true) {
    const ssize_t result = ::send(socket_, bytes, size, MSG_NOSIGNAL);
    if (result >= 0) return result;
    if (errno == EINTR) continue;
    return errno == EAGAIN || errno == EWOULDBLOCK ? kNotNow : -1;
  }
}

Connection::State Connection::look() {
  constexpr std::string_view kHeadEnd = "\r\n\r\n";
  if (at_ > 0) {
    in_.erase(0, at_);
    at_ = searched_ = 0;
  }
  while (true) {
    const std::size_t end = in_.find(kHeadEnd, searched_);
    if (end != std::string::npos) return State::has_head;
    searched_ = in_.size() < kHeadEnd.size() ? 0 : in_.size() - kHeadEnd.size() + 1;
    if (in_.size() > kMaxHeadBytes) return State::too_long;
    const std::size_t size = in_.size();
    in_.resize(size + kChunk);
    const ssize_t got = receive(in_.data() + size, kChunk);
    in_.resize(size + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    if (got == kNotNow) return State::waiting;
    if (got <= 0) return State::closed;
  }
}

void Connection::begin_request(DurationMs deadline_steady, std::uint64_t max_bytes) {
  deadline_ = deadline_steady;
  left_ = max_bytes;
  is_timed_out_ = false;
}

bool Connection::wait(bool is_writing) {
  while (true) {
    const DurationMs left = deadline_ - clock_.steady_ms();
    if (left <= 0) {
      is_timed_out_ = true;
      return false;
    }
    pollfd wanted{socket_, static_cast<short>(is_writing ? POLLOUT : POLLIN), 0};
    const int ready = ::poll(&wanted, 1, static_cast<int>(std::min<DurationMs>(left, 60'000)));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

ssize_t Connection::read(char* out, std::size_t size) {
  if (!out_.empty() && !flush()) return -1;  // "100 Continue": the other side waits for it
  if (left_ == 0) return -1;
  size = static_cast<std::size_t>(std::min<std::uint64_t>(size, left_));
  if (at_ < in_.size()) {
    size = std::min(size, in_.size() - at_);
    std::memcpy(out, in_.data() + at_, size);
    at_ += size;
    left_ -= size;
    return static_cast<ssize_t>(size);
  }
  while (true) {
    const ssize_t got = receive(out, size);
    if (got > 0) left_ -= static_cast<std::uint64_t>(got);
    if (got != kNotNow) return got;
    if (!wait(wants_write_)) return -1;
  }
}

bool Connection::write(const char* bytes, std::size_t size) {
  out_.append(bytes, size);
  return out_.size() < kMaxUnsent || flush();
}

bool Connection::flush() {
  std::size_t sent = 0;
  while (sent < out_.size()) {
    const ssize_t result = send_some(out_.data() + sent, out_.size() - sent);
    if (result > 0) {
      sent += static_cast<std::size_t>(result);
    } else if (result != kNotNow || !wait(tls_ == nullptr || wants_write_)) {
      out_.clear();
      return false;
    }
  }
  out_.clear();
  wants_write_ = false;
  return true;
}

void Connection::begin_linger() {
  if (tls_ != nullptr) {
    SSL_shutdown(tls_);
    ERR_clear_error();
  } else {
    ::shutdown(socket_, SHUT_WR);
  }
}

bool Connection::drop_some() {
  std::array<char, kChunk> dropped;
  while (dropped_ < kMaxLingerBytes) {
    const ssize_t got = receive(dropped.data(), dropped.size());
    if (got == kNotNow) return true;
    if (got <= 0) return false;
    dropped_ += static_cast<std::size_t>(got);
  }
  return false;
}

void Connection::shut_down() {
  ::shutdown(socket_, SHUT_RDWR);
}

}  // namespace sluice
