#include "ingest/features.h"

#include <charconv>

namespace sluice {

void FeatureWriter::id(std::string_view value) {
  // Canonical: what std::to_string would print, so that the integer's text is `value` again.
  const bool is_negative = !value.empty() && value.front() == '-';
  const std::string_view digits = value.substr(is_negative ? 1 : 0);
  const bool may_be_canonical =
      !digits.empty() && digits.size() <= 19 && digits.front() >= (is_negative ? '1' : '0') &&
      digits.front() <= '9' && (digits.front() != '0' || digits.size() == 1);
  if (may_be_canonical) {
    std::int64_t number = 0;
    const char* const end = value.data() + value.size();
    const auto [stop, error] = std::from_chars(value.data(), end, number);
    if (error == std::errc() && stop == end) {
      id(number);
      return;
    }
  }
  tag(FeatureTag::text);
  bytes_.text(value);
}

}  // namespace sluice
