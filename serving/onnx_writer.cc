#include "serving/onnx_writer.h"

namespace sluice {
namespace {

// Versions of the format and of the operations. Any runtime of 2023 or later reads them.
constexpr std::uint64_t kIrVersion = 9;
constexpr std::uint64_t kOperations = 18;
constexpr std::uint64_t kMlOperations = 4;

// AttributeProto: its fields and types.
constexpr int kAttributeInt = 3, kAttributeText = 4, kAttributeTensor = 5, kAttributeType = 20;
constexpr std::uint64_t kTypeInt = 2, kTypeText = 3, kTypeTensor = 4;

ProtoMessage operation_set(std::string_view domain, std::uint64_t version) {
  ProtoMessage message;
  message.bytes(1, domain);
  message.number(2, version);
  return message;
}

}  // namespace

OnnxAttribute OnnxAttribute::integer(std::string name, std::int64_t value) {
  OnnxAttribute attribute{std::move(name), {}};
  attribute.message.number(kAttributeInt, static_cast<std::uint64_t>(value));
  attribute.message.number(kAttributeType, kTypeInt);
  return attribute;
}

OnnxAttribute OnnxAttribute::text(std::string name, std::string_view value) {
  OnnxAttribute attribute{std::move(name), {}};
  attribute.message.bytes(kAttributeText, value);
  attribute.message.number(kAttributeType, kTypeText);
  return attribute;
}

OnnxAttribute OnnxAttribute::tensor(std::string name, const ProtoMessage& value) {
  OnnxAttribute attribute{std::move(name), {}};
  attribute.message.message(kAttributeTensor, value);
  attribute.message.number(kAttributeType, kTypeTensor);
  return attribute;
}

// TensorProto: dims 1, data_type 2, name 8, raw_data 9.
ProtoMessage OnnxGraph::raw_tensor(std::string_view name, OnnxType type, const Shape& shape,
                                   std::string_view bytes) {
  ProtoMessage message;
  for (const std::int64_t size : shape) message.number(1, static_cast<std::uint64_t>(size));
  message.number(2, static_cast<std::uint64_t>(type));
  message.bytes(8, name);
  message.bytes(9, bytes);
  return message;
}

// ValueInfoProto: name 1, type 2 { tensor_type 1 { elem_type 1, shape 2 { dim 1 { value 1 or name 2
// }}}}.
ProtoMessage OnnxGraph::value_info(const std::string& name, OnnxType type, const Shape& columns) {
  ProtoMessage shape;
  ProtoMessage impressions;
  impressions.bytes(2, "n");
  shape.message(1, impressions);
  for (const std::int64_t size : columns) {
    ProtoMessage dimension;
    if (size >= 0) dimension.number(1, static_cast<std::uint64_t>(size));
    if (size < 0) dimension.bytes(2, name + ".ids");
    shape.message(1, dimension);
  }
  ProtoMessage tensor;
  tensor.number(1, static_cast<std::uint64_t>(type));
  tensor.message(2, shape);
  ProtoMessage of_type;
  of_type.message(1, tensor);
  ProtoMessage info;
  info.bytes(1, name);
  info.message(2, of_type);
  return info;
}

void OnnxGraph::input(const std::string& name, OnnxType type, const Shape& columns) {
  graph_.message(11, value_info(name, type, columns));
}

void OnnxGraph::output(const std::string& name, OnnxType type, const Shape& columns) {
  graph_.message(12, value_info(name, type, columns));
}

// NodeProto: input 1, output 2, name 3, op_type 4, attribute 5, domain 7.
std::string OnnxGraph::node(const std::string& operation, const std::vector<std::string>& inputs,
                            const std::string& out, const std::vector<OnnxAttribute>& attributes,
                            const std::string& domain) {
  ProtoMessage message;
  for (const std::string& input : inputs) message.bytes(1, input);
  message.bytes(2, out);
  message.bytes(3, "make " + out);
  message.bytes(4, operation);
  for (const OnnxAttribute& attribute : attributes) {
    ProtoMessage named = attribute.message;
    named.bytes(1, attribute.name);
    message.message(5, named);
  }
  if (!domain.empty()) message.bytes(7, domain);
  nodes_.message(1, message);
  return out;
}

std::string OnnxGraph::node(const std::string& operation, const std::vector<std::string>& inputs,
                            const std::vector<OnnxAttribute>& attributes) {
  return node(operation, inputs, "#" + std::to_string(++count_), attributes);
}

std::string OnnxGraph::cast(const std::string& value, OnnxType to) {
  return node("Cast", {value}, {OnnxAttribute::integer("to", static_cast<std::int64_t>(to))});
}

// ModelProto: ir_version 1, producer_name 2, graph 7, opset_import 8, metadata_props 14.
std::string OnnxGraph::model(const std::string& name,
                             const std::vector<std::pair<std::string, std::string>>& metadata) {
  ProtoMessage named;
  named.bytes(2, name);
  ProtoMessage model;
  model.number(1, kIrVersion);
  model.bytes(2, "sluice");
  model.bytes(7, nodes_.text() + named.text() + graph_.text());
  model.message(8, operation_set("", kOperations));
  model.message(8, operation_set("ai.onnx.ml", kMlOperations));
  for (const auto& [key, value] : metadata) {
    ProtoMessage entry;
    entry.bytes(1, key);
    entry.bytes(2, value);
    model.message(14, entry);
  }
  return model.text();
}

}  // namespace sluice
