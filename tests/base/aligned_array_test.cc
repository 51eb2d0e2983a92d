#include "base/aligned_array.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include <gtest/gtest.h>

namespace sluice {
namespace {

constexpr std::size_t kKiB = 1024;
constexpr std::size_t kSizes[] = {
    1,          63,         64,          65,          4 * kKiB,       255 * kKiB,
    256 * kKiB, 257 * kKiB, 2048 * kKiB, 2049 * kKiB, 5000 * kKiB + 3};

std::size_t alignment_of(const void* memory) {
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  return static_cast<std::size_t>(address & -address);
}

TEST(AlignedMemory, BeginsAtALineAndLargeOnesAtAHugePage) {
  for (const std::size_t bytes : kSizes) {
    const AlignedMemory memory = allocate_aligned(bytes);
    EXPECT_GE(alignment_of(memory.get()), bytes < 256 * kKiB ? 64U : 2048 * kKiB) << bytes;
  }
}

// Written to its end before, so that what is given back and taken again would show.
TEST(AlignedMemory, IsZeroAndWritableToItsEnd) {
  for (int round = 0; round < 3; ++round) {
    for (const std::size_t bytes : kSizes) {
      const AlignedMemory memory = allocate_aligned(bytes);
      const auto is_zero = [](std::byte byte) { return byte == std::byte{0}; };
      ASSERT_TRUE(std::all_of(memory.get(), memory.get() + bytes, is_zero)) << bytes;
      std::fill_n(memory.get(), bytes, std::byte{0xff});
    }
  }
}

TEST(AlignedArray, BeginsEmpty) {
  AlignedArray<float> array;
  EXPECT_EQ(array.size(), 0U);
  EXPECT_EQ(array.data(), nullptr);
  array.reserve(0);
  EXPECT_EQ(array.data(), nullptr);
}

TEST(AlignedArray, GrowsToZeroesAndNeverShrinks) {
  AlignedArray<std::uint32_t> array(10);
  std::fill_n(array.data(), 10, 7U);
  for (const std::size_t size : {3, 10}) {  // nothing happens
    const std::uint32_t* const before = array.data();
    array.reserve(size);
    EXPECT_EQ(array.data(), before);
    EXPECT_EQ(array.size(), 10U);
    EXPECT_EQ(std::count(array.data(), array.data() + 10, 7U), 10);
  }
  for (const std::size_t size : {11, 1'000, 100'000, 1'000'000}) {
    array.reserve(size);
    ASSERT_EQ(array.size(), size);
    EXPECT_EQ(std::count(array.data(), array.data() + size, 0U), static_cast<long>(size));
    std::fill_n(array.data(), size, 7U);
  }
}

TEST(AlignedArray, IsMovedWithItsMemory) {
  AlignedArray<double> array(100'000);
  array.data()[99'999] = 1.5;
  const double* const before = array.data();
  const AlignedArray<double> moved = std::move(array);
  EXPECT_EQ(moved.data(), before);
  EXPECT_EQ(moved.data()[99'999], 1.5);
}

}  // namespace
}  // namespace sluice
