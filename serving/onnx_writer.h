// Writes ONNX models (https://github.com/onnx/onnx, onnx/onnx.proto) node by node.
//
// ONNX files are protocol buffers, of which a writer needs two kinds of fields: numbers (varints)
// and bytes with their length. That is all there is here: the libraries that could do it (libonnx,
// libprotobuf) are 40 MB of code and headers for a few hundred bytes beside the weights. What comes
// out is checked by the onnx package's checker and run in ONNX Runtime by tests/e2e/test_export.py.
#pragma once

#include <bit>
#include <cstdint>
#include <initializer_list>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace sluice {

// Types of tensors, by their numbers in ONNX.
enum class OnnxType : std::uint8_t { f32 = 1, i64 = 7, f64 = 11, u64 = 13, bf16 = 16 };
template <class T>
constexpr OnnxType onnx_type_of() {
  if constexpr (std::is_same_v<T, float>)
    return OnnxType::f32;
  else if constexpr (std::is_same_v<T, double>)
    return OnnxType::f64;
  else if constexpr (std::is_same_v<T, std::uint64_t>)
    return OnnxType::u64;
  else {
    static_assert(std::is_same_v<T, std::int64_t>, "no ONNX type holds this");
    return OnnxType::i64;
  }
}

// One message of a protocol buffer, as bytes.
class ProtoMessage {
 public:
  void number(int field, std::uint64_t value) {
    varint(static_cast<std::uint64_t>(field) << 3);
    varint(value);
  }
  void bytes(int field, std::string_view value) {
    varint(static_cast<std::uint64_t>(field) << 3 | 2);
    varint(value.size());
    text_ += value;
  }
  void message(int field, const ProtoMessage& value) { bytes(field, value.text_); }
  const std::string& text() const { return text_; }

 private:
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) text_ += static_cast<char>(value | 0x80);
    text_ += static_cast<char>(value);
  }
  std::string text_;
};

// An attribute of a node.
struct OnnxAttribute {
  std::string name;
  ProtoMessage message;

  static OnnxAttribute integer(std::string name, std::int64_t value);
  static OnnxAttribute text(std::string name, std::string_view value);
  static OnnxAttribute tensor(std::string name, const ProtoMessage& value);
};

class OnnxGraph {
 public:
  using Shape = std::vector<std::int64_t>;

  template <class T>
  static ProtoMessage tensor(std::string_view name, const Shape& shape, std::span<const T> values) {
    static_assert(std::endian::native == std::endian::little, "values are copied as they lie");
    return raw_tensor(name, onnx_type_of<T>(), shape,
                      {reinterpret_cast<const char*>(values.data()), values.size_bytes()});
  }

  // A constant of the model; a name stands for one constant, however often it is asked for.
  // Returns the name.
  template <class T>
  std::string constant(const std::string& name, const Shape& shape, std::span<const T> values) {
    if (constants_.insert(name).second) graph_.message(5, tensor(name, shape, values));
    return name;
  }
  template <class T>
  std::string constant(const std::string& name, std::initializer_list<T> values) {
    return constant<T>(name, {static_cast<std::int64_t>(values.size())},
                       {values.begin(), values.size()});
  }
  template <class T>
  std::string scalar(const std::string& name, T value) {
    return constant<T>(name, {}, {&value, 1});
  }

  // `columns` of each of n impressions; none: [n]. A column of −1 is of any number.
  void input(const std::string& name, OnnxType type, const Shape& columns);
  void output(const std::string& name, OnnxType type, const Shape& columns);

  // The output `out` of an operation. Returns its name.
  std::string node(const std::string& operation, const std::vector<std::string>& inputs,
                   const std::string& out, const std::vector<OnnxAttribute>& attributes = {},
                   const std::string& domain = "");
  // The same, with a name of its own.
  std::string node(const std::string& operation, const std::vector<std::string>& inputs,
                   const std::vector<OnnxAttribute>& attributes = {});
  std::string cast(const std::string& value, OnnxType to);

  // The file. `metadata`: what a reader may want to know.
  std::string model(const std::string& name,
                    const std::vector<std::pair<std::string, std::string>>& metadata);

 private:
  static ProtoMessage raw_tensor(std::string_view name, OnnxType type, const Shape& shape,
                                 std::string_view bytes);
  static ProtoMessage value_info(const std::string& name, OnnxType type, const Shape& columns);

  ProtoMessage nodes_;
  ProtoMessage graph_;  // everything else
  std::set<std::string> constants_;
  std::size_t count_ = 0;  // of nodes without a name
};

}  // namespace sluice
