// One shard of the join: a sequential state machine over the total order of its events and timers
// (docs/design.md, "Order inside a shard", "Labels"). It knows no arrival order, no threads and no
// clock; what it emits is a function of the events alone.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "config/config.h"
#include "ingest/event.h"
#include "ingest/intake.h"
#include "joiner/attribution.h"
#include "joiner/fingerprint_index.h"
#include "joiner/impression_pages.h"
#include "joiner/sample.h"
#include "joiner/user_item_index.h"
#include "store/key_value.h"

namespace sluice {

// Counts since the lineage began, over all shards. For every stream: records read = used + refused.
struct JoinCounters {
  std::array<std::uint64_t, kStreams> used{};
  std::array<std::array<std::uint64_t, kRefusals>, kStreams> refused{};
  std::uint64_t labelled_impressions = 0;  // with final y
  std::uint64_t clicked = 0;               // of these, y = 1
  std::uint64_t converted = 0;             // final z = 1
  std::uint64_t acted = 0;                 // final action = 1; with streams.actions only
  // With join.purchase_value only. encode() and decode() leave them out: they came later, and
  // JoinProgress has them at its end.
  MicrosSum value;                  // of all samples
  std::uint64_t without_value = 0;  // used purchases that had no number there

  std::uint64_t read(Stream stream) const;
  std::uint64_t refused_for(Refusal reason) const;
  // Without what came later (docs/formats.md): values, and all that is about actions.
  void encode(ByteWriter& out) const;
  static JoinCounters decode(ByteReader& in);
  void encode_actions(ByteWriter& out) const;
  void decode_actions(ByteReader& in);
};

// Hears of every decision on a record that the join was given (sluice trace). Called by the joining
// thread; what it is given lives for the call only.
class JoinWatcher {
 public:
  virtual ~JoinWatcher() = default;
  // An impression that is open from now on, or another record, which counts for `impression`.
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
  // `has_actions` (streams.actions): else there is no action event, and no label of one.
  Shard(std::uint32_t number, const JoinConfig& join, bool has_actions, KeyValueStore& store);

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
  std::uint64_t waiting_records() const {
    return waiting_[0].size() + waiting_[1].size() + waiting_[2].size();
  }

 private:
  // A clicked impression, open until its click window, its action window and its conversion window
  // have closed. Without actions the action window is closed and its label emitted from the start.
  struct Clicked {
    TimeMs click_time = 0;  // of its attributed click
    std::optional<TimeMs> purchase_time;
    std::optional<TimeMs> action_time;
    // encode_impression, once its click window has closed; before, its page has it.
    std::unique_ptr<char[]> text;
    std::uint32_t text_size = 0;
    bool is_y_emitted : 1 = false;  // its click window has closed
    bool is_z_emitted : 1 = false;
    bool is_action_emitted : 1 = false;
    bool is_conversion_closed : 1 = false;
    bool is_action_closed : 1 = false;
    Micros value = 0;  // of its purchases so far

    bool is_followed_up() const { return is_conversion_closed && is_action_closed; }
    std::string_view bytes() const { return {text.get(), text_size}; }
    void keep(std::string_view bytes);
    Impression impression() const;  // views into bytes()
  };
  using ClickedMap = std::unordered_map<ImpressionNumber, Clicked>;
  // A clicked impression has one until its conversion window has closed, and one until its action
  // window has. A click that took another's place moves the deadline only when the timer fires.
  struct CloseTimer {
    TimeMs deadline;
    ImpressionNumber number;
    friend auto operator<=>(const CloseTimer&, const CloseTimer&) = default;
  };
  // The earliest on top. Those of one deadline fire together.
  using CloseTimers = std::priority_queue<CloseTimer, std::vector<CloseTimer>, std::greater<>>;
  // Timers of one time fire in this order.
  enum class TimerKind {
    conversion_close,
    action_close,
    click_close,
    waiting_click,
    waiting_action,
    waiting_purchase
  };
  // The labels that a sample makes final.
  struct Finals {
    bool y = false;
    bool action = false;
    bool z = false;
  };
  struct Timer {
    TimeMs deadline;
    TimerKind kind;
  };

  std::optional<Timer> next_timer() const;
  Status fire_timers(TimeMs last, ShardOutput& out);
  Status close_click_window(ShardOutput& out);
  void close_conversion_windows(ShardOutput& out);
  void close_conversion_window(ImpressionNumber number, TimeMs time, ShardOutput& out);
  void close_action_windows(ShardOutput& out);
  void close_action_window(ImpressionNumber number, TimeMs time, ShardOutput& out);
  TimeMs take_due(CloseTimers& timers, DurationMs window);
  void close(ClickedMap::iterator clicked, const Impression& closed);
  void expire_waiting(std::size_t queue, ShardOutput& out);

  Status apply(const Event& event, ShardOutput& out);
  Status apply_impression(const Event& event, ShardOutput& out);
  Status apply_waiting(std::string_view key, ShardOutput& out);
  // False where it named no open impression (and nothing was done).
  Result<bool> attribute(const Event& event, ShardOutput& out);
  void click(const Event& event, ImpressionNumber number);
  void purchase(const Event& event, ImpressionNumber number, ShardOutput& out);
  void action(const Event& event, ImpressionNumber number, ShardOutput& out);
  void add_value(Clicked& clicked, const Event& event, ShardOutput& out) const;

  // The open impressions of the event's key that may decide, in their total order.
  Status find_candidates(const Event& event);
  Status find_by_id(const Event& event);
  Status find_by_user_item(const Event& event);
  // The first of `number` and those that next(number) gives which has the event's user and item.
  template <class Next>
  Result<std::optional<ImpressionNumber>> first_of_user_item(const Event& event,
                                                             std::optional<ImpressionNumber> number,
                                                             const Next& next);
  Result<Impression> impression(ImpressionNumber number);
  Result<bool> is_open(std::string_view impression_id, std::uint64_t id_print);
  // The indexes' entries of an impression: they begin, go on when its click window closes, end.
  void index(std::uint64_t id_print, ImpressionNumber number, const Impression& open);
  void index_clicked(ImpressionNumber number, const Impression& open, const Clicked& clicked);
  void leave_window(const Impression& front, bool stays_open);
  void forget_clicked(ImpressionNumber number, const Impression& closed);
  void retire(ClickedMap::iterator clicked);
  void add_conversion_timer(ImpressionNumber number, const Clicked& clicked);
  void add_action_timer(ImpressionNumber number, const Clicked& clicked);
  void emit(const Impression& impression, Clicked* clicked, TimeMs time, const Finals& finals,
            ShardOutput& out);
  void refuse(const Event& event, Refusal reason, ShardOutput& out) const;
  std::string waiting_key(const Event& event) const;
  // Where events of a stream wait; of impressions there is none.
  static std::size_t queue_of(Stream stream) {
    return static_cast<std::size_t>(rank_of(stream)) - 1;
  }
  std::string clicked_key(ImpressionNumber number) const;
  std::string encode_clicked(const Clicked& clicked) const;
  bool restore_clicked(ImpressionNumber number, std::string_view value);
  Status restore_clicked_in_window();
  // A user and an item as one key: the length keeps ("a", "bc") and ("ab", "c") apart.
  static std::string user_item_key(std::string_view user, std::string_view item);
  static std::uint64_t user_item_print(std::string_view user, std::string_view item) {
    return fingerprint(user_item_key(user, item));
  }
  bool by_user_item() const { return join_.attribution == JoinConfig::Attribution::user_item; }

  std::uint32_t number_;
  JoinConfig join_;
  bool has_actions_;
  KeyValueStore& store_;
  ImpressionPages pages_;
  FingerprintIndex by_id_;      // every open impression
  UserItemIndex by_user_item_;  // the same; only with user_item attribution
  ClickedMap clicked_;
  // Closed ones, whose bytes samples still refer to.
  std::vector<ClickedMap::node_type> retired_;
  CloseTimers conversions_;
  CloseTimers actions_;
  std::set<ImpressionNumber> dirty_clicked_;  // changed or closed since the last commit
  // Clicks, actions, purchases; each in their total order.
  std::array<std::deque<Event>, 3> waiting_;
  std::unordered_map<std::string, std::size_t> waiting_keys_;  // how many wait for each key
  bool is_waiting_dirty_ = false;
  // Scratch of closing windows and of find_candidates().
  std::vector<std::pair<std::string_view, ImpressionNumber>> closing_;
  std::string closed_text_;
  std::vector<ImpressionNumber> found_;
  std::vector<ImpressionNumber> candidate_numbers_;
  std::vector<Candidate> candidates_;
};

}  // namespace sluice
