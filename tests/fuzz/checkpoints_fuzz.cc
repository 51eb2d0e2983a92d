// What a learner recovers from, with checksums that fit: the state of a checkpoint, its manifest,
// the files beside it.
//   input := what (u8: 0 scalars, 1 tensors, 2 kept predictions, 3 metrics, 4 manifest, 5 state
//            file, 6 digests.jsonl, 7 identity.txt; 0x80: replaced, else edited), the document or
//            its edits
#include <string>
#include <vector>

#include <spdlog/spdlog.h>

#include "app/learning.h"
#include "base/check.h"
#include "store/key_value.h"
#include "store/published_folder.h"
#include "store/tensors.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/small_learner.h"
#include "tests/store/crash_file_system.h"

namespace sluice::fuzz {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kStateFile = "state.safetensors";
const fs::path kData = "/data";
const fs::path kModel = kData / "models" / "model";
const fs::path kCheckpoint = kModel / "checkpoints" / numbered_folder_name(kSamples);

class StillClock final : public Clock {
 public:
  TimeMs wall_ms() override { return 0; }
  DurationMs steady_ms() override { return 0; }
  void sleep_ms(DurationMs) override {}
};

Workers& workers() {
  static Workers one(1);
  return one;
}

const LearnerState& valid_state() {
  static const LearnerState state = [] {
    Trainer trainer(small_config(), workers());
    train(trainer, kSamples);
    return trainer.save();
  }();
  return state;
}

void put(FileSystem& files, const fs::path& path, std::string_view bytes) {
  auto file = files.create(path);
  SLUICE_CHECK(file.has_value() && (*file)->append(bytes).has_value());
}

// A trainer takes a state whole, or stays as it was.
void check_restore(const LearnerState& state) {
  Trainer trainer(small_config(), workers());
  const Digest untrained = trainer.model_digest();
  const Status restored = trainer.restore(state);
  if (!restored) {
    SLUICE_CHECK(!restored.error().message.empty());
    SLUICE_CHECK(trainer.model_digest() == untrained && trainer.next_sequence() == 1);
    return;
  }
  Trainer again(small_config(), workers());
  SLUICE_CHECK(again.restore(trainer.save()).has_value());
  SLUICE_CHECK(again.model_digest() == trainer.model_digest());
  // Of its sequence the caller makes sure; with this one it goes on.
  if (trainer.trained_sequence() == kSamples) train(trainer, small_config().training.batch_size);
}

void restore_one(int what, bool is_replaced, Input& input) {
  LearnerState state = valid_state();
  if (what == 0) {
    const std::string text = document(state.json.dump(), is_replaced, input);
    state.json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!state.json.is_object()) return;  // of a manifest it always is one, or absent
  } else if (what == 1) {
    auto tensors = decode_tensors(document(encode_tensors(state.tensors), is_replaced, input));
    if (!tensors) return;
    state.tensors = *std::move(tensors);
  } else {
    Tensor& tensor = state.tensors.at(what == 2 ? "kept_predictions" : "metrics");
    tensor.bytes = document(tensor.bytes, is_replaced, input);
    tensor.shape = {tensor.bytes.size()};
  }
  check_restore(state);
}

// A data folder with one checkpoint, begun by this learner.
void begin(FileSystem& files, const std::string& state_file) {
  static const std::string identity = [] {
    std::string text;
    for (const auto& [key, value] : semantic_keys(small_config(), KeyGroup::learner)) {
      text += key + " = " + value + "\n";
    }
    return text;
  }();
  SLUICE_CHECK(files.create_directories(kModel / "checkpoints").has_value());
  put(files, kModel / "identity.txt", identity);
  put(files, kData / "digests.jsonl",
      R"({"sequence":40,"model":"model","kind":"checkpoint","samples_digest":"","model_digest":""})"
      "\n");
  put(files, kModel / "scores.bin", std::string(16 * kSamples, '\0'));
  const Json manifest = {{"format", 1},
                         {"sequence", kSamples},
                         {"tick", 1'700'000'000'000},
                         {"snapshot_at", 0},
                         {"state", valid_state().json}};
  SLUICE_CHECK(publish_folder(files, kCheckpoint.parent_path(), kCheckpoint.filename().string(),
                              manifest, {{kStateFile, state_file}}, {})
                   .has_value());
}

void recover_one(int what, bool is_replaced, Input& input) {
  CrashFileSystem files;
  std::string state_file = encode_tensors(valid_state().tensors);
  if (what == 5) state_file = document(state_file, is_replaced, input);
  begin(files, state_file);
  if (what == 4) {
    const std::string text = files.read(kCheckpoint / "manifest.json").value();
    const std::string head =
        document(text.substr(0, text.rfind("\"checksum\"")), is_replaced, input);
    put(files, kCheckpoint / "manifest.json",
        head + "\"checksum\": \"" + hash128(head).hex() + "\"\n}\n");
  }
  const fs::path path = what == 6 ? kData / "digests.jsonl" : kModel / "identity.txt";
  if (what >= 6) put(files, path, document(files.read(path).value(), is_replaced, input));
  StillClock clock;
  const auto store = make_memory_store();
  const auto learning =
      Learning::open(small_config(), {kData, std::nullopt, "{}"}, *store, files, clock, workers());
  if (!learning) {
    SLUICE_CHECK(!learning.error().message.empty());
    return;
  }
  const std::uint64_t trained = (*learning)->trained_sequence();
  SLUICE_CHECK(trained == 0 || trained == kSamples);
}

void read_one(Input input) {
  static const bool is_silent = (spdlog::set_level(spdlog::level::off), true);
  static_cast<void>(is_silent);
  const std::uint8_t choice = input.byte();
  const int what = choice % 8;
  const bool is_replaced = (choice & 0x80) != 0;
  if (what < 4) return restore_one(what, is_replaced, input);
  recover_one(what, is_replaced, input);
}

}  // namespace
}  // namespace sluice::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sluice::fuzz::read_one({data, size});
  return 0;
}
