#include "serving/scorer.h"

#include <optional>

namespace sluice {

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

Result<std::shared_ptr<const Scorer>> Scorer::with_delta(nlohmann::ordered_json manifest,
                                                         const Tensors& tensors) const {
  SLUICE_ASSIGN(ScoringModel model, model_.with_delta(manifest, tensors));
  return std::make_shared<const Scorer>(Snapshot{std::move(manifest), streams_, std::move(model)});
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

Result<std::shared_ptr<const Scorer>> open_scorer(FileSystem& files, const fs::path& folder,
                                                  const std::shared_ptr<const Scorer>& /*near*/) {
  SLUICE_ASSIGN(Snapshot snapshot, read_snapshot(files, folder));
  return std::make_shared<const Scorer>(std::move(snapshot));
}

}  // namespace sluice
