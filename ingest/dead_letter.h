// Refused records as the store keeps them, and the interface of what sends them on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "ingest/intake.h"

namespace sluice {

struct DeadLetter {
  std::uint64_t number = 0;  // 0, 1, 2, ... in a data folder, never used again
  TimeMs wall_ms = 0;        // of the commit that it came with
  RefusedRecord record;      // an oversized one's bytes are cut (Source)
};

// The store's key and value (docs/formats.md, "Dead letters").
std::string dead_letter_key(std::uint64_t number);
std::string encode_dead_letter(const RefusedRecord& record, TimeMs wall_ms);
// A stop error where the bytes are no dead letter.
Result<DeadLetter> decode_dead_letter(std::string_view key, std::string_view value);

// Where dead letters are sent to beside the store. One thread calls; no call waits but wait().
class DeadLetterSink {
 public:
  virtual ~DeadLetterSink() = default;

  // Takes it for sending. False where there is no room now, for any: offer it again later. What
  // concerns this one alone comes with take_deliveries().
  virtual bool offer(const DeadLetter& letter) = 0;

  struct Delivery {
    std::uint64_t number = 0;
    bool is_acknowledged = false;  // false: it did not get there; offer it again later
  };
  // What became of letters since the last call.
  virtual std::vector<Delivery> take_deliveries() = 0;

  // Until something became of a letter, or the time is over.
  virtual void wait(DurationMs timeout) = 0;

  // For people: where to, and what the last failure was (empty: none).
  virtual std::string target() const = 0;
  virtual std::string problem() const = 0;
};

}  // namespace sluice
