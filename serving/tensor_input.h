// One input tensor of the Open Inference Protocol: its elements as JSON texts, one for each
// impression. Internal to serving/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <simdjson.h>

#include "serving/http_message.h"
#include "serving/instance.h"

namespace sluice {

enum class Datatype {
  boolean,
  int8,
  int16,
  int32,
  int64,
  uint8,
  uint16,
  uint32,
  uint64,
  fp32,
  fp64,
  bytes
};

struct TensorHead {
  std::string name;
  Datatype datatype = Datatype::bytes;
  std::vector<std::uint64_t> shape;  // one dimension or two
  std::uint64_t rows() const { return shape[0]; }
};

// Name, datatype and shape of an element of "inputs". 400 where one is missing or not supported.
Answer<TensorHead> read_head(const simdjson::dom::object& input);

// The elements, flat, each a JSON text: from "data", flat or nested; or from `binary`, little-
// endian, texts each behind its length (u32). They are as many as the shape says.
Answer<std::vector<std::string>> read_elements(const TensorHead& head,
                                               const simdjson::dom::object& input);
Answer<std::vector<std::string>> read_binary(const TensorHead& head, std::string_view binary);

// From a tensor's elements to the feature's values, by row: as they are, joined to lists, or read
// as JSON. 400 where the datatype or shape does not fit the feature.
Answer<std::vector<std::string>> values_of(const TensorHead& head,
                                           const InputForm::Feature& feature,
                                           std::vector<std::string> elements);

}  // namespace sluice
