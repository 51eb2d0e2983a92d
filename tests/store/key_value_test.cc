// The durable store against the in-memory one, and what it does with damage and a full disk.
#include "store/key_value.h"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <sys/mount.h>

#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Pairs = std::vector<std::pair<std::string, std::string>>;

StoreConfig small_store() {
  StoreConfig config;
  config.memtable_bytes = 64 << 10;  // so that tests flush and compact
  config.block_cache_bytes = 1 << 20;
  return config;
}

std::unique_ptr<KeyValueStore> open(const fs::path& folder) {
  auto store = open_rocksdb(folder, small_store());
  EXPECT_TRUE(store) << store.error().message;
  return store ? *std::move(store) : nullptr;
}

Pairs content(KeyValueStore& store, Space space, std::string_view begin = {},
              std::string_view end = {}) {
  Pairs pairs;
  const Status status =
      store.scan(space, begin, end, [&](std::string_view key, std::string_view v) {
        pairs.emplace_back(key, v);
        return true;
      });
  EXPECT_TRUE(status) << status.error().message;
  return pairs;
}

WriteBatch one_put(const std::string& key, const std::string& value) {
  WriteBatch batch;
  batch.put(Space::meta, key, value);
  return batch;
}

// Keys of few letters, so that operations meet; the bytes 0 and 255 are among them, as keys sort as
// unsigned bytes.
rc::Gen<std::string> key_gen() {
  return rc::gen::resize(
      3, rc::gen::container<std::string>(rc::gen::element('\x00', 'a', 'b', 'c', '\x7f', '\xff')));
}

Space any_space() {
  return static_cast<Space>(*rc::gen::inRange(0, static_cast<int>(kSpaces)));
}

WriteBatch any_batch() {
  WriteBatch batch;
  const int operations = *rc::gen::inRange(0, 8);
  for (int i = 0; i < operations; ++i) {
    const Space space = any_space();
    switch (*rc::gen::weightedElement<int>({{5, 0}, {2, 1}, {1, 2}})) {
      case 0:
        batch.put(space, *key_gen(), *rc::gen::arbitrary<std::string>());
        break;
      case 1:
        batch.remove(space, *key_gen());
        break;
      default: {
        std::string begin = *key_gen();
        std::string end = *key_gen();
        if (end < begin) std::swap(begin, end);
        batch.remove_range(space, begin, end);
      }
    }
  }
  return batch;
}

void expect_equal(KeyValueStore& durable, KeyValueStore& oracle) {
  for (std::size_t i = 0; i < kSpaces; ++i) {
    const auto space = static_cast<Space>(i);
    RC_ASSERT(content(durable, space) == content(oracle, space));
  }
}

RC_GTEST_PROP(KeyValueStore, DurableEqualsMemory, ()) {
  const TemporaryFolder folder;
  auto oracle = make_memory_store();
  auto durable = open(folder.path());
  const int steps = *rc::gen::inRange(1, 15);
  for (int step = 0; step < steps; ++step) {
    switch (*rc::gen::weightedElement<int>({{6, 0}, {3, 1}, {3, 2}, {1, 3}})) {
      case 0: {
        const WriteBatch batch = any_batch();
        RC_ASSERT(oracle->commit(batch).has_value());
        RC_ASSERT(durable->commit(batch).has_value());
        break;
      }
      case 1: {
        const Space space = any_space();
        const std::string key = *key_gen();
        RC_ASSERT(*durable->get(space, key) == *oracle->get(space, key));
        break;
      }
      case 2: {
        const Space space = any_space();
        const std::string begin = *key_gen();
        const std::string end = *key_gen();
        RC_ASSERT(content(*durable, space, begin, end) == content(*oracle, space, begin, end));
        break;
      }
      default:
        durable.reset();
        durable = open(folder.path());
        expect_equal(*durable, *oracle);
    }
  }
  expect_equal(*durable, *oracle);
}

TEST(KeyValueStore, HoldsMoreThanItsMemtables) {
  const TemporaryFolder folder;
  const std::string value(1000, 'v');
  auto store = open(folder.path());
  for (int i = 0; i < 50; ++i) {
    WriteBatch batch;
    for (int j = 0; j < 20; ++j) {
      batch.put(Space::samples, std::to_string(1000 + 20 * i + j), value);
      batch.put(Space::state, std::to_string(1000 + 20 * i + j), value);
    }
    if (i >= 10) batch.remove_range(Space::state, "", std::to_string(1000 + 20 * (i - 10)));
    ASSERT_TRUE(store->commit(batch));
  }
  store.reset();
  store = open(folder.path());
  EXPECT_EQ(content(*store, Space::samples).size(), 1000u);
  const Pairs state = content(*store, Space::state);
  ASSERT_EQ(state.size(), 220u);
  EXPECT_EQ(state.front().first, "1780");
  EXPECT_GT(store->disk_bytes(), 200'000u);
}

TEST(KeyValueStore, ScanStopsWhereTheVisitorSaysSo) {
  auto store = make_memory_store();
  const TemporaryFolder folder;
  auto durable = open(folder.path());
  for (KeyValueStore* each : {store.get(), durable.get()}) {
    ASSERT_TRUE(each->commit(one_put("a", "1")));
    ASSERT_TRUE(each->commit(one_put("b", "2")));
    int visited = 0;
    ASSERT_TRUE(each->scan(Space::meta, "", "", [&](std::string_view, std::string_view) {
      ++visited;
      return false;
    }));
    EXPECT_EQ(visited, 1);
  }
}

// The newest write-ahead log in `folder`.
fs::path newest_log(const fs::path& folder) {
  fs::path newest;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".log" && (newest.empty() || entry.path() > newest)) {
      newest = entry.path();
    }
  }
  return newest;
}

void copy_folder(const fs::path& from, const fs::path& to) {
  fs::remove_all(to);
  fs::copy(from, to, fs::copy_options::recursive);
}

// A crash cuts the log at any byte: the store opens and holds a prefix of the commits. The copy is
// taken while the store is open, as a crash would leave it.
TEST(KeyValueStore, LogCutAnywhereLeavesWholeCommits) {
  const TemporaryFolder folder;
  auto store = open(folder.path() / "store");
  ASSERT_TRUE(store->commit(one_put("a", "1")));
  ASSERT_TRUE(store->commit(one_put("b", "2")));
  const fs::path log = newest_log(folder.path() / "store");
  const std::uintmax_t before = fs::file_size(log);
  WriteBatch last = one_put("c", "3");
  last.remove(Space::meta, "a");
  ASSERT_TRUE(store->commit(last));
  const std::uintmax_t after = fs::file_size(log);
  ASSERT_GT(after, before);
  for (std::uintmax_t size = before; size <= after; ++size) {
    const fs::path copy = folder.path() / "copy";
    copy_folder(folder.path() / "store", copy);
    fs::resize_file(copy / log.filename(), size);
    auto reopened = open(copy);
    ASSERT_NE(reopened, nullptr);
    const Pairs expected =
        size == after ? Pairs{{"b", "2"}, {"c", "3"}} : Pairs{{"a", "1"}, {"b", "2"}};
    EXPECT_EQ(content(*reopened, Space::meta), expected) << "cut at " << size << " of " << after;
  }
}

// A synced commit that was damaged later is not silently dropped.
TEST(KeyValueStore, DamagedCommitIsRefused) {
  const TemporaryFolder folder;
  auto store = open(folder.path() / "store");
  ASSERT_TRUE(store->commit(one_put("a", std::string(100, 'x'))));
  ASSERT_TRUE(store->commit(one_put("b", std::string(100, 'y'))));
  const fs::path copy = folder.path() / "copy";
  copy_folder(folder.path() / "store", copy);
  const fs::path log = newest_log(copy);
  std::fstream file(log, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-50, std::ios::end);
  file.put('Z');
  file.close();
  const auto reopened = open_rocksdb(copy, small_store());
  ASSERT_FALSE(reopened);
  EXPECT_EQ(reopened.error().kind, ErrorKind::stop);
  EXPECT_THAT(reopened.error().message, HasSubstr("damaged"));
  EXPECT_THAT(reopened.error().message, HasSubstr(copy.string()));
  EXPECT_EQ(reopened.error().message.find('\n'), std::string::npos);
}

TEST(KeyValueStore, FullDiskFailsEveryLaterCommit) {
  const TemporaryFolder folder;
  const fs::path disk = folder.path() / "disk";
  fs::create_directory(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=4m") != 0) {
    GTEST_SKIP() << "cannot mount a small tmpfs (" << std::strerror(errno) << "): needs root";
  }
  std::size_t committed = 0;
  std::string message;
  {
    auto store = open(disk / "store");
    const std::string value(100 << 10, 'v');
    while (committed < 1000) {
      const Status status = store->commit(one_put(std::to_string(1000 + committed), value));
      if (!status) {
        message = status.error().message;
        break;
      }
      ++committed;
    }
    EXPECT_THAT(message, HasSubstr("the disk is full"));
    EXPECT_GT(committed, 5u);
    // Room again does not heal it: what a failed write left on disk is unknown until a restart.
    EXPECT_FALSE(store->commit(one_put("small", "v")));
  }
  ASSERT_EQ(::mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, "size=64m"), 0);
  {
    auto store = open(disk / "store");
    EXPECT_EQ(content(*store, Space::meta).size(), committed)
        << "nothing that was committed is lost";
    EXPECT_TRUE(store->commit(one_put("small", "v")));
  }
  EXPECT_EQ(::umount(disk.c_str()), 0);
}

TEST(KeyValueStore, ReadsFromManyThreadsWhileOneCommits) {
  const TemporaryFolder folder;
  auto store = open(folder.path());
  ASSERT_TRUE(store->commit(one_put("k", "0")));
  // Both keys change in one commit: a scan must never see them differ.
  std::atomic<bool> done = false;
  std::atomic<int> torn = 0;
  const auto read = [&] {
    while (!done) {
      const Pairs pairs = content(*store, Space::state);
      if (pairs.size() == 2 && pairs[0].second != pairs[1].second) ++torn;
    }
  };
  std::thread first(read);
  std::thread second(read);
  for (int i = 0; i < 200; ++i) {
    WriteBatch batch;
    batch.put(Space::state, "a", std::to_string(i));
    batch.put(Space::state, "b", std::to_string(i));
    EXPECT_TRUE(store->commit(batch));
  }
  done = true;
  first.join();
  second.join();
  EXPECT_EQ(torn, 0);
}

}  // namespace
}  // namespace sluice
