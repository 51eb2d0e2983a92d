// Texts and numbers as JSON, put behind what is already written.
#pragma once

#include <string>
#include <string_view>

namespace sluice {

// A text as a JSON string. `text` should be UTF-8; what is none is passed on for a reader to
// refuse.
void append_json_text(std::string& out, std::string_view text);
// The shortest digits that read back as `value`, which is finite.
void append_json_number(std::string& out, double value);

}  // namespace sluice
