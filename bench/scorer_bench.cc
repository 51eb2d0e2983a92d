// Impressions scored per second by one thread, at several batch sizes, on the workload of
// bench/workload.h with all rows there.
//
//   scorer_bench [--rows N] [--seconds S] [--export DIR] [--batches 1,32,256]
//
// It trains a little, reads the model from a snapshot as serving does, and prints one JSON object:
// for each precision, kind of requests and batch, the rows scored per second
//   json    from the impressions' JSON text
//   blob    from what ingest/ decodes of it: keys, look-ups, towers, rates
// Requests are of impressions of their own ("own"), or of one user's ("shared": half of the fields
// are a feature group, whose values all impressions of a request share). --export writes each
// snapshot and its impressions for bench/scorer_table.py to run elsewhere.
#include <ctime>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "bench/workload.h"
#include "ingest/decoder.h"
#include "learner/trainer.h"
#include "serving/scorer.h"
#include "serving/snapshots.h"
#include "store/published_folder.h"
#include "store/tensors.h"

namespace sluice::bench {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
constexpr std::size_t kRows = 8192;  // impressions before any comes again
constexpr std::size_t kGroup = kFields / 2;

struct Arguments {
  std::size_t rows = 1'000'000;  // of all tables
  double seconds = 1;
  std::string export_to;
  std::vector<std::size_t> batches = {1, 32, 256};
};

// Impressions of one kind, in requests of `batch`.
struct Requests {
  std::vector<std::string> texts;
  std::vector<std::string> blobs;
};

std::vector<std::int64_t> ids_of(const Workload& workload, std::uint64_t place) {
  Sample sample;
  workload.fill(place, sample);
  FeatureReader reader(sample.features);
  std::vector<std::int64_t> ids;
  for (std::size_t f = 0; f < kFields; ++f) {
    SLUICE_CHECK(reader.tag() == FeatureTag::integer);
    ids.push_back(reader.integer());
  }
  return ids;
}

Requests make_requests(const Workload& workload, const Config& config, bool is_shared,
                       std::size_t batch) {
  Requests requests;
  for (std::size_t r = 0; r < kRows; ++r) {
    std::vector<std::int64_t> ids = ids_of(workload, r);
    if (is_shared) {
      const std::vector<std::int64_t> first = ids_of(workload, r / batch * batch);
      std::copy_n(first.begin(), kGroup, ids.begin());
    }
    std::string text =
        R"({"ts": 1700000000000, "impression_id": ")" + std::to_string(r) + R"(", "features": {)";
    std::string blob;
    FeatureWriter writer(blob);
    for (std::size_t f = 0; f < kFields; ++f) {
      text += (f == 0 ? "\"" : ", \"") + config.features[f].name + "\": " + std::to_string(ids[f]);
      writer.id(ids[f]);
    }
    requests.texts.push_back(text + "}}");
    requests.blobs.push_back(blob);
  }
  return requests;
}

// The processor's time of this thread, which never waits: others on the machine disturb it least.
double thread_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Calls score(first row) for one request after the other, for some time; rows per second.
template <class F>
double rate_of(std::size_t batch, double seconds, const F& score) {
  const auto run = [&](double for_seconds) {
    std::size_t rows = 0;
    const double start = thread_seconds();
    double passed = 0;
    while (passed < for_seconds) {
      for (std::size_t n = 0; n < 8; ++n, rows += batch) score(rows % kRows);
      passed = thread_seconds() - start;
    }
    return static_cast<double>(rows) / passed;
  };
  run(seconds / 4);
  return run(seconds);
}

Json manifest_of(const Config& config, const LearnerState& state) {
  Json manifest = {{"format", 1}, {"kind", "full"}, {"reproducible", true}};
  manifest["streams"] = streams_json(config.streams);
  for (const auto& [key, value] : state.json.items()) manifest[key] = value;
  return manifest;
}

void export_requests(const fs::path& folder, const Requests& requests) {
  std::ofstream out(folder);
  for (const std::string& text : requests.texts) out << text << '\n';
}

Json measure(const Arguments& arguments, bool is_bf16, bool is_shared) {
  Config config = workload_config();
  if (is_bf16) config.model.precision = ModelConfig::Precision::bf16;
  for (std::size_t f = 0; is_shared && f < kGroup; ++f) config.features[f].group = "context";
  const Workload workload(arguments.rows / kFields);
  LearnerState state;
  {
    Workers workers(1);
    Trainer trainer(config, workers);
    Batches batches(trainer, workload);
    batches.train(kLargestBatch, 1e-3);
    batches.name_every_id(kLargestBatch);
    state = trainer.snapshot();
  }
  auto model = ScoringModel::from_snapshot(state.json, state.tensors);
  SLUICE_CHECK(model.has_value());
  const std::string name = std::string(is_bf16 ? "bf16" : "f32") + (is_shared ? "-shared" : "-own");
  if (!arguments.export_to.empty()) {
    const fs::path parent = fs::path(arguments.export_to) / name;
    fs::create_directories(parent);
    RealFileSystem files;
    SLUICE_CHECK(publish_folder(files, parent, "000000000001", manifest_of(config, state),
                                {{kWeightsFile, encode_tensors(state.tensors)}}, {}));
  }
  const Scorer scorer({manifest_of(config, state), config.streams, *std::move(model)});
  state = {};
  Json rates = Json::object();
  for (const std::size_t batch : arguments.batches) {
    const Requests requests = make_requests(workload, config, is_shared, batch);
    if (!arguments.export_to.empty()) {
      export_requests(fs::path(arguments.export_to) / name / ("batch" + std::to_string(batch)),
                      requests);
    }
    const std::vector<std::string_view> blobs(requests.blobs.begin(), requests.blobs.end());
    double sum = 0;
    const double from_text = rate_of(batch, arguments.seconds, [&](std::size_t first) {
      const auto scores = scorer.score(std::span(requests.texts).subspan(first, batch));
      sum += scores.front()->prediction.ctr.yes;
    });
    std::vector<Prediction> out(batch);
    ScoringModel::Scratch scratch(scorer.model());
    const double from_blob = rate_of(batch, arguments.seconds, [&](std::size_t first) {
      scorer.model().score(std::span(blobs).subspan(first, batch), scratch, out);
      sum += out.front().ctr.yes;
    });
    SLUICE_CHECK(sum > 0);
    rates[std::to_string(batch)] = {{"json", from_text}, {"blob", from_blob}};
  }
  return rates;
}

}  // namespace
}  // namespace sluice::bench

int main(int argc, char** argv) {
  sluice::bench::Arguments arguments;
  CLI::App app("Scoring by one thread: impressions per second");
  app.add_option("--rows", arguments.rows, "of all tables")
      ->check(CLI::Range(std::size_t{2'000}, std::size_t{200'000'000}));
  app.add_option("--seconds", arguments.seconds)->check(CLI::Range(0.01, 600.0));
  app.add_option("--export", arguments.export_to, "A folder for snapshots and impressions");
  app.add_option("--batches", arguments.batches)->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  nlohmann::ordered_json result = {{"kernels", sluice::best_kernels().name}};
  for (const bool is_bf16 : {false, true}) {
    for (const bool is_shared : {false, true}) {
      const std::string name =
          std::string(is_bf16 ? "bf16" : "f32") + (is_shared ? "-shared" : "-own");
      result[name] = sluice::bench::measure(arguments, is_bf16, is_shared);
    }
  }
  std::cout << result.dump(2) << '\n';
  return 0;
}
