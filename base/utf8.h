// Whether bytes are a text that JSON can hold.
#pragma once

#include <string_view>

namespace sluice {

// By RFC 3629: no surrogates, no form longer than needed, nothing above U+10FFFF.
bool is_utf8(std::string_view text);

}  // namespace sluice
