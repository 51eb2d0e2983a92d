#include "ingest/event.h"

#include "base/check.h"

namespace sluice {

std::string to_string(const StreamPartition& where) {
  return std::string(kStreamNames[static_cast<std::size_t>(where.stream)]) + "/" +
         std::to_string(where.partition);
}

const char* to_string(Refusal refusal) {
  switch (refusal) {
    case Refusal::oversized:
      return "oversized";
    case Refusal::malformed:
      return "malformed";
    case Refusal::future:
      return "future";
    case Refusal::late:
      return "late";
    case Refusal::late_after_quiet:
      return "late_after_quiet";
    case Refusal::duplicate:
      return "duplicate";
    case Refusal::repeat:
      return "repeat";
    case Refusal::no_open_impression:
      return "no_open_impression";
    case Refusal::no_click:
      return "no_click";
  }
  SLUICE_CHECK(false);
}

Event::Event(Stream stream, TimeMs time, Position position, const Texts& texts)
    : stream_(stream), time_(time), position_(position) {
  const std::array<std::string_view, 6> parts = {texts.id,      texts.impression_id, texts.user_id,
                                                 texts.item_id, texts.features,      texts.record};
  std::size_t size = 0;
  for (const std::string_view part : parts) size += part.size();
  buffer_.reserve(size);
  for (std::size_t index = 0; index < parts.size(); ++index) {
    buffer_.append(parts[index]);
    ends_[index] = static_cast<std::uint32_t>(buffer_.size());
  }
}

bool happens_before(const Event& a, const Event& b) {
  if (a.time() != b.time()) return a.time() < b.time();
  if (a.stream() != b.stream()) return a.stream() < b.stream();
  const std::string_view a_id = a.id();
  const std::string_view b_id = b.id();
  if (a_id.empty() != b_id.empty()) return b_id.empty();
  if (const int order = a_id.compare(b_id); order != 0) return order < 0;
  return a.position() < b.position();
}

}  // namespace sluice
