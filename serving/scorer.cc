#include "serving/scorer.h"

#include <optional>

namespace sluice {

Scorer::Scorer(Snapshot snapshot)
    : manifest_(std::move(snapshot.manifest)),
      streams_(std::move(snapshot.streams)),
      model_(std::move(snapshot.model)) {}

// The attribution by impression_id asks of an impression the id alone: whoever wants a score need
// not name user and item.
std::unique_ptr<Decoder> Scorer::take_decoder() const {
  {
    const std::scoped_lock lock(mutex_);
    if (!decoders_.empty()) {
      std::unique_ptr<Decoder> decoder = std::move(decoders_.back());
      decoders_.pop_back();
      return decoder;
    }
  }
  return std::make_unique<Decoder>(streams_, JoinConfig{}, model_.features());
}

void Scorer::give_back(std::unique_ptr<Decoder> decoder) const {
  const std::scoped_lock lock(mutex_);
  decoders_.push_back(std::move(decoder));
}

std::vector<tl::expected<Score, std::string>> Scorer::score(
    std::span<const std::string> impressions) const {
  std::unique_ptr<Decoder> decoder = take_decoder();
  std::vector<tl::expected<Score, std::string>> results;
  std::vector<std::string> features;  // of those that are valid
  results.reserve(impressions.size());
  for (const std::string& impression : impressions) {
    Record record;
    record.bytes = impression;
    const auto decoded = decoder->decode(Stream::impressions, record);
    if (!decoded) {
      const Rejection& why = decoded.error();
      results.emplace_back(tl::unexpect, std::string(to_string(why.reason)) + ": " + why.detail);
      continue;
    }
    results.push_back(Score{std::string(decoded->event.impression_id()), {}});
    features.emplace_back(decoded->event.features());
  }
  give_back(std::move(decoder));
  const std::vector<std::string_view> blobs(features.begin(), features.end());
  const std::vector<Prediction> predictions = model_.score(blobs);
  auto next = predictions.begin();
  for (auto& result : results) {
    if (result) result->prediction = *next++;
  }
  return results;
}

Result<std::shared_ptr<const Scorer>> open_scorer(FileSystem& files, const fs::path& folder,
                                                  const std::shared_ptr<const Scorer>& /*near*/) {
  SLUICE_ASSIGN(Snapshot snapshot, read_snapshot(files, folder));
  return std::make_shared<const Scorer>(std::move(snapshot));
}

}  // namespace sluice
