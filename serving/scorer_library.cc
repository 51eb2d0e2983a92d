// What the library sluice::scorer exports, over serving/scorer.h.
#include <mutex>
#include <optional>
#include <utility>

#include "serving/include/sluice/scorer.h"
#include "serving/scorer.h"
#include "serving/snapshots.h"
#include "store/published_folder.h"

namespace sluice::scorer {
namespace {

Result<fs::path> find_folder(FileSystem& files, const std::string& where, const Options& options) {
  std::optional<std::string> model;
  if (!options.model.empty()) model = options.model;
  std::optional<std::uint64_t> sequence;
  if (options.sequence != 0) sequence = options.sequence;
  if (!options.alias.empty() && !sequence) {
    SLUICE_ASSIGN(const fs::path parent, find_snapshots(files, where, model));
    SLUICE_ASSIGN(sequence, read_alias(files, parent, options.alias));
    if (!sequence) {
      return usage_error("there is no alias " + options.alias + " in " + parent.string());
    }
  }
  return find_snapshot(files, where, model, sequence);
}

Score to_score(const tl::expected<sluice::Score, std::string>& result) {
  Score score;
  if (!result) {
    score.error = result.error();
    return score;
  }
  const Prediction& prediction = result->prediction;
  score.impression_id = result->impression_id;
  if (!is_finite(prediction)) {
    score.error = "the model gives no number for it";
    return score;
  }
  score.pctr = prediction.ctr.yes;
  score.pcvr = prediction.cvr.yes;
  score.pctcvr = prediction.ctcvr.yes;
  return score;
}

}  // namespace

struct Scorer::Impl {
  // One version, and where it lies.
  struct Version {
    fs::path folder;
    std::shared_ptr<const sluice::Scorer> scorer;
  };

  Result<Version> read(const Version& near) {
    SLUICE_ASSIGN(fs::path folder, find_folder(files, where, options));
    if (folder == near.folder) return near;
    SLUICE_ASSIGN(auto scorer, open_scorer(files, folder, near.scorer));
    return Version{std::move(folder), std::move(scorer)};
  }
  Version version() const {
    const std::scoped_lock lock(mutex);
    return now;
  }

  std::string where;
  Options options;
  RealFileSystem files;
  std::mutex reloading;
  mutable std::mutex mutex;  // of `now`
  Version now;
};

Scorer::Scorer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Scorer::~Scorer() = default;

std::unique_ptr<Scorer> Scorer::open(const std::string& where, const Options& options,
                                     std::string& error) {
  auto impl = std::make_unique<Impl>();
  impl->where = where;
  impl->options = options;
  auto version = impl->read({});
  if (!version) {
    error = version.error().message;
    return nullptr;
  }
  impl->now = *std::move(version);
  return std::unique_ptr<Scorer>(new Scorer(std::move(impl)));
}

std::vector<Score> Scorer::score(const std::vector<std::string>& impressions) const {
  const Impl::Version version = impl_->version();
  std::vector<Score> scores;
  scores.reserve(impressions.size());
  for (const auto& result : version.scorer->score(impressions)) scores.push_back(to_score(result));
  return scores;
}

Scorer::Reloaded Scorer::reload(std::string& error) {
  const std::scoped_lock one(impl_->reloading);
  const Impl::Version before = impl_->version();
  auto version = impl_->read(before);
  if (!version) {
    error = version.error().message;
    return Reloaded::failed;
  }
  if (version->folder == before.folder) return Reloaded::unchanged;
  const std::scoped_lock lock(impl_->mutex);
  impl_->now = *std::move(version);
  return Reloaded::changed;
}

std::uint64_t Scorer::sequence() const {
  const auto& manifest = impl_->version().scorer->manifest();
  const auto found = manifest.find("sequence");
  return found == manifest.end() || !found->is_number_unsigned() ? 0 : found->get<std::uint64_t>();
}

}  // namespace sluice::scorer
