#include "base/aligned_array.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include <sys/mman.h>

#include "base/check.h"

namespace sluice {

namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kHugePage = 2 << 20;

constexpr std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

// Pages are zero as they come, one by one when they are first touched.
AlignedMemory map_pages(std::size_t bytes) {
  const std::size_t wanted = round_up(bytes, kHugePage);
  void* const mapped =
      mmap(nullptr, wanted + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  SLUICE_CHECK(mapped != MAP_FAILED);
  auto* const begin = static_cast<std::byte*>(mapped);
  const auto address = reinterpret_cast<std::uintptr_t>(begin);
  const std::size_t before = round_up(address, kHugePage) - address;
  if (before > 0) munmap(begin, before);
  if (before < kHugePage) munmap(begin + before + wanted, kHugePage - before);
  madvise(begin + before, wanted, MADV_HUGEPAGE);  // a wish: small pages do as well
  return {begin + before, FreeAligned{wanted}};
}

}  // namespace

void FreeAligned::operator()(std::byte* memory) const {
  if (mapped > 0) {
    munmap(memory, mapped);
  } else {
    std::free(memory);
  }
}

AlignedMemory allocate_aligned(std::size_t bytes) {
  if (bytes >= kHugePage / 8) return map_pages(bytes);
  const std::size_t rounded = round_up(bytes, kLine);
  void* const memory = std::aligned_alloc(kLine, rounded);
  SLUICE_CHECK(memory != nullptr);
  std::memset(memory, 0, rounded);
  return {static_cast<std::byte*>(memory), FreeAligned{}};
}

}  // namespace sluice
