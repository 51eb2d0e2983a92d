#include "serving/http_server.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "serving/http_exchange.h"

namespace sluice {
namespace {

constexpr int kBacklog = 1'024;
constexpr int kSweepMs = 500;
constexpr DurationMs kWatchMs = 5;
// A client may have sent a request on an open connection just before it learns of the end.
constexpr DurationMs kFarewellMs = 200;
// What the epoll knows sockets by; connections count on from here, as a descriptor's number comes
// again.
constexpr std::uint64_t kListener = 0;
constexpr std::uint64_t kStop = 1;
constexpr std::uint64_t kFirstConnection = 2;

class Descriptor {
 public:
  explicit Descriptor(int value = -1) : value_(value) {}
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  int get() const { return value_; }
  int release() { return std::exchange(value_, -1); }

 private:
  int value_;
};

Error cannot_listen(const HttpServerOptions& options, const std::string& why) {
  return usage_error("serving.address, serving.port: cannot listen on " + options.address + ":" +
                     std::to_string(options.port) + ": " + why);
}

Result<Descriptor> listen_on(const HttpServerOptions& options) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(options.port);
  if (const int error = ::getaddrinfo(options.address.c_str(), port.c_str(), &hints, &found)) {
    return cannot_listen(options, ::gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, ::freeaddrinfo);
  int error = 0;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    Descriptor listener(
        ::socket(at->ai_family, at->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, at->ai_protocol));
    const int yes = 1;
    // A restart need not wait for what the last process left behind; two at once are refused.
    if (listener.get() >= 0 &&
        ::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0 &&
        ::bind(listener.get(), at->ai_addr, at->ai_addrlen) == 0 &&
        ::listen(listener.get(), kBacklog) == 0) {
      return listener;
    }
    error = errno;
  }
  return cannot_listen(options, std::strerror(error));
}

std::uint16_t port_of(int listener) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return ntohs(address.ss_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                   : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

}  // namespace

struct HttpServer::Impl {
  struct Client {
    Client(int socket, const TlsContext* tls, Clock& clock) : connection(socket, tls, clock) {}
    Connection connection;
    bool is_busy = false;       // a worker has it
    DurationMs close_at = 0;    // where it is not busy
    bool has_begun = false;     // its next request
    bool is_answered = false;   // a request of it, since it was last put back
    bool is_lingering = false;  // no request of it is looked at any more
  };

  Impl(HttpServerOptions chosen, const ScoringApi& scoring, Clock& a_clock)
      : options(std::move(chosen)), api(scoring), clock(a_clock) {}

  Status open();
  void work();
  void work_once(HttpExchange& exchange);
  void accept_all();
  void admit(Descriptor socket);
  void serve(std::uint64_t id, HttpExchange& exchange);
  bool answer_all(Client& client, HttpExchange& exchange);
  bool follow(Client& client, HttpExchange::Then then);
  void put_back(std::uint64_t id, Client& client);
  void sweep();
  void close_idle(DurationMs now);
  void watch(int descriptor, std::uint64_t id, std::uint32_t events, int operation);
  std::size_t busy_count();

  HttpServerOptions options;
  const ScoringApi& api;
  Clock& clock;
  Descriptor listener, epoll, stop_event;
  std::uint16_t port = 0;
  std::vector<std::thread> workers;
  std::atomic<bool> is_draining{false};
  std::atomic<bool> is_stopping{false};
  std::atomic<DurationMs> next_sweep{0};
  std::atomic<std::uint64_t> refused{0};

  std::mutex mutex;  // guards what follows; a busy client itself is its worker's
  std::map<std::uint64_t, std::unique_ptr<Client>> clients;
  std::uint64_t next_id = kFirstConnection;
};

void HttpServer::Impl::watch(int descriptor, std::uint64_t id, std::uint32_t events,
                             int operation) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = id;
  SLUICE_CHECK(::epoll_ctl(epoll.get(), operation, descriptor, &event) == 0);
}

Status HttpServer::Impl::open() {
  SLUICE_ASSIGN(listener, listen_on(options));
  port = port_of(listener.get());
  epoll = Descriptor(::epoll_create1(EPOLL_CLOEXEC));
  stop_event = Descriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (epoll.get() < 0 || stop_event.get() < 0) {
    return stop_error(std::string("cannot serve: ") + std::strerror(errno));
  }
  watch(listener.get(), kListener, EPOLLIN | EPOLLONESHOT, EPOLL_CTL_ADD);
  watch(stop_event.get(), kStop, EPOLLIN, EPOLL_CTL_ADD);  // wakes all, again and again
  for (std::size_t i = 0; i < options.threads; ++i) workers.emplace_back([this] { work(); });
  return {};
}

void HttpServer::Impl::work() {
  HttpExchange exchange({options.max_body_bytes, options.request_timeout, options.token}, api,
                        clock, [this] { return is_draining.load(); });
  while (!is_stopping) {
    try {
      work_once(exchange);
    } catch (const std::exception&) {
      // No memory, most likely. What it was about is closed; the others are answered.
    }
  }
}

void HttpServer::Impl::work_once(HttpExchange& exchange) {
  epoll_event event{};
  const int count = ::epoll_wait(epoll.get(), &event, 1, kSweepMs);
  if (count == 1 && event.data.u64 == kListener) {
    accept_all();
  } else if (count == 1 && event.data.u64 >= kFirstConnection) {
    serve(event.data.u64, exchange);
  }
  sweep();
}

void HttpServer::Impl::accept_all() {
  const std::scoped_lock lock(mutex);
  if (listener.get() < 0) return;  // it was closed meanwhile
  while (true) {
    const int socket = ::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (socket < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (socket < 0) {
      // Out of descriptors or memory: those that wait will wait a little longer.
      if (errno != EAGAIN && errno != EWOULDBLOCK) clock.sleep_ms(kWatchMs);
      break;
    }
    try {
      admit(Descriptor(socket));
    } catch (const std::exception&) {
      ++refused;  // it is closed; the listener is watched on
    }
  }
  watch(listener.get(), kListener, EPOLLIN | EPOLLONESHOT, EPOLL_CTL_MOD);
}

// Under the lock.
void HttpServer::Impl::admit(Descriptor socket) {
  if (clients.size() >= options.max_connections) {
    ++refused;
    return;
  }
  // An answer goes out when it is complete, not when the one before was acknowledged.
  const int yes = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  const std::uint64_t id = next_id++;
  const DurationMs now = clock.steady_ms();
  auto client = std::make_unique<Client>(socket.get(), options.tls.get(), clock);
  const int watched = socket.release();  // the client's now
  client->close_at = now + options.request_timeout;
  clients.emplace(id, std::move(client));
  watch(watched, id, EPOLLIN | EPOLLONESHOT, EPOLL_CTL_ADD);
}

void HttpServer::Impl::serve(std::uint64_t id, HttpExchange& exchange) {
  Client* client = nullptr;
  {
    const std::scoped_lock lock(mutex);
    const auto found = clients.find(id);
    if (found == clients.end()) return;  // swept away meanwhile
    client = found->second.get();
    client->is_busy = true;
  }
  bool stays_open = false;
  try {
    stays_open = answer_all(*client, exchange);
  } catch (const std::exception&) {
    // Out of memory amid a request: how far it came is not known, so that it ends here.
  }
  std::unique_ptr<Client> closed;  // after the lock
  const std::scoped_lock lock(mutex);
  if (stays_open) {
    try {
      return put_back(id, *client);
    } catch (const std::exception&) {
      // Nobody would look at it any more.
    }
  }
  const auto found = clients.find(id);
  closed = std::move(found->second);
  clients.erase(found);
}

// All requests whose heads are there; false where the connection is at its end.
bool HttpServer::Impl::answer_all(Client& client, HttpExchange& exchange) {
  Connection& connection = client.connection;
  while (!is_stopping) {
    if (client.is_lingering) return connection.drop_some();
    switch (connection.look()) {
      case Connection::State::waiting:
        return true;
      case Connection::State::closed:
        return false;
      case Connection::State::too_long:
        connection.begin_request(clock.steady_ms() + options.request_timeout, 0);
        if (!follow(client, exchange.answer_too_long(connection))) return false;
        break;
      case Connection::State::has_head:
        client.has_begun = false;
        if (!follow(client, exchange.answer(connection))) return false;
        client.is_answered = true;
        break;
    }
  }
  return false;
}

// False where the connection is at its end. One that lingers is put back as one that waits: no
// worker stays with it.
bool HttpServer::Impl::follow(Client& client, HttpExchange::Then then) {
  if (then == HttpExchange::Then::linger) {
    client.connection.begin_linger();
    client.is_lingering = true;
    client.has_begun = false;
    client.close_at = clock.steady_ms() + Connection::kMaxLingerMs;
  }
  return then != HttpExchange::Then::close;
}

// Its time is set anew by an answer, and once by the first bytes of a request; no other bytes, as
// those of a handshake, prolong it.
void HttpServer::Impl::put_back(std::uint64_t id, Client& client) {
  client.is_busy = false;
  const DurationMs now = clock.steady_ms();
  const bool is_answered = std::exchange(client.is_answered, false);
  if (!client.is_lingering) {
    if (is_answered) client.close_at = now + options.idle_timeout;
    if (client.connection.has_begun() && !client.has_begun) {
      client.close_at = now + options.request_timeout;
      client.has_begun = true;
    }
  }
  const std::uint32_t events = client.connection.wants_write() ? EPOLLOUT : EPOLLIN;
  watch(client.connection.socket(), id, events | EPOLLONESHOT, EPOLL_CTL_MOD);
}

void HttpServer::Impl::sweep() {
  const DurationMs now = clock.steady_ms();
  DurationMs due = next_sweep;
  if (now < due || !next_sweep.compare_exchange_strong(due, now + kSweepMs)) return;
  close_idle(now);
}

// Those that nobody has and whose time is over.
void HttpServer::Impl::close_idle(DurationMs now) {
  std::vector<std::unique_ptr<Client>> closed;  // after the lock
  const std::scoped_lock lock(mutex);
  for (auto it = clients.begin(); it != clients.end();) {
    if (it->second->is_busy || it->second->close_at > now) {
      ++it;
      continue;
    }
    closed.push_back(std::move(it->second));
    it = clients.erase(it);
  }
}

std::size_t HttpServer::Impl::busy_count() {
  const std::scoped_lock lock(mutex);
  std::size_t count = 0;
  for (const auto& [id, client] : clients) {
    count += client->is_busy || client->has_begun || client->is_lingering ? 1 : 0;
  }
  return count;
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<HttpServer>> HttpServer::start(HttpServerOptions options,
                                                      const ScoringApi& api, Clock& clock) {
  // OpenSSL writes to sockets whose other side may be gone.
  if (::signal(SIGPIPE, SIG_IGN) == SIG_ERR) {
    return stop_error(std::string("cannot serve: SIGPIPE: ") + std::strerror(errno));
  }
  auto impl = std::make_unique<Impl>(std::move(options), api, clock);
  SLUICE_TRY(impl->open());
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

HttpServer::~HttpServer() {
  if (!impl_->is_stopping) stop(0);
}

std::uint16_t HttpServer::port() const {
  return impl_->port;
}

std::size_t HttpServer::connections() const {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->clients.size();
}

std::uint64_t HttpServer::refused_connections() const {
  return impl_->refused;
}

bool HttpServer::stop(DurationMs timeout) {
  Impl& impl = *impl_;
  const DurationMs begin = impl.clock.steady_ms();
  impl.is_draining = true;
  impl.accept_all();  // what the system has accepted already is served too
  {
    const std::scoped_lock lock(impl.mutex);
    impl.listener = Descriptor();
  }
  const DurationMs farewell = std::min(timeout, kFarewellMs);
  while (impl.clock.steady_ms() < begin + farewell && connections() > 0) {
    impl.clock.sleep_ms(kWatchMs);
  }
  while (impl.clock.steady_ms() < begin + timeout && impl.busy_count() > 0) {
    impl.clock.sleep_ms(kWatchMs);
  }
  const bool is_answered = impl.busy_count() == 0;
  impl.is_stopping = true;
  const std::uint64_t one = 1;
  SLUICE_CHECK(::write(impl.stop_event.get(), &one, sizeof one) == sizeof one);
  {
    const std::scoped_lock lock(impl.mutex);
    for (const auto& [id, client] : impl.clients) client->connection.shut_down();
  }
  for (std::thread& worker : impl.workers) worker.join();
  impl.clients.clear();
  return is_answered;
}

}  // namespace sluice
