#include "app/learning.h"

#include <algorithm>
#include <array>
#include <utility>

#include <spdlog/spdlog.h>

#include "base/check.h"
#include "joiner/sample_log.h"
#include "serving/snapshots.h"
#include "store/published_folder.h"
#include "store/tensors.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kCheckpointFormat = 1;
constexpr int kSnapshotFormat = 1;
constexpr const char* kStateFile = "state.safetensors";

Json keys_json(const Config& config, KeyGroup group) {
  Json json = Json::object();
  for (const auto& [key, value] : semantic_keys(config, group)) json[key] = value;
  return json;
}

std::string identity_text(const Config& config) {
  std::string text;
  for (const auto& [key, value] : semantic_keys(config, KeyGroup::learner)) {
    text += key + " = " + value + "\n";
  }
  return text;
}

// What the model up to `sequence` comes from: the config, and each run of samples that were left
// out on purpose.
Json lineage(const Config& config, const std::string& learner_hash, std::uint64_t sequence) {
  Json entries = Json::array({{{"learner", learner_hash}, {"from_sequence", 0}}});
  for (const auto& [first, last] : config.training.skip_samples) {
    if (first > sequence) break;
    entries.push_back({{"learner", learner_hash},
                       {"from_sequence", first},
                       {"skipped_samples", {{"first", first}, {"last", last}}}});
  }
  return entries;
}

// Names the lines that stand in only one of the two texts.
std::string differing_lines(const std::string& before, const std::string& now) {
  const auto lines_not_in = [](std::string_view text, const std::string& other) {
    std::string result;
    while (!text.empty()) {
      const std::string line(text.substr(0, text.find('\n')));
      text.remove_prefix(std::min(text.size(), line.size() + 1));
      if (("\n" + other).find("\n" + line + "\n") == std::string::npos) result += "; " + line;
    }
    return result;
  };
  const std::string was = lines_not_in(before, now);
  const std::string is = lines_not_in(now, before);
  return (was.empty() ? "" : " (was" + was.substr(1) + ")") +
         (is.empty() ? "" : " (is" + is.substr(1) + ")");
}

}  // namespace

Learning::Learning(const Config& config, const LearningOptions& options, KeyValueStore& store,
                   FileSystem& files, Clock& clock, Workers& workers)
    : config_(config),
      options_(options),
      folder_(options.data_dir / "models" / config.model.name),
      store_(store),
      files_(files),
      clock_(clock),
      trainer_(config, workers),
      writer_(folder_ / "snapshots", config.snapshots, options.provenance, files, clock,
              options.make_background ? options.make_background() : make_foreground()) {
  trainer_.set_rows_at_once(options.rows_at_once);
}

Result<std::unique_ptr<Learning>> Learning::open(const Config& config,
                                                 const LearningOptions& options,
                                                 KeyValueStore& store, FileSystem& files,
                                                 Clock& clock, Workers& workers) {
  std::unique_ptr<Learning> learning(new Learning(config, options, store, files, clock, workers));
  SLUICE_TRY(files.create_directories(learning->folder_ / "checkpoints"));
  SLUICE_TRY(files.create_directories(learning->folder_ / "snapshots"));
  SLUICE_TRY(learning->sync_folders());
  SLUICE_TRY(learning->check_identity());
  learning->digests_ = options.digests;
  if (options.digests == nullptr) {
    SLUICE_ASSIGN(learning->own_digests_, DigestLog::open(files, options.data_dir));
    learning->digests_ = learning->own_digests_.get();
  }
  SLUICE_TRY(learning->recover());
  learning->trainer_.set_listener(
      [raw = learning.get()](const TrainedBatch& batch) { return raw->on_batch(batch); });
  return learning;
}

// What is published into a folder lasts only where the folder's own name does. At every start: the
// process before may have been killed between making a name and syncing it.
Status Learning::sync_folders() {
  const fs::path& data_dir = options_.data_dir;
  const bool is_first = !files_.exists(folder_ / "identity.txt");
  if (is_first) {
    // A slash at the end would make it a path of its own.
    const fs::path plain = data_dir.has_filename() ? data_dir : data_dir.parent_path();
    SLUICE_TRY(files_.sync_directory(plain.has_parent_path() ? plain.parent_path() : "."));
  }
  SLUICE_TRY(files_.sync_directory(data_dir));
  SLUICE_TRY(files_.sync_directory(folder_.parent_path()));
  return files_.sync_directory(folder_);
}

Status Learning::check_identity() {
  const fs::path path = folder_ / "identity.txt";
  if (!files_.exists(path)) return write_atomically(files_, path, identity_text(config_));
  return compare_learner_identity(config_, files_, folder_);
}

Status compare_learner_identity(const Config& config, FileSystem& files, const fs::path& folder) {
  const fs::path path = folder / "identity.txt";
  if (!files.exists(path)) return {};
  const std::string text = identity_text(config);
  SLUICE_ASSIGN(const std::string before, files.read(path));
  if (before == text) return {};
  return usage_error(folder.string() + " was begun with another config of the learner" +
                     differing_lines(before, text) +
                     "; take the old values, another model.name or another --data-dir");
}

// ---- recovery

Status Learning::recover() {
  SLUICE_TRY(remove_temporary_folders(files_, folder_ / "checkpoints"));
  SLUICE_TRY(writer_.open());
  SLUICE_ASSIGN(auto checkpoints, list_numbered_folders(files_, folder_ / "checkpoints"));
  while (!checkpoints.empty()) {
    const std::uint64_t sequence = checkpoints.back();
    checkpoints.pop_back();
    const fs::path path = folder_ / "checkpoints" / numbered_folder_name(sequence);
    auto folder = read_folder(files_, path);
    if (folder) {
      SLUICE_TRY(restore(sequence, *folder));
      break;
    }
    spdlog::warn("checkpoint {} does not hold and is put aside: {}", sequence,
                 folder.error().message);
    // In its place it would count among the newest and crowd out one that holds.
    const fs::path aside = folder_ / "checkpoints" / (path.filename().string() + ".damaged");
    SLUICE_TRY(files_.remove_all(aside));
    SLUICE_TRY(files_.rename(path, aside));
  }
  offered_digest_ = trainer_.samples_digest();
  last_checkpoint_ = trainer_.trained_sequence();
  last_checkpoint_steady_ = clock_.steady_ms();
  if (options_.predictions) {
    SLUICE_ASSIGN(predictions_,
                  PredictionsFile::open(files_, *options_.predictions, trainer_.trained_sequence(),
                                        {.value = config_.join.sums_values(),
                                         .action = config_.streams.has_actions()}));
  }
  SLUICE_ASSIGN(scores_, ScoreLog::open(files_, folder_ / "scores.bin", trainer_.trained_sequence(),
                                        trainer_.objective().towers()));
  return {};
}

Status Learning::restore(std::uint64_t sequence, const PublishedFolder& folder) {
  const Error damaged =
      stop_error("checkpoint " + std::to_string(sequence) + " is none of this format");
  const auto state = folder.manifest.find("state");
  const auto tick = folder.manifest.find("tick");
  const auto file = folder.files.find(kStateFile);
  // Of another type than ours an entry is other damage, not an exception.
  const Json snapshot_at = folder.manifest.value("snapshot_at", Json(std::uint64_t{0}));
  // An earlier version wrote full ones only and did not count them.
  const Json ordinal = folder.manifest.value("snapshot_ordinal", Json(std::uint64_t{0}));
  const Json checksum = folder.manifest.value("snapshot_checksum", Json(""));
  if (folder.manifest.value("format", Json()) != kCheckpointFormat ||
      state == folder.manifest.end() || tick == folder.manifest.end() ||
      !tick->is_number_integer() || !snapshot_at.is_number_unsigned() ||
      !ordinal.is_number_unsigned() || !checksum.is_string() || file == folder.files.end()) {
    return damaged;
  }
  SLUICE_ASSIGN(auto tensors, decode_tensors(file->second));
  SLUICE_TRY(trainer_.restore({*state, std::move(tensors)}));
  if (trainer_.trained_sequence() != sequence) return damaged;
  last_tick_ = tick->get<TimeMs>();
  snapshot_at_ = snapshot_at.get<std::uint64_t>();
  snapshot_ordinal_ = ordinal.get<std::uint64_t>();
  snapshot_checksum_ = checksum.get<std::string>();
  next_snapshot_ = floor_to(last_tick_, config_.snapshots.every) + config_.snapshots.every;
  return {};
}

// ---- training

Result<std::vector<Sample>> read_committed(KeyValueStore& store, std::uint64_t first,
                                           const Committed& committed, std::size_t max_samples) {
  if (first >= committed.next_sequence) return std::vector<Sample>();
  SLUICE_ASSIGN(auto samples, read_samples(store, first, max_samples));
  if (samples.empty()) {
    return stop_error("the sample log ends before sequence " + std::to_string(first) +
                      ", which was committed; the data folder is damaged: replay into a new one");
  }
  // Of a commit not yet told of.
  while (!samples.empty() && samples.back().sequence >= committed.next_sequence) {
    samples.pop_back();
  }
  return samples;
}

Result<bool> Learning::learn(const Committed& committed, std::size_t max_samples) {
  SLUICE_ASSIGN(auto samples,
                read_committed(store_, trainer_.next_sequence(), committed, max_samples));
  return learn_from(committed, std::move(samples));
}

Result<bool> Learning::learn_from(const Committed& committed, std::vector<Sample> samples) {
  committed_ = committed;
  SLUICE_TRY(writer_.check());
  for (Sample& sample : samples) {
    if (sample.sequence < trainer_.next_sequence()) continue;
    offered_digest_ = chain_sample(offered_digest_, sample);
    SLUICE_TRY(trainer_.offer(std::move(sample)));
  }
  if (trainer_.next_sequence() < committed.next_sequence) return true;
  SLUICE_TRY(trainer_.pass(committed.frontier));
  if (offered_digest_ != committed.samples_digest) {
    return stop_error("the samples read from the log are not those that were committed (digest " +
                      offered_digest_.hex() + " for " + committed.samples_digest.hex() +
                      "); the data folder is damaged: replay into a new one");
  }
  if (!copying_) return false;
  // No batch is there that would copy some.
  trainer_.copy_snapshot();
  SLUICE_TRY(go_on_with_snapshot());
  return copying_.has_value();
}

Status Learning::on_batch(const TrainedBatch& batch) {
  SLUICE_TRY(writer_.check());
  if (predictions_ != nullptr) SLUICE_TRY(predictions_->add(batch));
  SLUICE_TRY(scores_->add(batch));
  if (options_.freshness != nullptr) options_.freshness->add(batch.samples, clock_.wall_ms());
  if (next_snapshot_ == kTimeMin) {
    // By ticks, as after a restart: a period may begin inside the first tick.
    const TimeMs first_tick = floor_to(batch.samples.front().time, config_.join.tick);
    next_snapshot_ = floor_to(first_tick, config_.snapshots.every) + config_.snapshots.every;
  }
  last_tick_ = batch.tick;
  if (copying_) SLUICE_TRY(go_on_with_snapshot());
  // A snapshot first: it ends a window of the metrics, which is part of the checkpoint.
  if (is_snapshot_due(batch.tick)) SLUICE_TRY(begin_snapshot(batch.tick, is_finishing_));
  const std::uint64_t every = config_.checkpoints.every;
  const bool is_due_by_count = batch.last_sequence / every > last_checkpoint_ / every;
  const bool is_due_by_time =
      clock_.steady_ms() - last_checkpoint_steady_ >= config_.checkpoints.interval;
  if (is_due_by_count || is_due_by_time) SLUICE_TRY(checkpoint());
  return {};
}

bool Learning::is_snapshot_due(TimeMs tick) {
  if (tick < next_snapshot_) return false;
  next_snapshot_ = floor_to(tick, config_.snapshots.every) + config_.snapshots.every;
  return true;
}

Status Learning::finish() {
  is_finishing_ = true;
  SLUICE_TRY(trainer_.finish());
  const std::uint64_t sequence = trainer_.trained_sequence();
  if (sequence == 0) return {};
  if (snapshot_at_ < sequence) SLUICE_TRY(begin_snapshot(last_tick_, true));
  if (last_checkpoint_ < sequence) SLUICE_TRY(checkpoint());
  return await_snapshot();
}

Status Learning::stop() {
  if (trainer_.trained_sequence() > last_checkpoint_) SLUICE_TRY(checkpoint());
  return await_snapshot();
}

// ---- what is published

Status Learning::checkpoint() {
  const std::uint64_t sequence = trainer_.trained_sequence();
  // A start from this checkpoint would not make it again.
  SLUICE_TRY(await_snapshot());
  // The checkpoint says that these lines are there.
  if (predictions_ != nullptr) SLUICE_TRY(predictions_->sync());
  SLUICE_TRY(scores_->sync());
  if (options_.before_checkpoint) SLUICE_TRY(options_.before_checkpoint());
  LearnerState state = trainer_.save();
  const Digest model_digest = trainer_.model_digest();
  Json manifest;
  manifest["format"] = kCheckpointFormat;
  manifest["sequence"] = sequence;
  manifest["tick"] = last_tick_;
  manifest["snapshot_at"] = snapshot_at_;
  manifest["snapshot_ordinal"] = snapshot_ordinal_;
  manifest["snapshot_checksum"] = snapshot_checksum_;
  manifest["samples_digest"] = trainer_.samples_digest().hex();
  manifest["model_digest"] = model_digest.hex();
  manifest["state"] = std::move(state.json);
  const fs::path parent = folder_ / "checkpoints";
  // The line first, for the same reason.
  SLUICE_TRY(digests_->add(
      "checkpoint", {config_.model.name, sequence, trainer_.samples_digest(), model_digest}));
  SLUICE_TRY(publish_folder(files_, parent, numbered_folder_name(sequence), manifest,
                            {{kStateFile, encode_tensors(state.tensors)}}, {}));
  last_checkpoint_ = sequence;
  last_checkpoint_steady_ = clock_.steady_ms();
  // Older ones go only after this one was read back.
  if (const auto folder = read_folder(files_, parent / numbered_folder_name(sequence)); !folder) {
    spdlog::warn("checkpoint {} does not hold ({}); older ones are kept", sequence,
                 folder.error().message);
    return {};
  }
  SLUICE_TRY(keep_newest(files_, parent, config_.checkpoints.keep));
  return update_first_needed();
}

// The log must reach back to the oldest kept checkpoint, once two of them hold. The newest was just
// read back.
Status Learning::update_first_needed() {
  const fs::path parent = folder_ / "checkpoints";
  SLUICE_ASSIGN(const auto kept, list_numbered_folders(files_, parent));
  if (kept.size() < 2) return {};
  const std::uint64_t oldest = kept.front();
  if (const auto folder = read_folder(files_, parent / numbered_folder_name(oldest)); !folder) {
    spdlog::warn("checkpoint {} does not hold ({}); the sample log is kept back", oldest,
                 folder.error().message);
    return {};
  }
  first_needed_ = oldest + 1;
  return {};
}

// `is_last`: at the end of closed logs, where the last batch ends with them. A sample that would
// have been the very last, of that batch, may be missing then, with none behind it that would bear
// the mark.
Status Learning::begin_snapshot(TimeMs tick, bool is_last) {
  SLUICE_TRY(await_snapshot());  // the one before: a delta names it
  ++snapshot_ordinal_;
  copying_ = snapshot_manifest(tick, is_last);
  snapshot_at_ = trainer_.trained_sequence();
  trainer_.begin_snapshot(is_full_snapshot() ? CutRows::all : CutRows::changed);
  return go_on_with_snapshot();
}

// By its number in the lineage alone, so that it is the same after a restart.
bool Learning::is_full_snapshot() const {
  return (snapshot_ordinal_ - 1) % config_.snapshots.full_every == 0;
}

// All that is known when it begins.
Json Learning::snapshot_manifest(TimeMs tick, bool is_last) const {
  const std::uint64_t sequence = trainer_.trained_sequence();
  const std::string learner_hash = semantic_hash(config_, KeyGroup::learner).hex();
  const auto& from = committed_.irreproducible_from;
  const bool is_reproducible = !from || (!is_last && sequence < *from);
  const bool is_full = is_full_snapshot();
  Json manifest;
  manifest["format"] = kSnapshotFormat;
  manifest["kind"] = is_full ? "full" : "delta";
  manifest["ordinal"] = snapshot_ordinal_;
  if (!is_full) manifest["base"] = {{"sequence", snapshot_at_}, {"checksum", snapshot_checksum_}};
  manifest["sequence"] = sequence;
  manifest["tick"] = tick;
  manifest["time"] = format_time(tick);
  manifest["config"] = {{"join", keys_json(config_, KeyGroup::join)},
                        {"learner", keys_json(config_, KeyGroup::learner)}};
  manifest["hashes"] = {{"join", semantic_hash(config_, KeyGroup::join).hex()},
                        {"learner", learner_hash}};
  manifest["lineage"] = lineage(config_, learner_hash, sequence);
  manifest["reproducible"] = is_reproducible;
  manifest["samples_digest"] = trainer_.samples_digest().hex();
  manifest["streams"] = streams_json(config_.streams);
  return manifest;
}

// Where all rows are copied: the line in digests.jsonl, then it is written beside.
Status Learning::go_on_with_snapshot() {
  if (!trainer_.is_snapshot_copied()) return {};
  Json manifest = *std::exchange(copying_, std::nullopt);
  FrozenModel model = trainer_.take_snapshot();
  SLUICE_TRY(digests_->add(
      "snapshot", {config_.model.name, snapshot_at_, model.samples_digest, model.model_digest}));
  manifest["model_digest"] = model.model_digest.hex();
  manifest["weights_digest"] = model.weights_digest.hex();
  manifest["rows"] = model.rows_by_table();
  for (const auto& [key, value] : model.json.items()) manifest[key] = value;
  writer_.start({std::move(manifest), std::move(model)});
  return writer_.check();
}

// Until the snapshot that was begun is published.
Status Learning::await_snapshot() {
  if (copying_) {
    while (!trainer_.copy_snapshot()) continue;
    SLUICE_TRY(go_on_with_snapshot());
  }
  SLUICE_TRY(writer_.wait());
  if (!writer_.checksum().empty()) snapshot_checksum_ = writer_.checksum();
  return {};
}

std::uint64_t Learning::skipped() const {
  std::uint64_t count = 0;
  for (const auto& [first, last] : config_.training.skip_samples) {
    const std::uint64_t end = std::min(last, trained_sequence());
    if (first <= end) count += end - first + 1;
  }
  return count;
}

// ---- what was predicted

Result<Json> Learning::second_half_metrics() {
  SLUICE_TRY(scores_->sync());
  return sluice::second_half_metrics(files_, folder_ / "scores.bin", trainer_.trained_sequence(),
                                     trainer_.objective());
}

Result<bool> Learning::read_scores(const ScoreVisitor& visit) {
  SLUICE_TRY(scores_->sync());
  return sluice::read_scores(files_, folder_ / "scores.bin", trainer_.trained_sequence(), 0,
                             trainer_.objective(), visit);
}

}  // namespace sluice
