#include "joiner/sample.h"

#include "base/bytes.h"

namespace sluice {
namespace {

enum Flag : std::uint8_t {
  kY = 1,
  kYFinal = 2,
  kZ = 4,
  kZFinal = 8,
  kHasClick = 16,
  kHasPurchase = 32,
};

// All that the samples digest is about.
void encode_labels(const Sample& sample, ByteWriter& bytes) {
  bytes.varint(sample.sequence);
  bytes.u8(static_cast<std::uint8_t>((sample.y ? kY : 0) | (sample.y_final ? kYFinal : 0) |
                                     (sample.z ? kZ : 0) | (sample.z_final ? kZFinal : 0) |
                                     (sample.click_time ? kHasClick : 0) |
                                     (sample.purchase_time ? kHasPurchase : 0)));
  bytes.svarint(sample.time);
  bytes.svarint(sample.time - sample.impression_time);
  if (sample.click_time) bytes.svarint(*sample.click_time - sample.impression_time);
  if (sample.purchase_time) bytes.svarint(*sample.purchase_time - sample.impression_time);
  bytes.text(sample.impression_id);
  bytes.text(sample.user_id);
  bytes.text(sample.item_id);
}

}  // namespace

void encode_sample(const Sample& sample, std::string& out) {
  ByteWriter bytes(out);
  bytes.varint(sample.shard);
  encode_labels(sample, bytes);
  bytes.text(sample.features);
}

Result<Sample> decode_sample(std::string_view& text) {
  ByteReader bytes(text);
  Sample sample;
  sample.shard = static_cast<std::uint32_t>(bytes.varint());
  sample.sequence = bytes.varint();
  const std::uint8_t flags = bytes.u8();
  sample.y = (flags & kY) != 0;
  sample.y_final = (flags & kYFinal) != 0;
  sample.z = (flags & kZ) != 0;
  sample.z_final = (flags & kZFinal) != 0;
  sample.time = bytes.svarint();
  // Any bytes can stand here.
  bool is_possible = !__builtin_sub_overflow(sample.time, bytes.svarint(), &sample.impression_time);
  const auto after_impression = [&] {
    TimeMs time = 0;
    is_possible &= !__builtin_add_overflow(sample.impression_time, bytes.svarint(), &time);
    return time;
  };
  if ((flags & kHasClick) != 0) sample.click_time = after_impression();
  if ((flags & kHasPurchase) != 0) sample.purchase_time = after_impression();
  sample.impression_id = bytes.text();
  sample.user_id = bytes.text();
  sample.item_id = bytes.text();
  sample.features = bytes.text();
  if (!bytes.ok()) return stop_error("the sample log is damaged: a sample is cut short");
  if (!is_possible || !is_possible_time(sample.time) || !is_possible_time(sample.impression_time) ||
      !is_possible_time(sample.click_time.value_or(0)) ||
      !is_possible_time(sample.purchase_time.value_or(0))) {
    return stop_error("the sample log is damaged: a sample has impossible times");
  }
  text.remove_prefix(text.size() - bytes.remaining());
  return sample;
}

Digest chain_sample(const Digest& digest, const Sample& sample) {
  std::string text;
  text.reserve(64 + sample.impression_id.size() + sample.user_id.size() + sample.item_id.size());
  ByteWriter bytes(text);
  encode_labels(sample, bytes);
  return chain(digest, text);
}

}  // namespace sluice
