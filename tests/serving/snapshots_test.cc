#include "serving/snapshots.h"

#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/serving/small_snapshot.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

using testing::HasSubstr;

class Snapshots : public testing::Test {
 protected:
  std::string found(const fs::path& where, const std::optional<std::string>& model = {},
                    std::optional<std::uint64_t> sequence = {}) {
    const auto path = find_snapshot(files_, where, model, sequence);
    return path ? fs::relative(*path, data_dir()).string() : path.error().message;
  }
  const fs::path& data_dir() const { return temporary_.path(); }
  fs::path snapshots(const std::string& model) const {
    return data_dir() / "models" / model / "snapshots";
  }

  RealFileSystem files_;
  TemporaryFolder temporary_;
};

TEST_F(Snapshots, AreFoundFromAnyFolderAboveThem) {
  publish_small_snapshot(snapshots("a"), 16);
  publish_small_snapshot(snapshots("a"), 32);
  const std::string newest = "models/a/snapshots/000000000032";
  EXPECT_EQ(found(data_dir()), newest);
  EXPECT_EQ(found(data_dir(), "a"), newest);
  EXPECT_EQ(found(data_dir() / "models" / "a"), newest);
  EXPECT_EQ(found(snapshots("a")), newest);
  EXPECT_EQ(found(snapshots("a") / "000000000016"), "models/a/snapshots/000000000016");
  EXPECT_EQ(found(data_dir(), {}, 16), "models/a/snapshots/000000000016");
  EXPECT_EQ(found(snapshots("a"), {}, 32), newest);
}

TEST_F(Snapshots, WhatIsNotThereIsSaid) {
  EXPECT_THAT(found(data_dir() / "absent"), HasSubstr("there is no folder"));
  EXPECT_THAT(found(data_dir()), HasSubstr("neither a data folder nor one of snapshots"));
  fs::create_directories(data_dir() / "models");
  EXPECT_THAT(found(data_dir()), HasSubstr("holds no model's snapshots yet"));
  fs::create_directories(snapshots("a"));
  EXPECT_THAT(found(data_dir()), HasSubstr("no snapshot is published yet"));
  publish_small_snapshot(snapshots("a"), 16);
  publish_small_snapshot(snapshots("b"), 16);
  EXPECT_THAT(found(data_dir()), HasSubstr("choose one by --model: a, b"));
  EXPECT_THAT(found(data_dir(), "c"), HasSubstr("holds only a, b"));
  EXPECT_EQ(found(data_dir(), "b"), "models/b/snapshots/000000000016");
  EXPECT_THAT(found(data_dir(), "b", 17), HasSubstr("there is no snapshot 17"));
  EXPECT_THAT(found(snapshots("a"), "a"), HasSubstr("goes with a data folder"));
  const auto path = find_snapshot(files_, data_dir(), std::nullopt, std::nullopt);
  EXPECT_EQ(path.error().kind, ErrorKind::usage);
}

TEST_F(Snapshots, AreReadWhole) {
  const SmallSnapshot published = publish_small_snapshot(snapshots("a"), 16);
  const auto snapshot = read_snapshot(files_, published.folder);
  ASSERT_TRUE(snapshot) << snapshot.error().message;
  EXPECT_EQ(snapshot->manifest["sequence"], 16);
  EXPECT_EQ(snapshot->streams.impression_id, "ids.impression");
  EXPECT_EQ(snapshot->streams.max_record_bytes, 2000u);
  EXPECT_EQ(snapshot->model.features().size(), 6u);
}

// Publishes what `change` makes of a good snapshot, with checksums that hold, and reads it.
class OddSnapshots : public Snapshots {
 protected:
  std::string error_of(const std::function<void(nlohmann::ordered_json&, Tensors&)>& change) {
    fs::remove_all(data_dir() / "models");
    const SmallSnapshot good = publish_small_snapshot(snapshots("a"), 16);
    nlohmann::ordered_json manifest = *read_manifest(files_, good.folder);
    manifest.erase("files");
    manifest.erase("checksum");
    Tensors tensors = good.state.tensors;
    change(manifest, tensors);
    fs::remove_all(good.folder);
    EXPECT_TRUE(publish_folder(files_, snapshots("a"), "000000000016", manifest,
                               {{"weights.safetensors", encode_tensors(tensors)}}, {}));
    const auto snapshot = read_snapshot(files_, good.folder);
    if (snapshot) return "read";
    EXPECT_EQ(snapshot.error().kind, ErrorKind::stop);
    EXPECT_THAT(snapshot.error().message, HasSubstr(good.folder.string()));
    return snapshot.error().message;
  }
};

TEST_F(OddSnapshots, AreRefusedWithTheReason) {
  using Json = nlohmann::ordered_json;
  EXPECT_EQ(error_of([](Json&, Tensors&) {}), "read");
  EXPECT_THAT(error_of([](Json& json, Tensors&) { json["format"] = 2; }), HasSubstr("format"));
  EXPECT_THAT(error_of([](Json& json, Tensors&) { json["kind"] = "delta"; }), HasSubstr("kind"));
  EXPECT_THAT(error_of([](Json& json, Tensors&) { json["sequence"] = 17; }),
              HasSubstr("another sequence number"));
  EXPECT_THAT(error_of([](Json& json, Tensors&) { json.erase("streams"); }),
              HasSubstr("how impressions are read"));
  EXPECT_THAT(error_of([](Json& json, Tensors&) { json["streams"]["ts"] = 7; }),
              HasSubstr("how impressions are read"));
  EXPECT_THAT(error_of([](Json& json, Tensors&) { json["model"]["recipe"] = "x"; }),
              HasSubstr("recipe"));
  EXPECT_THAT(error_of([](Json&, Tensors& tensors) { tensors.erase("tower.ctr.0.weight"); }),
              HasSubstr("tower.ctr.0.weight"));
  EXPECT_THAT(error_of([](Json&, Tensors& tensors) {
                Tensor& rows = tensors.at("embedding.user.rows");
                rows.shape = {rows.elements()};
              }),
              HasSubstr("embedding.user.rows"));
}

TEST_F(Snapshots, OneWithoutWeightsIsRefused) {
  ASSERT_TRUE(publish_folder(files_, snapshots("a"), "000000000001",
                             {{"format", 1}, {"kind", "full"}, {"sequence", 1}}, {{"x", "y"}}, {}));
  const auto snapshot = read_snapshot(files_, snapshots("a") / "000000000001");
  ASSERT_FALSE(snapshot);
  EXPECT_THAT(snapshot.error().message, HasSubstr("lists no weights.safetensors"));
}

}  // namespace
}  // namespace sluice
