// A small learner for the fuzzers, with one feature of each type, trained on a few samples.
#pragma once

#include <string>

#include "base/check.h"
#include "base/lanes.h"
#include "config/load.h"
#include "ingest/decoder.h"
#include "learner/trainer.h"

namespace sluice::fuzz {

inline constexpr std::uint64_t kSamples = 40;

inline const Config& small_config() {
  static const Config config = [] {
    LoadedConfig loaded = parse_config(R"([source]
root = "logs"
[features]
user    = { path = "user.id",  type = "id" }
friends = { path = "friends",  type = "ids", table = "user" }
tags    = { path = "tags",     type = "weighted_ids" }
price   = { path = "price",    type = "number", buckets = "log:1" }
stars   = { path = "stars",    type = "number", buckets = [1.5, 3.0] }
age     = { path = "user.age", type = "number" }
[model]
embedding_dim = 2
hidden = [3]
[training]
batch_size = 8
lane = 4
)",
                                       "small.toml", "/", {});
    SLUICE_CHECK(loaded.problems.empty());
    return loaded.config;
  }();
  return config;
}

inline std::string small_impression(std::uint64_t number) {
  const std::string n = std::to_string(number);
  return R"({"ts": 17000000000)" + std::to_string(10 + number % 90) + R"(, "impression_id": "i)" +
         n + R"(", "user": {"id": )" + std::to_string(number % 7) + R"(, "age": 0.)" + n +
         R"(}, "friends": [1, "x"], "tags": {"red": 0.5, "blue": )" + n + R"(}, "price": )" +
         std::to_string(number % 3 * 10) + R"(, "stars": )" + std::to_string(number % 4) + "}";
}

// The sample of small_impression(number); every fourth one waits for its z.
inline Sample small_sample(std::uint64_t number) {
  static Decoder decoder(small_config().streams, small_config().join, small_config().features);
  Record record;
  record.bytes = small_impression(number);
  const auto decoded = decoder.decode(Stream::impressions, record);
  SLUICE_CHECK(decoded.has_value());
  Sample sample;
  sample.sequence = number;
  sample.time = sample.impression_time = decoded->event.time();
  sample.impression_id = decoded->event.impression_id();
  sample.features = decoded->event.features();
  sample.y = number % 2 == 0;
  sample.z = number % 6 == 0;
  sample.y_final = true;
  sample.z_final = number % 4 != 0;
  if (!sample.z_final) sample.z = false;
  return sample;
}

inline void train(Trainer& trainer, std::uint64_t samples) {
  for (std::uint64_t n = 0; n < samples; ++n) {
    SLUICE_CHECK(trainer.offer(small_sample(trainer.next_sequence())).has_value());
  }
}

}  // namespace sluice::fuzz
