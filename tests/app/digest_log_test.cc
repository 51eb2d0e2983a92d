#include "app/digest_log.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "base/lanes.h"
#include "store/published_folder.h"
#include "tests/store/crash_file_system.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

ModelAt model_at(const std::string& model, std::uint64_t sequence) {
  const std::string text = model + std::to_string(sequence);
  return {model, sequence, hash128("samples" + text), hash128(text)};
}

TEST(DigestLog, ModelsAddWholeLinesSideBySide) {
  constexpr std::size_t kModels = 4;
  constexpr std::uint64_t kSequences = 20;
  const TemporaryFolder folder;
  RealFileSystem files;
  for (int start = 0; start < 2; ++start) {  // the second adds nothing new
    const auto log = DigestLog::open(files, folder.path());
    ASSERT_TRUE(log);
    std::vector<Status> done(kModels);
    run_side_by_side(kModels, 3, [&](std::size_t model) {
      for (std::uint64_t sequence = 1; sequence <= kSequences && done[model]; ++sequence) {
        done[model] = (*log)->add("checkpoint", model_at("m" + std::to_string(model), sequence));
      }
    });
    for (const Status& status : done) EXPECT_TRUE(status) << status.error().message;
    const auto text = files.read(folder.path() / "digests.jsonl");
    ASSERT_TRUE(text);
    EXPECT_EQ(std::count(text->begin(), text->end(), '\n'), kModels * kSequences);
  }
  const auto log = DigestLog::open(files, folder.path());
  ASSERT_TRUE(log);
  ModelAt other = model_at("m1", 3);
  other.model_digest = hash128("another");
  const Status status = (*log)->add("checkpoint", other);
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find("sequence 3 came out with other digests"),
            std::string::npos);
  // Another model's sequence is another line.
  other.model = "new";
  EXPECT_TRUE((*log)->add("checkpoint", other));
}

// Behind half a line that could not be written another model's would be none of either.
TEST(DigestLog, NothingFollowsAWriteThatFailed) {
  CrashFileSystem files;
  ASSERT_TRUE(make_durable_folders(files, "/data"));
  const auto log = DigestLog::open(files, "/data");
  ASSERT_TRUE(log);
  ASSERT_TRUE((*log)->add("checkpoint", model_at("a", 1)));
  files.fail_once(1);  // the line, half of which is written; before it the file is opened
  EXPECT_FALSE((*log)->add("checkpoint", model_at("a", 2)));
  ASSERT_TRUE(files.has_failed());
  const auto cut = files.read("/data/digests.jsonl");
  ASSERT_TRUE(cut);
  EXPECT_FALSE(cut->ends_with('\n'));
  EXPECT_FALSE((*log)->add("checkpoint", model_at("b", 1)));
  EXPECT_FALSE((*log)->add("checkpoint", model_at("a", 1)));
  EXPECT_EQ(*files.read("/data/digests.jsonl"), *cut);

  const auto again = DigestLog::open(files, "/data");
  ASSERT_TRUE(again);
  EXPECT_TRUE((*again)->add("checkpoint", model_at("b", 1)));
  EXPECT_TRUE((*again)->add("checkpoint", model_at("a", 1)));
  const std::string text = *files.read("/data/digests.jsonl");
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
}

}  // namespace
}  // namespace sluice
