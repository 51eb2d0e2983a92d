// RocksDB on a disk that fails, tears, loses and forges: what commit() promises holds all the same.
// Bits that flip: flipped_bits_test.cc.
#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/store/store_workload.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

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

}  // namespace
}  // namespace sluice
