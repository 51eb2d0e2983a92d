// Plain values in memory that begins at a cache line, large ones in huge pages where the system
// gives them: fewer misses of the address translation for what is read at random.
#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

namespace sluice {

// Zeroed memory of at least `bytes`, aligned to 64 bytes; from 256 KiB on it is pages of its own
// that begin at 2 MiB. Stops the program where there is none.
struct FreeAligned {
  std::size_t mapped = 0;  // bytes, where the system was asked for pages
  void operator()(std::byte* memory) const;
};
using AlignedMemory = std::unique_ptr<std::byte, FreeAligned>;
AlignedMemory allocate_aligned(std::size_t bytes);

// One owner, one thread at a time. Grows and never shrinks, as scratch that is used again does.
template <class T>
class AlignedArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  AlignedArray() = default;
  explicit AlignedArray(std::size_t size) { reserve(size); }

  // Room for `size` elements. What was there is gone where it has to grow; new memory is zero.
  void reserve(std::size_t size);
  std::size_t size() const { return size_; }

  T* data() { return reinterpret_cast<T*>(memory_.get()); }
  const T* data() const { return reinterpret_cast<const T*>(memory_.get()); }

 private:
  AlignedMemory memory_;
  std::size_t size_ = 0;
};

template <class T>
void AlignedArray<T>::reserve(std::size_t size) {
  if (size <= size_) return;
  memory_ = allocate_aligned(size * sizeof(T));
  size_ = size;
}

}  // namespace sluice
