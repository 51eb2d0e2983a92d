// Samples' bytes, their digest, and the log of them.
#include "joiner/sample.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "joiner/sample_log.h"
#include "stages.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

// All four kinds: unclicked, clicked with open z, late z, both at once.
Sample sample(std::uint64_t sequence) {
  Sample sample;
  sample.sequence = sequence;
  sample.shard = static_cast<std::uint32_t>(sequence % 5);
  sample.impression_time = 1'700'000'000'000 + static_cast<TimeMs>(sequence);
  sample.time = sample.impression_time + 1'000;
  sample.impression_id = std::to_string(sequence);
  sample.user_id = sequence % 3 == 0 ? "" : "u";
  sample.item_id = std::string("x\0y", 3);
  sample.features = std::string(sequence % 300, 'f');
  const std::uint64_t kind = sequence % 4;
  sample.y = kind != 0;
  sample.y_final = kind != 2;
  sample.z_final = kind != 1;
  sample.z = kind >= 2;
  if (sample.y) sample.click_time = sample.impression_time - 5;  // before it, by a skewed clock
  if (sample.z) sample.purchase_time = sample.impression_time + 2'000;
  if (sample.z && sequence % 8 > 3) sample.value = INT64_MIN + static_cast<Micros>(sequence);
  return sample;
}

// The same and its action labels, in all forms.
Sample sample_with_action(std::uint64_t sequence) {
  Sample one = sample(sequence);
  one.action = (sequence & 1) != 0;
  one.action_final = (sequence & 2) != 0;
  one.z_earlier = (sequence & 4) != 0;
  one.action_later = (sequence & 8) != 0;
  if ((sequence & 16) != 0) one.action_time = one.impression_time + static_cast<TimeMs>(sequence);
  return one;
}

std::vector<Sample> samples(std::uint64_t first, std::uint64_t last) {
  std::vector<Sample> all;
  for (std::uint64_t sequence = first; sequence <= last; ++sequence) {
    all.push_back(sample(sequence));
  }
  return all;
}

TEST(SampleCodec, ASampleSurvivesItsBytes) {
  std::string bytes;
  for (std::uint64_t sequence = 1; sequence < 20; ++sequence) {
    encode_sample(sample(sequence), bytes);
  }
  std::string_view rest = bytes;
  for (std::uint64_t sequence = 1; sequence < 20; ++sequence) {
    const auto read = decode_sample(rest);
    ASSERT_TRUE(read.has_value());
    EXPECT_EQ(to_string(*read), to_string(sample(sequence)));
    EXPECT_EQ(read->features, sample(sequence).features);
    EXPECT_EQ(read->item_id, sample(sequence).item_id);
  }
  EXPECT_TRUE(rest.empty());
}

TEST(SampleCodec, ASampleWithAnActionSurvivesItsBytes) {
  for (std::uint64_t sequence = 1; sequence < 64; ++sequence) {
    std::string bytes;
    encode_sample(sample_with_action(sequence), bytes);
    std::string_view rest = bytes;
    const auto read = decode_sample(rest);
    ASSERT_TRUE(read.has_value());
    EXPECT_TRUE(rest.empty());
    EXPECT_EQ(to_string(*read), to_string(sample_with_action(sequence)));
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      std::string_view cut = std::string_view(bytes).substr(0, size);
      EXPECT_FALSE(decode_sample(cut).has_value()) << size;
    }
  }
}

TEST(Sample, IsTheLastOnceAllItsLabelsAreFinal) {
  Sample one;
  EXPECT_FALSE(is_last_sample(one));
  one.z_final = true;
  EXPECT_TRUE(is_last_sample(one));
  one.action_later = true;
  EXPECT_FALSE(is_last_sample(one));
  one.z_final = one.action_later = false;
  one.action_final = true;
  EXPECT_FALSE(is_last_sample(one));
  one.z_earlier = true;
  EXPECT_TRUE(is_last_sample(one));
}

TEST(SampleCodec, ACutSampleIsAnError) {
  std::string bytes;
  encode_sample(sample(7), bytes);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    std::string_view cut = std::string_view(bytes).substr(0, size);
    EXPECT_FALSE(decode_sample(cut).has_value()) << size;
  }
}

// The digest is a promise across versions: written out by hand, once.
TEST(SamplesDigest, ChainsTheBytesOfTheFormat) {
  Sample one;
  one.sequence = 300;
  one.shard = 9;
  one.time = 64;
  one.impression_time = 4;
  one.click_time = 6;
  one.purchase_time = 3;
  one.y = true;
  one.z = true;
  one.z_final = true;
  one.impression_id = "ab";
  one.user_id = "u";
  one.features = "not in it";
  // sequence; y + z + z_final + click + purchase; time; time − impression, click and purchase −
  // impression, zigzag; ids with their lengths.
  const std::string bytes("\xac\x02\x3d\x80\x01\x78\x04\x01\x02\x61\x62\x01\x75\x00", 14);
  const Digest before = hash128("before");
  EXPECT_EQ(chain_sample(before, one), chain(before, bytes));
}

// A second byte of flags and a last number, of samples with something to say there.
TEST(SamplesDigest, ChainsTheLabelsOfAnAction) {
  Sample one;
  one.sequence = 1;
  one.time = 64;
  one.impression_time = 4;
  one.click_time = 6;
  one.y = true;
  one.impression_id = "a";
  one.z_earlier = true;
  one.action = one.action_final = true;
  one.action_time = 7;
  const std::string bytes("\x01\x91\x0f\x80\x01\x78\x04\x06\x01\x61\x00\x00", 12);
  const Digest before = hash128("before");
  EXPECT_EQ(chain_sample(before, one), chain(before, bytes));
}

// The value comes last of the numbers, and is there only where it is other than 0: without
// join.purchase_value a sample is what it always was.
TEST(SamplesDigest, ChainsAValueThatIsThere) {
  Sample one;
  one.sequence = 1;
  one.time = 64;
  one.impression_time = 4;
  one.click_time = 6;
  one.purchase_time = 7;
  one.y = one.z = one.z_final = true;
  one.impression_id = "a";
  const std::string without("\x01\x3d\x80\x01\x78\x04\x06\x01\x61\x00\x00", 11);
  const Digest before = hash128("before");
  EXPECT_EQ(chain_sample(before, one), chain(before, without));
  one.value = -200;
  const std::string with("\x01\x7d\x80\x01\x78\x04\x06\x8f\x03\x01\x61\x00\x00", 13);
  EXPECT_EQ(chain_sample(before, one), chain(before, with));
}

TEST(SamplesDigest, DependsOnAllButFeaturesAndShard) {
  const Digest before = hash128("before");
  const Sample base = sample(7);
  const Digest digest = chain_sample(before, base);
  const auto changed = [&](auto change) {
    Sample other = base;
    change(other);
    return chain_sample(before, other) != digest;
  };
  EXPECT_FALSE(changed([](Sample& s) { s.features = "other"; }));
  EXPECT_FALSE(changed([](Sample& s) { s.shard += 1; }));
  EXPECT_TRUE(changed([](Sample& s) { s.sequence += 1; }));
  EXPECT_TRUE(changed([](Sample& s) { s.time += 1; }));
  EXPECT_TRUE(changed([](Sample& s) { s.impression_time += 1; }));
  EXPECT_TRUE(changed([](Sample& s) { *s.click_time += 1; }));
  EXPECT_TRUE(changed([](Sample& s) { s.click_time.reset(); }));
  EXPECT_TRUE(changed([](Sample& s) { *s.purchase_time += 1; }));
  EXPECT_TRUE(changed([](Sample& s) { s.purchase_time.reset(); }));
  EXPECT_TRUE(changed([](Sample& s) { s.value += 1; }));
  EXPECT_TRUE(changed([](Sample& s) { s.value = 0; }));
  EXPECT_TRUE(changed([](Sample& s) { s.y = !s.y; }));
  EXPECT_TRUE(changed([](Sample& s) { s.y_final = !s.y_final; }));
  EXPECT_TRUE(changed([](Sample& s) { s.z = !s.z; }));
  EXPECT_TRUE(changed([](Sample& s) { s.z_final = !s.z_final; }));
  EXPECT_TRUE(changed([](Sample& s) { s.impression_id += "x"; }));
  EXPECT_TRUE(changed([](Sample& s) { s.user_id += "x"; }));
  EXPECT_TRUE(changed([](Sample& s) { s.item_id += "x"; }));
  EXPECT_TRUE(changed([](Sample& s) { std::swap(s.user_id, s.item_id); }));
  EXPECT_NE(chain_sample(Digest{}, base), digest);
}

// ---- the log

class SampleLog : public ::testing::Test {
 protected:
  void append(std::uint64_t first, std::uint64_t last) {
    WriteBatch batch;
    append_samples(samples(first, last), batch);
    ASSERT_TRUE(store_->commit(batch).has_value());
  }
  void trim(std::uint64_t from, std::uint64_t first_needed) {
    WriteBatch batch;
    trim_samples(from, first_needed, batch);
    ASSERT_TRUE(store_->commit(batch).has_value());
  }
  std::string wrong_in(std::uint64_t first, std::uint64_t last) {
    const auto read = read_samples(*store_, first, 100'000);
    return read ? difference(*read, samples(first, last)) : read.error().message;
  }

  std::unique_ptr<KeyValueStore> store_ = make_memory_store();
};

TEST_F(SampleLog, GivesBackWhatWasAppendedFromAnywhere) {
  EXPECT_EQ(wrong_in(1, 0), "");
  append(1, 1);
  append(2, 2'500);  // several blocks
  append(2'501, 2'510);
  for (const std::uint64_t first : {1u, 2u, 3u, 1'000u, 1'025u, 1'026u, 2'500u, 2'501u, 2'510u}) {
    EXPECT_EQ(wrong_in(first, 2'510), "") << first;
  }
  EXPECT_TRUE(read_samples(*store_, 2'511, 10)->empty());
}

TEST_F(SampleLog, ReadsAboutAsManyAsAsked) {
  append(1, 5'000);
  std::uint64_t next = 1;
  int reads = 0;
  while (true) {
    const auto read = read_samples(*store_, next, 100);
    ASSERT_TRUE(read.has_value());
    if (read->empty()) break;
    EXPECT_LE(read->size(), 1'124u);
    EXPECT_EQ(read->front().sequence, next);
    next = read->back().sequence + 1;
    ++reads;
  }
  EXPECT_EQ(next, 5'001u);
  EXPECT_GE(reads, 5);
}

TEST_F(SampleLog, TrimsWholeBlocksThatNobodyNeeds) {
  append(1, 10);
  append(11, 20);
  append(21, 30);
  trim(1, 11);
  EXPECT_EQ(count_keys(*store_, Space::samples), 2u);
  EXPECT_EQ(wrong_in(11, 30), "");
  trim(11, 20);  // 20 itself is needed
  EXPECT_EQ(wrong_in(20, 30), "");
  EXPECT_EQ(count_keys(*store_, Space::samples), 2u);
  EXPECT_THAT(wrong_in(5, 30), HasSubstr("no longer reaches back to sequence 5"));
}

TEST_F(SampleLog, DamageIsAnError) {
  append(1, 10);
  append(11, 20);
  std::string key, value;
  ASSERT_TRUE(store_->scan(Space::samples, {}, {}, [&](std::string_view k, std::string_view v) {
    key = k;
    value = v;
    return false;
  }));
  for (std::size_t at = 0; at < value.size(); at += 7) {
    std::string damaged = value;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    WriteBatch batch;
    batch.put(Space::samples, key, damaged);
    ASSERT_TRUE(store_->commit(batch).has_value());
    EXPECT_THAT(wrong_in(1, 20), HasSubstr("damaged")) << at;
    EXPECT_EQ(wrong_in(11, 20), "");
  }
  WriteBatch batch;
  batch.put(Space::samples, key, value.substr(0, 5));
  ASSERT_TRUE(store_->commit(batch).has_value());
  EXPECT_THAT(wrong_in(1, 20), HasSubstr("damaged"));
}

}  // namespace
}  // namespace sluice
