#include "base/utf8.h"

#include <cstddef>
#include <cstdint>

namespace sluice {
namespace {

struct Utf8Form {
  unsigned char mask, lead;
  std::size_t length;
  std::uint32_t least;  // a smaller code point has a shorter form
};
constexpr Utf8Form kForms[] = {
    {0xe0, 0xc0, 2, 0x80}, {0xf0, 0xe0, 3, 0x800}, {0xf8, 0xf0, 4, 0x10000}};

// The bytes of the code point at the front; 0 where there is none.
std::size_t code_point_bytes(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text.front());
  for (const Utf8Form& form : kForms) {
    if ((lead & form.mask) != form.lead) continue;
    if (text.size() < form.length) return 0;
    std::uint32_t code = lead & static_cast<unsigned char>(~form.mask);
    for (std::size_t i = 1; i < form.length; ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      if ((byte & 0xc0) != 0x80) return 0;
      code = code << 6 | (byte & 0x3f);
    }
    const bool is_surrogate = code >= 0xd800 && code <= 0xdfff;
    return code < form.least || code > 0x10ffff || is_surrogate ? 0 : form.length;
  }
  return 0;
}

}  // namespace

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    std::size_t count = 0;
    while (count < text.size() && static_cast<unsigned char>(text[count]) < 0x80) ++count;
    text.remove_prefix(count);
    if (text.empty()) break;
    count = code_point_bytes(text);
    if (count == 0) return false;
    text.remove_prefix(count);
  }
  return true;
}

}  // namespace sluice
