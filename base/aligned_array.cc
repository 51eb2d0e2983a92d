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

std::byte* map(std::size_t bytes) {
  void* const mapped =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  SLUICE_CHECK(mapped != MAP_FAILED);
  return static_cast<std::byte*>(mapped);
}

std::size_t bytes_to_huge_page(const std::byte* memory) {
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  return round_up(address, kHugePage) - address;
}

// Pages are zero as they come, one by one when they are first touched. The system puts one mapping
// below the other, and takes neighbours for one: they must not be cut out of larger ones, or large
// tables would have more mappings than a process may.
AlignedMemory map_pages(std::size_t bytes) {
  const std::size_t wanted = round_up(bytes, kHugePage);
  std::byte* begin = map(wanted);
  if (bytes_to_huge_page(begin) > 0) {
    munmap(begin, wanted);
    begin = map(wanted + kHugePage);
    const std::size_t before = bytes_to_huge_page(begin);
    if (before > 0) munmap(begin, before);
    begin += before;
    if (before < kHugePage) munmap(begin + wanted, kHugePage - before);
  }
  madvise(begin, wanted, MADV_HUGEPAGE);  // a wish: small pages do as well
  return {begin, FreeAligned{wanted}};
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
