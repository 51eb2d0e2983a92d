// A snapshot of a small model, published as the learner publishes its own.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/check.h"
#include "base/file.h"
#include "base/lanes.h"
#include "config/load.h"
#include "ingest/decoder.h"
#include "learner/trainer.h"
#include "serving/snapshots.h"
#include "store/published_folder.h"
#include "store/tensors.h"

namespace sluice {

// One feature of each type; `user` and `friends` share a table.
inline constexpr const char* kSmallConfig = R"([source]
root = "logs"
[streams]
impression_id = "ids.impression"
max_record_bytes = 2000
[features]
user    = { path = "user.id",  type = "id" }
friends = { path = "friends",  type = "ids", table = "user" }
tags    = { path = "tags",     type = "weighted_ids" }
price   = { path = "price",    type = "number", buckets = "log:2" }
stars   = { path = "stars",    type = "number", buckets = [1.5, 3.0] }
age     = { path = "user.age", type = "number" }
[model]
embedding_dim = 4
hidden = [8, 5]
seed = 3
[training]
batch_size = 16
)";

inline Config small_config(const std::vector<std::string>& overrides = {}) {
  const LoadedConfig loaded = parse_config(kSmallConfig, "small.toml", "/", overrides);
  for (const ConfigProblem& problem : loaded.problems) ADD_FAILURE() << problem.text();
  return loaded.config;
}

inline std::string small_impression(int number) {
  const std::string n = std::to_string(number);
  return R"({"ts": 1700000000000, "ids": {"impression": "i)" + n + R"("}, "user": {"id": )" +
         std::to_string(number % 7) + R"(, "age": 0.)" + n + R"(}, "friends": [1, "x", )" +
         std::to_string(number % 5) + R"(], "tags": {"red": 0.5, "blue": )" + n +
         R"(}, "price": )" + std::to_string(number % 3 * 10) + R"(, "stars": )" +
         std::to_string(number % 4) + "}";
}

// What a published snapshot came from, to compare with.
struct SmallSnapshot {
  std::filesystem::path folder;
  LearnerState state;
};

// Trains on `samples` impressions and publishes under `parent`, with the sequence number `samples`.
inline SmallSnapshot publish_small_snapshot(const std::filesystem::path& parent, int samples,
                                            const std::vector<std::string>& overrides = {}) {
  const Config config = small_config(overrides);
  Workers workers(1);
  Trainer trainer(config, workers);
  Decoder decoder(config.streams, config.join, config.features);
  for (int i = 1; i <= samples; ++i) {
    Record record;
    record.bytes = small_impression(i);
    const auto decoded = decoder.decode(Stream::impressions, record);
    SLUICE_CHECK(decoded.has_value());
    Sample sample;
    sample.sequence = trainer.next_sequence();
    sample.time = decoded->event.time();
    sample.impression_time = decoded->event.time();
    sample.impression_id = decoded->event.impression_id();
    sample.features = decoded->event.features();
    sample.y = i % 3 == 0;
    sample.z = i % 6 == 0;
    sample.y_final = sample.z_final = true;
    SLUICE_CHECK(trainer.offer(std::move(sample)).has_value());
  }
  SLUICE_CHECK(trainer.finish().has_value());

  SmallSnapshot snapshot{parent / numbered_folder_name(static_cast<std::uint64_t>(samples)),
                         trainer.snapshot()};
  nlohmann::ordered_json manifest = {
      {"format", 1}, {"kind", "full"}, {"time", "2023-11-14T22:13:20Z"}, {"reproducible", true}};
  manifest["streams"] = streams_json(config.streams);
  for (const auto& [key, value] : snapshot.state.json.items()) manifest[key] = value;
  manifest["sequence"] = samples;
  RealFileSystem files;
  const Status status =
      publish_folder(files, parent, snapshot.folder.filename().string(), std::move(manifest),
                     {{"weights.safetensors", encode_tensors(snapshot.state.tensors)}},
                     {{"provenance.json", "{}"}});
  EXPECT_TRUE(status) << status.error().message;
  EXPECT_TRUE(set_latest(files, parent, static_cast<std::uint64_t>(samples)));
  return snapshot;
}

}  // namespace sluice
