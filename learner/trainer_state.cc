// Save, restore, snapshot and digests of a Trainer.
#include <algorithm>
#include <bit>
#include <map>

#include "base/bytes.h"
#include "base/check.h"
#include "learner/model_tensors.h"
#include "learner/trainer.h"
#include "learner/trainer_impl.h"

namespace sluice {

namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormatVersion = 1;
constexpr const char* kMetricsTensor = "metrics";
constexpr const char* kWindowMetricsTensor = "window_metrics";
constexpr const char* kKeptTensor = "kept_predictions";

Tensor bytes_tensor(const std::string& bytes) {
  Tensor tensor;
  tensor.type = TensorType::u8;
  tensor.shape = {bytes.size()};
  tensor.bytes = bytes;
  return tensor;
}

Result<std::string_view> tensor_bytes(const Tensors& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  if (found == tensors.end() || found->second.type != TensorType::u8) {
    return stop_error("tensor " + name + " is missing or no bytes");
  }
  return std::string_view(found->second.bytes);
}

using Kept = std::unordered_map<std::string, std::vector<float>>;

void add_logits(std::span<const float> logits, ByteWriter& out) {
  for (const float logit : logits) out.u32(std::bit_cast<std::uint32_t>(logit));
}

// kept := (key text, each tower's logit as u32 bits)*, sorted by key.
std::string encode_kept(const Kept& kept) {
  std::map<std::string_view, const std::vector<float>*> sorted;
  for (const auto& [key, logits] : kept) sorted.emplace(key, &logits);
  std::string bytes;
  ByteWriter out(bytes);
  for (const auto& [key, logits] : sorted) {
    out.text(key);
    add_logits(*logits, out);
  }
  return bytes;
}

Status decode_kept(std::string_view bytes, std::size_t towers, Kept& kept) {
  ByteReader in(bytes);
  while (in.ok() && !in.at_end()) {
    std::string key(in.text());
    std::vector<float> logits(towers);
    for (float& logit : logits) logit = std::bit_cast<float>(in.u32());
    kept.emplace(std::move(key), std::move(logits));
  }
  if (!in.ok()) return stop_error(std::string("tensor ") + kKeptTensor + " is cut short");
  return {};
}

// Adds up the hashes of named pieces; the order of the calls does not matter.
class DigestSum {
 public:
  // Begins a piece: `kind` and `name` keep equal bytes of different pieces apart.
  ByteWriter begin(char kind, std::string_view name) {
    bytes_.clear();
    ByteWriter out(bytes_);
    out.u8(static_cast<std::uint8_t>(kind));
    out.text(name);
    return out;
  }
  void floats(const float* values, std::size_t count) {
    bytes_.append(reinterpret_cast<const char*>(values), count * sizeof(float));
  }
  void end() {
    const Digest hash = hash128(bytes_);
    sum_.low += hash.low;
    sum_.high += hash.high + (sum_.low < hash.low ? 1 : 0);
  }
  const Digest& sum() const { return sum_; }

 private:
  std::string bytes_;
  Digest sum_;
};

void add_rows(const EmbeddingTable& table, DigestSum& digest) {
  table.for_each([&](const EmbeddingRow& row) {
    ByteWriter out = digest.begin('r', table.name());
    out.u64(row.key);
    out.u64(row.last_batch);
    digest.floats(row.values(), table.layout().floats());
    digest.end();
  });
}

std::string slot_suffix(const Slot& slot) {
  return std::string("_") + slot.name;
}

Json counts_by_feature(const Learned& learned, const std::vector<std::uint64_t>& counts) {
  Json json = Json::object();
  const auto& fields = learned.model.schema().fields();
  for (std::size_t f = 0; f < fields.size(); ++f) json[fields[f].feature.name] = counts[f];
  return json;
}

// Throws nlohmann::json::exception.
void read_counts_by_feature(const Json& json, const Learned& learned,
                            std::vector<std::uint64_t>& counts) {
  const auto& fields = learned.model.schema().fields();
  for (std::size_t f = 0; f < fields.size(); ++f) {
    counts[f] = json.at(fields[f].feature.name).get<std::uint64_t>();
  }
}

Status refuse_other(const Json& saved, const std::string& key, const Json& here) {
  const auto found = saved.find(key);
  if (found != saved.end() && *found == here) return {};
  const std::string there = found == saved.end() ? "none" : found->dump();
  if (key == "schema") {
    return stop_error("the checkpoint is of another model: its features, layers or buckets differ");
  }
  return stop_error("the checkpoint has " + key + " " + there + ", this program " + here.dump() +
                    ": go on with the build that wrote it, or replay into a new folder");
}

// Throws nlohmann::json::exception; Trainer::restore catches it.
Status read_state(const LearnerState& state, Learned& learned) {
  const Json& json = state.json;
  const Tensors& tensors = state.tensors;
  learned.trained_sequence = json.at("sequence").get<std::uint64_t>();
  learned.steps = json.at("steps").get<std::uint64_t>();
  learned.tick = json.at("tick").get<TimeMs>();
  SLUICE_ASSIGN(learned.samples_digest,
                Digest::from_hex(json.at("samples_digest").get<std::string>()));
  learned.cut_ratios = json.value("cut_ratios", std::uint64_t{0});
  read_counts_by_feature(json.at("wrong_types"), learned, learned.wrong_types);
  read_counts_by_feature(json.at("absent"), learned, learned.absent);
  for (std::size_t s = 0; s < learned.model.sets().size(); ++s) {
    auto& [tables, towers] = learned.model.sets()[s];
    SLUICE_TRY(read_tower_tensors(tensors, "", towers, towers.parameters()));
    towers.refresh();
    for (std::size_t n = 0; n < learned.dense_slots.size(); ++n) {
      const std::string suffix = slot_suffix(learned.dense_slots[n]);
      SLUICE_TRY(read_tower_tensors(tensors, suffix, towers, learned.dense_state[s][n]));
    }
    for (EmbeddingTable& table : tables) SLUICE_TRY(read_table_tensors(tensors, true, table));
  }
  SLUICE_ASSIGN(const auto metrics, tensor_bytes(tensors, kMetricsTensor));
  SLUICE_ASSIGN(learned.metrics, ProgressiveMetrics::decode(metrics));
  SLUICE_ASSIGN(const auto window, tensor_bytes(tensors, kWindowMetricsTensor));
  SLUICE_ASSIGN(learned.window_metrics, ProgressiveMetrics::decode(window));
  SLUICE_ASSIGN(const auto kept, tensor_bytes(tensors, kKeptTensor));
  return decode_kept(kept, learned.model.places().size(), learned.kept);
}

}  // namespace

Json Trainer::wrong_types() const {
  return counts_by_feature(impl_->learned, impl_->learned.wrong_types);
}

Json Trainer::absent() const {
  return counts_by_feature(impl_->learned, impl_->learned.absent);
}

Digest Trainer::model_digest() const {
  const Learned& learned = impl_->learned;
  DigestSum digest;
  for (std::size_t s = 0; s < learned.model.sets().size(); ++s) {
    const auto& [tables, towers] = learned.model.sets()[s];
    for (const EmbeddingTable& table : tables) add_rows(table, digest);
    for (const Towers::Array& array : towers.arrays()) {
      digest.begin('l', array.name);
      const auto add = [&](std::span<const float> values) {
        const std::vector<float> ordered = Towers::read(array, values);
        digest.floats(ordered.data(), ordered.size());
      };
      add(towers.parameters());
      for (const std::vector<float>& values : learned.dense_state[s]) add(values);
      digest.end();
    }
  }
  for (const auto& [key, logits] : learned.kept) {
    ByteWriter out = digest.begin('k', key);
    add_logits(logits, out);
    digest.end();
  }
  digest.begin('m', learned.metrics.encode());
  digest.end();
  ByteWriter counters = digest.begin('c', "");
  counters.u64(learned.steps);
  counters.u64(learned.trained_sequence);
  for (const std::uint64_t count : learned.wrong_types) counters.u64(count);
  if (learned.cut_ratios > 0) counters.u64(learned.cut_ratios);
  digest.end();
  return digest.sum();
}

LearnerState Trainer::save() const {
  const Learned& learned = impl_->learned;
  LearnerState state;
  state.json = {{"format_version", kFormatVersion},
                {"isa", SLUICE_ISA},
                {"schema", learned.model.schema().json()},
                {"sequence", learned.trained_sequence},
                {"steps", learned.steps},
                {"tick", learned.tick},
                {"samples_digest", learned.samples_digest.hex()},
                {"wrong_types", counts_by_feature(learned, learned.wrong_types)},
                {"absent", counts_by_feature(learned, learned.absent)}};
  if (learned.cut_ratios > 0) state.json["cut_ratios"] = learned.cut_ratios;
  for (std::size_t s = 0; s < learned.model.sets().size(); ++s) {
    const auto& [tables, towers] = learned.model.sets()[s];
    add_tower_tensors(towers, towers.parameters(), "", state.tensors);
    for (std::size_t n = 0; n < learned.dense_slots.size(); ++n) {
      const std::string suffix = slot_suffix(learned.dense_slots[n]);
      add_tower_tensors(towers, learned.dense_state[s][n], suffix, state.tensors);
    }
    for (const EmbeddingTable& table : tables) add_table_tensors(table, true, state.tensors);
  }
  state.tensors[kMetricsTensor] = bytes_tensor(learned.metrics.encode());
  state.tensors[kWindowMetricsTensor] = bytes_tensor(learned.window_metrics.encode());
  state.tensors[kKeptTensor] = bytes_tensor(encode_kept(learned.kept));
  return state;
}

Status Trainer::restore(const LearnerState& state) try {
  SLUICE_TRY(refuse_other(state.json, "format_version", kFormatVersion));
  SLUICE_TRY(refuse_other(state.json, "isa", SLUICE_ISA));
  SLUICE_TRY(refuse_other(state.json, "schema", impl_->learned.model.schema().json()));
  Learned learned(impl_->config);
  SLUICE_TRY(read_state(state, learned));
  impl_->learned = std::move(learned);
  impl_->make_passes();
  impl_->pending.take();
  return {};
} catch (const nlohmann::json::exception& error) {
  return stop_error(std::string("the checkpoint's JSON is damaged: ") + error.what());
}

LearnerState Trainer::snapshot() {
  Learned& learned = impl_->learned;
  LearnerState state;
  state.json = learned.model.schema().json();
  state.json["sequence"] = learned.trained_sequence;
  state.json["tick"] = learned.tick;
  state.json["metrics"] = learned.metrics.json();
  state.json["window_metrics"] = learned.window_metrics.json();
  for (const auto& [tables, towers] : learned.model.sets()) {
    add_tower_tensors(towers, towers.parameters(), "", state.tensors);
    for (const EmbeddingTable& table : tables) add_table_tensors(table, false, state.tensors);
  }
  learned.window_metrics = ProgressiveMetrics();
  return state;
}

}  // namespace sluice
