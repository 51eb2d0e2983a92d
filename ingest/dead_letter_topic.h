// dead_letters.topic: refused records as messages of a Kafka topic, in the manner of Kafka
// Connect's dead letter queues. Value: the record's bytes. Key: "<stream>/<partition>", so that the
// letters of one log stay in order. Headers, all of them text: sluice.error.topic, .partition,
// .offset (where it lies in its own log), .reason, .detail, .stream, .wall_time, .number, .folder;
// and .bytes, the record's length in the data folder, on one that was cut because the topic takes
// no longer one.
//
// Each is acknowledged by all in-sync replicas before it counts as sent. A letter may come twice
// (a crash, a lost answer): .folder and .number tell.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "config/config.h"
#include "ingest/dead_letter.h"
#include "ingest/kafka_client.h"

namespace sluice {

struct DeadLetterTopicOptions {
  KafkaLog log;                      // default: a line on stderr
  DurationMs reach_within = 10'000;  // for the broker's answer whether the topic is there
};

// `folder` names the data folder. A usage error where source.properties would let nothing be sent;
// a stop error where the topic does not exist or is compacted; a broker that does not answer is
// none: letters wait for it. A letter that is refused alone comes back as one that did not get
// there.
Result<std::unique_ptr<DeadLetterSink>> open_dead_letter_topic(
    const Config& config, std::string folder, const DeadLetterTopicOptions& options = {});

}  // namespace sluice
