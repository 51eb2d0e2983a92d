#include <cerrno>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/key_value.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

TEST(FolderLock, MakesTheFolderAndIsFreeAgainAfterwards) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a" / "b";
  {
    const auto lock = FolderLock::acquire(path);
    ASSERT_TRUE(lock) << lock.error().message;
    EXPECT_TRUE(std::filesystem::exists(path / "LOCK"));
  }
  EXPECT_TRUE(FolderLock::acquire(path));
}

TEST(FolderLock, MovesWithItsOwner) {
  const TemporaryFolder folder;
  auto first = FolderLock::acquire(folder.path());
  ASSERT_TRUE(first);
  {
    const FolderLock second = *std::move(first);
    EXPECT_FALSE(FolderLock::acquire(folder.path()));
  }
  EXPECT_TRUE(FolderLock::acquire(folder.path()));
}

TEST(FolderLock, NamesTheOtherProcessAndIsFreedByItsDeath) {
  const TemporaryFolder folder;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto lock = FolderLock::acquire(folder.path());
    const char byte = lock ? '1' : '0';
    if (::write(ready[1], &byte, 1) != 1) ::_exit(1);
    ::pause();
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_EQ(byte, '1');

  const auto lock = FolderLock::acquire(folder.path());
  EXPECT_FALSE(lock);
  if (!lock) {
    EXPECT_EQ(lock.error().kind, ErrorKind::stop);
    EXPECT_THAT(lock.error().message, HasSubstr("process " + std::to_string(child)));
    EXPECT_THAT(lock.error().message, HasSubstr(folder.path().string()));
  }

  ASSERT_EQ(::kill(child, SIGKILL), 0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(FolderLock::acquire(folder.path()));
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(FolderLock, FolderThatCannotBeMadeIsAnError) {
  const auto lock = FolderLock::acquire("/proc/no-such-folder");
  ASSERT_FALSE(lock);
  EXPECT_THAT(lock.error().message, HasSubstr("/proc/no-such-folder"));
}

}  // namespace
}  // namespace sluice
