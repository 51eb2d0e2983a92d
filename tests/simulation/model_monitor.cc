#include <algorithm>

#include <nlohmann/json.hpp>

#include "serving/snapshots.h"
#include "store/published_folder.h"
#include "tests/simulation/monitors.h"

namespace sluice::simulation {

fs::path model_dir(const Config& config) {
  return kDataDir / "models" / config.model.name;
}

void ModelMonitor::after_step(bool is_whole, const Config& config) {
  if (files_.changes() == changes_) return;
  changes_ = files_.changes();
  check_digest_lines(is_whole);
  check_folders("checkpoints", is_whole, config);
  check_folders("snapshots", is_whole, config);
  check_latest(is_whole);
  check_log_reach();
}

void ModelMonitor::check_digest_lines(bool is_whole) {
  const fs::path path = kDataDir / "digests.jsonl";
  const auto text = files_.exists(path) ? files_.read(path) : Result<std::string>("");
  if (!text) return findings_.fail(text.error().message);
  std::set<std::string> lines;
  std::size_t begin = 0;
  // What is behind the last line's end was cut by a crash.
  for (std::size_t end = text->find('\n'); end != std::string::npos;
       end = text->find('\n', begin)) {
    lines.insert(text->substr(begin, end - begin));
    begin = end + 1;
  }
  for (const std::string& line : lines) {
    if (!lines_.contains(line)) check_digest_line(line);
  }
  // Of a step that failed a line may be lost again.
  for (const std::string& line : lasting_lines_) {
    if (!lines.contains(line)) findings_.fail("digests.jsonl has lost the line " + line);
  }
  if (is_whole) lasting_lines_ = lines;
  lines_ = std::move(lines);
}

void ModelMonitor::check_digest_line(const std::string& line) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object()) return findings_.fail("digests.jsonl has the line " + line);
  const auto sequence = json.at("sequence").get<std::uint64_t>();
  const auto model = json.at("model_digest").get<std::string>();
  if (sequence > join_.durable()) {
    return findings_.fail("beyond the last durable commit, " + std::to_string(join_.durable()) +
                          ": " + line);
  }
  if (json.at("samples_digest").get<std::string>() != join_.digest_at(sequence).hex()) {
    findings_.fail("not the digest of the durable samples: " + line);
  }
  const auto [before, is_new] = seen_.digests.emplace(sequence, model);
  if (!is_new && before->second != model) findings_.fail("another digest than before: " + line);
  if (expected_ == nullptr) return;
  const auto expected = expected_->digests.find(sequence);
  if (expected == expected_->digests.end()) {
    findings_.fail("no batch of the undisturbed run ends there: " + line);
  } else if (expected->second != model) {
    findings_.fail("the undisturbed run's model has the digest " + expected->second + ": " + line);
  }
}

void ModelMonitor::check_folders(const char* kind, bool is_whole, const Config& config) {
  const bool is_snapshots = std::string_view(kind) == "snapshots";
  const auto numbers = list_numbered_folders(files_, model_dir(plan_.config) / kind);
  if (!numbers) return findings_.fail(numbers.error().message);
  bool has_new = false;
  std::set<std::uint64_t> present;
  for (const std::uint64_t sequence : *numbers) {
    if (is_snapshots) present.insert(sequence);
    if (gone_.contains(sequence) && is_snapshots) {
      findings_.fail("snapshot " + std::to_string(sequence) + " was pruned and is back");
    }
    if (verified_.contains({kind, sequence})) continue;
    if (!is_snapshots && damaged_.contains(sequence)) {
      const fs::path path = model_dir(plan_.config) / kind / numbered_folder_name(sequence);
      if (!read_folder(files_, path)) continue;
      damaged_.erase(sequence);  // made again
    }
    check_folder(kind, sequence);
    has_new = sequence == numbers->back();
  }
  // What was published now has pruned what was too much.
  const std::size_t keep =
      is_snapshots ? most_snapshots(*numbers, config.snapshots.keep) : config.checkpoints.keep;
  if (is_whole && has_new && numbers->size() > keep) {
    findings_.fail(std::to_string(numbers->size()) + " " + kind + " are kept, at most " +
                   std::to_string(keep) + " should be");
  }
  for (const std::uint64_t sequence : present) {
    const auto base = bases_.find(sequence);
    if (base != bases_.end() && !present.contains(base->second)) {
      findings_.fail("snapshot " + std::to_string(sequence) + " is a delta to " +
                     std::to_string(base->second) + ", which is not there");
    }
  }
  if (!is_snapshots || !is_whole) return;
  for (const std::uint64_t sequence : present_) {
    if (!present.contains(sequence)) gone_.insert(sequence);
  }
  present_ = std::move(present);
}

// The newest, the one that LATEST names, and what these are deltas to.
std::size_t ModelMonitor::most_snapshots(const std::vector<std::uint64_t>& numbers,
                                         std::size_t keep) const {
  const std::size_t old = numbers.size() - std::min(numbers.size(), keep);
  std::set<std::uint64_t> needed;
  for (std::size_t index = old; index < numbers.size(); ++index) {
    for (auto base = bases_.find(numbers[index]); base != bases_.end();
         base = bases_.find(base->second)) {
      needed.insert(base->second);
    }
  }
  for (std::size_t index = old; index < numbers.size(); ++index) needed.erase(numbers[index]);
  return keep + 1 + needed.size();
}

void ModelMonitor::check_folder(const char* kind, std::uint64_t sequence) {
  const std::string name = std::string(kind) + "/" + std::to_string(sequence);
  const fs::path path = model_dir(plan_.config) / kind / numbered_folder_name(sequence);
  const auto folder = read_folder(files_, path);
  if (!folder) return findings_.fail("not whole: " + folder.error().message);
  verified_.insert({kind, sequence});
  if (folder->manifest.at("sequence").get<std::uint64_t>() != sequence) {
    findings_.fail(name + " has another sequence inside");
  }
  if (sequence > join_.durable()) {
    return findings_.fail(name + " goes beyond the last durable commit, " +
                          std::to_string(join_.durable()));
  }
  if (folder->manifest.at("samples_digest").get<std::string>() != join_.digest_at(sequence).hex()) {
    findings_.fail(name + " does not rest on the durable samples");
  }
  const auto model = folder->manifest.at("model_digest").get<std::string>();
  const auto line = seen_.digests.find(sequence);
  if (line == seen_.digests.end() || line->second != model) {
    findings_.fail(name + " has no line in digests.jsonl, or one with another digest");
  }
  if (std::string_view(kind) != "snapshots") return;
  check_snapshot(sequence, path);
  const auto manifest = files_.read(path / "manifest.json");
  const std::string bytes = (manifest ? *manifest : "") + folder->files.at("weights.safetensors");
  const auto [before, is_new] = seen_.snapshots.emplace(sequence, bytes);
  if (!is_new && before->second != bytes) {
    findings_.fail("snapshot " + std::to_string(sequence) + " is another one than before");
  }
  if (expected_ == nullptr) return;
  const auto expected = expected_->snapshots.find(sequence);
  if (expected == expected_->snapshots.end() || expected->second != bytes) {
    findings_.fail("snapshot " + std::to_string(sequence) + " is none of the undisturbed run");
  }
}

// It can be read, by way of its chain where it is a delta; which it is is its ordinal's alone.
void ModelMonitor::check_snapshot(std::uint64_t sequence, const fs::path& path) {
  const auto snapshot = read_flat_snapshot(files_, path);
  if (!snapshot) return findings_.fail(snapshot.error().message);
  const auto ordinal = snapshot->manifest.at("ordinal").get<std::uint64_t>();
  const bool is_full = (ordinal - 1) % plan_.config.snapshots.full_every == 0;
  if (is_full != !snapshot->base) {
    findings_.fail("snapshot " + std::to_string(sequence) + ", the " + std::to_string(ordinal) +
                   "th, is of the wrong kind");
  }
  if (snapshot->base) bases_[sequence] = snapshot->base->sequence;
}

// It never moves back, and always names a whole snapshot.
void ModelMonitor::check_latest(bool is_whole) {
  const fs::path parent = model_dir(plan_.config) / "snapshots";
  const auto latest = read_latest(files_, parent);
  if (!latest) return findings_.fail(latest.error().message);
  const std::uint64_t named = latest->value_or(0);
  if (named < latest_) {
    findings_.fail("LATEST went back from " + std::to_string(latest_) + " to " +
                   std::to_string(named));
  }
  if (named > 0 && (!verified_.contains({"snapshots", named}) ||
                    !files_.exists(parent / numbered_folder_name(named)))) {
    findings_.fail("LATEST names " + std::to_string(named) + ", which is no whole snapshot");
  }
  if (is_whole) latest_ = named;
}

std::vector<std::uint64_t> ModelMonitor::whole_checkpoints() {
  std::vector<std::uint64_t> whole;
  const fs::path parent = model_dir(plan_.config) / "checkpoints";
  const auto numbers = list_numbered_folders(files_, parent);
  for (const std::uint64_t sequence : numbers ? *numbers : std::vector<std::uint64_t>()) {
    if (read_folder(files_, parent / numbered_folder_name(sequence))) whole.push_back(sequence);
  }
  return whole;
}

// The newest checkpoint can always be trained on from.
void ModelMonitor::check_log_reach() {
  if (!join_.progress()) return;
  std::uint64_t newest = 0;
  const auto numbers = list_numbered_folders(files_, model_dir(plan_.config) / "checkpoints");
  for (const std::uint64_t sequence : numbers ? *numbers : std::vector<std::uint64_t>()) {
    if (!damaged_.contains(sequence)) newest = std::max(newest, sequence);
  }
  if (join_.progress()->first_logged > newest + 1) {
    findings_.fail("the sample log begins at " + std::to_string(join_.progress()->first_logged) +
                   ", the newest checkpoint ends at " + std::to_string(newest));
  }
}

}  // namespace sluice::simulation
