// One shard of the join: a sequential state machine over the total order of its events and timers
// (docs/design.md, "Order inside a shard", "Labels"). It knows no arrival order, no threads and no
// clock; what it emits is a function of the events alone.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "config/config.h"
#include "ingest/event.h"
#include "ingest/intake.h"
#include "joiner/attribution.h"
#include "joiner/fingerprint_index.h"
#include "joiner/impression_pages.h"
#include "joiner/sample.h"
#include "store/key_value.h"

namespace sluice {

// Counts since the lineage began, over all shards. For every stream: records read = used + refused.
struct JoinCounters {
  std::array<std::uint64_t, kStreams> used{};
  std::array<std::array<std::uint64_t, kRefusals>, kStreams> refused{};
  std::uint64_t labelled_impressions = 0;  // with final y
  std::uint64_t clicked = 0;               // of these, y = 1
  std::uint64_t converted = 0;             // final z = 1
  // With join.purchase_value only.
  MicrosSum value;                  // of all samples
  std::uint64_t without_value = 0;  // used purchases that had no number there

  std::uint64_t read(Stream stream) const;
  std::uint64_t refused_for(Refusal reason) const;
  void encode(ByteWriter& out) const;
  static JoinCounters decode(ByteReader& in);
};

// Hears of every decision on a record that the join was given (sluice trace). Called by the joining
// thread; what it is given lives for the call only.
class JoinWatcher {
 public:
  virtual ~JoinWatcher() = default;
  // An impression that is open from now on, or a click or purchase that counts for `impression`.
  virtual void used(StreamPartition where, const Event& event, const Impression& impression) = 0;
  virtual void refused(StreamPartition where, const Event& event, Refusal reason) = 0;
};

// Where a shard puts what it decides.
struct ShardOutput {
  // In time order; sequence not yet set. The texts are the shard's, until its next process().
  std::vector<SampleView> samples;
  std::vector<RefusedRecord> refused;
  JoinCounters counters;
  JoinWatcher* watcher = nullptr;  // none: nobody wants to hear
};

// What a commit keeps of a shard beside its keys in the state space.
struct ShardProgress {
  ImpressionNumber front = 0;  // oldest impression whose click window is open
  ImpressionNumber next = 0;
};

// Owned by the joining thread. State is in the store under keys that begin with the shard's number:
// 'p' pages of open click windows, 'c' clicked impressions, 'w' waiting records (docs/formats.md).
class Shard {
 public:
  Shard(std::uint32_t number, const JoinConfig& join, KeyValueStore& store);

  // Reads the committed state. Called once, before process().
  Status restore(const ShardProgress& progress);

  // Processes `events`, which are in the total order and before `frontier`, and every timer before
  // `frontier`. Calls go forward in time.
  Status process(std::span<const Event> events, TimeMs frontier, ShardOutput& out);

  // Puts what changed since the last call into the batch, which must be committed next.
  void persist(WriteBatch& batch);
  ShardProgress progress() const { return {pages_.front_number(), pages_.next_number()}; }

  // The next timer's time; kTimeMax when there is none.
  TimeMs next_deadline() const;
  std::uint64_t open_impressions() const { return by_id_.size(); }
  std::uint64_t waiting_records() const { return waiting_[0].size() + waiting_[1].size(); }

 private:
  // A clicked impression, open until its click window and its conversion window have closed.
  struct Clicked {
    std::string bytes;      // encode_impression
    TimeMs click_time = 0;  // of its attributed click
    std::optional<TimeMs> purchase_time;
    bool is_y_emitted = false;  // its click window has closed
    bool is_z_emitted = false;
    bool is_conversion_closed = false;
    Micros value = 0;  // of its purchases so far

    Impression impression() const;  // views into `bytes`
  };
  struct ConversionTimer {
    TimeMs deadline;
    std::string event_id;  // of the impression
    ImpressionNumber number;
    friend auto operator<=>(const ConversionTimer&, const ConversionTimer&) = default;
  };
  // Timers of one time fire in this order.
  enum class TimerKind { conversion_close, click_close, waiting_click, waiting_purchase };
  struct Timer {
    TimeMs deadline;
    TimerKind kind;
  };

  std::optional<Timer> next_timer() const;
  Status fire_timers(TimeMs last, ShardOutput& out);
  Status close_click_window(ShardOutput& out);
  void close_conversion_window(ShardOutput& out);
  void expire_waiting(std::size_t queue, ShardOutput& out);

  Status apply(const Event& event, ShardOutput& out);
  Status apply_impression(const Event& event, ShardOutput& out);
  Status apply_waiting(std::string_view key, ShardOutput& out);
  // False where it named no open impression (and nothing was done).
  Result<bool> attribute(const Event& event, ShardOutput& out);
  Status click(ImpressionNumber number, TimeMs time);
  void move_click(ImpressionNumber number, Clicked& clicked, TimeMs time);
  void purchase(ImpressionNumber number, const Event& event, ShardOutput& out);
  void add_value(Clicked& clicked, const Event& event, ShardOutput& out) const;

  // Open impressions of the event's key, in their total order.
  Status find_candidates(const Event& event);
  Result<Impression> impression(ImpressionNumber number);
  Result<bool> is_open(std::string_view impression_id, std::uint64_t id_print);
  // The indexes' entries of an impression: they begin, go on when its click window closes, end.
  void index(std::uint64_t id_print, ImpressionNumber number, const Impression& open);
  void leave_window(const Impression& open);
  void forget(ImpressionNumber number, const Impression& closed);
  void retire(std::unordered_map<ImpressionNumber, Clicked>::iterator clicked);
  void emit(const Impression& impression, const Clicked* clicked, TimeMs time, bool y_final,
            bool z_final, ShardOutput& out);
  void refuse(const Event& event, Refusal reason, ShardOutput& out) const;
  std::string waiting_key(const Event& event) const;
  std::string clicked_key(ImpressionNumber number) const;
  std::string encode_clicked(const Clicked& clicked) const;
  bool restore_clicked(ImpressionNumber number, std::string_view value);
  ConversionTimer conversion_timer(ImpressionNumber number, const Clicked& clicked) const;
  // A user and an item as one key: the length keeps ("a", "bc") and ("ab", "c") apart.
  static std::string user_item_key(std::string_view user, std::string_view item);
  bool by_user_item() const { return join_.attribution == JoinConfig::Attribution::user_item; }

  std::uint32_t number_;
  JoinConfig join_;
  KeyValueStore& store_;
  ImpressionPages pages_;
  FingerprintIndex by_id_;         // every open impression
  FingerprintIndex by_user_item_;  // the same; only with user_item attribution
  std::unordered_map<ImpressionNumber, Clicked> clicked_;
  // Closed ones, whose bytes samples still refer to.
  std::vector<std::unordered_map<ImpressionNumber, Clicked>::node_type> retired_;
  std::set<ConversionTimer> conversions_;
  std::set<ImpressionNumber> dirty_clicked_;  // changed or closed since the last commit
  std::array<std::deque<Event>, 2> waiting_;  // clicks, purchases; in their total order
  std::unordered_map<std::string, std::size_t> waiting_keys_;  // how many wait for each key
  bool is_waiting_dirty_ = false;
  // Scratch of find_candidates().
  std::vector<ImpressionNumber> found_;
  std::vector<ImpressionNumber> candidate_numbers_;
  std::vector<Candidate> candidates_;
};

}  // namespace sluice
