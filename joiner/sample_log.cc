#include "joiner/sample_log.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"

namespace sluice {
namespace {

constexpr std::size_t kBlockSamples = 1024;

std::string block_key(std::uint64_t last_sequence) {
  std::string key;
  ByteWriter(key).key_u64(last_sequence);
  return key;
}

// Appends the block's samples from `first` on; false where the block is damaged.
bool read_block(std::string_view value, std::uint64_t first, std::vector<Sample>& samples) {
  ByteReader reader(value);
  const std::uint64_t checksum = reader.u64();
  std::string_view body = value.substr(value.size() - reader.remaining());
  if (!reader.ok() || hash64(body) != checksum) return false;
  const std::uint64_t count = reader.varint();
  body = value.substr(value.size() - reader.remaining());
  for (std::uint64_t index = 0; index < count; ++index) {
    auto sample = decode_sample(body);
    if (!sample) return false;
    if (sample->sequence >= first) samples.push_back(*std::move(sample));
  }
  return reader.ok() && body.empty();
}

}  // namespace

void append_samples(std::span<const Sample> samples, WriteBatch& batch) {
  while (!samples.empty()) {
    const auto block = samples.first(std::min(samples.size(), kBlockSamples));
    std::string body;
    ByteWriter(body).varint(block.size());
    for (const Sample& sample : block) encode_sample(sample, body);
    std::string value;
    ByteWriter(value).u64(hash64(body));
    value += body;
    batch.put(Space::samples, block_key(block.back().sequence), std::move(value));
    samples = samples.subspan(block.size());
  }
}

void trim_samples(std::uint64_t from, std::uint64_t first_needed, WriteBatch& batch) {
  if (from < first_needed) {
    batch.remove_range(Space::samples, block_key(from), block_key(first_needed));
  }
}

Result<std::vector<Sample>> read_samples(KeyValueStore& store, std::uint64_t first,
                                         std::size_t max_samples) {
  std::vector<Sample> samples;
  bool is_whole = true;
  SLUICE_TRY(store.scan(Space::samples, block_key(first), {},
                        [&](std::string_view, std::string_view value) {
                          is_whole = read_block(value, first, samples);
                          return is_whole && samples.size() < max_samples;
                        }));
  std::uint64_t expected = first;
  for (const Sample& sample : samples) is_whole &= sample.sequence == expected++;
  if (!is_whole) {
    return stop_error("the sample log is damaged or no longer reaches back to sequence " +
                      std::to_string(first) + "; replay into a new data folder");
  }
  return samples;
}

}  // namespace sluice
