#include "ingest/kafka_prober.h"

#include <chrono>

namespace sluice {
namespace {

constexpr DurationMs kAnswerWithinMs = 1'000;

}  // namespace

KafkaProber::KafkaProber(const KafkaClient& client, const StreamsConfig& streams,
                         std::uint32_t partitions, DurationMs period, Clock& clock)
    : client_(client),
      streams_(streams),
      partitions_(partitions),
      period_(period),
      clock_(clock),
      thread_([this] { probe_until_stopped(); }) {}

KafkaProber::~KafkaProber() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

std::optional<EndConfirmation> KafkaProber::newest(StreamPartition where) const {
  const std::lock_guard lock(mutex_);
  const auto found = newest_.find(where);
  if (found == newest_.end()) return std::nullopt;
  return found->second;
}

Status KafkaProber::partitions_unchanged() const {
  const std::lock_guard lock(mutex_);
  if (changed_) return *changed_;
  return {};
}

bool KafkaProber::is_stopped() const {
  const std::lock_guard lock(mutex_);
  return stop_;
}

void KafkaProber::probe_until_stopped() {
  while (true) {
    for (std::size_t stream = 0; stream < streams_.count(); ++stream) {
      check_partition_count(static_cast<Stream>(stream));
      for (std::uint32_t partition = 0; partition < partitions_; ++partition) {
        if (is_stopped()) return;
        probe({static_cast<Stream>(stream), partition});
      }
    }
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, std::chrono::milliseconds(period_), [this] { return stop_; });
    if (stop_) return;
  }
}

void KafkaProber::probe(StreamPartition where) {
  EndConfirmation confirmation;
  confirmation.requested_wall_ms = clock_.wall_ms();
  const auto answer = client_.position_at(streams_.topic[static_cast<std::size_t>(where.stream)],
                                          where.partition, RD_KAFKA_OFFSET_END, kAnswerWithinMs);
  // Without an answer the last confirmation grows old, which is what its reader looks at; the
  // client has handed the reason to the log.
  if (!answer) {
    if (answer.error().kind != ErrorKind::retry) ++doubts_;
    return;
  }
  confirmation.answered_steady_ms = clock_.steady_ms();
  if (!*answer) return;
  confirmation.end = **answer;
  const std::lock_guard lock(mutex_);
  EndConfirmation& newest = newest_[where];
  if (confirmation.end < newest.end) ++doubts_;
  newest = confirmation;
}

void KafkaProber::check_partition_count(Stream stream) {
  if (is_stopped()) return;
  const std::string& topic = streams_.topic[static_cast<std::size_t>(stream)];
  const auto count = client_.partition_count(topic, kAnswerWithinMs);
  if (!count || *count == partitions_) return;
  const std::lock_guard lock(mutex_);
  changed_ =
      stop_error("topic " + topic + " now has " + std::to_string(*count) + " partitions, not " +
                 std::to_string(partitions_) + ": the number belongs to the lineage");
}

}  // namespace sluice
