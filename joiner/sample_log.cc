#include "joiner/sample_log.h"

#include <cstring>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"

namespace sluice {
namespace {

constexpr std::size_t kBlockSamples = 1024;
// A block ends where it is so long, too: a learner reads whole blocks.
constexpr std::size_t kBlockBytes = 256 << 10;
constexpr std::size_t kHeaderRoom = sizeof(std::uint64_t) + 2;  // with a count of two bytes
static_assert(kBlockSamples < 1 << 14);

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

Digest SampleBlocks::add(const SampleView& sample, const Digest& digest) {
  // The checksum and the count come before the samples, and last.
  if (in_block_ == 0) block_.assign(kHeaderRoom, '\0');
  const Digest after = encode_and_chain(sample, digest, block_);
  last_sequence_ = sample.sequence;
  ++samples_;
  if (++in_block_ == kBlockSamples || block_.size() >= kBlockBytes) end_block();
  return after;
}

void SampleBlocks::end_block() {
  char count[kMostVarintBytes];
  const auto count_size = static_cast<std::size_t>(put_varint(count, in_block_) - count);
  const std::size_t unused = kHeaderRoom - sizeof(std::uint64_t) - count_size;
  char* const begin = block_.data() + unused;
  std::memcpy(begin + sizeof(std::uint64_t), count, count_size);
  const std::size_t body = unused + sizeof(std::uint64_t);
  const std::uint64_t checksum = hash64(std::string_view(block_).substr(body));
  std::memcpy(begin, &checksum, sizeof checksum);
  ended_.push_back({block_key(last_sequence_), block_.substr(unused)});
  block_.clear();
  in_block_ = 0;
}

void SampleBlocks::append_to(WriteBatch& batch) {
  if (in_block_ > 0) end_block();
  for (Block& block : ended_) {
    batch.put(Space::samples, std::move(block.key), std::move(block.value));
  }
  ended_.clear();
  samples_ = 0;
}

void append_samples(std::span<const Sample> samples, WriteBatch& batch) {
  SampleBlocks blocks;
  for (const Sample& sample : samples) blocks.add(SampleView(sample), Digest());
  blocks.append_to(batch);
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
