// The join of all shards: brings their samples into one global order, numbers them, and makes every
// commit (docs/design.md, "One commit point").
//
// All shards move in step, up to a common frontier of event time: tick t of every shard is
// processed, in shard order, before any of tick t+1. So nothing ever waits for its place in the
// global order, and a commit finds every shard at the same tick boundary.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/hash.h"
#include "base/result.h"
#include "config/config.h"
#include "ingest/intake.h"
#include "joiner/sample_log.h"
#include "joiner/shard.h"
#include "store/key_value.h"

namespace sluice {

// The durable state of the join beside its keys, as of one commit.
struct JoinProgress {
  TimeMs frontier = kTimeMin;  // event time before this was processed; a tick's start
  std::uint64_t next_sequence = 1;
  Digest samples_digest;  // up to next_sequence − 1
  JoinCounters counters;
  std::vector<IntakeState>
      intakes;  // stream-major: impressions/0, impressions/1, ..., clicks/0, ...
  std::vector<ShardProgress> shards;
  std::vector<Position> pinned_ends;  // as intakes; empty until a closing start pins them
  bool is_closed = false;             // all windows closed, all samples in the log
  std::optional<std::uint64_t> irreproducible_from;  // next one at the first late_after_quiet
  std::uint64_t first_logged = 1;                    // the sample log reaches back to this sequence
  // Dead letters by number, oldest first.
  std::uint64_t first_dead_letter = 0;
  std::uint64_t next_dead_letter = 0;
  std::uint64_t dead_letter_bytes = 0;
  std::uint64_t trimmed_dead_letters = 0;
  // For dead_letters.topic: each one before this number was acknowledged, or trimmed; and how many
  // were trimmed before that.
  std::uint64_t sent_dead_letters = 0;
  std::uint64_t trimmed_unsent_dead_letters = 0;

  // That the lineage has, of kStreams.
  std::size_t streams() const {
    const bool has_actions = !shards.empty() && intakes.size() == kStreams * shards.size();
    return has_actions ? kStreams : kStreamsWithoutActions;
  }

  std::string encode() const;
  static Result<JoinProgress> decode(std::string_view bytes);
};

// The committed one; none before the first commit of a lineage.
Result<std::optional<JoinProgress>> read_progress(KeyValueStore& store);

// What a config's features must be of those that the store's samples hold: all of them for whoever
// joins, some for whoever only reads what one of several models over the join has learned.
enum class FeatureRule : std::uint8_t { all, some };

// A usage error that names the keys in which `config` differs from the join config that the store's
// lineage was begun with; fine where nothing was begun. The number of partitions is not looked at.
Status compare_join_identity(const Config& config, KeyValueStore& store,
                             FeatureRule rule = FeatureRule::all);

// Owned by the joining thread.
class Join {
 public:
  // Opens the committed state, or begins a lineage. An existing one must have the same join keys
  // and the same number of partitions: a usage error names the keys that differ.
  static Result<std::unique_ptr<Join>> open(const Config& config, std::uint32_t partitions,
                                            KeyValueStore& store);

  const JoinProgress& committed() const { return committed_; }
  // False only before the first commit of a lineage.
  bool has_committed() const { return has_committed_; }
  TimeMs frontier() const { return frontier_; }
  std::uint32_t partitions() const { return static_cast<std::uint32_t>(shards_.size()); }

  // The earliest timer of any shard; kTimeMax when there is none.
  TimeMs next_deadline() const;

  // Processes every shard up to `frontier`, the start of a tick. events[s] holds shard s's accepted
  // events before it, in any order.
  Status process(TimeMs frontier, std::vector<std::vector<Event>> events);

  // Records refused by an intake.
  void refuse(std::vector<RefusedRecord> refused);

  std::size_t uncommitted_samples() const { return blocks_.samples(); }
  // What was processed, joined and refused since the last commit holds so much memory, about.
  std::uint64_t uncommitted_bytes() const { return uncommitted_bytes_; }
  bool has_changes(const std::vector<IntakeState>& intakes) const;

  // One synced write of everything since the last commit. `wall_ms` dates the dead letters; samples
  // before `first_needed` leave the log. After an error nothing may follow.
  Status commit(std::vector<IntakeState> intakes, TimeMs wall_ms, std::uint64_t first_needed);

  // Take effect with the next commit.
  void pin_ends(std::vector<Position> ends) { pinned_ends_ = std::move(ends); }
  void close() { is_closed_ = true; }
  // No replay can give the samples from the next one on again (records of the logs are lost).
  void mark_irreproducible() {
    if (!irreproducible_from_) irreproducible_from_ = next_sequence_;
  }
  // Every dead letter before `number` is sent. From the first call on, those that are trimmed
  // before they are sent are counted.
  void set_sent_dead_letters(std::uint64_t number) { sent_dead_letters_ = number; }

  // Hears of every decision from now on; none: nobody does. `watcher` outlives the join.
  void watch(JoinWatcher* watcher) { out_.watcher = watcher; }

  // Of what was processed, committed or not.
  const JoinCounters& counters() const { return out_.counters; }
  std::uint64_t open_impressions() const;
  std::uint64_t waiting_records() const;

 private:
  Join(const Config& config, KeyValueStore& store);
  Status check_identity(std::uint32_t partitions);
  void sequence_samples(TimeMs frontier, const std::vector<std::size_t>& ends);
  Status write_dead_letters(JoinProgress& progress, TimeMs wall_ms, WriteBatch& batch);
  Status trim_dead_letters(JoinProgress& progress, TimeMs wall_ms, WriteBatch& batch);

  const Config& config_;
  KeyValueStore& store_;
  std::vector<std::unique_ptr<Shard>> shards_;
  JoinProgress committed_;
  bool has_committed_ = false;
  TimeMs frontier_ = kTimeMin;
  std::uint64_t next_sequence_ = 1;
  Digest samples_digest_;
  ShardOutput out_;      // samples of the step in hand, refusals since the last commit
  SampleBlocks blocks_;  // sequenced, not yet committed
  std::uint64_t uncommitted_bytes_ = 0;
  std::vector<Position> pinned_ends_;
  bool is_closed_ = false;
  std::optional<std::uint64_t> irreproducible_from_;
  std::optional<std::uint64_t> sent_dead_letters_;  // none: they are sent nowhere
  bool is_stopped_ = false;                         // a commit failed
};

}  // namespace sluice
