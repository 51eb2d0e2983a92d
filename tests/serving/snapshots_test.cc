#include "serving/snapshots.h"

#include <fstream>
#include <functional>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "learner/row_digest.h"
#include "serving/snapshot_diff.h"
#include "serving/snapshot_tensors.h"
#include "tests/serving/small_snapshot.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Snapshots : public ::testing::Test {
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
  EXPECT_THAT(error_of([](Json& json, Tensors&) { json["kind"] = "delta"; }), HasSubstr("base"));
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

// Chains made by hand of a table of one column and one tower's bias.
class Chains : public Snapshots {
 protected:
  using Rows = std::map<std::uint64_t, float>;
  using Json = nlohmann::ordered_json;

  static Tensors tensors(const Rows& rows, float bias) {
    std::vector<std::uint64_t> keys;
    std::vector<float> values;
    for (const auto& [key, value] : rows) {
      keys.push_back(key);
      values.push_back(value);
    }
    Tensors made;
    made["embedding.user.keys"] = Tensor::of<std::uint64_t>({keys.size()}, keys);
    made["embedding.user.rows"] = Tensor::of<float>({keys.size(), 1}, values);
    made["tower.ctr.0.bias"] = Tensor::of<float>({1}, {bias});
    return made;
  }
  fs::path parent() const { return snapshots("a"); }
  fs::path folder(std::uint64_t sequence) const {
    return parent() / numbered_folder_name(sequence);
  }
  // A delta to `base`; 0: full. `whole`: the model's weights then.
  void publish(std::uint64_t sequence, std::uint64_t base, const Tensors& weights,
               const Tensors& whole) {
    Json manifest = {{"format", 1}, {"kind", base == 0 ? "full" : "delta"}};
    manifest["sequence"] = sequence;
    manifest["weights_digest"] = weights_digest(whole)->hex();
    if (base != 0) {
      manifest["base"] = {{"sequence", base},
                          {"checksum", (*read_manifest(files_, folder(base)))["checksum"]}};
    }
    ASSERT_TRUE(publish_folder(files_, parent(), numbered_folder_name(sequence), manifest,
                               {{"weights.safetensors", encode_tensors(weights)}}, {}));
  }
  // 1 is full; 2 and 5 are deltas.
  void publish_three() {
    publish(1, 0, tensors({{3, 1}, {7, 2}}, 1), tensors({{3, 1}, {7, 2}}, 1));
    publish(2, 1, tensors({{1, 5}, {7, 3}}, 2), tensors({{1, 5}, {3, 1}, {7, 3}}, 2));
    publish(5, 2, tensors({{7, 4}, {9, 6}}, 3), last());
  }
  static Tensors last() { return tensors({{1, 5}, {3, 1}, {7, 4}, {9, 6}}, 3); }
  std::string error_of(std::uint64_t sequence) {
    const auto read = read_flat_snapshot(files_, folder(sequence));
    if (read) return "read";
    EXPECT_THAT(read.error().message, HasSubstr(folder(sequence).string()));
    return read.error().message;
  }
};

TEST_F(Chains, AreFlattened) {
  publish_three();
  const auto flat = read_flat_snapshot(files_, folder(5));
  ASSERT_TRUE(flat) << flat.error().message;
  EXPECT_EQ(flat->tensors, last());
  EXPECT_EQ(flat->manifest, *read_manifest(files_, folder(5)));
  EXPECT_EQ(read_flat_snapshot(files_, folder(1))->tensors, tensors({{3, 1}, {7, 2}}, 1));
}

TEST_F(Chains, APartIsReadWithoutItsBase) {
  publish_three();
  const std::string checksum = read_snapshot_part(files_, folder(2))->checksum();
  fs::remove_all(folder(2));
  const auto part = read_snapshot_part(files_, folder(5));
  ASSERT_TRUE(part) << part.error().message;
  EXPECT_EQ(part->tensors, tensors({{7, 4}, {9, 6}}, 3));
  EXPECT_EQ(part->base->sequence, 2u);
  EXPECT_EQ(part->base->checksum, checksum);
  EXPECT_EQ(part->weights_digest, *weights_digest(last()));
}

TEST_F(Chains, WhatIsMissingOrDamagedIsNamed) {
  publish_three();
  fs::rename(folder(1), parent() / "aside");
  EXPECT_THAT(error_of(5), AllOf(HasSubstr(folder(1).string()), HasSubstr("not there")));
  EXPECT_THAT(error_of(2), HasSubstr(folder(1).string()));
  // Another snapshot in the place of one that the next was made from.
  publish(1, 0, tensors({{3, 1}}, 1), tensors({{3, 1}}, 1));
  EXPECT_THAT(error_of(5), AllOf(HasSubstr(folder(1).string()), HasSubstr("another one")));
  fs::remove_all(folder(1));
  fs::rename(parent() / "aside", folder(1));
  EXPECT_EQ(error_of(5), "read");
  fs::resize_file(folder(2) / "weights.safetensors", 20);
  EXPECT_THAT(error_of(5), AllOf(HasSubstr(folder(2).string()), HasSubstr("damaged")));
}

TEST_F(Chains, WeightsThatAreNotTheModelsAreRefused) {
  publish(1, 0, tensors({{3, 1}}, 1), tensors({{3, 1}}, 1));
  publish(2, 1, tensors({{3, 2}}, 1), tensors({{3, 3}}, 1));
  publish(3, 0, tensors({{3, 2}}, 1), tensors({{3, 3}}, 1));
  EXPECT_THAT(error_of(2), HasSubstr("its weights have the digest"));
  EXPECT_THAT(error_of(3), HasSubstr("its weights have the digest"));
}

// A tensor of no rows may say any number of columns and has no bytes: nothing is allocated by it.
TEST_F(Chains, ColumnsOfNoRowsTakeNoMemory) {
  constexpr std::uint64_t kColumns = 1ULL << 62;
  Tensors empty = tensors({}, 1);
  empty["embedding.user.rows"] = Tensor{TensorType::f32, {0, kColumns}, {}};
  publish(1, 0, empty, tensors({}, 1));
  publish(2, 1, empty, tensors({}, 1));
  EXPECT_EQ(error_of(1), "read");
  EXPECT_EQ(error_of(2), "read");
  publish(3, 1, tensors({{3, 1}}, 1), tensors({{3, 1}}, 1));
  EXPECT_THAT(error_of(3), HasSubstr("another number of columns"));
}

TEST_F(Chains, TablesAreReadInOneWay) {
  const auto refused = [&](const std::string& name, Tensor tensor) {
    Tensors damaged = tensors({{3, 1}, {7, 2}}, 1);
    damaged[name] = std::move(tensor);
    publish(1, 0, damaged, tensors({}, 1));
    EXPECT_THAT(error_of(1), HasSubstr(name));
    EXPECT_FALSE(diff_snapshots(damaged, damaged)) << name;
    EXPECT_FALSE(apply_deltas(damaged, {damaged})) << name;
    fs::remove_all(folder(1));
  };
  refused("embedding.user.keys", Tensor::of<std::uint64_t>({2}, {7, 3}));
  refused("embedding.user.keys", Tensor::of<std::uint64_t>({2}, {3, 3}));
  refused("embedding.user.keys", Tensor::of<float>({2}, {3, 7}));
  refused("embedding.user.keys", Tensor::of<std::uint64_t>({1, 2}, {3, 7}));
  refused("embedding.user.rows", Tensor::of<float>({1, 2}, {1, 2}));
  refused("embedding.user.rows", Tensor::of<float>({2}, {1, 2}));
  refused("embedding.user.rows", Tensor::of<double>({2, 1}, {1, 2}));
}

TEST_F(Chains, BasesThatAreNeeded) {
  publish_three();
  publish(6, 0, last(), last());
  publish(8, 6, tensors({}, 4), last());
  using Numbers = std::set<std::uint64_t>;
  EXPECT_EQ(*needed_bases(files_, parent(), {5}), (Numbers{1, 2}));
  EXPECT_EQ(*needed_bases(files_, parent(), {1, 6}), Numbers{});
  EXPECT_EQ(*needed_bases(files_, parent(), {2, 5, 8}), (Numbers{1, 2, 6}));
  EXPECT_EQ(*needed_bases(files_, parent(), {99}), Numbers{});
}

// Who cannot tell what a kept delta needs must not remove it.
TEST_F(Chains, OneThatCannotBeReadMayNeedAnyThatIsOlder) {
  publish_three();
  publish(6, 0, last(), last());
  std::ofstream(folder(5) / "manifest.json") << "torn";
  EXPECT_EQ(*needed_bases(files_, parent(), {5, 6}), (std::set<std::uint64_t>{1, 2}));
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
