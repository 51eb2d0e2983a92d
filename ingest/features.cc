#include "ingest/features.h"

#include <charconv>
#include <utility>

#include "base/check.h"

namespace sluice {
namespace {

// Reads what follows an id's tag; false where that is none.
bool skip_id(FeatureReader& reader, FeatureTag tag) {
  if (tag == FeatureTag::integer) {
    reader.integer();
  } else if (tag == FeatureTag::text) {
    reader.text();
  } else {
    return false;
  }
  return reader.ok();
}

// Reads one value; false where it is none.
bool skip_value(FeatureReader& reader) {
  const FeatureTag tag = reader.tag();
  switch (tag) {
    case FeatureTag::absent:
    case FeatureTag::wrong_type:
      return reader.ok();
    case FeatureTag::integer:
    case FeatureTag::text:
      return skip_id(reader, tag);
    case FeatureTag::number:
      reader.number();
      return reader.ok();
    case FeatureTag::list:
    case FeatureTag::weighted:
      break;
    default:
      return false;
  }
  for (std::size_t left = reader.count(); left > 0; --left) {
    if (!skip_id(reader, reader.tag())) return false;
    if (tag == FeatureTag::weighted) reader.number();
  }
  return reader.ok();
}

}  // namespace

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

FeatureColumns::FeatureColumns(const std::vector<FeatureConfig>& kept,
                               const std::vector<FeatureConfig>& wanted) {
  for (const FeatureConfig& feature : kept) {
    const bool is_wanted = wanted_ < wanted.size() && wanted[wanted_].name == feature.name;
    if (is_wanted) {
      SLUICE_CHECK(wanted[wanted_].path == feature.path && wanted[wanted_].type == feature.type);
      ++wanted_;
    }
    is_wanted_.push_back(is_wanted);
  }
  SLUICE_CHECK(wanted_ == wanted.size());
}

std::optional<std::string> FeatureColumns::of(std::string_view blob) const {
  std::string columns;
  FeatureReader reader(blob);
  for (const bool is_wanted : is_wanted_) {
    const std::size_t before = reader.remaining();
    if (!skip_value(reader)) return std::nullopt;
    if (is_wanted) columns.append(blob, blob.size() - before, before - reader.remaining());
  }
  return reader.at_end() ? std::optional(std::move(columns)) : std::nullopt;
}

}  // namespace sluice
