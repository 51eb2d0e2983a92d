#include "joiner/sample.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/bytes.h"

namespace sluice {
namespace {

enum SampleFlag : std::uint8_t {
  kY = 1,
  kYFinal = 2,
  kZ = 4,
  kZFinal = 8,
  kHasClick = 16,
  kHasPurchase = 32,
  kWithValue = 64,  // other than 0
  kWithActionFlags = 128,
};

// A second byte, where one of them is set: samples without actions have none.
enum SampleActionFlag : std::uint8_t {
  kAction = 1,
  kActionFinal = 2,
  kHasAction = 4,
  kZEarlier = 8,
  kActionLater = 16,
};

// Numbers of a sample before its texts, at most.
constexpr std::size_t kMostNumberBytes = 2 + 10 * kMostVarintBytes;

int action_flags(const SampleView& sample) {
  return (sample.action ? kAction : 0) | (sample.action_final ? kActionFinal : 0) |
         (sample.action_time ? kHasAction : 0) | (sample.z_earlier ? kZEarlier : 0) |
         (sample.action_later ? kActionLater : 0);
}

char* put_text(char* to, std::string_view text) {
  to = put_varint(to, text.size());
  if (!text.empty()) std::memcpy(to, text.data(), text.size());
  return to + text.size();
}

// All that the samples digest is about.
char* put_labels(char* to, const SampleView& sample) {
  to = put_varint(to, sample.sequence);
  const int of_action = action_flags(sample);
  *to++ = static_cast<char>((of_action != 0 ? kWithActionFlags : 0) | (sample.y ? kY : 0) |
                            (sample.y_final ? kYFinal : 0) | (sample.z ? kZ : 0) |
                            (sample.z_final ? kZFinal : 0) | (sample.click_time ? kHasClick : 0) |
                            (sample.purchase_time ? kHasPurchase : 0) |
                            (sample.value != 0 ? kWithValue : 0));
  if (of_action != 0) *to++ = static_cast<char>(of_action);
  to = put_svarint(to, sample.time);
  to = put_svarint(to, sample.time - sample.impression_time);
  if (sample.click_time) to = put_svarint(to, *sample.click_time - sample.impression_time);
  if (sample.purchase_time) to = put_svarint(to, *sample.purchase_time - sample.impression_time);
  if (sample.value != 0) to = put_svarint(to, sample.value);
  if (sample.action_time) to = put_svarint(to, *sample.action_time - sample.impression_time);
  to = put_text(to, sample.impression_id);
  to = put_text(to, sample.user_id);
  return put_text(to, sample.item_id);
}

// Bytes enough for a sample without its features.
std::size_t label_bytes_at_most(const SampleView& sample) {
  return kMostNumberBytes + sample.impression_id.size() + sample.user_id.size() +
         sample.item_id.size();
}

}  // namespace

Digest encode_and_chain(const SampleView& sample, const Digest& digest, std::string& out) {
  const std::size_t begin = out.size();
  const std::size_t most =
      label_bytes_at_most(sample) + 2 * kMostVarintBytes + sample.features.size();
  if (out.capacity() - begin < most) out.reserve(std::max(2 * out.capacity(), begin + most));
  // In one piece beforehand: appending each number by itself costs more than making it.
  std::array<char, 512> small;
  std::string large;
  char* first = small.data();
  if (most > small.size()) {
    large.resize(most);
    first = large.data();
  }
  char* const labels = put_varint(first, sample.shard);
  char* const labels_end = put_labels(labels, sample);
  char* const end = put_text(labels_end, sample.features);
  out.append(first, end);
  return chain(digest, {labels, static_cast<std::size_t>(labels_end - labels)});
}

void encode_sample(const Sample& sample, std::string& out) {
  encode_and_chain(SampleView(sample), Digest(), out);
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
  const std::uint8_t of_action = (flags & kWithActionFlags) != 0 ? bytes.u8() : 0;
  sample.action = (of_action & kAction) != 0;
  sample.action_final = (of_action & kActionFinal) != 0;
  sample.z_earlier = (of_action & kZEarlier) != 0;
  sample.action_later = (of_action & kActionLater) != 0;
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
  if ((flags & kWithValue) != 0) sample.value = bytes.svarint();
  if ((of_action & kHasAction) != 0) sample.action_time = after_impression();
  sample.impression_id = bytes.text();
  sample.user_id = bytes.text();
  sample.item_id = bytes.text();
  sample.features = bytes.text();
  if (!bytes.ok()) return stop_error("the sample log is damaged: a sample is cut short");
  if (!is_possible || !is_possible_time(sample.time) || !is_possible_time(sample.impression_time) ||
      !is_possible_time(sample.click_time.value_or(0)) ||
      !is_possible_time(sample.purchase_time.value_or(0)) ||
      !is_possible_time(sample.action_time.value_or(0))) {
    return stop_error("the sample log is damaged: a sample has impossible times");
  }
  text.remove_prefix(text.size() - bytes.remaining());
  return sample;
}

Digest chain_sample(const Digest& digest, const Sample& sample) {
  const SampleView view(sample);
  std::string text(label_bytes_at_most(view), '\0');
  text.resize(static_cast<std::size_t>(put_labels(text.data(), view) - text.data()));
  return chain(digest, text);
}

}  // namespace sluice
