// From a record's text to an event, by the text alone: the same code for logs, Kafka and scoring.
//
// A record is accepted here when it is one JSON object, whole, valid UTF-8, not longer than
// streams.max_record_bytes and not nested deeper than streams.max_depth (the record is level 1; an
// empty list or object inside is no level of its own), and its required fields make sense: `ts`,
// and the ids that the attribution needs (impressions always need `impression_id`). An id is a
// non-empty string or an integer. A field that stands twice counts where it stands first. Integers
// beyond 64 bits make a record malformed. The value of a purchase (join.purchase_value) is never a
// reason to refuse it: what is no number is none.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "config/config.h"
#include "ingest/event.h"

namespace sluice {

struct Rejection {
  Refusal reason = Refusal::malformed;
  std::string detail;  // "ts: absent"; for people
};

struct Decoded {
  Event event;
  std::optional<TimeMs> log_time;  // the record's own (streams.log_time), else the broker's
};

// Used by one thread at a time.
class Decoder {
 public:
  // `features` as in Config::features, sorted by name; none where only labels are wanted.
  Decoder(const StreamsConfig& streams, const JoinConfig& join,
          const std::vector<FeatureConfig>& features);
  ~Decoder();
  Decoder(Decoder&&) noexcept;

  // Records that look like earlier ones of their stream are read by a template of them
  // (ingest/record_template.h), all others by a full parser; which of the two it was cannot be told
  // by what comes out.
  tl::expected<Decoded, Rejection> decode(Stream stream, const Record& record);
  // The same, by the full parser alone: what decode() is compared with.
  tl::expected<Decoded, Rejection> decode_by_parser(Stream stream, const Record& record);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice
