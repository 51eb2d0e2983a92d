#include "serving/scorer.h"

#include <cmath>
#include <utility>

#include "learner/model_tensors.h"
#include "learner/row_digest.h"
#include "store/published_folder.h"

namespace sluice {

namespace {

// What the digest `before` of a version's weights is after a delta: of what the delta replaces it
// takes off the old hashes and adds the new ones.
Result<Digest> digest_after(const Digest& before, const ScoringModel& from, const ScoringModel& to,
                            const Tensors& delta) {
  DigestSum sum;
  sum.add(before);
  for (std::size_t set = 0; set < from.sets().size(); ++set) {
    for (const ServedTable& table : from.sets()[set].tables) {
      SLUICE_ASSIGN(const RowsView rows, view_table_tensors(delta, table.name(), table.dim()));
      RowHasher hasher(table.name());
      for (std::size_t n = 0; n < rows.keys.size(); ++n) {
        const std::uint64_t key = rows.keys[n];
        if (const float* const old = table.find(key)) {
          sum.subtract(hasher.weights(key, {old, table.dim()}));
        }
        sum.add(hasher.weights(key, {rows.values + n * table.dim(), table.dim()}));
      }
    }
    const Towers& old_towers = from.sets()[set].towers;
    const Towers& new_towers = to.sets()[set].towers;
    for (const Towers::Array& array : old_towers.arrays()) {
      sum.subtract(tower_array_hash(array.name, Towers::read(array, old_towers.parameters())));
      sum.add(tower_array_hash(array.name, Towers::read(array, new_towers.parameters())));
    }
  }
  return sum.value();
}

}  // namespace

bool is_finite(const Prediction& prediction) {
  return std::isfinite(prediction.ctr.yes) && std::isfinite(prediction.cvr.yes) &&
         std::isfinite(prediction.ctcvr.yes);
}

// The attribution by impression_id asks of an impression the id alone: whoever wants a score need
// not name user and item.
struct Scorer::Hand {
  explicit Hand(const Scorer& scorer)
      : decoder(scorer.streams_, JoinConfig{}, scorer.model_.features()), scratch(scorer.model_) {}

  Decoder decoder;
  ScoringModel::Scratch scratch;
  std::vector<Event> events;  // of the impressions that are valid
  std::vector<std::string_view> blobs;
  std::vector<Prediction> predictions;
};

Scorer::Scorer(Snapshot snapshot)
    : manifest_(std::move(snapshot.manifest)),
      streams_(std::move(snapshot.streams)),
      model_(std::move(snapshot.model)) {}

Scorer::~Scorer() = default;

bool Scorer::is_base(const SnapshotBase& base) const {
  return manifest_.value("sequence", nlohmann::ordered_json()) == base.sequence &&
         manifest_.value("checksum", nlohmann::ordered_json()) == base.checksum;
}

Result<std::shared_ptr<const Scorer>> Scorer::with_delta(SnapshotPart delta) const {
  if (!delta.base || !is_base(*delta.base) || !delta.weights_digest) {
    return stop_error("it is no delta on the snapshot in use");
  }
  SLUICE_ASSIGN(StreamsConfig streams, streams_of_snapshot(delta.manifest));
  SLUICE_ASSIGN(const auto before, weights_digest_of(manifest_));
  if (!before) return stop_error("the snapshot in use has no weights_digest");
  SLUICE_ASSIGN(ScoringModel model, model_.with_delta(delta.manifest, delta.tensors));
  SLUICE_ASSIGN(const Digest digest, digest_after(*before, model_, model, delta.tensors));
  if (digest != *delta.weights_digest) {
    return stop_error("its weights have the digest " + digest.hex() + ", not " +
                      delta.weights_digest->hex() + " as its manifest says");
  }
  return std::make_shared<const Scorer>(
      Snapshot{std::move(delta.manifest), std::move(streams), std::move(model)});
}

std::unique_ptr<Scorer::Hand> Scorer::take_hand() const {
  {
    const std::scoped_lock lock(mutex_);
    if (!hands_.empty()) {
      std::unique_ptr<Hand> hand = std::move(hands_.back());
      hands_.pop_back();
      return hand;
    }
  }
  return std::make_unique<Hand>(*this);
}

void Scorer::give_back(std::unique_ptr<Hand> hand) const {
  hand->events.clear();
  const std::scoped_lock lock(mutex_);
  hands_.push_back(std::move(hand));
}

std::vector<tl::expected<Score, std::string>> Scorer::score(
    std::span<const std::string> impressions) const {
  std::unique_ptr<Hand> hand = take_hand();
  std::vector<tl::expected<Score, std::string>> results;
  results.reserve(impressions.size());
  hand->blobs.clear();
  Record record;
  for (const std::string& impression : impressions) {
    record.bytes = impression;
    auto decoded = hand->decoder.decode(Stream::impressions, record);
    if (!decoded) {
      const Rejection& why = decoded.error();
      results.emplace_back(tl::unexpect, std::string(to_string(why.reason)) + ": " + why.detail);
      continue;
    }
    hand->events.push_back(std::move(decoded->event));
    results.push_back(Score{std::string(hand->events.back().impression_id()), {}});
  }
  for (const Event& event : hand->events) hand->blobs.push_back(event.features());
  hand->predictions.resize(hand->blobs.size());
  model_.score(hand->blobs, hand->scratch, hand->predictions);
  auto next = hand->predictions.begin();
  for (auto& result : results) {
    if (result) result->prediction = *next++;
  }
  give_back(std::move(hand));
  return results;
}

namespace {

// The deltas that lead from `near` to `folder`, the last one first; empty where none do, or where
// that cannot be seen: reading the snapshot whole then tells why. Only manifests are read.
std::vector<fs::path> deltas_since(FileSystem& files, const fs::path& folder, const Scorer& near) {
  std::vector<fs::path> deltas;
  auto link = read_link(files, folder);
  while (link && link->base && deltas.size() < kMaxChain) {
    deltas.push_back(link->folder);
    if (near.is_base(*link->base)) return deltas;
    link = base_of(files, *link);
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<const Scorer>> open_scorer(FileSystem& files, const fs::path& folder,
                                                  const std::shared_ptr<const Scorer>& near) {
  if (near && near->manifest().contains("weights_digest")) {
    const std::vector<fs::path> deltas = deltas_since(files, folder, *near);
    std::shared_ptr<const Scorer> version = near;
    for (auto path = deltas.rbegin(); path != deltas.rend(); ++path) {
      SLUICE_ASSIGN(SnapshotPart part, read_snapshot_part(files, *path));
      auto next = version->with_delta(std::move(part));
      if (!next) {
        return stop_error("cannot use the snapshot " + path->string() + ": " +
                          next.error().message);
      }
      version = *std::move(next);
    }
    if (!deltas.empty()) return version;
  }
  SLUICE_ASSIGN(Snapshot snapshot, read_snapshot(files, folder));
  return std::make_shared<const Scorer>(std::move(snapshot));
}

}  // namespace sluice
