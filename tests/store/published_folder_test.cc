#include "store/published_folder.h"

#include <fstream>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/hash.h"
#include "store/tensors.h"
#include "tests/store/crash_file_system.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<FolderFile> kListed = {{"weights.safetensors", "0123456789"}, {"b.json", "{}"}};
const std::vector<FolderFile> kUnlisted = {{"provenance.json", "{\"host\": \"a\"}"}};

ordered_json manifest_of(int sequence) {
  return {{"format", 1}, {"sequence", sequence}, {"metrics", {{"auc", 0.75}, {"none", nullptr}}}};
}

Status publish(FileSystem& files, const fs::path& parent, int sequence) {
  return publish_folder(files, parent, numbered_folder_name(static_cast<std::uint64_t>(sequence)),
                        manifest_of(sequence), kListed, kUnlisted);
}

std::string slurp(const fs::path& path) {
  return *RealFileSystem().read(path);
}

void spit(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string error_of(const Status& status) {
  return status ? "no error" : status.error().message;
}

TEST(PublishedFolder, IsReadBackWithItsManifestAndFiles) {
  const TemporaryFolder temporary;
  RealFileSystem files;
  const fs::path parent = temporary.path() / "models" / "m" / "snapshots";
  const Status status = publish(files, parent, 42);
  ASSERT_TRUE(status) << error_of(status);
  const auto folder = read_folder(files, parent / "000000000042");
  ASSERT_TRUE(folder) << folder.error().message;
  EXPECT_EQ(folder->manifest["sequence"], 42);
  EXPECT_EQ(folder->files.at("weights.safetensors"), "0123456789");
  EXPECT_FALSE(folder->files.contains("provenance.json"));
  EXPECT_EQ(slurp(parent / "000000000042" / "provenance.json"), kUnlisted[0].bytes);
  EXPECT_THAT(*files.list(parent), ElementsAre("000000000042"));
}

TEST(PublishedFolder, ManifestHasThisForm) {
  const TemporaryFolder temporary;
  RealFileSystem files;
  ASSERT_TRUE(publish_folder(files, temporary.path(), "x", {{"format", 1}}, {{"f", "abc"}}, {}));
  const std::string head =
      "{\n  \"format\": 1,\n  \"files\": {\n    \"f\": {\n      \"bytes\": 3,\n"
      "      \"xxh3_128\": \"" +
      hash128("abc").hex() + "\"\n    }\n  },\n  ";
  EXPECT_EQ(slurp(temporary.path() / "x" / "manifest.json"),
            head + "\"checksum\": \"" + hash128(head).hex() + "\"\n}\n");
}

TEST(PublishedFolder, MadeAgainEqualWritesNothing) {
  const TemporaryFolder temporary;
  RealFileSystem files;
  ASSERT_TRUE(publish(files, temporary.path(), 1));
  const fs::path provenance = temporary.path() / "000000000001" / "provenance.json";
  spit(provenance, "another host");  // not promised, so not compared
  ASSERT_TRUE(publish(files, temporary.path(), 1));
  EXPECT_EQ(slurp(provenance), "another host");
}

TEST(PublishedFolder, MadeAgainDifferentNamesWhatDiffers) {
  const TemporaryFolder temporary;
  RealFileSystem files;
  ASSERT_TRUE(publish_folder(files, temporary.path(), "x", manifest_of(1), kListed, {}));
  ordered_json other = manifest_of(1);
  other["metrics"]["auc"] = 0.5;
  other["extra"] = 1;
  const std::vector<FolderFile> changed = {{"weights.safetensors", "0123456780"}, {"b.json", "{}"}};
  const Status status = publish_folder(files, temporary.path(), "x", other, changed, {});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind, ErrorKind::stop);
  EXPECT_THAT(status.error().message,
              HasSubstr("came out different in extra, files.weights.safetensors, metrics:"));
  EXPECT_EQ(slurp(temporary.path() / "x" / "weights.safetensors"), "0123456789") << "kept";
}

TEST(PublishedFolder, DamagedOneIsReplaced) {
  const TemporaryFolder temporary;
  RealFileSystem files;
  ASSERT_TRUE(publish(files, temporary.path(), 1));
  spit(temporary.path() / "000000000001" / "b.json", "[]");
  ASSERT_FALSE(read_folder(files, temporary.path() / "000000000001"));
  const Status status = publish(files, temporary.path(), 1);
  ASSERT_TRUE(status) << error_of(status);
  EXPECT_TRUE(read_folder(files, temporary.path() / "000000000001"));
  EXPECT_THAT(*files.list(temporary.path()), ElementsAre("000000000001"));
}

TEST(PublishedFolder, EveryFlippedBitIsFound) {
  const TemporaryFolder temporary;
  RealFileSystem files;
  ASSERT_TRUE(publish_folder(files, temporary.path(), "x", {{"format", 1}},
                             {{"t", encode_tensors({{"a", Tensor::of<float>({1}, {1.5F})}})}}, {}));
  for (const char* name : {"t", "manifest.json"}) {
    const fs::path path = temporary.path() / "x" / name;
    const std::string bytes = slurp(path);
    for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
      std::string flipped = bytes;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
      spit(path, flipped);
      const auto folder = read_folder(files, temporary.path() / "x");
      ASSERT_FALSE(folder) << name << " bit " << bit;
      EXPECT_THAT(folder.error().message, HasSubstr(std::string(name) + " does not have its"));
    }
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      spit(path, bytes.substr(0, size));
      ASSERT_FALSE(read_folder(files, temporary.path() / "x")) << name << " cut to " << size;
    }
    spit(path, bytes);
  }
  EXPECT_TRUE(read_folder(files, temporary.path() / "x"));
}

TEST(PublishedFolder, ErrorNamesAllThatIsDamaged) {
  const TemporaryFolder temporary;
  RealFileSystem files;
  ASSERT_TRUE(publish_folder(files, temporary.path(), "x", {{"format", 1}},
                             {{"a", "1"}, {"b", "2"}, {"c", "3"}}, {}));
  fs::remove(temporary.path() / "x" / "a");
  spit(temporary.path() / "x" / "c", "33");
  const auto folder = read_folder(files, temporary.path() / "x");
  ASSERT_FALSE(folder);
  EXPECT_THAT(folder.error().message,
              HasSubstr("is damaged: a is missing; c has 2 bytes instead of 1"));
  const auto absent = read_folder(files, temporary.path() / "y");
  ASSERT_FALSE(absent);
  EXPECT_THAT(absent.error().message, HasSubstr("manifest.json is missing"));
}

// Even a manifest whose checksum holds must not lead out of its folder.
// With checksums that hold: a folder may have been made by anyone.
void spit_manifest(const fs::path& folder, const std::string& entries) {
  const std::string head = "{\n  " + entries + ",\n  ";
  spit(folder / "manifest.json", head + "\"checksum\": \"" + hash128(head).hex() + "\"\n}\n");
}

TEST(PublishedFolder, AManifestHasBounds) {
  const TemporaryFolder temporary;
  RealFileSystem files;
  const auto nested = [](std::size_t depth) {
    return "\"files\": {}, \"x\": " + std::string(depth, '[') + std::string(depth, ']');
  };
  spit_manifest(temporary.path(), nested(30));
  EXPECT_TRUE(read_manifest(files, temporary.path()));
  for (const std::size_t depth : {std::size_t{33}, std::size_t{1'000'000}}) {
    spit_manifest(temporary.path(), nested(depth));
    const auto manifest = read_manifest(files, temporary.path());
    ASSERT_FALSE(manifest) << depth;
    EXPECT_THAT(manifest.error().message, HasSubstr("no manifest"));
  }
  // It has holes, and takes no room on the disk.
  fs::resize_file(temporary.path() / "manifest.json", std::uint64_t{1} << 40);
  const auto manifest = read_manifest(files, temporary.path());
  ASSERT_FALSE(manifest);
  EXPECT_THAT(manifest.error().message, HasSubstr("more than any"));
}

TEST(PublishedFolder, AFileOfAnotherSizeIsNotRead) {
  const TemporaryFolder temporary;
  RealFileSystem files;
  ASSERT_TRUE(publish(files, temporary.path(), 1));
  const fs::path folder = temporary.path() / numbered_folder_name(1);
  fs::resize_file(folder / "weights.safetensors", std::uint64_t{1} << 40);
  const auto read = read_folder(files, folder);
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().message,
              HasSubstr("weights.safetensors has 1099511627776 bytes instead of 10"));
}

TEST(PublishedFolder, NamesOutsideTheFolderAreRefused) {
  const TemporaryFolder temporary;
  RealFileSystem files;
  spit(temporary.path() / "secret", "s");
  fs::create_directory(temporary.path() / "x");
  for (const std::string name : {"../secret", "/etc/passwd", "..", "", "a/b"}) {
    const std::string head = "{\n  \"files\": {\"" + name + R"(": {"bytes": 1, "xxh3_128": ")" +
                             hash128("s").hex() + "\"}},\n  ";
    spit(temporary.path() / "x" / "manifest.json",
         head + "\"checksum\": \"" + hash128(head).hex() + "\"\n}\n");
    const auto folder = read_folder(files, temporary.path() / "x");
    ASSERT_FALSE(folder) << name;
    EXPECT_THAT(folder.error().message, HasSubstr("in a wrong way"));
  }
}

TEST(PublishedFolder, NumbersAndTemporaryNames) {
  EXPECT_EQ(numbered_folder_name(42), "000000000042");
  EXPECT_EQ(numbered_folder_name(1'234'567'890'123'456), "1234567890123456");
  EXPECT_EQ(folder_number("000000000042"), 42u);
  EXPECT_EQ(folder_number("1234567890123456"), 1'234'567'890'123'456u);
  for (const char* name : {"42", "", "LATEST", "00000000004x", "-00000000042", ".000000000042.tmp",
                           "0000000000042", "99999999999999999999999"}) {
    EXPECT_EQ(folder_number(name), std::nullopt) << name;
  }

  const TemporaryFolder temporary;
  RealFileSystem files;
  EXPECT_TRUE(list_numbered_folders(files, temporary.path() / "absent")->empty());
  EXPECT_TRUE(remove_temporary_folders(files, temporary.path() / "absent"));
  for (const int sequence : {10, 9, 100}) ASSERT_TRUE(publish(files, temporary.path(), sequence));
  fs::create_directories(temporary.path() / ".000000000011.tmp" / "inner");
  spit(temporary.path() / "LATEST.tmp", "torn");
  spit(temporary.path() / "notes.txt", "kept");
  EXPECT_THAT(*list_numbered_folders(files, temporary.path()), ElementsAre(9u, 10u, 100u));
  ASSERT_TRUE(remove_temporary_folders(files, temporary.path()));
  EXPECT_THAT(*files.list(temporary.path()),
              ElementsAre("000000000009", "000000000010", "000000000100", "notes.txt"));
}

TEST(PublishedFolder, RetentionKeepsTheNewestTheProtectedAndLatest) {
  const TemporaryFolder temporary;
  RealFileSystem files;
  for (int i = 1; i <= 6; ++i) ASSERT_TRUE(publish(files, temporary.path(), i));
  ASSERT_TRUE(set_latest(files, temporary.path(), 2));
  ASSERT_TRUE(keep_newest(files, temporary.path(), 9));
  EXPECT_EQ(list_numbered_folders(files, temporary.path())->size(), 6u);
  ASSERT_TRUE(keep_newest(files, temporary.path(), 2, {4}));
  EXPECT_THAT(*files.list(temporary.path()), ElementsAre("000000000002", "000000000004",
                                                         "000000000005", "000000000006", "LATEST"));
}

TEST(PublishedFolder, AliasesMoveBothWaysAndAreNamesOnly) {
  TemporaryFolder temporary;
  RealFileSystem files;
  EXPECT_EQ(*read_alias(files, temporary.path(), "champion"), std::nullopt);
  for (const std::uint64_t sequence : {7, 5}) {
    ASSERT_TRUE(set_alias(files, temporary.path(), "champion", sequence));
    EXPECT_EQ(*read_alias(files, temporary.path(), "champion"), sequence);
  }
  for (const char* name : {"", "../LATEST", ".hidden", "a b", "42"}) {
    EXPECT_FALSE(set_alias(files, temporary.path(), name, 1)) << name;
    EXPECT_FALSE(read_alias(files, temporary.path(), name)) << name;
  }
}

TEST(PublishedFolder, LatestNeverMovesBack) {
  const TemporaryFolder temporary;
  RealFileSystem files;
  EXPECT_EQ(*read_latest(files, temporary.path()), std::nullopt);
  ASSERT_TRUE(set_latest(files, temporary.path(), 7));
  EXPECT_EQ(slurp(temporary.path() / "LATEST"), "000000000007\n");
  ASSERT_TRUE(set_latest(files, temporary.path(), 5));
  EXPECT_EQ(*read_latest(files, temporary.path()), 7u);
  ASSERT_TRUE(set_latest(files, temporary.path(), 8));
  EXPECT_EQ(*read_latest(files, temporary.path()), 8u);
  spit(temporary.path() / "LATEST", "nonsense");
  EXPECT_FALSE(read_latest(files, temporary.path()));
  EXPECT_FALSE(set_latest(files, temporary.path(), 9)) << "what it said is unknown";
}

constexpr std::uint64_t kCrashesEach = 20;

// For every operation: it fails, then the machine crashes. `prepare` brings a fresh file system
// into the state before, `act` is under test, `judge` looks at what is there after the crash.
void crash_everywhere(const std::function<void(CrashFileSystem&)>& prepare,
                      const std::function<Status(CrashFileSystem&)>& act,
                      const std::function<void(CrashFileSystem&, bool succeeded)>& judge) {
  for (std::size_t operation = 0;; ++operation) {
    bool reached_the_end = false;
    for (std::uint64_t seed = 0; seed < kCrashesEach; ++seed) {
      SCOPED_TRACE("operation " + std::to_string(operation) + ", seed " + std::to_string(seed));
      CrashFileSystem files;
      prepare(files);
      files.fail_from(operation);
      const Status status = act(files);
      reached_the_end = !files.has_failed();
      EXPECT_EQ(status.has_value(), reached_the_end) << "an error was swallowed or made up";
      files.crash(seed);
      judge(files, status.has_value());
      if (::testing::Test::HasFailure()) return;
    }
    if (reached_the_end) {
      EXPECT_GT(operation, 3u) << "nothing was tried";
      return;
    }
  }
}

const fs::path kParent = "/data/models/m/snapshots";

void make_parent(CrashFileSystem& files) {
  ASSERT_TRUE(files.create_directories("/data"));
  ASSERT_TRUE(files.sync_directory("/"));
}

void expect_whole(CrashFileSystem& files, int sequence) {
  const auto folder =
      read_folder(files, kParent / numbered_folder_name(static_cast<std::uint64_t>(sequence)));
  ASSERT_TRUE(folder) << folder.error().message;
  EXPECT_EQ(folder->manifest["sequence"], sequence);
  EXPECT_EQ(folder->files.size(), kListed.size());
}

TEST(PublishedFolderCrash, PublishedWholeOrNotAtAll) {
  crash_everywhere(
      make_parent, [](CrashFileSystem& files) { return publish(files, kParent, 5); },
      [](CrashFileSystem& files, bool succeeded) {
        const auto numbers = list_numbered_folders(files, kParent);
        ASSERT_TRUE(numbers);
        if (succeeded) {
          EXPECT_THAT(*numbers, ElementsAre(5u)) << "what is reported is durable";
        }
        if (!numbers->empty()) expect_whole(files, 5);
        // And it can be made again.
        ASSERT_TRUE(remove_temporary_folders(files, kParent));
        ASSERT_TRUE(publish(files, kParent, 5));
        expect_whole(files, 5);
        EXPECT_EQ(files.list(kParent)->size(), 1u);
      });
}

TEST(PublishedFolderCrash, RetentionLeavesEachWholeOrUnpublished) {
  const auto prepare = [](CrashFileSystem& files) {
    make_parent(files);
    for (int i = 1; i <= 4; ++i) ASSERT_TRUE(publish(files, kParent, i));
  };
  crash_everywhere(
      prepare, [](CrashFileSystem& files) { return keep_newest(files, kParent, 2); },
      [](CrashFileSystem& files, bool succeeded) {
        const auto numbers = list_numbered_folders(files, kParent);
        ASSERT_TRUE(numbers);
        for (const std::uint64_t number : *numbers) expect_whole(files, static_cast<int>(number));
        if (succeeded) {
          EXPECT_THAT(*numbers, ElementsAre(3u, 4u));
        }
        ASSERT_TRUE(remove_temporary_folders(files, kParent));
        ASSERT_TRUE(keep_newest(files, kParent, 2));
        EXPECT_EQ(files.list(kParent)->size(), 2u);
        expect_whole(files, 3);
        expect_whole(files, 4);
      });
}

TEST(PublishedFolderCrash, LatestIsTheOldOneOrTheNewOne) {
  const auto prepare = [](CrashFileSystem& files) {
    ASSERT_TRUE(files.create_directories("/data"));
    ASSERT_TRUE(files.sync_directory("/"));
    ASSERT_TRUE(set_latest(files, "/data", 1));
  };
  crash_everywhere(
      prepare, [](CrashFileSystem& files) { return set_latest(files, "/data", 2); },
      [](CrashFileSystem& files, bool succeeded) {
        const auto latest = read_latest(files, "/data");
        ASSERT_TRUE(latest) << latest.error().message;
        EXPECT_TRUE(*latest == 2u || (!succeeded && *latest == 1u));
      });
}

}  // namespace
}  // namespace sluice
