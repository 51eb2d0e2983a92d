// What a snapshot is read from: safetensors, a manifest, a whole folder, with checksums that fit.
//   input := what (u8: 0 tensors alone, 1 manifest, 2 weights, 3 LATEST; 0x80: replaced, else
//            edited; 0x40 with 1 and 2: of a delta on a snapshot that is in use), the document or
//            its edits
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "learner/row_digest.h"
#include "serving/scorer.h"
#include "serving/snapshot_tensors.h"
#include "serving/snapshots.h"
#include "store/published_folder.h"
#include "store/tensors.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/small_learner.h"
#include "tests/store/crash_file_system.h"

namespace sluice::fuzz {
namespace {

const fs::path kParent = "/data/models/small/snapshots";
const fs::path kFolder = kParent / numbered_folder_name(kSamples);

struct Valid {
  nlohmann::ordered_json manifest;
  std::string weights;
  std::string manifest_head;  // the text before its checksum
};

void put(FileSystem& files, const fs::path& path, std::string_view bytes) {
  auto file = files.create(path);
  SLUICE_CHECK(file.has_value() && (*file)->append(bytes).has_value());
}

const Valid& valid() {
  static const Valid made = [] {
    Workers workers(1);
    Trainer trainer(small_config(), workers);
    train(trainer, kSamples);
    const LearnerState state = trainer.snapshot();
    Valid valid;
    valid.manifest = {{"format", 1}, {"kind", "full"}, {"reproducible", true}};
    valid.manifest["streams"] = streams_json(small_config().streams);
    for (const auto& [key, value] : state.json.items()) valid.manifest[key] = value;
    valid.weights = encode_tensors(state.tensors);
    CrashFileSystem files;
    SLUICE_CHECK(publish_folder(files, kParent, kFolder.filename().string(), valid.manifest,
                                {{kWeightsFile, valid.weights}}, {})
                     .has_value());
    const std::string text = files.read(kFolder / "manifest.json").value();
    valid.manifest_head = text.substr(0, text.rfind("\"checksum\""));
    return valid;
  }();
  return made;
}

void check_tensors(std::string_view bytes) {
  const auto tensors = decode_tensors(bytes);
  if (!tensors) {
    SLUICE_CHECK(!tensors.error().message.empty());
    return;
  }
  const auto again = decode_tensors(encode_tensors(*tensors));
  SLUICE_CHECK(again.has_value() && *again == *tensors);
}

using Opened = Result<std::shared_ptr<const Scorer>>;

// What a scorer says of some impressions; empty where it could not be opened, with a reason.
std::vector<Prediction> scores_of(const Opened& scorer) {
  if (!scorer) {
    SLUICE_CHECK(!scorer.error().message.empty());
    return {};
  }
  const std::vector<std::string> impressions = {small_impression(1), small_impression(1000), "{}"};
  std::vector<Prediction> predictions;
  for (const auto& score : (*scorer)->score(impressions)) {
    predictions.push_back(score ? score->prediction : Prediction());
  }
  SLUICE_CHECK(predictions.size() == impressions.size());
  return predictions;
}

bool are_numbers(const std::vector<Prediction>& predictions) {
  return std::all_of(predictions.begin(), predictions.end(),
                     [](const Prediction& one) { return one == one; });
}

// A delta on the valid snapshot. Read on the version in use it is accepted only where it is
// accepted when everything is read anew, and scores alike.
void check_delta(bool edits_manifest, bool is_replaced, Input& input) {
  CrashFileSystem files;
  const auto publish = [&](const fs::path& folder, const nlohmann::ordered_json& manifest,
                           const std::string& weights) {
    SLUICE_CHECK(publish_folder(files, kParent, folder.filename().string(), manifest,
                                {{kWeightsFile, weights}}, {})
                     .has_value());
  };
  nlohmann::ordered_json manifest = valid().manifest;
  const Tensors full = decode_tensors(valid().weights).value();
  manifest["weights_digest"] = weights_digest(full)->hex();
  publish(kFolder, manifest, valid().weights);
  const auto near = open_scorer(files, kFolder);
  SLUICE_CHECK(near.has_value());

  std::string weights = valid().weights;
  if (!edits_manifest) weights = document(weights, is_replaced, input);
  // With a digest that holds, where there is one, so that what it would find comes this far.
  if (const auto delta = decode_tensors(weights)) {
    const auto flat = apply_deltas(full, {*delta});
    const auto digest = flat ? weights_digest(*flat) : Result<Digest>(flat.error());
    if (digest) manifest["weights_digest"] = digest->hex();
  }
  manifest["kind"] = "delta";
  manifest["base"] = {{"sequence", kSamples}, {"checksum", (*near)->manifest()["checksum"]}};
  manifest["sequence"] = kSamples + 1;
  const fs::path folder = kParent / numbered_folder_name(kSamples + 1);
  publish(folder, manifest, weights);
  if (edits_manifest) {
    const std::string text = files.read(folder / "manifest.json").value();
    const std::string head =
        document(text.substr(0, text.rfind("\"checksum\"")), is_replaced, input);
    put(files, folder / "manifest.json",
        head + "\"checksum\": \"" + hash128(head).hex() + "\"\n}\n");
  }
  const std::vector<Prediction> on_near = scores_of(open_scorer(files, folder, *near));
  if (on_near.empty()) return;
  const std::vector<Prediction> anew = scores_of(open_scorer(files, folder));
  SLUICE_CHECK(!anew.empty());
  SLUICE_CHECK(anew == on_near || !are_numbers(on_near));
}

void read_one(Input input) {
  const std::uint8_t choice = input.byte();
  const bool is_replaced = (choice & 0x80) != 0;
  const int what = choice % 4;
  if (what == 0) return check_tensors(document(valid().weights, is_replaced, input));
  if ((choice & 0x40) != 0 && what != 3) return check_delta(what == 1, is_replaced, input);
  CrashFileSystem files;
  std::string weights = valid().weights;
  if (what == 2) weights = document(weights, is_replaced, input);
  SLUICE_CHECK(publish_folder(files, kParent, kFolder.filename().string(), valid().manifest,
                              {{kWeightsFile, weights}}, {})
                   .has_value());
  if (what == 1) {
    const std::string head = document(valid().manifest_head, is_replaced, input);
    put(files, kFolder / "manifest.json",
        head + "\"checksum\": \"" + hash128(head).hex() + "\"\n}\n");
  }
  if (what == 3) {
    put(files, kParent / kLatest, document("000000000040\n", is_replaced, input));
    const auto found = find_snapshot(files, "/data", std::nullopt, std::nullopt);
    SLUICE_CHECK(!found || *found == kFolder);
    return;
  }
  scores_of(open_scorer(files, kFolder));
}

}  // namespace
}  // namespace sluice::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sluice::fuzz::read_one({data, size});
  return 0;
}
