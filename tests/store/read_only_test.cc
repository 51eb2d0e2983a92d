// A store is read while it is written, from elsewhere, and is left as it was.
#include <atomic>
#include <chrono>
#include <deque>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "store/key_value.h"
#include "store/rocksdb_store.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

StoreConfig busy_store() {
  StoreConfig config;
  config.memtable_bytes = 64 << 10;  // so that it flushes and compacts all the time
  config.block_cache_bytes = 1 << 20;
  return config;
}

std::string row_key(std::uint64_t number) {
  return std::to_string(1'000'000'000 + number);
}

// Commit `number` as the join makes them: a sample, an open page, an expired range, the progress.
constexpr std::uint64_t kOpenPages = 30;
WriteBatch busy_commit(std::uint64_t number) {
  WriteBatch batch;
  batch.put(Space::samples, row_key(number), row_key(number) + std::string(2'000, 's'));
  batch.put(Space::state, row_key(number), row_key(number) + std::string(3'000, 'p'));
  if (number > kOpenPages) batch.remove_range(Space::state, "", row_key(number - kOpenPages + 1));
  batch.put(Space::meta, "progress", std::to_string(number));
  return batch;
}

// The number of the last commit that a view shows; the test fails where it does not show exactly
// all up to that one.
std::uint64_t last_commit(KeyValueStore& view) {
  const auto progress = view.get(Space::meta, "progress");
  EXPECT_TRUE(progress && *progress) << (progress ? "no progress" : progress.error().message);
  if (!progress || !*progress) return 0;
  const std::uint64_t last = std::stoull(**progress);
  for (const auto& [space, first] :
       {std::pair{Space::samples, std::uint64_t{1}},
        std::pair{Space::state, last > kOpenPages ? last - kOpenPages + 1 : 1}}) {
    std::uint64_t next = first;
    const Status scanned = view.scan(space, "", "", [&](std::string_view k, std::string_view v) {
      EXPECT_EQ(k, row_key(next));
      EXPECT_TRUE(v.starts_with(row_key(next)));
      ++next;
      return true;
    });
    EXPECT_TRUE(scanned) << scanned.error().message;
    EXPECT_EQ(next, last + 1) << "of space " << static_cast<int>(space);
  }
  return last;
}

std::set<std::string> listing(const fs::path& folder) {
  std::set<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    files.insert(entry.path().string() + " " +
                 (entry.is_regular_file() ? std::to_string(entry.file_size()) : "") + " " +
                 std::to_string(entry.last_write_time().time_since_epoch().count()));
  }
  return files;
}

TEST(ReadOnlyStore, ShowsTheLastCommitAndTouchesNothing) {
  const TemporaryFolder folder;
  {
    auto store = open_rocksdb(folder.path() / "store", busy_store());
    ASSERT_TRUE(store);
    for (std::uint64_t number = 1; number <= 200; ++number) {
      ASSERT_TRUE((*store)->commit(busy_commit(number)));
    }
  }
  const auto before = listing(folder.path());
  {
    const auto view = open_rocksdb_to_read(folder.path() / "store");
    ASSERT_TRUE(view) << view.error().message;
    EXPECT_EQ(last_commit(**view), 200U);
    EXPECT_GT((*view)->disk_bytes(), 0U);
    const auto absent = (*view)->get(Space::state, "nothing");
    ASSERT_TRUE(absent);
    EXPECT_FALSE(*absent);
    EXPECT_EQ(listing(folder.path()), before);
  }
  EXPECT_EQ(listing(folder.path()), before);
  // And it can still be written.
  auto store = open_rocksdb(folder.path() / "store", busy_store());
  ASSERT_TRUE(store);
  EXPECT_TRUE((*store)->commit(busy_commit(201)));
}

// Each view is of one moment, whatever is flushed, compacted and removed while it is opened, and
// stays so for its life.
TEST(ReadOnlyStore, SlowEveryViewOfALiveStoreIsOneMoment) {
  const TemporaryFolder folder;
  auto store = open_rocksdb(folder.path(), busy_store());
  ASSERT_TRUE(store);
  ASSERT_TRUE((*store)->commit(busy_commit(1)));
  std::atomic<std::uint64_t> committed = 1;
  std::atomic<std::uint64_t> begun = 0;  // views
  std::atomic<bool> is_over = false;
  std::thread writer([&] {
    for (std::uint64_t number = 2; !is_over && number <= 20'000; ++number) {
      // A few commits a view: a disk that writes at full speed may leave no moment to open it.
      while (!is_over && number > 10 * begun) {
        std::this_thread::sleep_for(std::chrono::microseconds(100));
      }
      EXPECT_TRUE((*store)->commit(busy_commit(number)));
      committed = number;
    }
  });
  struct Kept {
    std::unique_ptr<KeyValueStore> view;
    std::uint64_t last;
  };
  std::deque<Kept> kept;
  int opened = 0;
  int changed = 0;
  while (opened < 300 && committed < 3'000 && !::testing::Test::HasFailure()) {
    const std::uint64_t before = committed;
    ++begun;
    auto view = open_rocksdb_to_read(folder.path());
    if (!view && view.error().kind == ErrorKind::retry) {
      ++changed;
      continue;
    }
    EXPECT_TRUE(view) << view.error().message;
    if (!view) break;
    ++opened;
    const std::uint64_t last = last_commit(**view);
    EXPECT_GE(last, before);
    EXPECT_LE(last, committed + 1);
    kept.push_back({*std::move(view), last});
    if (kept.size() > 5) {
      EXPECT_EQ(last_commit(*kept.front().view), kept.front().last);
      kept.pop_front();
    }
  }
  is_over = true;
  writer.join();
  EXPECT_GT(opened, 50);
  EXPECT_LT(changed, opened);
  kept.clear();
  // Nobody's reading has hurt the writer.
  store->reset();
  store = open_rocksdb(folder.path(), busy_store());
  ASSERT_TRUE(store) << store.error().message;
  EXPECT_EQ(last_commit(**store), committed);
  std::printf("%d views of a store that went from 1 to %llu commits\n", opened,
              static_cast<unsigned long long>(committed));
}

// Does something between the reading of the manifest and that of the write-ahead logs, where
// RocksDB looks for the latter.
class Interrupted final : public rocksdb::FileSystemWrapper {
 public:
  Interrupted(std::function<void()> act, int times)
      : rocksdb::FileSystemWrapper(rocksdb::FileSystem::Default()),
        act_(std::move(act)),
        times_(times) {}
  const char* Name() const override { return "Interrupted"; }

  rocksdb::IOStatus NewSequentialFile(const std::string& name, const rocksdb::FileOptions& options,
                                      std::unique_ptr<rocksdb::FSSequentialFile>* file,
                                      rocksdb::IODebugContext* context) override {
    if (name.find("MANIFEST") != std::string::npos) is_manifest_read_ = true;
    return target()->NewSequentialFile(name, options, file, context);
  }
  rocksdb::IOStatus GetChildren(const std::string& folder, const rocksdb::IOOptions& options,
                                std::vector<std::string>* names,
                                rocksdb::IODebugContext* context) override {
    if (is_manifest_read_ && interrupted < times_) {
      is_manifest_read_ = false;
      ++interrupted;
      act_();
    }
    return target()->GetChildren(folder, options, names, context);
  }

  int interrupted = 0;

 private:
  std::function<void()> act_;
  int times_;
  bool is_manifest_read_ = false;
};

// The writer flushes and removes a log just before the reader would have replayed it. The first
// time that is the only log, which no manifest has named yet: RocksDB does not miss it.
TEST(ReadOnlyStore, AStoreThatChangesWhileItIsOpenedIsOpenedAgain) {
  for (const int times : {1, 3, 1'000}) {
    const TemporaryFolder folder;
    auto store = open_rocksdb(folder.path(), busy_store());
    ASSERT_TRUE(store);
    std::uint64_t committed = 0;
    const auto write = [&] {
      for (int count = 0; count < 40; ++count) {
        ASSERT_TRUE((*store)->commit(busy_commit(++committed)));
      }
    };
    ASSERT_TRUE((*store)->commit(busy_commit(++committed)));
    const auto files = std::make_shared<Interrupted>(write, times);
    const auto view = open_rocksdb_to_read(folder.path(), files);
    if (times == 1'000) {
      EXPECT_GT(files->interrupted, 10);
      ASSERT_FALSE(view);
      EXPECT_EQ(view.error().kind, ErrorKind::retry);
      EXPECT_THAT(view.error().message, HasSubstr("try again"));
    } else {
      EXPECT_EQ(files->interrupted, times);
      ASSERT_TRUE(view) << view.error().message;
      EXPECT_EQ(last_commit(**view), committed);
    }
  }
}

TEST(ReadOnlyStore, SaysWhereThereIsNoStore) {
  const TemporaryFolder folder;
  for (const fs::path& path : {folder.path(), folder.path() / "absent"}) {
    const auto view = open_rocksdb_to_read(path);
    ASSERT_FALSE(view);
    EXPECT_EQ(view.error().kind, ErrorKind::stop);
    EXPECT_THAT(view.error().message, HasSubstr("there is no store in " + path.string()));
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(ReadOnlyStore, SaysThatAStoreIsDamaged) {
  const TemporaryFolder folder;
  {
    auto store = open_rocksdb(folder.path(), busy_store());
    ASSERT_TRUE(store);
    ASSERT_TRUE((*store)->commit(busy_commit(1)));
  }
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    if (entry.path().filename().string().starts_with("MANIFEST")) {
      fs::resize_file(entry.path(), entry.file_size() / 2);
    }
  }
  const auto view = open_rocksdb_to_read(folder.path());
  ASSERT_FALSE(view);
  EXPECT_EQ(view.error().kind, ErrorKind::stop);
  EXPECT_THAT(view.error().message, HasSubstr(folder.path().string()));
}

TEST(ReadOnlyStoreDeathTest, IsNotWritten) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const TemporaryFolder folder;
  { ASSERT_TRUE(open_rocksdb(folder.path(), busy_store())); }
  const auto view = open_rocksdb_to_read(folder.path());
  ASSERT_TRUE(view);
  EXPECT_DEATH(static_cast<void>((*view)->commit(busy_commit(1))), "opened for reading");
}

}  // namespace
}  // namespace sluice
