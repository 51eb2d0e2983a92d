#include "app/trace_folder.h"

#include <algorithm>
#include <bit>
#include <utility>

#include <nlohmann/json.hpp>

#include "app/learning.h"
#include "base/bytes.h"
#include "learner/metrics.h"
#include "store/key_value.h"
#include "store/published_folder.h"

namespace sluice {
namespace {

template <class Numbers>
std::optional<std::uint64_t> first_from(const Numbers& ascending, std::uint64_t sequence) {
  const auto found = std::lower_bound(ascending.begin(), ascending.end(), sequence);
  return found == ascending.end() ? std::nullopt : std::optional(*found);
}

// Lines that a crash cut, or of another model, say nothing here.
std::map<std::uint64_t, TraceFolder::DigestLine> parse_digests(std::string_view text,
                                                               const std::string& model) {
  std::map<std::uint64_t, TraceFolder::DigestLine> lines;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || json.value("model", nlohmann::json()) != nlohmann::json(model)) {
      continue;
    }
    const auto sequence = json.value("sequence", nlohmann::json());
    const auto digest = json.value("samples_digest", nlohmann::json());
    if (!sequence.is_number_unsigned() || !digest.is_string()) continue;
    lines[sequence.get<std::uint64_t>()] = {
        json.value("kind", nlohmann::json()) == nlohmann::json("snapshot"),
        digest.get<std::string>()};
  }
  return lines;
}

// A folder in which no model was begun has none to differ from.
Status check_model(FileSystem& files, const fs::path& models, const Config& config) {
  if (!files.exists(models)) return {};
  if (files.exists(models / config.model.name)) {
    return compare_learner_identity(config, files, models / config.model.name);
  }
  SLUICE_ASSIGN(auto names, files.list(models));
  if (names.empty()) return {};
  std::sort(names.begin(), names.end());
  std::string known;
  for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
  return usage_error("there is no model " + config.model.name + " in " + models.string() +
                     ", only " + known + ": name one of them with --set model.name=");
}

}  // namespace

Result<TraceFolder> TraceFolder::open(FileSystem& files, const fs::path& data_dir,
                                      const Config& config) {
  const std::string& model = config.model.name;
  TraceFolder folder;
  folder.path = data_dir;
  if (!files.exists(data_dir / "store")) {
    return usage_error("--data-dir " + data_dir.string() +
                       " is no data folder of sluice: there is no " +
                       (data_dir / "store").string());
  }
  SLUICE_ASSIGN(const auto store, open_rocksdb_to_read(data_dir / "store"));
  // The folder may be one of `sluice compare`, whose other models have features of their own.
  SLUICE_TRY(compare_join_identity(config, *store, FeatureRule::some));
  SLUICE_TRY(check_model(files, data_dir / "models", config));
  SLUICE_ASSIGN(auto progress, read_progress(*store));
  if (progress) folder.progress = *std::move(progress);
  if (files.exists(data_dir / "digests.jsonl")) {
    SLUICE_ASSIGN(const std::string text, files.read(data_dir / "digests.jsonl"));
    folder.digests = parse_digests(text, model);
  }
  const fs::path parent = data_dir / "models" / model;
  SLUICE_ASSIGN(folder.checkpoints, list_numbered_folders(files, parent / "checkpoints"));
  SLUICE_ASSIGN(folder.snapshots, list_numbered_folders(files, parent / "snapshots"));
  SLUICE_ASSIGN(Recipe recipe, recipe_of(config.model));
  folder.objective_.emplace(std::move(recipe), config.model.seed);
  folder.scores_ = parent / "scores.bin";
  if (files.exists(folder.scores_)) {
    SLUICE_ASSIGN(const std::uint64_t size, files.size(folder.scores_));
    folder.scored = size / score_bytes(folder.objective_->towers());
  }
  return folder;
}

std::optional<std::string> TraceFolder::samples_digest(std::uint64_t sequence) const {
  if (sequence > 0 && sequence == progress.next_sequence - 1) return progress.samples_digest.hex();
  const auto line = digests.find(sequence);
  return line == digests.end() ? std::nullopt : std::optional(line->second.samples_digest);
}

Result<TraceFolder::Facts> TraceFolder::facts(FileSystem& files, const Sample& sample) const {
  const std::uint64_t sequence = sample.sequence;
  Facts facts;
  facts.is_committed = sequence < progress.next_sequence;
  facts.kept_checkpoint = first_from(checkpoints, sequence);
  facts.kept_snapshot = first_from(snapshots, sequence);
  for (auto line = digests.lower_bound(sequence); line != digests.end(); ++line) {
    auto& first = line->second.is_snapshot ? facts.snapshot : facts.checkpoint;
    if (!first) first = line->first;
  }
  // Where both were made at one sequence there is one line, of the snapshot.
  const auto keep_least = [](auto& made, const auto& kept) {
    if (kept && (!made || *kept < *made)) made = kept;
  };
  keep_least(facts.checkpoint, facts.kept_checkpoint);
  keep_least(facts.snapshot, facts.kept_snapshot);
  facts.is_trained = sequence <= scored || facts.checkpoint || facts.snapshot;
  if (sequence > scored) return facts;
  const std::uint64_t record_bytes = score_bytes(objective_->towers());
  SLUICE_ASSIGN(const std::string record,
                files.read_range(scores_, (sequence - 1) * record_bytes, record_bytes));
  ByteReader bytes(record);
  const ScoreRecord score = read_score(bytes, *objective_);
  // A service may be cutting the file just now; other labels are no line of this sample.
  if (bytes.ok() && score.flags == score_flags(sample)) facts.prediction = score.prediction;
  return facts;
}

}  // namespace sluice
