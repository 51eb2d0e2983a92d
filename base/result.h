// Errors as values. An Error says what its receiver can do, not only what happened.
#pragma once

#include <string>
#include <utility>

#include <tl/expected.hpp>

namespace sluice {

enum class ErrorKind {
  usage,  // wrong command line or config: nothing was begun; exit code 2
  retry,  // may pass by itself (an unreachable broker): retried, with backoff, in app/ only
  stop,   // will not pass (disk full, a changed log, damage): stop and say why; exit code 1
};

struct Error {
  ErrorKind kind = ErrorKind::stop;
  std::string message;  // one line, names the thing (file, key, topic) and what can be done
};

inline Error usage_error(std::string message) {
  return {ErrorKind::usage, std::move(message)};
}
inline Error retry_error(std::string message) {
  return {ErrorKind::retry, std::move(message)};
}
inline Error stop_error(std::string message) {
  return {ErrorKind::stop, std::move(message)};
}

// A value or an Error. An Error converts to any Result, so `return stop_error("...")` works.
template <class T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
  using Base = tl::expected<T, Error>;

 public:
  using Base::Base;
  Result(Error error)
      : Base(tl::unexpect, std::move(error)) {}  // NOLINT(google-explicit-constructor)
};

using Status = Result<void>;

}  // namespace sluice

// Leaves the function with the error of `expression`, if it has one.
#define SLUICE_TRY(expression)                                \
  do {                                                        \
    if (auto try_result_ = (expression); !try_result_) {      \
      return ::sluice::Error(std::move(try_result_).error()); \
    }                                                         \
  } while (false)

#define SLUICE_CONCAT_INNER(a, b) a##b
#define SLUICE_CONCAT(a, b) SLUICE_CONCAT_INNER(a, b)

// `SLUICE_ASSIGN(auto x, f());` declares x with f's value, or leaves the function with f's error.
#define SLUICE_ASSIGN(declaration, expression)                                          \
  auto SLUICE_CONCAT(assign_result_, __LINE__) = (expression);                          \
  if (!SLUICE_CONCAT(assign_result_, __LINE__)) {                                       \
    return ::sluice::Error(std::move(SLUICE_CONCAT(assign_result_, __LINE__)).error()); \
  }                                                                                     \
  declaration = *std::move(SLUICE_CONCAT(assign_result_, __LINE__))
