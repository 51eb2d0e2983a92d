// The work that the tests of storage faults give a store: sixty commits in the manner of the
// join's, and what must be in it after each.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/hash.h"
#include "store/key_value.h"
#include "store/rocksdb_store.h"
#include "tests/store/faulty_rocksdb_env.h"
#include "tests/store/temporary_folder.h"

namespace sluice {

inline constexpr std::uint64_t kCommits = 60;

inline std::string key(std::uint64_t number) {
  return std::to_string(1'000'000 + number);
}

// Compresses to nothing less, so that the small memtables are really full.
inline std::string noise(std::uint64_t seed, std::size_t size) {
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
inline WriteBatch commit_of(std::uint64_t number) {
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

inline StoreConfig small_config() {
  StoreConfig config;
  config.memtable_bytes = 64 << 10;
  config.block_cache_bytes = 64 << 10;
  return config;
}

// All that is in a store, in one number; the error where it cannot be read.
inline Result<Digest> content(KeyValueStore& store) {
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
inline const std::vector<Digest>& expected_contents() {
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

// A store on a disk that can fail, the commits to it, and whether it holds what it must.
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
    if (::testing::Test::HasFailure()) return std::nullopt;
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

}  // namespace sluice
