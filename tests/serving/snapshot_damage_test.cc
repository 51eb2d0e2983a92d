// A snapshot that was damaged in any way is refused with the reason, and never the end of the
// program: whatever its files and its manifest say, checksums that hold included.
#include <functional>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serving/scorer.h"
#include "tests/serving/small_snapshot.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::AnyOf;
using ::testing::HasSubstr;

class SnapshotDamage : public ::testing::Test {
 protected:
  SnapshotDamage() : good_(publish_small_snapshot(temporary_.path() / "good", 16)) {}

  void write(const fs::path& path, std::string_view bytes) {
    const auto file = files_.create(path);
    SLUICE_CHECK(file.has_value() && (*file)->append(bytes).has_value());
  }
  std::string bytes_of(const char* name) { return files_.read(good_.folder / name).value(); }

  // Empty where it can be read; then it scores, or says of each impression why not.
  std::string problem_of(const fs::path& folder) {
    const auto scorer = open_scorer(files_, folder);
    if (scorer) {
      const std::vector<std::string> impressions = {small_impression(1), "{}", "x"};
      SLUICE_CHECK((*scorer)->score(impressions).size() == 3);
      return "";
    }
    EXPECT_EQ(scorer.error().kind, ErrorKind::stop);
    EXPECT_THAT(scorer.error().message, HasSubstr(folder.string()));
    return scorer.error().message;
  }

  // The manifest as `change` makes it, with a checksum that holds.
  std::string problem_of_manifest(const std::function<void(Json&)>& change) {
    Json manifest = *read_manifest(files_, good_.folder);
    manifest.erase("checksum");
    change(manifest);
    std::string text = manifest.dump(2);
    text.resize(text.size() - 2);  // "\n}"
    text += ",\n  ";
    const std::string checksum = hash128(text).hex();
    const fs::path folder = fresh_copy();
    write(folder / "manifest.json", text + "\"checksum\": \"" + checksum + "\"\n}\n");
    return problem_of(folder);
  }

  fs::path fresh_copy() {
    const fs::path folder = temporary_.path() / "damaged" / good_.folder.filename();
    fs::remove_all(folder);
    fs::create_directories(folder.parent_path());
    fs::copy(good_.folder, folder);
    return folder;
  }

  RealFileSystem files_;
  TemporaryFolder temporary_;
  SmallSnapshot good_;
};

constexpr std::array kFiles = {"manifest.json", "weights.safetensors"};

TEST_F(SnapshotDamage, ACopyIsWhole) {
  EXPECT_EQ(problem_of(fresh_copy()), "");
  EXPECT_EQ(problem_of_manifest([](Json&) {}), "");
}

TEST_F(SnapshotDamage, AFileThatIsMissingOrCutIsRefused) {
  for (const char* name : kFiles) {
    const std::string bytes = bytes_of(name);
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{8},
                                   bytes.size() / 2, bytes.size() - 1}) {
      const fs::path folder = fresh_copy();
      write(folder / name, bytes.substr(0, size));
      EXPECT_NE(problem_of(folder), "") << name << " of " << size;
    }
    const fs::path longer = fresh_copy();
    write(longer / name, bytes + " ");
    EXPECT_NE(problem_of(longer), "") << name;
    const fs::path without = fresh_copy();
    fs::remove(without / name);
    EXPECT_NE(problem_of(without), "") << name;
  }
}

// Every bit of the manifest, and a bit of every eighth byte of the weights.
TEST_F(SnapshotDamage, AFlippedBitIsFound) {
  const fs::path folder = fresh_copy();
  for (const char* name : kFiles) {
    const std::string bytes = bytes_of(name);
    const std::size_t step = std::string_view(name) == "manifest.json" ? 1 : 8;
    for (std::size_t at = 0; at < bytes.size(); at += step) {
      std::string flipped = bytes;
      flipped[at] = static_cast<char>(flipped[at] ^ (1 << at / step % 8));
      write(folder / name, flipped);
      ASSERT_NE(problem_of(folder), "") << name << " at " << at;
    }
    write(folder / name, bytes);
  }
}

TEST_F(SnapshotDamage, AFileOfAnotherSnapshotIsRefused) {
  const SmallSnapshot other = publish_small_snapshot(temporary_.path() / "good", 32);
  for (const char* name : kFiles) {
    const fs::path folder = fresh_copy();
    write(folder / name, files_.read(other.folder / name).value());
    EXPECT_NE(problem_of(folder), "") << name;
  }
  // Both of them: whole, but under a name that is not its own.
  const fs::path folder = fresh_copy();
  for (const char* name : kFiles) write(folder / name, files_.read(other.folder / name).value());
  EXPECT_THAT(problem_of(folder), HasSubstr("another sequence number"));
}

TEST_F(SnapshotDamage, NamesThatLeadElsewhereAreRefused) {
  for (const char* name : {"../good/x", "/etc/passwd", "..", ".", "", "a/b", "manifest.json"}) {
    EXPECT_NE(problem_of_manifest([&](Json& manifest) {
                manifest["files"][name] = manifest["files"]["weights.safetensors"];
              }),
              "")
        << name;
  }
}

// Numbers that a model of no machine has: nothing is allocated by them.
TEST_F(SnapshotDamage, SizesThatNoModelHasAreRefused) {
  for (const std::uint64_t size :
       {std::uint64_t{0}, std::uint64_t{1'024}, std::uint64_t{1} << 20, std::uint64_t{1} << 40,
        std::uint64_t{1} << 62, ~std::uint64_t{0}}) {
    EXPECT_NE(problem_of_manifest([&](Json& json) { json["model"]["embedding_dim"] = size; }), "");
    EXPECT_NE(problem_of_manifest([&](Json& json) { json["model"]["hidden"] = {size, size}; }), "");
    EXPECT_NE(problem_of_manifest([&](Json& json) { json["model"]["hidden"][0] = size; }), "");
  }
  EXPECT_NE(problem_of_manifest([](Json& json) {
              json["model"]["hidden"] = std::vector<std::uint64_t>(1'000, 65'536);
            }),
            "");
  for (const char* key : {"max_depth", "max_record_bytes"}) {
    EXPECT_THAT(problem_of_manifest([&](Json& json) { json["streams"][key] = ~std::uint64_t{0}; }),
                HasSubstr("how impressions are read"));
  }
}

// Whatever a leaf of the manifest is replaced by, there is a reason or a score.
void for_each_leaf(Json& json, const std::function<void(Json&)>& f) {
  if (json.is_structured() && !json.empty()) {
    for (Json& child : json) for_each_leaf(child, f);
  }
  f(json);
}

TEST_F(SnapshotDamage, NoValueInTheManifestEndsTheProgram) {
  const std::vector<Json> values = {
      nullptr,       true,          -1, 0, 1, std::uint64_t{1} << 63, 1e300, "", "../x", "log:0",
      Json::array(), Json::object()};
  std::size_t leaves = 0;
  Json manifest = *read_manifest(files_, good_.folder);
  for (const char* key : {"metrics", "window_metrics", "checksum"}) manifest.erase(key);
  for_each_leaf(manifest, [&](Json&) { ++leaves; });
  ASSERT_GT(leaves, 40U);
  std::size_t refused = 0;
  for (std::size_t leaf = 0; leaf < leaves; ++leaf) {
    const Json& value = values[leaf % values.size()];
    for (const Json& replacement : {value, values[(leaf * 7 + 3) % values.size()]}) {
      refused += problem_of_manifest([&](Json& json) {
                   for (const char* key : {"metrics", "window_metrics"}) json.erase(key);
                   std::size_t n = 0;
                   for_each_leaf(json, [&](Json& at) {
                     if (n++ == leaf) at = replacement;
                   });
                 }).empty()
                     ? 0
                     : 1;
    }
  }
  EXPECT_GT(refused, leaves / 2);
}

}  // namespace
}  // namespace sluice
