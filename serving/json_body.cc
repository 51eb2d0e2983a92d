#include "serving/json_body.h"

#include <algorithm>

#include "base/json_text.h"

namespace sluice {

namespace dom = simdjson::dom;

Answer<dom::element> JsonReader::read(std::string_view text) {
  if (parser_.capacity() < text.size() || parser_.max_depth() != kMaxJsonDepth) {
    const auto error = parser_.allocate(std::max<std::size_t>(text.size(), 256), kMaxJsonDepth);
    if (error) return refuse(400, simdjson::error_message(error));
  }
  dom::element root;
  const auto error = parser_.parse(text.data(), text.size()).get(root);
  if (error) return refuse(400, std::string("no valid JSON: ") + simdjson::error_message(error));
  return root;
}

void append_json(std::string& out, const dom::element& value) {
  switch (value.type()) {
    case dom::element_type::STRING:
      append_json_text(out, value.get_string().value_unsafe());
      return;
    case dom::element_type::INT64:
      out += std::to_string(value.get_int64().value_unsafe());
      return;
    case dom::element_type::UINT64:
      out += std::to_string(value.get_uint64().value_unsafe());
      return;
    case dom::element_type::DOUBLE: {
      const std::size_t begin = out.size();
      append_json_number(out, value.get_double().value_unsafe());
      // 5.0 is no id, so it must not become 5.
      if (out.find_first_of(".e", begin) == std::string::npos) out += ".0";
      return;
    }
    case dom::element_type::BOOL:
      out += value.get_bool().value_unsafe() ? "true" : "false";
      return;
    case dom::element_type::NULL_VALUE:
      out += "null";
      return;
    case dom::element_type::ARRAY: {
      const dom::array list = value.get_array().value_unsafe();
      char before = '[';
      for (const dom::element item : list) {
        out += before;
        before = ',';
        append_json(out, item);
      }
      if (before == '[') out += '[';
      out += ']';
      return;
    }
    case dom::element_type::OBJECT: {
      const dom::object object = value.get_object().value_unsafe();
      char before = '{';
      for (const dom::key_value_pair field : object) {
        out += before;
        before = ',';
        append_json_text(out, field.key);
        out += ':';
        append_json(out, field.value);
      }
      if (before == '{') out += '{';
      out += '}';
      return;
    }
  }
}

}  // namespace sluice
