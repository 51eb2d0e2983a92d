// RocksDB on a disk that fails, tears, loses and forges: what commit() promises holds all the same.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/hash.h"
#include "store/key_value.h"
#include "store/log_check.h"
#include "store/rocksdb_store.h"
#include "tests/store/faulty_rocksdb_env.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr std::uint64_t kCommits = 60;

std::string key(std::uint64_t number) {
  return std::to_string(1'000'000 + number);
}

// Compresses to nothing less, so that the small memtables are really full.
std::string noise(std::uint64_t seed, std::size_t size) {
  std::string text;
  while (text.size() < size) {
    const std::uint64_t word = mix64(mix64(seed) + text.size());
    text.append(reinterpret_cast<const char*>(&word), sizeof word);
  }
  return text;
}

// Commit `number`, 1 to kCommits, in the manner of the join's: samples, a page of open impressions
// and the range of those that have expired, a clicked impression that comes and goes, dead letters
// that are trimmed, the progress.
WriteBatch commit_of(std::uint64_t number) {
  WriteBatch batch;
  batch.put(Space::samples, key(number), noise(number, 200 + mix64(number) % 6'000));
  batch.put(Space::state, "p" + key(number), noise(number + 1'000, 3'000));
  if (number > 10) batch.remove_range(Space::state, "p", "p" + key(number - 9));
  batch.put(Space::state, "c" + key(number), "clicked");
  if (number > 5) batch.remove(Space::state, "c" + key(number - 5));
  if (number % 3 == 0) batch.put(Space::dead_letters, key(number), noise(number + 2'000, 500));
  if (number % 9 == 0) batch.remove_range(Space::dead_letters, "", key(number - 15));
  if (number % 10 == 0) batch.remove_range(Space::samples, "", key(number - 25));
  batch.put(Space::meta, "progress", std::to_string(number));
  return batch;
}

StoreConfig small_config() {
  StoreConfig config;
  config.memtable_bytes = 64 << 10;
  config.block_cache_bytes = 64 << 10;
  return config;
}

// All that is in a store, in one number; the error where it cannot be read.
Result<Digest> content(KeyValueStore& store) {
  std::string all;
  for (std::size_t space = 0; space < kSpaces; ++space) {
    all += "\nspace\n";
    SLUICE_TRY(
        store.scan(static_cast<Space>(space), "", "", [&](std::string_view k, std::string_view v) {
          all.append(k).append("=").append(v).append("\n");
          return true;
        }));
  }
  return hash128(all);
}

// By the number of commits, what must be in the store then.
const std::vector<Digest>& expected_contents() {
  static const std::vector<Digest> contents = [] {
    std::vector<Digest> made;
    const auto store = make_memory_store();
    made.push_back(*content(*store));
    for (std::uint64_t number = 1; number <= kCommits; ++number) {
      EXPECT_TRUE(store->commit(commit_of(number)));
      made.push_back(*content(*store));
    }
    return made;
  }();
  return contents;
}

class StorageFaults : public ::testing::Test {
 protected:
  using Disk = std::shared_ptr<FaultyRocksDbFiles>;
  struct Opened {
    std::unique_ptr<rocksdb::Env> env;
    std::unique_ptr<KeyValueStore> store;  // goes before the environment
  };

  Result<Opened> open(const Disk& disk) {
    Opened opened;
    opened.env = make_faulty_env(disk);
    SLUICE_ASSIGN(opened.store,
                  open_rocksdb(folder_.path() / "store", small_config(), *opened.env));
    return opened;
  }

  // Commits number `first` and on; returns how many are acknowledged in all. After one failure no
  // other may be taken.
  static std::uint64_t work(KeyValueStore& store, std::uint64_t first,
                            std::uint64_t last = kCommits) {
    for (std::uint64_t number = first; number <= last; ++number) {
      const Status status = store.commit(commit_of(number));
      if (status) continue;
      EXPECT_EQ(status.error().kind, ErrorKind::stop);
      for (std::uint64_t again = number; again < number + 3 && again <= kCommits; ++again) {
        const Status later = store.commit(commit_of(again));
        EXPECT_FALSE(later) << "commit " << again << " was taken after a failed one";
      }
      return number - 1;
    }
    return last;
  }

  // Opens the disk, which is sound again, and looks at it: how many commits are there, at least
  // `acknowledged` and at most `attempted`, all of them whole. None where the test has failed.
  std::optional<std::uint64_t> check(const Disk& disk, std::uint64_t acknowledged,
                                     std::uint64_t attempted) {
    const auto opened = open(disk);
    EXPECT_TRUE(opened) << opened.error().message;
    if (!opened) return std::nullopt;
    const auto progress = opened->store->get(Space::meta, "progress");
    EXPECT_TRUE(progress) << progress.error().message;
    if (!progress) return std::nullopt;
    const std::uint64_t commits = *progress ? std::stoull(**progress) : 0;
    EXPECT_GE(commits, acknowledged) << "an acknowledged commit is lost";
    EXPECT_LE(commits, attempted);
    const auto found = content(*opened->store);
    EXPECT_TRUE(found) << found.error().message;
    if (!found || commits > kCommits) return std::nullopt;
    EXPECT_EQ(*found, expected_contents()[commits]) << "not all of the commits, or part of one";
    if (testing::Test::HasFailure()) return std::nullopt;
    return commits;
  }

  // A disk on which the first commits are, all of them unless told otherwise, and the process has
  // ended.
  Disk worked(std::uint64_t commits = kCommits) {
    auto disk = std::make_shared<FaultyRocksDbFiles>();
    auto opened = open(disk);
    EXPECT_TRUE(opened);
    EXPECT_EQ(work(*opened->store, 1, commits), commits);
    return disk;
  }

  TemporaryFolder folder_;
};

TEST_F(StorageFaults, UndisturbedItFlushesAndCompacts) {
  const Disk disk = worked();
  EXPECT_EQ(check(disk, kCommits, kCommits), kCommits);
  EXPECT_GT(disk->tables_made(), 8U);
  EXPECT_GT(disk->tables_removed(), 0U);
  std::printf("%llu tables made, %llu removed\n",
              static_cast<unsigned long long>(disk->tables_made()),
              static_cast<unsigned long long>(disk->tables_removed()));
}

// What of ten puts is there after a crash of the machine, with RocksDB used directly.
int found_after_crash(const std::string& path, bool is_synced, std::uint64_t seed) {
  const auto disk = std::make_shared<FaultyRocksDbFiles>();
  const auto env = make_faulty_env(disk);
  rocksdb::Options options;
  options.env = env.get();
  options.create_if_missing = true;
  options.info_log = no_log();
  const auto opened = [&] {
    rocksdb::DB* database = nullptr;
    const rocksdb::Status status = rocksdb::DB::Open(options, path, &database);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return std::unique_ptr<rocksdb::DB>(database);
  };
  {
    const auto database = opened();
    rocksdb::WriteOptions write;
    write.sync = is_synced;
    for (std::uint64_t number = 0; number < 10; ++number) {
      EXPECT_TRUE(database->Put(write, key(number), "value").ok());
    }
    disk->power_off();
  }
  disk->crash(seed);
  const auto database = opened();
  int found = 0;
  for (std::uint64_t number = 0; number < 10; ++number) {
    std::string value;
    if (database->Get({}, key(number), &value).ok()) ++found;
  }
  return found;
}

// The disk loses what it may lose: a store that does not sync is found out.
TEST_F(StorageFaults, TheDiskLosesWhatWasNotSynced) {
  int found_unsynced = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    EXPECT_EQ(found_after_crash((folder_.path() / "plain").string(), true, seed), 10);
    found_unsynced += found_after_crash((folder_.path() / "plain").string(), false, seed);
  }
  EXPECT_LT(found_unsynced, 180);
  EXPECT_GT(found_unsynced, 20);
}

struct Tally {
  std::uint64_t runs = 0, struck = 0, unacknowledged_kept = 0;
  void print(const char* what) const {
    std::printf("%s: %llu runs, in %llu the fault struck, in %llu a commit that failed was whole\n",
                what, static_cast<unsigned long long>(runs),
                static_cast<unsigned long long>(struck),
                static_cast<unsigned long long>(unacknowledged_kept));
  }
};

// Every write to the disk fails once, or it and all after it; then the process ends, or the machine
// too.
TEST_F(StorageFaults, SlowEveryWriteFailsAndNothingAcknowledgedIsLost) {
  std::uint64_t operations = 0;
  {
    const Disk disk = std::make_shared<FaultyRocksDbFiles>();
    const auto opened = open(disk);
    ASSERT_TRUE(opened);
    ASSERT_EQ(work(*opened->store, 1), kCommits);
    operations = disk->operations();
  }
  ASSERT_GT(operations, 200U);
  Tally tally;
  for (std::uint64_t at = 1; at <= operations; ++at) {
    for (const bool is_for_ever : {false, true}) {
      const auto fault = static_cast<DiskFault>((at + (is_for_ever ? 1 : 0)) % 3);
      SCOPED_TRACE("operation " + std::to_string(at) + ", fault " +
                   std::to_string(static_cast<int>(fault)) + (is_for_ever ? ", for ever" : ""));
      const Disk disk = std::make_shared<FaultyRocksDbFiles>();
      disk->plan({fault, false, at, is_for_ever});
      std::uint64_t acknowledged = 0;
      {
        auto opened = open(disk);
        if (opened) {
          acknowledged = work(*opened->store, 1);
        } else {
          EXPECT_EQ(opened.error().kind, ErrorKind::stop);
          EXPECT_THAT(opened.error().message, HasSubstr("cannot open the store in"));
        }
        if (disk->has_struck()) ++tally.struck;
        if (at % 2 == 0) disk->power_off();
      }
      if (at % 2 == 0) {
        disk->crash(at);
      } else {
        disk->plan({});
      }
      const auto commits = check(disk, acknowledged, acknowledged + 3);
      if (!commits) return;
      ++tally.runs;
      if (*commits > acknowledged) ++tally.unacknowledged_kept;
    }
  }
  tally.print("failing writes");
  EXPECT_GT(tally.struck, operations);
}

// The machine stops at every write, and takes with it what was not synced.
TEST_F(StorageFaults, SlowTheMachineStopsAtEveryWrite) {
  const Disk whole = worked();
  Tally tally;
  for (std::uint64_t commits = 0; commits <= kCommits; commits += 3) {
    for (std::uint64_t seed = 1; seed <= 6; ++seed) {
      SCOPED_TRACE("after " + std::to_string(commits) + " commits, seed " + std::to_string(seed));
      const Disk disk = std::make_shared<FaultyRocksDbFiles>();
      std::uint64_t known = 0;
      {
        auto opened = open(disk);
        ASSERT_TRUE(opened);
        for (std::uint64_t number = 1; number <= commits; ++number) {
          ASSERT_TRUE(opened->store->commit(commit_of(number)));
        }
        // Somewhere in the next ones, or in what RocksDB does behind them.
        disk->plan({DiskFault::torn, false, 1 + mix64(commits * 100 + seed) % 30, true});
        known = commits + (work(*opened->store, commits + 1) - commits);
        disk->power_off();
      }
      disk->crash(seed);
      // And again, a few times, while it recovers.
      for (std::uint64_t again = 1; again <= 3; ++again) {
        disk->plan({DiskFault::torn, false, again * seed, true});
        static_cast<void>(open(disk));
        disk->power_off();
        disk->crash(seed + again);
      }
      const auto found = check(disk, known, known + 3);
      if (!found) return;
      ++tally.runs;
      if (*found > known) ++tally.unacknowledged_kept;
      // It can go on from there.
      auto opened = open(disk);
      ASSERT_TRUE(opened);
      ASSERT_EQ(work(*opened->store, *found + 1), kCommits);
      opened = Error();
      if (!check(disk, kCommits, kCommits)) return;
    }
  }
  tally.struck = tally.runs;
  tally.print("stops of the machine");
}

// While it recovers, every write and every read fails once, or from there on: an error or not, the
// next start finds all.
TEST_F(StorageFaults, SlowEveryOperationOfARecoveryFails) {
  const Disk crashed = std::make_shared<FaultyRocksDbFiles>();
  {
    auto opened = open(crashed);
    ASSERT_TRUE(opened);
    ASSERT_EQ(work(*opened->store, 1), kCommits);
    crashed->power_off();
  }
  crashed->crash(7);
  for (const bool is_of_reads : {false, true}) {
    Tally tally;
    std::uint64_t refused = 0;
    std::uint64_t operations = 0;
    {
      const Disk disk = crashed->copy();
      disk->plan({DiskFault::io_error, is_of_reads, 0, false});
      const auto opened = open(disk);
      ASSERT_TRUE(opened);
      ASSERT_TRUE(content(*opened->store));
      operations = disk->operations();
    }
    EXPECT_GT(operations, 15U);
    for (std::uint64_t at = 1; at <= operations; ++at) {
      for (const bool is_for_ever : {false, true}) {
        SCOPED_TRACE(std::string(is_of_reads ? "read " : "write ") + std::to_string(at) +
                     (is_for_ever ? ", for ever" : ""));
        const Disk disk = crashed->copy();
        const auto fault = is_of_reads ? DiskFault::io_error : static_cast<DiskFault>(at % 3);
        disk->plan({fault, is_of_reads, at, is_for_ever});
        {
          auto opened = open(disk);
          if (!opened) {
            ++refused;
            EXPECT_EQ(opened.error().kind, ErrorKind::stop);
            EXPECT_THAT(opened.error().message, HasSubstr("cannot open the store in"));
          } else if (const auto read = content(*opened->store); read) {
            EXPECT_EQ(*read, expected_contents()[kCommits]) << "other data, and no error";
          }
          if (disk->has_struck()) ++tally.struck;
          if (is_for_ever) disk->power_off();
        }
        if (is_for_ever) {
          disk->crash(at);
        } else {
          disk->plan({});
        }
        if (!check(disk, kCommits, kCommits)) return;
        ++tally.runs;
      }
    }
    tally.print(is_of_reads ? "failing reads of a recovery" : "failing writes of a recovery");
    EXPECT_GT(refused, 5U);
  }
}

// While it commits, flushes and compacts, every read fails once: nothing is compacted away for it.
TEST_F(StorageFaults, SlowEveryReadOfARunningStoreFails) {
  Tally tally;
  for (std::uint64_t at = 1;; ++at) {
    SCOPED_TRACE("read " + std::to_string(at));
    const Disk disk = std::make_shared<FaultyRocksDbFiles>();
    std::uint64_t acknowledged = 0;
    {
      auto opened = open(disk);
      ASSERT_TRUE(opened);
      disk->plan({DiskFault::io_error, true, at, false});
      acknowledged = work(*opened->store, 1);
    }
    if (!disk->has_struck()) break;
    ++tally.struck;
    ++tally.runs;
    disk->plan({});
    if (!check(disk, acknowledged, acknowledged + 3)) return;
  }
  tally.print("failing reads of a running store");
  EXPECT_GT(tally.runs, 5U);
}

// Of an open store every read fails once: an error, never other data.
TEST_F(StorageFaults, AReadThatFailsIsAnError) {
  const Disk whole = worked();
  std::uint64_t errors = 0;
  for (std::uint64_t at = 1; at <= 200; ++at) {
    SCOPED_TRACE("read " + std::to_string(at));
    const Disk disk = whole->copy();
    auto other = open(disk);
    ASSERT_TRUE(other);
    disk->plan({DiskFault::io_error, true, at, false});
    const auto read = content(*other->store);
    if (!disk->has_struck()) break;
    if (read) {
      EXPECT_EQ(*read, expected_contents()[kCommits]);
    } else {
      ++errors;
      EXPECT_THAT(read.error().message, HasSubstr("cannot read the store in"));
    }
    const auto again = content(*other->store);
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(*again, expected_contents()[kCommits]);
  }
  EXPECT_GT(errors, 3U);
}

// ---- flipped bits

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
