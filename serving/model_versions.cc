#include "serving/model_versions.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "serving/snapshots.h"
#include "store/published_folder.h"

namespace sluice {
namespace {

// No snapshot's number: of failures, that of what names the versions.
constexpr std::uint64_t kNames = 0;

std::optional<TimeMs> event_time_of(const nlohmann::ordered_json& manifest) {
  for (const char* key : {"tick", "time"}) {
    const auto found = manifest.find(key);
    if (found == manifest.end()) continue;
    if (found->is_number_integer()) return found->get<TimeMs>();
    if (!found->is_string()) continue;
    if (const auto time = parse_time(found->get_ref<const std::string&>())) return *time;
  }
  return std::nullopt;
}

}  // namespace

ModelVersions::ModelVersions(VersionOptions options, FileSystem& files, Clock& clock,
                             VersionEvents& events)
    : options_(std::move(options)), files_(files), clock_(clock), events_(events) {}

Result<std::optional<std::uint64_t>> ModelVersions::wanted() const {
  if (options_.alias.empty()) return read_latest(files_, options_.folder);
  return read_alias(files_, options_.folder, options_.alias);
}

// An exception, of memory that is not there above all, is a reason like another: what is served
// stays, and there may be more memory at the next attempt.
Result<ModelVersionPtr> ModelVersions::load(std::uint64_t sequence, const ModelVersionPtr& near) {
  const fs::path folder = options_.folder / numbered_folder_name(sequence);
  try {
    return read(sequence, folder, near);
  } catch (const std::exception& error) {
    return stop_error("cannot use the snapshot " + folder.string() + ": " + error.what());
  }
}

Result<ModelVersionPtr> ModelVersions::read(std::uint64_t sequence, const fs::path& folder,
                                            const ModelVersionPtr& near) {
  if (!files_.exists(folder)) return stop_error("there is no folder " + folder.string());
  SLUICE_ASSIGN(std::shared_ptr<const Scorer> scorer,
                open_scorer(files_, folder, near ? near->scorer : nullptr));
  SLUICE_ASSIGN(InputForm form, InputForm::from_manifest(scorer->manifest()));
  const std::optional<TimeMs> event_time = event_time_of(scorer->manifest());
  return ModelVersionPtr(std::make_shared<const ModelVersion>(
      ModelVersion{sequence, event_time, std::move(scorer), std::move(form)}));
}

bool ModelVersions::poll() {
  if (const auto held = read_held(files_, options_.folder)) {
    events_.on_held(options_.model, held->size());
  }
  const auto sequence = wanted();
  if (!sequence) {
    failed(kNames, sequence.error().message);
    return false;
  }
  if (!*sequence) return false;  // nothing is published yet
  const ModelVersionPtr before = current();
  if (before && before->sequence == **sequence) return false;
  if (is_known_bad(**sequence)) return false;
  ModelVersionPtr version = in_memory(**sequence);
  if (!version) {
    auto loaded = load(**sequence, before);
    if (!loaded) {
      failed(**sequence, loaded.error().message);
      if (!before) load_older(**sequence);
      return current() != before;
    }
    version = *std::move(loaded);
  }
  mended(**sequence);
  mended(kNames);
  // Told before, so that whoever sees that it is served sees it in the metrics too.
  events_.on_current(options_.model, *version);
  keep(version, true);
  return true;
}

// A new reason is told; the same one again only puts the next attempt off.
void ModelVersions::failed(std::uint64_t sequence, const std::string& why) {
  bool is_new = false;
  {
    const std::scoped_lock lock(mutex_);
    if (failures_.size() >= kMaxFailures && !failures_.contains(sequence)) {
      failures_.erase(std::min_element(
          failures_.begin(), failures_.end(),
          [](const auto& a, const auto& b) { return a.second.retry_at < b.second.retry_at; }));
    }
    Failure& failure = failures_[sequence];
    failure.retry_after = std::clamp(2 * failure.retry_after, kMinRetryMs, kMaxRetryMs);
    failure.retry_at = clock_.steady_ms() + failure.retry_after;
    is_new = std::exchange(failure.why, why) != why;
  }
  if (is_new) events_.on_load_error(options_.model, why);
}

void ModelVersions::mended(std::uint64_t sequence) {
  const std::scoped_lock lock(mutex_);
  failures_.erase(sequence);
}

bool ModelVersions::is_known_bad(std::uint64_t sequence) const {
  const std::scoped_lock lock(mutex_);
  const auto found = failures_.find(sequence);
  return found != failures_.end() && clock_.steady_ms() < found->second.retry_at;
}

// At a start, where the one that is wanted is damaged, the newest older one that is whole and was
// not held back is better than nothing. An alias means one snapshot and no other.
void ModelVersions::load_older(std::uint64_t before) {
  if (!options_.alias.empty()) return;
  const std::vector<std::uint64_t> sequences = available();
  const auto held = read_held(files_, options_.folder);
  for (auto it = sequences.rbegin(); it != sequences.rend(); ++it) {
    if (*it >= before || (held && held->contains(*it))) continue;
    if (auto version = load(*it, nullptr)) {
      events_.on_current(options_.model, **version);
      keep(*version, true);
      return;
    }
  }
}

ModelVersionPtr ModelVersions::current() const {
  const std::scoped_lock lock(mutex_);
  return current_;
}

ModelVersionPtr ModelVersions::in_memory(std::uint64_t sequence) {
  const std::scoped_lock lock(mutex_);
  if (current_ && current_->sequence == sequence) return current_;
  const auto found = std::find_if(others_.begin(), others_.end(), [&](const auto& version) {
    return version->sequence == sequence;
  });
  if (found == others_.end()) return nullptr;
  std::rotate(others_.begin(), found, found + 1);
  return others_.front();
}

void ModelVersions::keep(ModelVersionPtr version, bool is_current) {
  std::vector<ModelVersionPtr> dropped;  // freed after the lock: a model is large
  const std::scoped_lock lock(mutex_);
  std::erase_if(others_, [&](const auto& other) { return other->sequence == version->sequence; });
  const std::size_t beside = std::max<std::size_t>(options_.keep, 1) - 1;
  if (is_current) {
    if (current_ && beside > 0) others_.insert(others_.begin(), std::move(current_));
    std::swap(current_, version);
    dropped.push_back(std::move(version));
  } else {
    others_.insert(others_.begin(), std::move(version));
  }
  // With room for the current one alone, another that is asked for again and again is still not
  // read each time.
  while (others_.size() > std::max<std::size_t>(beside, 1)) {
    dropped.push_back(std::move(others_.back()));
    others_.pop_back();
  }
}

Answer<ModelVersionPtr> ModelVersions::find(std::uint64_t sequence) {
  if (ModelVersionPtr version = in_memory(sequence)) return version;
  const std::string name = "version " + std::to_string(sequence) + " of model " + options_.model;
  if (!files_.exists(options_.folder / numbered_folder_name(sequence))) {
    return refuse(404, "there is no " + name);
  }
  const auto unreadable = [&] {
    return refuse(503, name + " cannot be read now; the server's log says why");
  };
  if (is_known_bad(sequence)) return unreadable();
  const std::unique_lock lock(load_on_demand_, std::try_to_lock);
  if (!lock) return refuse(503, "another version is being loaded; try again");
  if (ModelVersionPtr version = in_memory(sequence)) return version;
  auto loaded = load(sequence, current());
  if (!loaded) {
    failed(sequence, loaded.error().message);
    return unreadable();
  }
  mended(sequence);
  keep(*loaded, false);
  return *std::move(loaded);
}

Answer<ModelVersionPtr> ModelVersions::find_alias(const std::string& alias) {
  const auto sequence = read_alias(files_, options_.folder, alias);
  // A name that no alias can have is one that there is not.
  if (!sequence && sequence.error().kind != ErrorKind::usage) {
    failed(kNames, sequence.error().message);
    return refuse(503, "the alias cannot be read now; the server's log says why");
  }
  if (!sequence || !*sequence) {
    return refuse(404, "model " + options_.model + " has no alias of this name");
  }
  return find(**sequence);
}

std::vector<std::uint64_t> ModelVersions::available() const {
  const auto numbers = list_numbered_folders(files_, options_.folder);
  return numbers ? *numbers : std::vector<std::uint64_t>();
}

}  // namespace sluice
