// One client's connection, plain or TLS: bytes in and out with a deadline, and a look at whether a
// request's head has come in, without waiting for it. Used by one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include <sys/types.h>

#include "base/result.h"
#include "base/time.h"

struct ssl_st;
struct ssl_ctx_st;

namespace sluice {

// The server's certificate and key; shared by its connections.
class TlsContext {
 public:
  // From PEM files; TLS 1.2 or later.
  static Result<std::shared_ptr<TlsContext>> open(const std::string& certificate,
                                                  const std::string& key);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;
  ssl_ctx_st* get() const { return context_; }

 private:
  explicit TlsContext(ssl_ctx_st* context) : context_(context) {}
  ssl_ctx_st* context_;
};

class Connection {
 public:
  static constexpr std::size_t kMaxHeadBytes = 64 << 10;
  // How long bytes are worth dropping at the end.
  static constexpr DurationMs kMaxLingerMs = 2'000;

  // Takes the socket over, which does not block. `tls`: none for plain HTTP.
  Connection(int socket, const TlsContext* tls, Clock& clock);
  ~Connection();  // closes it
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  enum class State {
    waiting,   // for more of a head; nothing is wrong
    has_head,  // a request's head is there whole
    too_long,  // the head is longer than kMaxHeadBytes
    closed,    // by the other side, or broken
  };
  // Takes what has come in, without waiting.
  State look();
  // What look() waits for: to read, or of a TLS handshake to write.
  bool wants_write() const { return wants_write_; }
  // Some bytes of the next request are there.
  bool has_begun() const { return at_ < in_.size(); }

  // What read() and flush() wait for ends then; what one request may read in all.
  void begin_request(DurationMs deadline_steady, std::uint64_t max_bytes);
  void set_deadline(DurationMs deadline_steady) { deadline_ = deadline_steady; }
  // Up to `size` bytes, at least one; 0 at the end of the stream, -1 at an error, at the deadline
  // or past max_bytes.
  ssize_t read(char* out, std::size_t size);
  bool is_timed_out() const { return is_timed_out_; }

  // Kept until flush(), or until much has come together. False at an error or the deadline.
  bool write(const char* bytes, std::size_t size);
  bool flush();

  // Before closing with bytes unread, as the system would otherwise throw away the answer with
  // them: says that nothing more is written. Then those that are on their way are taken and dropped
  // by drop_some() whenever some are there, without waiting; false where that is at its end.
  void begin_linger();
  bool drop_some();
  // Wakes a thread that waits in read() or flush(). Any thread.
  void shut_down();
  int socket() const { return socket_; }

 private:
  ssize_t receive(char* out, std::size_t size);  // 0 end, -1 error, -2 not now
  ssize_t send_some(const char* bytes, std::size_t size);
  ssize_t tls_result(int result);
  bool wait(bool is_writing);

  int socket_;
  ssl_st* tls_ = nullptr;
  Clock& clock_;
  std::string in_;  // received; consumed up to at_
  std::size_t at_ = 0;
  std::size_t searched_ = 0;  // no head ends before this place of in_
  std::string out_;
  DurationMs deadline_ = 0;
  std::uint64_t left_ = 0;  // bytes that this request may still read
  std::size_t dropped_ = 0;
  bool wants_write_ = false;
  bool is_timed_out_ = false;
};

}  // namespace sluice
