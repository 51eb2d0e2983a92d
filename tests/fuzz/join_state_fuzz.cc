// What the join reads back from its store, with checksums that fit: the progress record, pages of
// open impressions, clicked impressions, waiting records, blocks of the sample log, single samples
// and feature blobs.
//   input := what (u8), configuration (u8), the value
#include <array>
#include <string>
#include <vector>

#include "base/check.h"
#include "joiner/join.h"
#include "joiner/sample_log.h"
#include "learner/schema.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/small_learner.h"

namespace sluice::fuzz {
namespace {

void put(KeyValueStore& store, Space space, std::string key, std::string value) {
  WriteBatch batch;
  batch.put(space, std::move(key), std::move(value));
  SLUICE_CHECK(store.commit(batch).has_value());
}

std::string state_key(char kind, std::optional<std::uint64_t> number) {
  std::string key;
  ByteWriter bytes(key);
  bytes.key_u32(0);
  bytes.u8(static_cast<std::uint8_t>(kind));
  if (number) bytes.key_u64(*number);
  return key;
}

std::string framed_progress(std::uint8_t format, std::string_view body) {
  std::string value;
  ByteWriter bytes(value);
  bytes.u8(format);
  bytes.u64(hash64(body));
  return value += body;
}

const Config& config(std::uint8_t choice) {
  static const std::array<Config, 3> configs = [] {
    std::array<Config, 3> made = {small_config(), small_config(), small_config()};
    made[1].join.attribution = JoinConfig::Attribution::user_item;
    made[1].join.purchase_label = JoinConfig::PurchaseLabel::at_close;
    made[1].join.purchase_value = JoinConfig::PurchaseValue::sum;
    made[2].streams.topic[3] = "actions";
    return made;
  }();
  return configs[choice % configs.size()];
}

// A lineage of one partition, begun and committed.
std::unique_ptr<KeyValueStore> begun(const Config& config) {
  auto store = make_memory_store();
  auto join = Join::open(config, 1, *store);
  SLUICE_CHECK(join.has_value());
  SLUICE_CHECK((*join)->commit(std::vector<IntakeState>(config.streams.count()), 0, 1).has_value());
  return store;
}

// Whatever the store holds, opening gives an error or a join that can be looked at.
void check_open(const Config& config, KeyValueStore& store) {
  const auto join = Join::open(config, 1, store);
  if (!join) {
    SLUICE_CHECK(!join.error().message.empty());
    return;
  }
  (*join)->next_deadline();
  (*join)->open_impressions();
  (*join)->waiting_records();
  SLUICE_CHECK((*join)->committed().intakes.size() == config.streams.count());
}

void check_progress(const Config& config, std::string_view body) {
  for (const std::uint8_t format : {1, 2, 3, 4}) {
    const std::string framed = framed_progress(format, body);
    const auto progress = JoinProgress::decode(framed);
    if (progress) {
      const std::string bytes = progress->encode();
      const auto again = JoinProgress::decode(bytes);
      SLUICE_CHECK(again.has_value() && again->encode() == bytes);
    }
    const auto store = begun(config);
    put(*store, Space::meta, "progress", framed);
    check_open(config, *store);
  }
}

// impression numbers of the queue (front and next, u8 each), count (u8), impressions
void check_page(const Config& config, Input input) {
  JoinProgress progress;
  progress.intakes.resize(config.streams.count());
  progress.shards = {{input.byte(), input.byte()}};
  std::string value;
  ByteWriter bytes(value);
  bytes.u8(1);
  bytes.varint(input.byte());
  const std::string_view body = input.rest();
  bytes.u64(hash64(body));
  value += body;
  const auto store = begun(config);
  put(*store, Space::meta, "progress", progress.encode());
  put(*store, Space::state, state_key('p', 0), value);
  check_open(config, *store);
}

void check_sample_block(std::string_view body) {
  std::string value;
  ByteWriter(value).u64(hash64(body));
  value += body;
  std::string key;
  ByteWriter(key).key_u64(1);
  const auto store = make_memory_store();
  put(*store, Space::samples, key, value);
  const auto samples = read_samples(*store, 1, 1'000);
  if (!samples) {
    SLUICE_CHECK(!samples.error().message.empty());
    return;
  }
  for (const Sample& sample : *samples) {
    std::string encoded;
    encode_sample(sample, encoded);
    std::string_view rest = encoded;
    const auto again = decode_sample(rest);
    SLUICE_CHECK(again.has_value() && rest.empty());
    SLUICE_CHECK(chain_sample({}, *again) == chain_sample({}, sample));
    SLUICE_CHECK(again->features == sample.features);
  }
}

void check_features(std::string_view blob) {
  static const Schema schema(small_config().features, small_config().model);
  DecodedSamples decoded = schema.make_decoded();
  Digest context;
  if (schema.decode(blob, 0, true, decoded, context)) schema.decode_context(blob, 0, decoded);
}

void read_one(Input input) {
  const std::uint8_t what = input.byte();
  const Config& chosen = config(input.byte());
  switch (what % 7) {
    case 0:
      return check_progress(chosen, input.rest());
    case 1:
      return check_page(chosen, input);
    case 2:
    case 3: {
      const auto store = begun(chosen);
      const bool is_clicked = what % 7 == 2;
      put(*store, Space::state,
          is_clicked ? state_key('c', input.byte()) : state_key('w', std::nullopt),
          std::string(input.rest()));
      return check_open(chosen, *store);
    }
    case 4:
      return check_sample_block(input.rest());
    case 5:
      return check_features(input.rest());
    default: {
      const auto store = begun(chosen);
      put(*store, Space::meta, "identity", std::string(input.rest()));
      return check_open(chosen, *store);
    }
  }
}

}  // namespace
}  // namespace sluice::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sluice::fuzz::read_one({data, size});
  return 0;
}
