#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace sluice {

void check_failed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "sluice: bug: %s:%d: this must hold: %s\n", file, line, condition);
  std::abort();
}

}  // namespace sluice
