// Named arrays in the safetensors format (https://github.com/huggingface/safetensors): 8 bytes
// header length, a JSON header, raw little-endian data. Any program that knows the format can read
// what is written here; docs/formats.md has the grammar.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/check.h"
#include "base/result.h"

namespace sluice {

static_assert(std::endian::native == std::endian::little,
              "tensors are copied as they lie in memory");

enum class TensorType : std::uint8_t { u8, i64, u64, f32, f64 };
const char* to_string(TensorType type);  // "U8", "I64", "U64", "F32", "F64"
std::uint64_t element_bytes(TensorType type);

template <class T>
constexpr TensorType tensor_type_of() {
  if constexpr (std::is_same_v<T, std::uint8_t>)
    return TensorType::u8;
  else if constexpr (std::is_same_v<T, std::int64_t>)
    return TensorType::i64;
  else if constexpr (std::is_same_v<T, std::uint64_t>)
    return TensorType::u64;
  else if constexpr (std::is_same_v<T, float>)
    return TensorType::f32;
  else {
    static_assert(std::is_same_v<T, double>, "no tensor type holds this");
    return TensorType::f64;
  }
}

// A named array that owns its bytes, row-major, little-endian.
struct Tensor {
  TensorType type = TensorType::f32;
  std::vector<std::uint64_t> shape;  // empty: a scalar
  std::string bytes;                 // elements() * element_bytes(type) of them

  std::uint64_t elements() const;  // product(shape)
  // `values` are the elements: product(shape) of them (checked).
  template <class T>
  static Tensor of(std::vector<std::uint64_t> shape, const std::vector<T>& values) {
    Tensor tensor{tensor_type_of<T>(), std::move(shape), {}};
    SLUICE_CHECK(tensor.elements() == values.size());
    if (values.empty()) return tensor;
    tensor.bytes.assign(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
    return tensor;
  }
  // The elements; an error where the type is another.
  template <class T>
  Result<std::vector<T>> values() const {
    if (type != tensor_type_of<T>()) return wrong_type(tensor_type_of<T>());
    std::vector<T> out(bytes.size() / sizeof(T));
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }

  // The elements where they lie; `name` is for the error.
  template <class T>
  Result<std::span<const T>> view(const std::string& name) const {
    if (type != tensor_type_of<T>()) {
      return stop_error("tensor " + name + ": " + wrong_type(tensor_type_of<T>()).message);
    }
    return std::span(reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T));
  }

  friend bool operator==(const Tensor&, const Tensor&) = default;

 private:
  Error wrong_type(TensorType wanted) const;
};

using Tensors = std::map<std::string, Tensor>;

// Deterministic: equal tensors give equal bytes. The arrays lie without gaps, as the format
// demands, large elements before small ones, then by name, so that each is aligned to its element's
// size. Names are UTF-8, not "__metadata__", and every tensor's bytes fit its shape (checked).
std::string encode_tensors(const Tensors& tensors);

// Refuses whatever does not account for every byte exactly once: cut, overlapping or with gaps, of
// an overflowing or wrong size, of an unknown type, with a header that is no such JSON. Damage
// inside an array shows in a published folder's checksums only.
Result<Tensors> decode_tensors(std::string_view bytes);

}  // namespace sluice
