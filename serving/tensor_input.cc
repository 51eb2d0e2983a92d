#include "serving/tensor_input.h"

#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/json_text.h"
#include "serving/json_body.h"

namespace sluice {
namespace {

namespace dom = simdjson::dom;

struct DatatypeFacts {
  const char* name;
  std::size_t bytes;  // of an element; 0: each has a length of its own
  std::int64_t min;   // of integers
  std::uint64_t max;
};

// By Datatype.
constexpr std::array<DatatypeFacts, 12> kDatatypes = {{
    {"BOOL", 1, 0, 1},
    {"INT8", 1, INT8_MIN, INT8_MAX},
    {"INT16", 2, INT16_MIN, INT16_MAX},
    {"INT32", 4, INT32_MIN, INT32_MAX},
    {"INT64", 8, INT64_MIN, INT64_MAX},
    {"UINT8", 1, 0, UINT8_MAX},
    {"UINT16", 2, 0, UINT16_MAX},
    {"UINT32", 4, 0, UINT32_MAX},
    {"UINT64", 8, 0, UINT64_MAX},
    {"FP32", 4, 0, 0},
    {"FP64", 8, 0, 0},
    {"BYTES", 0, 0, 0},
}};

const DatatypeFacts& facts(Datatype type) {
  return kDatatypes[static_cast<std::size_t>(type)];
}

bool is_integer(Datatype type) {
  return type >= Datatype::int8 && type <= Datatype::uint64;
}
bool is_real(Datatype type) {
  return type == Datatype::fp32 || type == Datatype::fp64;
}

std::string shown(std::string_view name) {
  std::string text;
  append_json_text(text, name.substr(0, 100));
  return text;
}

tl::unexpected<HttpRefusal> wrong(const TensorHead& head, const std::string& what) {
  return refuse(400, "input " + shown(head.name) + ": " + what);
}

std::optional<std::uint64_t> element_count(const TensorHead& head) {
  std::uint64_t count = 1;
  for (const std::uint64_t size : head.shape) {
    if (__builtin_mul_overflow(count, size, &count)) return std::nullopt;
  }
  return count;
}

// One element of "data" as a JSON text; false where it is not of the datatype.
bool append_element(Datatype type, const dom::element& value, std::string& out) {
  if (value.is_null()) {
    out += "null";
    return true;
  }
  if (type == Datatype::bytes) {
    if (!value.is_string()) return false;
  } else if (type == Datatype::boolean) {
    if (!value.is_bool()) return false;
  } else if (is_real(type)) {
    if (!value.is_number()) return false;
  } else if (value.is_int64()) {
    const std::int64_t number = value.get_int64().value_unsafe();
    if (number < facts(type).min) return false;
    if (number > 0 && static_cast<std::uint64_t>(number) > facts(type).max) return false;
  } else if (value.is_uint64()) {
    if (value.get_uint64().value_unsafe() > facts(type).max) return false;
  } else {
    return false;
  }
  append_json(out, value);
  return true;
}

// Lists in lists as one, to the depth of a shape.
bool append_elements(Datatype type, const dom::array& data, int depth, std::uint64_t most,
                     std::vector<std::string>& out) {
  for (const dom::element item : data) {
    if (item.is_array()) {
      if (depth == 0) return false;
      if (!append_elements(type, item.get_array().value_unsafe(), depth - 1, most, out)) {
        return false;
      }
      continue;
    }
    if (out.size() == most) return false;
    if (!append_element(type, item, out.emplace_back())) return false;
  }
  return true;
}

template <class T>
T load(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

// One element of a fixed length; false where JSON has no such number. There is no null among them:
// NaN is what says "absent" in arrays of numbers.
bool append_binary(Datatype type, std::string_view bytes, std::string& out) {
  switch (type) {
    case Datatype::boolean:
      out += bytes[0] != 0 ? "true" : "false";
      return true;
    case Datatype::int8:
      out += std::to_string(load<std::int8_t>(bytes));
      return true;
    case Datatype::int16:
      out += std::to_string(load<std::int16_t>(bytes));
      return true;
    case Datatype::int32:
      out += std::to_string(load<std::int32_t>(bytes));
      return true;
    case Datatype::int64:
      out += std::to_string(load<std::int64_t>(bytes));
      return true;
    case Datatype::uint8:
      out += std::to_string(load<std::uint8_t>(bytes));
      return true;
    case Datatype::uint16:
      out += std::to_string(load<std::uint16_t>(bytes));
      return true;
    case Datatype::uint32:
      out += std::to_string(load<std::uint32_t>(bytes));
      return true;
    case Datatype::uint64:
      out += std::to_string(load<std::uint64_t>(bytes));
      return true;
    case Datatype::fp32:
    case Datatype::fp64: {
      const double value =
          type == Datatype::fp32 ? double{load<float>(bytes)} : load<double>(bytes);
      if (std::isinf(value)) return false;
      if (std::isnan(value)) {
        out += "null";
      } else {
        append_json_number(out, value);
      }
      return true;
    }
    case Datatype::bytes:
      break;
  }
  return false;
}

}  // namespace

Answer<TensorHead> read_head(const dom::object& input) {
  TensorHead head;
  std::string_view text;
  if (input["name"].get_string().get(text)) return refuse(400, "an input has no \"name\"");
  head.name = text;
  if (input["datatype"].get_string().get(text)) return wrong(head, "has no \"datatype\"");
  std::size_t type = 0;
  while (type < kDatatypes.size() && text != kDatatypes[type].name) ++type;
  if (type == kDatatypes.size()) {
    return wrong(head, "its datatype " + shown(text) + " is not supported");
  }
  head.datatype = static_cast<Datatype>(type);
  dom::array shape;
  if (input["shape"].get_array().get(shape)) return wrong(head, "has no \"shape\"");
  for (const dom::element size : shape) {
    std::uint64_t value = 0;
    if (size.get_uint64().get(value)) return wrong(head, "its shape is no list of sizes");
    if (head.shape.size() == 2) return wrong(head, "its shape has more than two dimensions");
    head.shape.push_back(value);
  }
  if (head.shape.empty()) return wrong(head, "its shape has no dimension");
  return head;
}

Answer<std::vector<std::string>> read_elements(const TensorHead& head, const dom::object& input) {
  dom::array data;
  if (input["data"].get_array().get(data)) {
    return wrong(head, "has neither \"data\", a list, nor a parameter \"binary_data_size\"");
  }
  const std::optional<std::uint64_t> count = element_count(head);
  std::vector<std::string> elements;
  const int depth = static_cast<int>(head.shape.size()) - 1;
  if (!count || !append_elements(head.datatype, data, depth, *count, elements) ||
      elements.size() != *count) {
    return wrong(head, std::string("its data is not as many ") + facts(head.datatype).name +
                           " elements as its shape says");
  }
  return elements;
}

Answer<std::vector<std::string>> read_binary(const TensorHead& head, std::string_view binary) {
  const std::optional<std::uint64_t> count = element_count(head);
  const std::size_t width = facts(head.datatype).bytes;
  // An element is a byte at least, a text its length.
  const bool fits =
      count && *count <= binary.size() && (width == 0 || *count * width == binary.size());
  std::vector<std::string> elements;
  while (fits && elements.size() < *count) {
    std::size_t size = width;
    if (width == 0) {
      if (binary.size() < sizeof(std::uint32_t)) break;
      size = load<std::uint32_t>(binary);
      binary.remove_prefix(sizeof(std::uint32_t));
      if (size > binary.size()) break;
      append_json_text(elements.emplace_back(), binary.substr(0, size));
    } else if (!append_binary(head.datatype, binary.substr(0, size), elements.emplace_back())) {
      return wrong(head, "one of its numbers is infinite");
    }
    binary.remove_prefix(size);
  }
  if (!count || elements.size() != *count || !binary.empty()) {
    return wrong(head, std::string("its binary data is not as many ") + facts(head.datatype).name +
                           " elements as its shape says");
  }
  return elements;
}

namespace {

// Each element is a JSON string that holds a JSON text.
Answer<std::vector<std::string>> read_texts(const TensorHead& head,
                                            std::vector<std::string> elements) {
  JsonReader outer;
  JsonReader inner;
  for (std::size_t row = 0; row < elements.size(); ++row) {
    if (elements[row] == "null") continue;
    SLUICE_TAKE(const dom::element text, outer.read(elements[row]));
    const auto value = inner.read(text.get_string().value_unsafe());
    if (!value) {
      return wrong(head, "element " + std::to_string(row) +
                             " holds no JSON value as in the log; of texts that are ids of a list "
                             "the shape is [n,k]");
    }
    elements[row].clear();
    append_json(elements[row], *value);
  }
  return elements;
}

std::vector<std::string> join_lists(std::uint64_t rows, std::uint64_t width,
                                    const std::vector<std::string>& elements) {
  std::vector<std::string> lists(rows);
  for (std::uint64_t row = 0; row < rows; ++row) {
    std::string& list = lists[row];
    list = "[";
    for (std::uint64_t i = 0; i < width; ++i) {
      if (i > 0) list += ',';
      list += elements[row * width + i];
    }
    list += ']';
  }
  return lists;
}

}  // namespace

Answer<std::vector<std::string>> values_of(const TensorHead& head,
                                           const InputForm::Feature& feature,
                                           std::vector<std::string> elements) {
  using Type = FeatureConfig::Type;
  const bool is_bytes = head.datatype == Datatype::bytes;
  const std::string type = facts(head.datatype).name;
  if (feature.type == Type::ids || feature.type == Type::weighted_ids) {
    if (head.shape.size() == 1) {
      if (is_bytes) return read_texts(head, std::move(elements));
      return wrong(head,
                   "the feature is a list: its shape is [n,k], or BYTES of shape [n] hold "
                   "each list in JSON");
    }
    if (feature.type == Type::weighted_ids) {
      return wrong(head,
                   "the feature has ids with weights: BYTES of shape [n] hold each value in "
                   "JSON, as in the log");
    }
    if (!is_bytes && !is_integer(head.datatype)) return wrong(head, type + " elements are no ids");
    return join_lists(head.rows(), head.shape[1], elements);
  }
  if (head.shape.size() == 2 && head.shape[1] != 1) {
    return wrong(head, "the feature is one value an impression: its shape is [n] or [n,1]");
  }
  if (feature.type == Type::number) {
    if (!is_real(head.datatype) && !is_integer(head.datatype)) {
      return wrong(head, type + " elements are no numbers");
    }
  } else if (!is_bytes && !is_integer(head.datatype)) {
    return wrong(head, type + " elements are no ids");
  }
  return elements;
}

}  // namespace sluice
