// Reading what clients send as JSON. Internal to serving/.
#pragma once

#include <string>
#include <string_view>

#include <simdjson.h>

#include "serving/http_message.h"

namespace sluice {

// Deeper is refused; an event is refused by its decoder long before (streams.max_depth).
inline constexpr std::size_t kMaxJsonDepth = 256;

// A text and what was read from it; an element lives as long.
class JsonReader {
 public:
  // One document and nothing else; 400 where it is none. What was read before is gone.
  Answer<simdjson::dom::element> read(std::string_view text);

 private:
  simdjson::dom::parser parser_;
};

// The element as compact JSON, which means the same: numbers keep their bits.
void append_json(std::string& out, const simdjson::dom::element& value);

}  // namespace sluice
