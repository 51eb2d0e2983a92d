// How a verb ends on an error: one line on stderr and the exit code of its kind.
#pragma once

#include <cstdio>

#include "base/result.h"

namespace sluice {

inline int report_error(const Error& error) {
  std::fprintf(stderr, "sluice: %s\n", error.message.c_str());
  return error.kind == ErrorKind::usage ? 2 : 1;
}

}  // namespace sluice
