#include <algorithm>

#include "base/bytes.h"
#include "joiner/sample_log.h"
#include "tests/joiner/stages.h"
#include "tests/simulation/monitors.h"

namespace sluice::simulation {
namespace {

// Of JoinStage::advance(): one call of the join covers at most so many ticks of event time.
constexpr std::int64_t kStrideTicks = 64;

std::string encoded(const Sample& sample) {
  std::string bytes;
  encode_sample(sample, bytes);
  return bytes;
}

// Skips a waiting event (docs/formats.md, "The join's state").
void skip_event(ByteReader& in) {
  const bool has_value = (in.u8() & 128) != 0;
  in.svarint();
  in.varint();
  for (int text = 0; text < 5; ++text) in.text();
  if (has_value) in.svarint();
}

}  // namespace

JoinMonitor::JoinMonitor(const Plan& plan, const ShopLog& log, const OracleResult& expected,
                         bool is_strict, KeyValueStore& store, Findings& findings)
    : plan_(plan),
      expected_(expected),
      is_strict_(is_strict),
      store_(store),
      findings_(findings),
      config_(plan.config) {
  std::map<std::pair<StreamPartition, Position>, Refusal> refusals;
  for (const OracleRefusal& refusal : expected.refusals) {
    if (refusal.reason <= Refusal::late) {
      refusals[{refusal.where, refusal.position}] = refusal.reason;
    }
  }
  for (const auto& [where, facts] : log.facts) {
    std::vector<Judged>& judged = judged_.emplace_back();
    for (const OracleRecord& fact : facts) {
      Judged one{fact.position, fact.time, std::nullopt};
      const auto refusal = refusals.find({where, fact.position});
      if (refusal != refusals.end()) one.refusal = refusal->second;
      judged.push_back(one);
    }
  }
  window_.resize(judged_.size());
  read_up_to_.resize(judged_.size());
}

void JoinMonitor::begin_life(const Config& config, const EndPolicy& policy) {
  config_ = config;
  policy_ = policy;
}

void JoinMonitor::after_commit() {
  const auto stored = store_.get(Space::meta, "progress");
  if (!stored || !*stored) return;  // only the identity so far
  const auto decoded = JoinProgress::decode(**stored);
  if (!decoded) return findings_.fail("the progress cannot be read: " + decoded.error().message);
  const JoinProgress& now = *decoded;
  if (now.intakes.size() != judged_.size()) return findings_.fail("intakes are missing");
  check_forward(now);
  check_samples(now);
  for (std::size_t index = 0; index < judged_.size(); ++index) check_partition(index, now);
  check_counters(now);
  check_watermarks(now);
  progress_ = now;
}

// Nothing ever goes back.
void JoinMonitor::check_forward(const JoinProgress& now) {
  const JoinProgress before = progress_.value_or(JoinProgress{});
  bool is_quiet = false;
  const auto require = [&](bool holds, const std::string& what) {
    if (!holds) findings_.fail(what + " went back");
  };
  require(now.frontier >= before.frontier, "the frontier");
  require(now.next_sequence >= before.next_sequence, "the next sequence");
  require(now.first_logged >= before.first_logged, "the first logged sample");
  require(now.next_dead_letter >= before.next_dead_letter, "the next dead letter");
  require(now.is_closed || !before.is_closed, "closed");
  for (std::size_t index = 0; index < before.intakes.size(); ++index) {
    const std::string name = "intake " + std::to_string(index) + "'s ";
    const IntakeState& old = before.intakes[index];
    const IntakeState& state = now.intakes[index];
    require(state.read_position >= old.read_position, name + "read position");
    require(state.quiet_watermark >= old.quiet_watermark, name + "quiet watermark");
    is_quiet |= state.quiet_watermark > old.quiet_watermark;
    if (state.resume_position > state.read_position) {
      findings_.fail(name + "resume position lies behind its read position");
    }
  }
  if (is_quiet) ++quiet_commits_;
  const auto quiet = now.counters.refused_for(Refusal::late_after_quiet);
  if ((quiet > 0) != now.irreproducible_from.has_value()) {
    findings_.fail("late after quiet: " + std::to_string(quiet) + " but the mark is " +
                   (now.irreproducible_from ? "set" : "not set"));
  }
  if (before.irreproducible_from && now.irreproducible_from != before.irreproducible_from) {
    findings_.fail("the first irreproducible sequence changed");
  }
  if (!before.irreproducible_from && now.irreproducible_from &&
      (*now.irreproducible_from < before.next_sequence ||
       *now.irreproducible_from > now.next_sequence)) {
    findings_.fail("the first irreproducible sequence is none of this commit's");
  }
  if (is_strict_ && quiet > 0) findings_.fail("a record was late after quiet: none should be");
}

void JoinMonitor::check_samples(const JoinProgress& now) {
  const std::uint64_t next = samples_.size() + 1;
  if (now.next_sequence < next) return;
  auto added = read_samples(store_, next, std::size_t{1} << 40);
  if (!added) return findings_.fail("the sample log cannot be read: " + added.error().message);
  if (next + added->size() != now.next_sequence) {
    return findings_.fail("the sample log has " + std::to_string(added->size()) +
                          " new samples, the progress says " +
                          std::to_string(now.next_sequence - next));
  }
  for (Sample& sample : *added) {
    check_sample(sample, now);
    digests_.push_back(chain_sample(digests_.back(), sample));
    samples_.push_back(std::move(sample));
  }
  if (digests_.back() != now.samples_digest) {
    findings_.fail("the samples digest at " + std::to_string(now.next_sequence - 1) +
                   " is not the chain of its samples");
  }
  // A commit is due as soon as it holds commit_records: only the last stride may go beyond.
  if (samples_.size() < next) return;
  const TimeMs last_stride = tick_of(samples_.back().time) - (kStrideTicks + 1) * config_.join.tick;
  std::uint64_t before_stride = 0;
  for (std::size_t index = next - 1; index < samples_.size(); ++index) {
    if (samples_[index].time < last_stride) ++before_stride;
  }
  if (before_stride > config_.store.commit_records) {
    findings_.fail(std::to_string(before_stride) + " samples were held for one commit");
  }
}

void JoinMonitor::check_sample(const Sample& sample, const JoinProgress& now) {
  const TimeMs begin = progress_ ? progress_->frontier : kTimeMin;
  if (sample.sequence != samples_.size() + 1) {
    findings_.fail("sequence " + std::to_string(sample.sequence) + " follows " +
                   std::to_string(samples_.size()));
  }
  if (sample.time < begin || sample.time >= now.frontier) {
    findings_.fail("outside of its commit's event time: " + to_string(sample));
  }
  int& told = told_[{sample.shard, sample.impression_id, sample.impression_time}];
  const int telling =
      (sample.y_final ? 1 : 0) + (sample.z_final ? 2 : 0) + (sample.action_final ? 4 : 0);
  const int all = config_.streams.has_actions() ? 7 : 3;
  if (telling == 0 || (told & telling) != 0 || sample.y_final != (told == 0)) {
    findings_.fail("labelled twice, or in a wrong order: " + to_string(sample));
  }
  told |= telling;
  if (is_last_sample(sample) != (told == all)) {
    findings_.fail("not the last sample, or one that should be: " + to_string(sample));
  }
  if (!is_strict_) return;
  const std::size_t index = samples_.size();
  if (index >= expected_.samples.size()) {
    findings_.fail("beyond the oracle's samples: " + to_string(sample));
  } else if (encoded(sample) != encoded(expected_.samples[index])) {
    findings_.fail("another sample than the oracle's\nis:       " + to_string(sample) +
                   "\nexpected: " + to_string(expected_.samples[index]));
  }
}

// Every record below read_position was judged, every one below resume_position is processed.
void JoinMonitor::check_partition(std::size_t index, const JoinProgress& now) {
  const IntakeState& state = now.intakes[index];
  TimeMs highest = kTimeMin;
  for (const Judged& one : judged_[index]) {
    if (one.refusal) continue;
    const std::string name = "intake " + std::to_string(index) + ": the record at " +
                             std::to_string(one.position) + " of time " + std::to_string(one.time);
    if (one.position < state.resume_position) {
      highest = std::max(highest, one.time);
      if (one.time >= now.frontier) {
        findings_.fail(name + " is behind the resume position and not processed");
      }
    }
    if (is_strict_ && one.position >= state.read_position && one.time < now.frontier) {
      findings_.fail(name +
                     " is not read, but event time has passed it: " + std::to_string(now.frontier));
    }
  }
  if (highest != state.highest_before_resume) {
    findings_.fail("intake " + std::to_string(index) + ": the highest time before position " +
                   std::to_string(state.resume_position) + " is " + std::to_string(highest) +
                   ", kept was " + std::to_string(state.highest_before_resume));
  }
}

std::array<std::uint64_t, kStreams> JoinMonitor::waiting() const {
  std::array<std::uint64_t, kStreams> counts{};
  const Status scanned =
      store_.scan(Space::state, {}, {}, [&](std::string_view key, std::string_view value) {
        if (key.size() != 5 || key[4] != 'w') return true;
        ByteReader in(value);
        for (const Stream stream : {Stream::clicks, Stream::actions, Stream::purchases}) {
          if (stream == Stream::actions && !config_.streams.has_actions()) continue;
          const std::uint64_t count = in.varint();
          counts[static_cast<std::size_t>(stream)] += count;
          for (std::uint64_t left = count; left > 0; --left) skip_event(in);
        }
        return true;
      });
  if (!scanned) findings_.fail(scanned.error().message);
  return counts;
}

// Read = used + the sum of all reasons + what waits: at each commit, by the logs themselves.
void JoinMonitor::check_counters(const JoinProgress& now) {
  const auto waits = waiting();
  std::uint64_t dead_letters = 0;
  for (std::size_t stream = 0; stream < config_.streams.count(); ++stream) {
    std::array<std::uint64_t, kRefusals> refused{};
    std::uint64_t processed = 0;
    for (std::uint32_t p = 0; p < plan_.shape.partitions; ++p) {
      const std::size_t index = stream * plan_.shape.partitions + p;
      for (const Judged& one : judged_[index]) {
        if (one.position >= now.intakes[index].read_position) break;
        if (one.refusal) ++refused[static_cast<std::size_t>(*one.refusal)];
        if (!one.refusal && one.time < now.frontier) ++processed;
      }
    }
    std::uint64_t counted = now.counters.used[stream] + waits[stream];
    for (std::size_t reason = 0; reason < kRefusals; ++reason) {
      const std::uint64_t count = now.counters.refused[stream][reason];
      if (is_dead_letter(static_cast<Refusal>(reason))) dead_letters += count;
      if (reason > static_cast<std::size_t>(Refusal::late)) {
        counted += count;
      } else if (count != refused[reason]) {
        findings_.fail(std::string(kStreamNames[stream]) + ": " + std::to_string(count) +
                       " refused as " + sluice::to_string(static_cast<Refusal>(reason)) +
                       ", of those read " + std::to_string(refused[reason]) + " are");
      }
    }
    if (counted != processed) {
      findings_.fail(std::string(kStreamNames[stream]) + ": " + std::to_string(counted) +
                     " records are used, refused by the join or waiting; " +
                     std::to_string(processed) + " were processed");
    }
  }
  if (dead_letters != now.next_dead_letter) {
    findings_.fail(std::to_string(now.next_dead_letter) + " dead letters for " +
                   std::to_string(dead_letters) + " refusals");
  }
}

// Event time goes no further than the lowest watermark.
void JoinMonitor::check_watermarks(const JoinProgress& now) {
  const bool is_begun = now.frontier != kTimeMin;
  if (!is_begun || (progress_ && now.frontier == progress_->frontier)) return;
  for (std::size_t index = 0; index < judged_.size(); ++index) {
    const IntakeState& state = now.intakes[index];
    TimeMs watermark = kTimeMin;
    bool is_all_read = true;
    for (const Judged& one : judged_[index]) {
      if (one.refusal) continue;  // also a last line that waits for its end
      if (one.position >= state.read_position) {
        is_all_read = false;
      } else {
        watermark = std::max(watermark, one.time);
      }
    }
    if (watermark != kTimeMin) {
      watermark -= config_.streams.max_out_of_orderness[index / plan_.shape.partitions];
    }
    watermark = std::max(watermark, state.quiet_watermark);
    if (is_all_read && policy_.kind == EndPolicy::Kind::close) watermark = kTimeMax;
    if (is_all_read && policy_.kind == EndPolicy::Kind::at_time && !policy_.is_live) {
      watermark = std::max(watermark, policy_.time);
    }
    if (now.frontier > tick_of(watermark)) {
      findings_.fail("event time is at " + std::to_string(now.frontier) +
                     ", beyond the watermark " + std::to_string(watermark) + " of intake " +
                     std::to_string(index));
    }
  }
}

// One that runs ahead is not read beyond its share; the slowest holds what may still be late.
void JoinMonitor::after_step(const SimulatedSource& source, TimeMs frontier) {
  const std::size_t share = config_.source.max_queued_bytes / judged_.size() / sizeof(Event) + 1;
  for (std::size_t index = 0; index < judged_.size(); ++index) {
    const std::size_t stream = index / plan_.shape.partitions;
    const Position read_up_to = source.read_up_to(
        {static_cast<Stream>(stream), static_cast<std::uint32_t>(index % plan_.shape.partitions)});
    TimeMs highest = kTimeMin;
    for (const Judged& one : judged_[index]) {
      if (one.position >= read_up_to) break;
      if (!one.refusal) highest = std::max(highest, one.time);
    }
    if (highest == kTimeMin) continue;
    const TimeMs begin = tick_of(highest - config_.streams.max_out_of_orderness[stream]);
    std::size_t held = 0;
    std::size_t window = 0;
    for (const Judged& one : judged_[index]) {
      if (one.position >= read_up_to) break;
      if (one.refusal || one.time < frontier) continue;
      ++held;
      if (one.time >= begin) ++window;
    }
    const std::size_t cap = std::max({share, window_[index], window}) + config_.source.read_records;
    const bool is_read = read_up_to != read_up_to_[index];
    read_up_to_[index] = read_up_to;
    if (is_read && held > cap) {
      findings_.fail("intake " + std::to_string(index) + " holds " + std::to_string(held) +
                     " records, allowed are " + std::to_string(cap));
    }
    window_[index] = window;
  }
}

std::set<std::pair<StreamPartition, Position>> JoinMonitor::late_after_quiet() const {
  std::set<std::pair<StreamPartition, Position>> late;
  for (const StoredDeadLetter& letter : read_dead_letters(store_)) {
    if (letter.refusal.reason != Refusal::late_after_quiet) continue;
    late.insert({letter.refusal.where, letter.refusal.position});
  }
  return late;
}

void JoinMonitor::check_end() {
  if (!progress_ || !progress_->is_closed) return findings_.fail("the logs are not closed");
  if (const auto left = count_keys(store_, Space::state); left > 0) {
    findings_.fail(std::to_string(left) + " keys are left of the join's state");
  }
  for (std::size_t index = 0; index < judged_.size(); ++index) {
    const auto& judged = judged_[index];
    if (judged.empty() || judged.back().position < progress_->intakes[index].read_position)
      continue;
    findings_.fail("intake " + std::to_string(index) + " was not read to its end");
  }
}

}  // namespace sluice::simulation
