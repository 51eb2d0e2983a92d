// A disk that gives back other bits than were written: a damaged store is refused, never believed.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "store/log_check.h"
#include "tests/store/store_workload.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

class FlippedBits : public StorageFaults {
 protected:
  struct Seen {
    std::uint64_t flips = 0, refused_at_open = 0, refused_at_read = 0, without_effect = 0,
                  older = 0, other = 0;
  };

  // Flips one bit of a copy and looks at what a start makes of it.
  void flip(const Disk& whole, const std::string& name, std::uint64_t bit, Seen& seen) {
    SCOPED_TRACE(name + ", bit " + std::to_string(bit));
    const Disk disk = whole->copy();
    std::string bytes = disk->bytes(name);
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    disk->set_bytes(name, bytes);
    ++seen.flips;
    const auto opened = open(disk);
    if (!opened) {
      ++seen.refused_at_open;
      EXPECT_EQ(opened.error().kind, ErrorKind::stop);
      EXPECT_THAT(opened.error().message, HasSubstr((folder_.path() / "store").string()));
      EXPECT_THAT(opened.error().message, HasSubstr("replay into"));
      return;
    }
    const auto read = content(*opened->store);
    if (!read) {
      ++seen.refused_at_read;
      EXPECT_THAT(read.error().message, HasSubstr("replay into"));
      return;
    }
    if (*read == expected_contents()[kCommits]) {
      ++seen.without_effect;
      return;
    }
    bool is_older = false;
    for (const Digest& digest : expected_contents()) is_older = is_older || *read == digest;
    ++(is_older ? seen.older : seen.other);
    ADD_FAILURE() << (is_older ? "the last commits are lost" : "other data") << ", and no error";
  }

  void flip_in(const Disk& whole, const std::string& suffix_or_prefix, std::uint64_t flips) {
    Seen seen;
    std::uint64_t bytes = 0;
    for (const std::string& name : whole->names()) {
      if (!name.starts_with(suffix_or_prefix) && !name.ends_with(suffix_or_prefix)) continue;
      const std::uint64_t bits = 8 * whole->bytes(name).size();
      bytes += bits / 8;
      if (bits <= flips) {
        for (std::uint64_t bit = 0; bit < bits; ++bit) flip(whole, name, bit, seen);
        continue;
      }
      // The ends hold most of what is not merely data.
      for (std::uint64_t bit = 0; bit < flips / 4; ++bit) flip(whole, name, bit, seen);
      for (std::uint64_t bit = bits - flips / 4; bit < bits; ++bit) flip(whole, name, bit, seen);
      for (std::uint64_t draw = 0; draw < flips / 2; ++draw) {
        flip(whole, name, mix64(bits + draw) % bits, seen);
      }
    }
    std::printf(
        "%s: %llu bits flipped of %llu bytes: refused at open %llu, at read %llu, without "
        "effect %llu\n",
        suffix_or_prefix.c_str(), static_cast<unsigned long long>(seen.flips),
        static_cast<unsigned long long>(bytes),
        static_cast<unsigned long long>(seen.refused_at_open),
        static_cast<unsigned long long>(seen.refused_at_read),
        static_cast<unsigned long long>(seen.without_effect));
    EXPECT_GT(seen.refused_at_open + seen.refused_at_read, seen.flips / 4);
  }
};

TEST_F(FlippedBits, SlowInTheWriteAheadLog) {
  flip_in(worked(), ".log", 160);
}
TEST_F(FlippedBits, SlowInTheTables) {
  flip_in(worked(), ".sst", 40);
}
// What is damaged must not be compacted into tables that look sound.
TEST_F(FlippedBits, SlowInTheTablesThatAreThenCompacted) {
  constexpr std::uint64_t kBefore = 30;
  const Disk whole = worked(kBefore);
  std::uint64_t flips = 0, refused = 0, finished = 0;
  for (const std::string& name : whole->names()) {
    if (!name.ends_with(".sst")) continue;
    for (std::uint64_t draw = 0; draw < 12; ++draw) {
      const Disk disk = whole->copy();
      std::string bytes = disk->bytes(name);
      const std::uint64_t bit = mix64(draw) % (8 * bytes.size());
      SCOPED_TRACE(name + ", bit " + std::to_string(bit));
      bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
      disk->set_bytes(name, bytes);
      ++flips;
      std::uint64_t commits = kBefore;
      {
        auto opened = open(disk);
        if (!opened) {
          ++refused;
          continue;
        }
        commits = work(*opened->store, kBefore + 1);
      }
      // Restarted, so that nothing is left to chance of when it was compacted.
      auto opened = open(disk);
      const auto read = opened ? content(*opened->store) : Result<Digest>(opened.error());
      if (!read) {
        ++refused;
        EXPECT_THAT(read.error().message, HasSubstr("damaged"));
        continue;
      }
      ++finished;
      // A commit that failed may be there as a whole.
      EXPECT_TRUE(*read == expected_contents()[commits] ||
                  (commits < kCommits && *read == expected_contents()[commits + 1]))
          << "other data, and no error";
    }
  }
  std::printf("%llu bits flipped, then compacted: refused %llu, without effect %llu\n",
              static_cast<unsigned long long>(flips), static_cast<unsigned long long>(refused),
              static_cast<unsigned long long>(finished));
  EXPECT_GT(refused, flips / 4);
}

TEST_F(FlippedBits, SlowInTheManifest) {
  flip_in(worked(), "MANIFEST", 1'200);
}
TEST_F(FlippedBits, InCurrent) {
  flip_in(worked(), "CURRENT", 1'000);
}

// A log without what says which one counts is not begun anew.
TEST_F(FlippedBits, WithoutCurrentNothingIsBegunAnew) {
  const Disk disk = worked();
  disk->remove("CURRENT");
  const auto opened = open(disk);
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message, HasSubstr("no CURRENT"));
  EXPECT_THAT(opened.error().message, HasSubstr("replay into"));
}

// A cut at any byte is no damage, as a crash may leave it; zeros behind it are none either.
TEST_F(FlippedBits, ACutLogIsNoDamage) {
  const Disk disk = worked();
  for (const std::string& name : disk->names()) {
    if (!name.ends_with(".log") && !name.starts_with("MANIFEST")) continue;
    const std::string bytes = disk->bytes(name);
    EXPECT_EQ(damage_of_log(bytes), "") << name;
    for (std::size_t size = 0; size < bytes.size(); size += 1 + size % 7) {
      ASSERT_EQ(damage_of_log(bytes.substr(0, size)), "") << name << " cut to " << size;
    }
    EXPECT_EQ(damage_of_log(bytes + std::string(100, '\0')), "") << name;
  }
}

}  // namespace
}  // namespace sluice
