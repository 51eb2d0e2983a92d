#include "serving/scorer.h"

#include <optional>

namespace sluice {

// The attribution by impression_id asks of an impression the id alone: whoever wants a score need
// not name user and item.
Scorer::Scorer(Snapshot snapshot)
    : manifest_(std::move(snapshot.manifest)),
      max_record_bytes_(snapshot.streams.max_record_bytes),
      model_(std::move(snapshot.model)),
      decoder_(snapshot.streams, JoinConfig{}, model_.features()) {}

std::vector<tl::expected<Score, std::string>> Scorer::score(
    std::span<const std::string> impressions) {
  std::vector<tl::expected<Score, std::string>> results;
  std::vector<std::string> features;  // of those that are valid
  results.reserve(impressions.size());
  for (const std::string& impression : impressions) {
    Record record;
    record.bytes = impression;
    const auto decoded = decoder_.decode(Stream::impressions, record);
    if (!decoded) {
      const Rejection& why = decoded.error();
      results.emplace_back(tl::unexpect, std::string(to_string(why.reason)) + ": " + why.detail);
      continue;
    }
    results.push_back(Score{std::string(decoded->event.impression_id()), {}});
    features.emplace_back(decoded->event.features());
  }
  const std::vector<std::string_view> blobs(features.begin(), features.end());
  const std::vector<Prediction> predictions = model_.score(blobs);
  auto next = predictions.begin();
  for (auto& result : results) {
    if (result) result->prediction = *next++;
  }
  return results;
}

}  // namespace sluice
