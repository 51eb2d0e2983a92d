#include "app/trace.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "joiner/sample_log.h"

namespace sluice {
namespace {

constexpr std::size_t kReadRecords = 10'000;

// Whether `id` stands in the text as a whole: not as a part of a longer word.
bool has_word(std::string_view text, std::string_view id) {
  const auto is_word = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-';
  };
  for (std::size_t at = text.find(id); at != std::string_view::npos; at = text.find(id, at + 1)) {
    const std::size_t end = at + id.size();
    if ((at == 0 || !is_word(text[at - 1])) && (end == text.size() || !is_word(text[end]))) {
      return true;
    }
  }
  return false;
}

// Notes all that concerns one id: records as they are read, and what is decided about them.
class Notes final : public RecordWatcher {
 public:
  Notes(const Config& config, std::string id)
      : join_(config.join), id_(std::move(id)), decoder_(config.streams, join_, {}) {}

  bool by_user_item() const { return join_.attribution == JoinConfig::Attribution::user_item; }
  // user_item: whose clicks, actions and purchases are to be noted.
  void set_user_item(std::string user, std::string item) {
    user_ = std::move(user);
    item_ = std::move(item);
  }

  // Decodes it where its text may name the impression.
  std::optional<Event> decode_if_near(Stream stream, const Record& record) {
    const bool may_name =
        may_be_in(record.bytes, id_) ||
        (!user_.empty() && stream != Stream::impressions && may_be_in(record.bytes, user_));
    if (!may_name) return std::nullopt;
    auto decoded = decoder_.decode(stream, record);
    if (!decoded) return std::nullopt;
    return std::move(decoded->event);
  }

  void read(StreamPartition where, const Record& record, const Source& source) {
    if (record.next > read_up_to_[where]) {
      read_up_to_[where] = record.next;
      ++records_read;
    }
    const auto event = decode_if_near(where.stream, record);
    if (event && names(*event)) {
      TracedRecord& traced = note(where, record.position, source);
      traced.time = event->time();
      traced.event_id = event->id();
      traced.value = event->value();
    } else if (!event && has_word(record.bytes, id_)) {
      // Nothing in it can be relied upon, but it may be what is looked for. It will be refused.
      note(where, record.position, source);
    }
  }

  void refused_when_read(const RefusedRecord& record) override {
    refuse(record.where, record.position, record.reason, record.detail);
  }
  void refused(StreamPartition where, const Event& event, Refusal reason) override {
    refuse(where, event.position(), reason, "");
  }
  void used(StreamPartition where, const Event& event, const Impression& impression) override {
    const auto found = records.find({where, event.position()});
    if (found != records.end()) {
      found->second.outcome = TracedRecord::Outcome::used;
      if (impression.impression_id != id_) found->second.used_for = impression.impression_id;
      if (where.stream == Stream::clicks) replace_click(found->second, impression);
    }
    if (impression.impression_id != id_) return;
    if (where.stream == Stream::impressions) {
      TracedImpression& opened = impressions.emplace_back();
      opened.shard = where.partition;
      opened.time = impression.time;
      opened.event_id = impression.event_id;
      opened.user_id = impression.user_id;
      opened.item_id = impression.item_id;
      return;
    }
    TracedImpression& named = opening(where.partition, impression.time);
    if (where.stream == Stream::clicks) {
      named.click_time = event.time();
    } else if (where.stream == Stream::actions) {
      named.action_time = event.time();
    } else {
      if (!named.purchase_time) named.purchase_time = event.time();
      named.value = add_saturating(named.value, event.value().value_or(0));
    }
  }

  // The one of a sample.
  TracedImpression& opening(std::uint32_t shard, TimeMs time) {
    // The newest first: of an id that is used again at the same moment the older one is closed.
    for (auto it = impressions.rbegin(); it != impressions.rend(); ++it) {
      if (it->shard == shard && it->time == time) return *it;
    }
    SLUICE_CHECK(false);
    return impressions.front();
  }
  bool names(const Event& event) const {
    if (event.stream() == Stream::impressions || !by_user_item()) {
      return event.impression_id() == id_;
    }
    return event.user_id() == user_ && event.item_id() == item_;
  }
  const std::string& id() const { return id_; }

  std::map<std::pair<StreamPartition, Position>, TracedRecord> records;
  std::vector<TracedImpression> impressions;
  std::uint64_t records_read = 0;

 private:
  // An id may be written with escapes.
  static bool may_be_in(std::string_view text, std::string_view id) {
    return text.find(id) != std::string_view::npos || text.find('\\') != std::string_view::npos;
  }
  TracedRecord& note(StreamPartition where, Position position, const Source& source) {
    TracedRecord& traced = records[{where, position}];
    traced.where = where;
    traced.position = position;
    traced.place = source.describe(where, position);
    return traced;
  }
  void refuse(StreamPartition where, Position position, Refusal reason, const std::string& detail) {
    const auto found = records.find({where, position});
    if (found == records.end()) return;
    found->second.outcome = TracedRecord::Outcome::refused;
    found->second.reason = reason;
    found->second.detail = detail;
  }

  // By the last click an impression has several that are used, and one that counts.
  void replace_click(TracedRecord& click, const Impression& impression) {
    TracedRecord*& counting = counting_clicks_[{
        click.where.partition, std::string(impression.impression_id), impression.time}];
    if (counting != nullptr) counting->is_replaced = true;
    counting = &click;
  }

  const JoinConfig join_;
  const std::string id_;
  std::string user_, item_;
  Decoder decoder_;
  std::map<StreamPartition, Position> read_up_to_;
  // Of the impressions that noted clicks are used for, by shard, id and time.
  std::map<std::tuple<std::uint32_t, std::string, TimeMs>, TracedRecord*> counting_clicks_;
};

// The source, with every record shown to the notes, and the ends that a data folder has pinned.
class WatchedSource final : public Source {
 public:
  WatchedSource(Source& source, Notes& notes, const std::vector<Position>& pinned_ends,
                std::uint32_t partitions)
      : source_(source), notes_(notes), pinned_ends_(pinned_ends), partitions_(partitions) {}

  Result<std::uint32_t> partitions() override { return source_.partitions(); }
  Result<Position> first_position(StreamPartition where) override {
    return source_.first_position(where);
  }
  Result<Position> end_position(StreamPartition where) override {
    if (const auto pinned = pinned_end(where)) return *pinned;
    return source_.end_position(where);
  }
  Result<Position> oldest_position(StreamPartition where) override {
    return source_.oldest_position(where);
  }
  Result<Position> readable_end(StreamPartition where) override {
    return source_.readable_end(where);
  }
  std::uint64_t connection_epoch() const override { return source_.connection_epoch(); }
  Status seek(StreamPartition where, Position position) override {
    return source_.seek(where, position);
  }
  Result<ReadResult> read(StreamPartition where, std::size_t max_records,
                          DurationMs wait_ms) override {
    SLUICE_ASSIGN(auto result, source_.read(where, max_records, wait_ms));
    for (const Record& record : result.records) {
      if (const auto end = pinned_end(where); end && record.position >= *end) break;
      notes_.read(where, record, source_);
    }
    return result;
  }
  Result<std::optional<Record>> unfinished(StreamPartition where) override {
    SLUICE_ASSIGN(auto record, source_.unfinished(where));
    if (record) notes_.read(where, *record, source_);
    return record;
  }
  Result<std::optional<Record>> record_at(StreamPartition where, Position position) override {
    return source_.record_at(where, position);
  }
  std::optional<EndConfirmation> confirmed_end(StreamPartition) override { return std::nullopt; }
  std::optional<double> fraction_read() const override { return source_.fraction_read(); }
  std::string describe(StreamPartition where, Position position) const override {
    return source_.describe(where, position);
  }

 private:
  std::optional<Position> pinned_end(StreamPartition where) const {
    if (pinned_ends_.empty()) return std::nullopt;
    return pinned_ends_[static_cast<std::size_t>(where.stream) * partitions_ + where.partition];
  }
  Source& source_;
  Notes& notes_;
  const std::vector<Position> pinned_ends_;
  const std::uint32_t partitions_;
};

class Tracer {
 public:
  Tracer(const Config& config, const std::string& id, Source& source, Clock& clock,
         const TraceOptions& options)
      : config_(config),
        source_(source),
        clock_(clock),
        options_(options),
        notes_(config, id),
        store_(make_memory_store()),
        batches_(config.training, config.join.tick) {
    config_.features.clear();  // labels are wanted, no model
    config_.dead_letters.keep_bytes = 0;
    config_.store.commit_records = options.commit_records;
    config_.store.max_learner_lag = ~std::uint64_t{0};
  }

  Result<Trace> run();

 private:
  Status find_user_and_item(std::uint32_t partitions);
  Status follow(Source& source, const EndPolicy& policy);
  Status take_samples(const JoinProgress& committed);
  void on_batch(const TracedBatch& batch);
  bool is_settled() const;
  Status compare(std::uint64_t sequence);
  Trace result();

  Config config_;
  Source& source_;
  Clock& clock_;
  const TraceOptions& options_;
  Notes notes_;
  std::unique_ptr<KeyValueStore> store_;
  BatchCounter batches_;
  std::vector<std::pair<std::size_t, std::size_t>> unbatched_;  // (impression, sample)
  std::uint64_t next_sequence_ = 1;
  Digest digest_;
  std::uint64_t compared_up_to_ = 0;
  TimeMs event_time_ = kTimeMin;
  std::uint64_t records_decided_ = 0;
  bool is_closed_ = false;
};

Result<Trace> Tracer::run() {
  SLUICE_ASSIGN(const std::uint32_t partitions, source_.partitions());
  const TraceFolder* const folder = options_.folder;
  std::vector<Position> pinned;
  if (folder != nullptr) pinned = folder->progress.pinned_ends;
  if (folder != nullptr && !folder->progress.shards.empty() &&
      folder->progress.shards.size() != partitions) {
    return stop_error("the logs have " + std::to_string(partitions) + " partitions but " +
                      folder->path.string() + " began with another number: these are other logs");
  }
  if (notes_.by_user_item()) SLUICE_TRY(find_user_and_item(partitions));
  WatchedSource watched(source_, notes_, pinned, partitions);
  EndPolicy policy;
  policy.kind = pinned.empty() ? EndPolicy::Kind::hold : EndPolicy::Kind::close;
  SLUICE_TRY(follow(watched, policy));
  // A service goes on where partitions are quiet; it has told how far.
  const bool is_behind =
      folder != nullptr && !is_closed_ && event_time_ < folder->progress.frontier;
  if (is_behind && (options_.to_end || !is_settled())) {
    policy.kind = EndPolicy::Kind::at_time;
    policy.time = folder->progress.frontier;
    SLUICE_TRY(follow(watched, policy));
  }
  return result();
}

// By user_item a click names no impression: whose it is must be known before clicks are read.
Status Tracer::find_user_and_item(std::uint32_t partitions) {
  for (std::uint32_t partition = 0; partition < partitions; ++partition) {
    const StreamPartition where{Stream::impressions, partition};
    SLUICE_ASSIGN(const Position begin, source_.first_position(where));
    SLUICE_ASSIGN(const Position end, source_.end_position(where));
    SLUICE_TRY(source_.seek(where, begin));
    for (bool is_at_end = begin >= end; !is_at_end;) {
      SLUICE_ASSIGN(const ReadResult result, source_.read(where, kReadRecords, 100));
      is_at_end = result.at_end.has_value() ||
                  (!result.records.empty() && result.records.back().next >= end);
      for (const Record& record : result.records) {
        const auto event = notes_.decode_if_near(Stream::impressions, record);
        if (!event || !notes_.names(*event)) continue;
        notes_.set_user_item(std::string(event->user_id()), std::string(event->item_id()));
        return {};
      }
    }
  }
  return {};
}

Status Tracer::follow(Source& source, const EndPolicy& policy) {
  Handoff handoff;
  SLUICE_ASSIGN(const auto stage,
                JoinStage::open(config_, policy, source, *store_, clock_, handoff));
  stage->watch(notes_);
  for (bool more = true; more;) {
    SLUICE_ASSIGN(more, stage->step());
    if (!more) SLUICE_TRY(stage->stop());
    if (options_.progress) options_.progress(stage->status());
    const JoinProgress& committed = stage->committed();
    if (committed.frontier == event_time_ && !committed.is_closed && more) continue;
    SLUICE_TRY(take_samples(committed));
    // What was taken leaves the log with the next commit.
    handoff.set_trained(next_sequence_ - 1, next_sequence_);
    if (!options_.to_end && is_settled()) break;
  }
  return {};
}

Status Tracer::take_samples(const JoinProgress& committed) {
  event_time_ = committed.frontier;
  is_closed_ = committed.is_closed;
  records_decided_ = 0;
  for (std::size_t stream = 0; stream < kStreams; ++stream) {
    records_decided_ += committed.counters.read(static_cast<Stream>(stream));
  }
  const auto batch_ended = [this](const TracedBatch& batch) { on_batch(batch); };
  while (next_sequence_ < committed.next_sequence) {
    SLUICE_ASSIGN(const auto samples, read_samples(*store_, next_sequence_, ~std::size_t{0}));
    SLUICE_CHECK(!samples.empty());
    for (const Sample& sample : samples) {
      digest_ = chain_sample(digest_, sample);
      SLUICE_TRY(compare(sample.sequence));
      if (sample.impression_id == notes_.id()) {
        TracedImpression& impression = notes_.opening(sample.shard, sample.impression_time);
        impression.samples.push_back({sample, floor_to(sample.time, config_.join.tick), {}});
        unbatched_.emplace_back(&impression - notes_.impressions.data(),
                                impression.samples.size() - 1);
      }
      batches_.offer(sample, batch_ended);
      next_sequence_ = sample.sequence + 1;
    }
  }
  batches_.pass(committed.frontier, committed.is_closed, batch_ended);
  for (const auto& [impression, sample] : unbatched_) {
    notes_.impressions[impression].samples[sample].batch = batches_.current();
  }
  return {};
}

// A batch may end before the sample that was noted last.
void Tracer::on_batch(const TracedBatch& batch) {
  std::erase_if(unbatched_, [&](const auto& place) {
    TracedSample& sample = notes_.impressions[place.first].samples[place.second];
    if (sample.sample.sequence > batch.to) return false;
    sample.batch = batch;
    return true;
  });
}

Status Tracer::compare(std::uint64_t sequence) {
  if (options_.folder == nullptr) return {};
  const auto expected = options_.folder->samples_digest(sequence);
  if (!expected) return {};
  if (*expected == digest_.hex()) {
    compared_up_to_ = sequence;
    return {};
  }
  const auto from = options_.folder->progress.irreproducible_from;
  const std::string between = "between the sequence numbers " +
                              std::to_string(compared_up_to_ + 1) + " and " +
                              std::to_string(sequence);
  if (from && *from <= sequence) {
    return stop_error(
        "the samples of " + options_.folder->path.string() +
        " cannot be derived anew from sequence " + std::to_string(*from) +
        " on: records came late after quiet, or lost ones were passed over (they differ " +
        between + ")");
  }
  return stop_error("these logs and this config give other samples than " +
                    options_.folder->path.string() + " holds, " + between +
                    ": name the config and the logs of that folder, or another --data-dir; logs "
                    "that retention has cut tell nothing of what was in them");
}

bool Tracer::is_settled() const {
  if (notes_.impressions.empty() || !unbatched_.empty()) return false;
  for (const TracedImpression& impression : notes_.impressions) {
    if (impression.samples.empty() || event_time_ < impression.closes(config_)) return false;
  }
  return std::ranges::none_of(notes_.records, [](const auto& entry) {
    return entry.second.outcome == TracedRecord::Outcome::undecided;
  });
}

Trace Tracer::result() {
  Trace trace;
  trace.impressions = notes_.impressions;
  trace.records_read = notes_.records_read;
  trace.records_decided = records_decided_;
  trace.event_time = event_time_;
  trace.is_settled = is_settled();
  trace.compared_up_to = compared_up_to_;
  for (auto& entry : notes_.records) {
    TracedRecord& record = entry.second;
    // By user_item: of the user and item, but of another time or impression.
    if (notes_.by_user_item() && record.where.stream != Stream::impressions && record.time) {
      const bool is_near =
          std::ranges::any_of(notes_.impressions, [&](const TracedImpression& impression) {
            return impression.time - config_.join.clock_skew <= *record.time &&
                   *record.time < impression.closes(config_);
          });
      if (!is_near) continue;
    }
    trace.records.push_back(std::move(record));
  }
  std::stable_sort(trace.records.begin(), trace.records.end(),
                   [](const TracedRecord& a, const TracedRecord& b) { return a.time < b.time; });
  return trace;
}

}  // namespace

std::optional<TimeMs> TracedImpression::conversion_window_end(const JoinConfig& join) const {
  if (!click_time) return std::nullopt;
  return *click_time + join.conversion_window;
}

std::optional<TimeMs> TracedImpression::action_window_end(const Config& config) const {
  if (!click_time || !config.streams.has_actions()) return std::nullopt;
  return *click_time + config.join.action_window;
}

TimeMs TracedImpression::closes(const Config& config) const {
  return std::max({click_window_end(config.join),
                   conversion_window_end(config.join).value_or(kTimeMin),
                   action_window_end(config).value_or(kTimeMin)});
}

void BatchCounter::offer(const Sample& sample,
                         const std::function<void(const TracedBatch&)>& on_batch) {
  Sample light;  // times and numbers are all that the cut looks at
  light.sequence = sample.sequence;
  light.time = sample.time;
  if (pending_.ends_before(light)) end(on_batch);
  pending_.add(std::move(light));
  current_.to = sample.sequence;
  if (pending_.is_full()) end(on_batch);
}

void BatchCounter::pass(TimeMs frontier, bool is_closed,
                        const std::function<void(const TracedBatch&)>& on_batch) {
  if (pending_.empty() || (!is_closed && !pending_.is_passed_by(frontier))) return;
  end(on_batch);
}

void BatchCounter::end(const std::function<void(const TracedBatch&)>& on_batch) {
  pending_.take();
  current_.is_complete = true;
  on_batch(current_);
  current_ = {current_.number + 1, current_.to + 1, current_.to, false};
}

Result<Trace> trace_impression(const Config& config, const std::string& id, Source& source,
                               Clock& clock, const TraceOptions& options) {
  return Tracer(config, id, source, clock, options).run();
}

}  // namespace sluice
