// Scores impressions by a snapshot. They are decoded by the code that decodes logs, so that an
// impression means the same in training and in serving.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "ingest/decoder.h"
#include "serving/snapshots.h"

namespace sluice {

struct Score {
  std::string impression_id;
  Prediction prediction;
};

// Used by one thread at a time.
class Scorer {
 public:
  explicit Scorer(Snapshot snapshot);

  const nlohmann::ordered_json& manifest() const { return manifest_; }
  // Longer impressions are refused; a reader need not keep more of them.
  std::uint64_t max_record_bytes() const { return max_record_bytes_; }

  // One result for each impression (a JSON object as in the log), in their order: its score, or why
  // it has none. A score's bits do not depend on the other impressions.
  std::vector<tl::expected<Score, std::string>> score(std::span<const std::string> impressions);

 private:
  nlohmann::ordered_json manifest_;
  std::uint64_t max_record_bytes_;
  Model model_;
  Decoder decoder_;
};

}  // namespace sluice
