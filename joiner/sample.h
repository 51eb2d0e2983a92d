// A labelled sample: what the join hands to the learner, and the log of them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/hash.h"
#include "base/micros.h"
#include "base/result.h"
#include "base/time.h"

namespace sluice {

// An impression gives one sample, or two when its z becomes final after its y; with actions up to
// three. A label is told with the sample that makes it final and, but for z, with those after it.
struct SampleLabels {
  std::uint64_t sequence = 0;  // 1, 2, 3, ... over all shards
  std::uint32_t shard = 0;
  TimeMs time = 0;  // event time at which the label became final; floor_to(time, tick)
                    // is the sample's tick
  TimeMs impression_time = 0;
  std::optional<TimeMs> click_time;     // of the attributed click
  std::optional<TimeMs> purchase_time;  // of the attributed purchase
  std::optional<TimeMs> action_time;    // of the attributed action
  bool y = false;                       // clicked
  bool y_final =
      false;       // this sample trains the CTR term; true for an impression's first sample only
  bool z = false;  // purchased; z implies y
  bool z_final = false;  // this sample trains the CTCVR term
  Micros value = 0;      // of all purchases of a final z (join.purchase_value); 0 with z = 0
  // With actions only (streams.actions), else all are false.
  bool action = false;        // followed by an action; implies y, and z does not imply it
  bool action_final = false;  // this sample trains the terms of the action
  bool z_earlier = false;     // z was final with an earlier sample
  bool action_later = false;  // the action's label will be final with a later sample
};

// Whether no further sample of the impression comes: all its labels are final.
constexpr bool is_last_sample(const SampleLabels& sample) {
  return (sample.z_final || sample.z_earlier) && !sample.action_later;
}

// As the learner has it.
struct Sample : SampleLabels {
  std::string impression_id;
  std::string user_id;
  std::string item_id;
  std::string features;  // ingest/features.h; on both samples of an impression
};

// As the join makes it: the texts are the state's.
struct SampleView : SampleLabels {
  std::string_view impression_id;
  std::string_view user_id;
  std::string_view item_id;
  std::string_view features;

  SampleView() = default;
  // Views into `sample`.
  explicit SampleView(const Sample& sample)
      : SampleLabels(sample),
        impression_id(sample.impression_id),
        user_id(sample.user_id),
        item_id(sample.item_id),
        features(sample.features) {}
};

// Whether a time that was read back can be one of ours; then no sum with a window overflows.
constexpr bool is_possible_time(TimeMs time) {
  return kTimeMin <= time && time <= kTimeMax;
}

// Appends the sample's bytes; the grammar is in docs/formats.md. Returns the samples digest after
// it, `digest` being the one before.
Digest encode_and_chain(const SampleView& sample, const Digest& digest, std::string& out);
// The bytes alone.
void encode_sample(const Sample& sample, std::string& out);
// Reads one sample from the front of `bytes` and drops it there.
Result<Sample> decode_sample(std::string_view& bytes);

// The samples digest after `sample`: chains sequence, ids, times, labels and flags, not features
// and not the shard's number.
Digest chain_sample(const Digest& digest, const Sample& sample);

}  // namespace sluice
