#include "base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("sluice_file_test_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write(const fs::path& path, const std::string& bytes) {
    auto file = files_.create(path).value();
    ASSERT_TRUE(file->append(bytes));
    ASSERT_TRUE(file->close());
  }

  RealFileSystem files_;
  fs::path folder_;
};

TEST_F(FileTest, CreateTruncatesAndAppendGoesOn) {
  const fs::path path = folder_ / "a";
  write(path, "old and long");
  write(path, "new");
  EXPECT_EQ(files_.read(path).value(), "new");
  auto file = files_.append_to(path).value();
  ASSERT_TRUE(file->append("er"));
  ASSERT_TRUE(file->append(""));
  ASSERT_TRUE(file->sync());
  ASSERT_TRUE(file->close());
  EXPECT_EQ(files_.read(path).value(), "newer");
  EXPECT_EQ(files_.size(path).value(), 5u);
}

TEST_F(FileTest, ReadsLargeFilesWhole) {
  const std::string bytes(1'000'003, 'x');
  write(folder_ / "large", bytes);
  EXPECT_EQ(files_.read(folder_ / "large").value(), bytes);
}

TEST_F(FileTest, ReadsARangeUpToTheEndOfTheFile) {
  write(folder_ / "a", "0123456789");
  EXPECT_EQ(files_.read_range(folder_ / "a", 3, 4).value(), "3456");
  EXPECT_EQ(files_.read_range(folder_ / "a", 8, 100).value(), "89");
  EXPECT_EQ(files_.read_range(folder_ / "a", 10, 1).value(), "");
  EXPECT_EQ(files_.read_range(folder_ / "a", 100, 1).value(), "");
  EXPECT_FALSE(files_.read_range(folder_ / "none", 0, 1));
}

TEST_F(FileTest, TruncateListRenameRemove) {
  write(folder_ / "b", "12345");
  ASSERT_TRUE(files_.truncate(folder_ / "b", 2));
  EXPECT_EQ(files_.read(folder_ / "b").value(), "12");
  ASSERT_TRUE(files_.create_directories(folder_ / "a/deep"));
  write(folder_ / "c", "old");
  EXPECT_THAT(files_.list(folder_).value(), ElementsAre("a", "b", "c"));
  ASSERT_TRUE(files_.rename(folder_ / "b", folder_ / "c"));
  EXPECT_EQ(files_.read(folder_ / "c").value(), "12");
  EXPECT_FALSE(files_.exists(folder_ / "b"));
  ASSERT_TRUE(files_.remove_all(folder_ / "a"));
  ASSERT_TRUE(files_.remove_all(folder_ / "a"));
  EXPECT_FALSE(files_.exists(folder_ / "a"));
  ASSERT_TRUE(files_.sync_directory(folder_));
}

TEST_F(FileTest, EveryErrorIsAStopThatNamesThePath) {
  const fs::path none = folder_ / "none/file";
  write(folder_ / "file", "x");
  const std::vector<Error> errors = {
      files_.create(none).error(),         files_.append_to(none).error(),
      files_.read(none).error(),           files_.read(folder_).error(),
      files_.size(none).error(),           files_.truncate(none, 0).error(),
      files_.list(none).error(),           files_.rename(none, none).error(),
      files_.sync_directory(none).error(), files_.create_directories(folder_ / "file/x").error(),
  };
  for (const Error& error : errors) {
    EXPECT_EQ(error.kind, ErrorKind::stop);
    EXPECT_THAT(error.message, HasSubstr(folder_.string()));
  }
}

// Counts the steps that change something and fails from the given one on.
class FailingFileSystem final : public FileSystem {
 public:
  explicit FailingFileSystem(int good_steps) : good_steps_(good_steps) {}

  class File final : public WritableFile {
   public:
    File(FailingFileSystem& owner, std::unique_ptr<WritableFile> file)
        : owner_(owner), file_(std::move(file)) {}
    Status append(std::string_view bytes) override {
      if (owner_.fails()) {
        // A full disk takes a part.
        EXPECT_TRUE(file_->append(bytes.substr(0, bytes.size() / 2)));
        return stop_error("disk full");
      }
      return file_->append(bytes);
    }
    Status sync() override { return owner_.fails() ? stop_error("no sync") : file_->sync(); }
    Status close() override { return owner_.fails() ? stop_error("no close") : file_->close(); }

   private:
    FailingFileSystem& owner_;
    std::unique_ptr<WritableFile> file_;
  };

  Result<std::unique_ptr<WritableFile>> create(const fs::path& path) override {
    if (fails()) return stop_error("no create");
    return std::unique_ptr<WritableFile>(
        std::make_unique<File>(*this, files_.create(path).value()));
  }
  Result<std::unique_ptr<WritableFile>> append_to(const fs::path& path) override {
    return files_.append_to(path);
  }
  Result<std::string> read(const fs::path& path) override { return files_.read(path); }
  Result<std::string> read_range(const fs::path& path, std::uint64_t offset,
                                 std::uint64_t size) override {
    return files_.read_range(path, offset, size);
  }
  Result<std::uint64_t> size(const fs::path& path) override { return files_.size(path); }
  Status truncate(const fs::path& path, std::uint64_t size) override {
    return files_.truncate(path, size);
  }
  bool exists(const fs::path& path) override { return files_.exists(path); }
  Status create_directories(const fs::path& path) override {
    return files_.create_directories(path);
  }
  Status rename(const fs::path& from, const fs::path& to) override {
    return fails() ? stop_error("no rename") : files_.rename(from, to);
  }
  Status remove_all(const fs::path& path) override { return files_.remove_all(path); }
  Result<std::vector<std::string>> list(const fs::path& directory) override {
    return files_.list(directory);
  }
  Status sync_directory(const fs::path& directory) override {
    return fails() ? stop_error("no folder sync") : files_.sync_directory(directory);
  }

 private:
  bool fails() { return good_steps_-- <= 0; }

  RealFileSystem files_;
  int good_steps_;
};

TEST_F(FileTest, AnAtomicWriteIsWholeOrNotThereWhateverFails) {
  constexpr int kSteps = 6;  // create, append, sync, close, rename, folder sync
  const fs::path path = folder_ / "LATEST";
  for (int good_steps = 0; good_steps <= kSteps; ++good_steps) {
    write(path, "old");
    FailingFileSystem failing(good_steps);
    const Status status = write_atomically(failing, path, "the new text");
    EXPECT_EQ(status.has_value(), good_steps == kSteps) << good_steps;
    const bool is_renamed = good_steps >= 5;
    EXPECT_EQ(files_.read(path).value(), is_renamed ? "the new text" : "old") << good_steps;
  }
  EXPECT_THAT(files_.list(folder_).value(), ElementsAre("LATEST"));
}

}  // namespace
}  // namespace sluice
