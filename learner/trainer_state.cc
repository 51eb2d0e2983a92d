// Save, restore, snapshot and digests of a Trainer.
#include <algorithm>
#include <bit>
#include <map>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "learner/model_tensors.h"
#include "learner/trainer.h"
#include "learner/trainer_impl.h"
#include "store/whole_numbers.h"

namespace sluice {

namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormatVersion = 1;
constexpr const char* kMetricsTensor = "metrics";
constexpr const char* kWindowMetricsTensor = "window_metrics";
constexpr const char* kKeptTensor = "kept_predictions";
// Of changed rows: what takes about as long as a batch.
constexpr std::size_t kMostListedAtOnce = 131'072;

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

std::string slot_suffix(const Slot& slot) {
  return std::string("_") + slot.name;
}

Json counts_by_feature(const Learned& learned, const std::vector<std::uint64_t>& counts) {
  Json json = Json::object();
  const auto& fields = learned.model.schema().fields();
  for (std::size_t f = 0; f < fields.size(); ++f) json[fields[f].feature.name] = counts[f];
  return json;
}

Status read_counts_by_feature(const Json& json, const Learned& learned,
                              std::vector<std::uint64_t>& counts) {
  const auto& fields = learned.model.schema().fields();
  for (std::size_t f = 0; f < fields.size(); ++f) {
    SLUICE_ASSIGN(counts[f], unsigned_at(json, fields[f].feature.name));
  }
  return {};
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

Status check_last_batches(const Learned& learned) {
  if (learned.last_cut > learned.steps) return stop_error("a snapshot_step beyond the last step");
  bool is_fine = true;
  for (const EmbeddingSet& set : learned.model.sets()) {
    for (const EmbeddingTable& table : set.tables) {
      table.for_each([&](const EmbeddingRow& row) {
        is_fine = is_fine && row.last_batch > 0 && row.last_batch <= learned.steps;
      });
    }
  }
  return is_fine ? Status() : stop_error("a row was changed by a batch that was not trained");
}

// Throws nlohmann::json::exception; Trainer::restore catches it.
Status read_state(const LearnerState& state, Learned& learned) {
  const Json& json = state.json;
  const Tensors& tensors = state.tensors;
  SLUICE_ASSIGN(learned.trained_sequence, unsigned_at(json, "sequence"));
  SLUICE_ASSIGN(learned.steps, unsigned_at(json, "steps"));
  SLUICE_ASSIGN(learned.tick, signed_at(json, "tick"));
  SLUICE_ASSIGN(learned.samples_digest,
                Digest::from_hex(json.at("samples_digest").get<std::string>()));
  if (json.contains("cut_ratios")) {
    SLUICE_ASSIGN(learned.cut_ratios, unsigned_at(json, "cut_ratios"));
  }
  SLUICE_TRY(read_counts_by_feature(json.at("wrong_types"), learned, learned.wrong_types));
  SLUICE_TRY(read_counts_by_feature(json.at("absent"), learned, learned.absent));
  for (std::size_t s = 0; s < learned.model.sets().size(); ++s) {
    auto& [tables, towers] = learned.model.sets()[s];
    SLUICE_TRY(read_tower_tensors(tensors, "", towers, towers.parameters()));
    towers.refresh();
    for (std::size_t n = 0; n < learned.dense_slots.size(); ++n) {
      const std::string suffix = slot_suffix(learned.dense_slots[n]);
      SLUICE_TRY(read_tower_tensors(tensors, suffix, towers, learned.dense_state[s][n]));
    }
    for (EmbeddingTable& table : tables) SLUICE_TRY(read_table_tensors(tensors, table));
  }
  SLUICE_ASSIGN(const auto metrics, tensor_bytes(tensors, kMetricsTensor));
  SLUICE_ASSIGN(learned.metrics, ProgressiveMetrics::decode(metrics));
  SLUICE_ASSIGN(const auto window, tensor_bytes(tensors, kWindowMetricsTensor));
  SLUICE_ASSIGN(learned.window_metrics, ProgressiveMetrics::decode(window));
  SLUICE_ASSIGN(const auto kept, tensor_bytes(tensors, kKeptTensor));
  SLUICE_TRY(decode_kept(kept, learned.model.places().size(), learned.kept));
  for (const auto& [key, logits] : learned.kept) learned.kept_sum.add(kept_hash(key, logits));
  // Before there were deltas no checkpoint said it: then every row counts as changed.
  if (json.contains("snapshot_step")) {
    SLUICE_ASSIGN(learned.last_cut, unsigned_at(json, "snapshot_step"));
  }
  learned.begin_changes();
  return check_last_batches(learned);
}

}  // namespace

Json Trainer::wrong_types() const {
  return counts_by_feature(impl_->learned, impl_->learned.wrong_types);
}

Json Trainer::absent() const {
  return counts_by_feature(impl_->learned, impl_->learned.absent);
}

Digest kept_hash(std::string_view key, std::span<const float> logits) {
  Piece piece('k', key);
  ByteWriter out = piece.writer();
  add_logits(logits, out);
  return piece.hash();
}

ModelDigests Trainer::Impl::digests_without_rows() const {
  DigestSum state;
  DigestSum weights;
  for (std::size_t s = 0; s < learned.model.sets().size(); ++s) {
    const Towers& towers = learned.model.sets()[s].towers;
    for (const Towers::Array& array : towers.arrays()) {
      const std::vector<float> values = Towers::read(array, towers.parameters());
      weights.add(tower_array_hash(array.name, values));
      Piece piece('l', array.name);
      piece.floats(values);
      for (const std::vector<float>& slot : learned.dense_state[s]) {
        piece.floats(Towers::read(array, slot));
      }
      state.add(piece.hash());
    }
  }
  state.add(learned.kept_sum.value());
  state.add(Piece('m', learned.metrics.encode()).hash());
  Piece counters('c', "");
  ByteWriter out = counters.writer();
  out.u64(learned.steps);
  out.u64(learned.trained_sequence);
  for (const std::uint64_t count : learned.wrong_types) out.u64(count);
  if (learned.cut_ratios > 0) out.u64(learned.cut_ratios);
  state.add(counters.hash());
  return {state.value(), weights.value()};
}

void Trainer::Impl::for_each_part(
    const std::function<void(std::size_t, std::size_t, std::size_t)>& work) {
  const std::size_t tables = learned.model.schema().tables().size();
  const std::size_t parts = EmbeddingTable::kParts;
  workers.run(learned.model.sets().size() * tables * parts, [&](std::size_t n, std::size_t) {
    work(n / (tables * parts), n / parts % tables, n % parts);
  });
}

RowSums Trainer::Impl::sums_of_all_rows(bool is_incremental) {
  const std::size_t parts = EmbeddingTable::kParts;
  const std::size_t tables = learned.model.schema().tables().size();
  std::vector<RowSums> sums(learned.model.sets().size() * tables * parts);
  for_each_part([&](std::size_t s, std::size_t t, std::size_t part) {
    const EmbeddingTable& table = learned.model.sets()[s].tables[t];
    RowSums& of_part = sums[(s * tables + t) * parts + part];
    of_part = is_incremental ? learned.changes[s][t].sums(table, part) : sums_of_rows(table, part);
  });
  RowSums sum;
  for (const RowSums& of_part : sums) sum.add(of_part);
  return sum;
}

Digest Trainer::model_digest() const {
  DigestSum sum;
  sum.add(impl_->digests_without_rows().state);
  sum.add(impl_->sums_of_all_rows(!impl_->frozen).state.value());
  return sum.value();
}

ModelDigests Trainer::digests_of_all() const {
  DigestSum kept;
  for (const auto& [key, logits] : impl_->learned.kept) kept.add(kept_hash(key, logits));
  SLUICE_CHECK(kept.value() == impl_->learned.kept_sum.value());
  const ModelDigests others = impl_->digests_without_rows();
  RowSums sums = impl_->sums_of_all_rows(false);
  sums.state.add(others.state);
  sums.weights.add(others.weights);
  return {sums.state.value(), sums.weights.value()};
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
                {"absent", counts_by_feature(learned, learned.absent)},
                {"snapshot_step", learned.last_cut}};
  if (learned.cut_ratios > 0) state.json["cut_ratios"] = learned.cut_ratios;
  for (std::size_t s = 0; s < learned.model.sets().size(); ++s) {
    const auto& [tables, towers] = learned.model.sets()[s];
    add_tower_tensors(towers, towers.parameters(), "", state.tensors);
    for (std::size_t n = 0; n < learned.dense_slots.size(); ++n) {
      const std::string suffix = slot_suffix(learned.dense_slots[n]);
      add_tower_tensors(towers, learned.dense_state[s][n], suffix, state.tensors);
    }
    for (const EmbeddingTable& table : tables) add_table_tensors(table, state.tensors);
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
  impl_->for_each_part([&](std::size_t s, std::size_t t, std::size_t part) {
    impl_->learned.changes[s][t].restore(impl_->learned.model.sets()[s].tables[t], part);
  });
  impl_->frozen.reset();
  impl_->to_copy.clear();
  impl_->make_passes();
  impl_->pending.take();
  return {};
} catch (const nlohmann::json::exception& error) {
  return stop_error(std::string("the checkpoint's JSON is damaged: ") + error.what());
}

void Trainer::begin_snapshot(CutRows rows) {
  SLUICE_CHECK(!impl_->frozen);
  Learned& learned = impl_->learned;
  FrozenModel& frozen = impl_->frozen.emplace();
  frozen.json = learned.model.schema().json();
  frozen.json["sequence"] = learned.trained_sequence;
  frozen.json["tick"] = learned.tick;
  frozen.json["metrics"] = learned.metrics.json();
  frozen.json["window_metrics"] = learned.window_metrics.json();
  frozen.samples_digest = learned.samples_digest;
  const ModelDigests digests = impl_->digests_without_rows();
  frozen.model_digest = digests.state;
  frozen.weights_digest = digests.weights;
  for (const auto& [tables, towers] : learned.model.sets()) {
    add_tower_tensors(towers, towers.parameters(), "", frozen.towers);
    for (const EmbeddingTable& table : tables) {
      frozen.tables.push_back({table.name(), table.dim()});
    }
  }
  learned.window_metrics = ProgressiveMetrics();
  learned.last_cut = learned.steps;
  impl_->begin_copy(rows);
}

void Trainer::Impl::begin_copy(CutRows rows) {
  std::size_t listed = 0;
  bool are_listed = rows == CutRows::changed;
  to_copy.clear();
  for (std::size_t s = 0; s < learned.changes.size(); ++s) {
    for (std::size_t t = 0; t < learned.changes[s].size(); ++t) {
      TableChanges& changes = learned.changes[s][t];
      changes.begin_cut(learned.model.sets()[s].tables[t], learned.steps, rows);
      for (std::size_t part = 0; part < EmbeddingTable::kParts; ++part) {
        to_copy.push_back({s, t, part});
        listed += changes.listed(part);
        are_listed = are_listed && changes.is_listed(part);
      }
    }
  }
  // Few changed rows are copied where they are known to be: no other has to be looked at.
  if (are_listed && listed <= kMostListedAtOnce) {
    for_each_part([&](std::size_t s, std::size_t t, std::size_t part) {
      learned.changes[s][t].copy_listed(learned.model.sets()[s].tables[t], part);
    });
    to_copy.clear();
  } else {
    copy_some();
  }
}

// A stretch of as many parts as make up rows_at_once; false while some are left.
bool Trainer::Impl::copy_some() {
  std::size_t parts = 0;
  for (std::size_t rows = 0; parts < to_copy.size() && rows < rows_at_once; ++parts) {
    const auto [s, t, part] = to_copy[parts];
    rows += learned.model.sets()[s].tables[t].rows_ahead(part);
  }
  workers.run(parts, [&](std::size_t n, std::size_t) {
    const auto [s, t, part] = to_copy[n];
    learned.changes[s][t].copy_some(learned.model.sets()[s].tables[t], part);
  });
  std::erase_if(to_copy, [&](const TablePart& at) {
    return learned.changes[at.set][at.table].is_copied(at.part);
  });
  return to_copy.empty();
}

bool Trainer::copy_snapshot() {
  SLUICE_CHECK(impl_->frozen);
  return impl_->copy_some();
}

bool Trainer::is_snapshot_copied() const {
  return impl_->frozen && impl_->to_copy.empty();
}

void Trainer::set_rows_at_once(std::size_t rows) {
  SLUICE_CHECK(rows > 0);
  impl_->rows_at_once = rows;
}

FrozenModel Trainer::take_snapshot() {
  SLUICE_CHECK(impl_->frozen && impl_->to_copy.empty());
  FrozenModel frozen = *std::exchange(impl_->frozen, std::nullopt);
  RowSums sums;
  auto table = frozen.tables.begin();
  for (auto& of_set : impl_->learned.changes) {
    for (TableChanges& changes : of_set) {
      for (std::size_t part = 0; part < EmbeddingTable::kParts; ++part) {
        sums.add(changes.sums_at_cut(part));
        table->parts.push_back(changes.take_rows(part));
      }
      ++table;
    }
  }
  sums.state.add(frozen.model_digest);
  sums.weights.add(frozen.weights_digest);
  frozen.model_digest = sums.state.value();
  frozen.weights_digest = sums.weights.value();
  return frozen;
}

LearnerState Trainer::snapshot() {
  begin_snapshot(CutRows::all);
  while (!copy_snapshot()) continue;
  FrozenModel frozen = take_snapshot();
  return {std::move(frozen.json), frozen.take_tensors()};
}

}  // namespace sluice
