// The bodies of scoring requests, of both protocols.
//   input := protocol (u8: even v1, odd v2), JSON up to a zero byte, binary tensors
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "learner/schema.h"
#include "serving/infer_v2.h"
#include "serving/predict_v1.h"
#include "serving/scorer.h"
#include "serving/snapshots.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/small_learner.h"

namespace sluice::fuzz {
namespace {

constexpr std::size_t kMaxRows = 50;

struct Served {
  InputForm form;
  Scorer scorer;
};

// The small learner's snapshot, as if it had been read from disk.
const Served& served() {
  static const Served made = [] {
    Workers workers(1);
    Trainer trainer(small_config(), workers);
    train(trainer, kSamples);
    LearnerState state = trainer.snapshot();
    const StreamsConfig& streams = small_config().streams;
    state.json["streams"] = {{"ts", streams.ts},
                             {"impression_id", streams.impression_id},
                             {"not_before", streams.not_before}};
    auto form = InputForm::from_manifest(state.json);
    auto model = ScoringModel::from_snapshot(state.json, state.tensors);
    SLUICE_CHECK(form.has_value() && model.has_value());
    return Served{*std::move(form), Scorer(Snapshot{state.json, streams, *std::move(model)})};
  }();
  return made;
}

void check_refusal(const HttpRefusal& refusal) {
  SLUICE_CHECK(refusal.status >= 400 && refusal.status < 500 && !refusal.message.empty());
}

void check_events(const std::vector<std::string>& events) {
  SLUICE_CHECK(!events.empty() && events.size() <= kMaxRows);
  const auto results = served().scorer.score(events);
  SLUICE_CHECK(results.size() == events.size());
  for (std::size_t i = 0; i < events.size(); ++i) {
    SLUICE_CHECK(results[i].has_value() || !results[i].error().empty());
    // Binary texts may be no UTF-8: then the decoder, and the other library, refuse the row.
    const auto json = nlohmann::json::parse(events[i], nullptr, false);
    SLUICE_CHECK(json.is_object() || !results[i].has_value());
  }
}

void read_one(Input input) {
  const bool is_v2 = input.byte() % 2 == 1;
  const std::string json(input.text());
  RequestLimits limits;
  limits.max_rows = kMaxRows;
  limits.max_elements = 10 * kMaxRows;
  if (!is_v2) {
    const auto events = read_predict(json, served().form, limits);
    if (!events) return check_refusal(events.error());
    return check_events(*events);
  }
  const HttpRequest http{"POST", "", "", json + std::string(input.rest()), json.size()};
  const auto request = read_infer(http, served().form, limits);
  if (!request) return check_refusal(request.error());
  check_events(request->events);
  const std::vector<Prediction> predictions(request->events.size());
  const HttpReply reply = infer_reply(*request, "m", "1", predictions);
  const std::size_t head =
      reply.headers.empty() ? reply.body.size() : std::stoul(reply.headers.front().second);
  SLUICE_CHECK(nlohmann::json::parse(reply.body.substr(0, head), nullptr, false).is_object());
}

}  // namespace
}  // namespace sluice::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sluice::fuzz::read_one({data, size});
  return 0;
}
