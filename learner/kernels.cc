#include "learner/kernels.h"

#include <vector>

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"

namespace sluice {

extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAmxKernels;

namespace {

// Linux gives a process the tiles' state when it asks (arch_prctl(2)); threads started later have
// it too.
bool has_amx() {
  constexpr long kRequestPermission = 0x1023;
  constexpr long kTileData = 18;
  constexpr unsigned kAmxBf16 = 1U << 22, kAmxTile = 1U << 24;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & kAmxBf16) == 0 || (d & kAmxTile) == 0) return false;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) == 0 || (a & (1U << 5)) == 0) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

std::vector<const Kernels*> find_kernels() {
  SLUICE_CHECK(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
  std::vector<const Kernels*> found = {&kAvx2Kernels};
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_avx512) found.push_back(&kAvx512Kernels);
  if (has_avx512 && has_amx()) found.push_back(&kAmxKernels);
  return found;
}

}  // namespace

std::span<const Kernels* const> usable_kernels() {
  static const std::vector<const Kernels*> kernels = find_kernels();
  return kernels;
}

}  // namespace sluice
