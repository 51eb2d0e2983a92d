// A programming error aborts the process, in release builds too: going on would put wrong labels or
// weights on disk. What outside data can cause is never checked here; that is a Result or a
// refusal.
#pragma once

namespace sluice {

[[noreturn]] void check_failed(const char* file, int line, const char* condition);

}  // namespace sluice

#define SLUICE_CHECK(condition)                                               \
  do {                                                                        \
    if (!(condition)) ::sluice::check_failed(__FILE__, __LINE__, #condition); \
  } while (false)
