#include "serving/model_versions.h"

#include <algorithm>
#include <exception>

#include "serving/snapshots.h"
#include "store/published_folder.h"

namespace sluice {
namespace {

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
  const auto sequence = wanted();
  if (!sequence) {
    failed(0, sequence.error().message);
    return false;
  }
  if (!*sequence) return false;  // nothing is published yet
  const ModelVersionPtr before = current();
  if (before && before->sequence == **sequence) return false;
  const bool is_known_bad = failed_sequence_ == **sequence;
  if (is_known_bad && clock_.steady_ms() < retry_at_) return false;
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
  failed_sequence_.reset();
  failed_why_.clear();
  retry_after_ = 0;
  keep(version, true);
  events_.on_current(options_.model, *version);
  return true;
}

// A new reason is told; the same one again is only counted up in the time until the next attempt.
void ModelVersions::failed(std::uint64_t sequence, const std::string& why) {
  const bool is_again = failed_sequence_ == sequence;
  retry_after_ = is_again ? std::min(2 * retry_after_, kMaxRetryMs) : kMinRetryMs;
  retry_at_ = clock_.steady_ms() + retry_after_;
  if (!is_again || why != failed_why_) events_.on_load_error(options_.model, why);
  failed_sequence_ = sequence;
  failed_why_ = why;
}

// At a start, where the one that is wanted is damaged, the newest older one that is whole is better
// than nothing. An alias means one snapshot and no other.
void ModelVersions::load_older(std::uint64_t before) {
  if (!options_.alias.empty()) return;
  const std::vector<std::uint64_t> sequences = available();
  for (auto it = sequences.rbegin(); it != sequences.rend(); ++it) {
    if (*it >= before) continue;
    if (auto version = load(*it, nullptr)) {
      keep(*version, true);
      events_.on_current(options_.model, **version);
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
  if (is_current) {
    if (current_) others_.insert(others_.begin(), std::move(current_));
    current_ = std::move(version);
  } else {
    others_.insert(others_.begin(), std::move(version));
  }
  const std::size_t most = std::max<std::size_t>(options_.keep, 1) - (current_ ? 1 : 0);
  while (others_.size() > most) {
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
  const std::unique_lock lock(load_on_demand_, std::try_to_lock);
  if (!lock) return refuse(503, "another version is being loaded; try again");
  if (ModelVersionPtr version = in_memory(sequence)) return version;
  auto loaded = load(sequence, current());
  if (!loaded) {
    events_.on_load_error(options_.model, loaded.error().message);
    return refuse(503, name + " cannot be read now; the server's log says why");
  }
  keep(*loaded, false);
  return *std::move(loaded);
}

Answer<ModelVersionPtr> ModelVersions::find_alias(const std::string& alias) {
  const auto sequence = read_alias(files_, options_.folder, alias);
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
