// sluice snapshot and sluice score as they are typed.
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "app/verbs.h"
#include "tests/app/typed_verb.h"
#include "tests/serving/small_snapshot.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TypedVerb run(const std::vector<std::string>& arguments) {
  const auto add = [](CLI::App& root, int& exit_code) {
    add_score(root, exit_code);
    add_snapshot(root, exit_code);
  };
  return type_verb(add, arguments);
}

std::vector<std::string> printed_lines(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    lines.push_back(text.substr(begin, end - begin));
    begin = end == std::string::npos ? text.size() : end + 1;
  }
  return lines;
}

class SnapshotVerbs : public ::testing::Test {
 protected:
  SnapshotVerbs() {
    publish_small_snapshot(snapshots(), 20);
    publish_small_snapshot(snapshots(), 40);
  }
  std::string data_dir() const { return temporary_.path().string(); }
  fs::path snapshots() const { return temporary_.path() / "models" / "m" / "snapshots"; }
  void damage(const char* file) {
    std::fstream stream(snapshots() / "000000000020" / file,
                        std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(100);
    stream.put('\x07');
  }
  std::string write(const std::string& text) {
    const std::string path = (temporary_.path() / "in.jsonl").string();
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }

  TemporaryFolder temporary_;
};

TEST_F(SnapshotVerbs, RollbackMovesLatestBackAndARestartDoesNotUndoIt) {
  RealFileSystem files;
  const TypedVerb back = run({"snapshot", "rollback", data_dir(), "--json"});
  EXPECT_EQ(back.exit_code, 0) << back.err;
  EXPECT_EQ(json::parse(back.out), json({{"latest", 20}, {"was", 40}}));
  EXPECT_EQ(*read_latest(files, snapshots()), 20u);
  ASSERT_TRUE(set_latest(files, snapshots(), 40));  // published again by a restart
  EXPECT_EQ(*read_latest(files, snapshots()), 20u);
  ASSERT_TRUE(set_latest(files, snapshots(), 60));
  EXPECT_EQ(*read_latest(files, snapshots()), 60u);
}

TEST_F(SnapshotVerbs, RollbackRefusesWhatIsNotOlderOrDamaged) {
  RealFileSystem files;
  EXPECT_EQ(run({"snapshot", "rollback", data_dir(), "60"}).exit_code, 2);
  EXPECT_EQ(run({"snapshot", "rollback", data_dir(), "40"}).exit_code, 2);
  EXPECT_EQ(run({"snapshot", "rollback", data_dir(), "nobody"}).exit_code, 2);
  damage("weights.safetensors");
  const TypedVerb damaged = run({"snapshot", "rollback", data_dir()});
  EXPECT_EQ(damaged.exit_code, 1);
  EXPECT_THAT(damaged.err, HasSubstr("weights.safetensors does not have its checksum"));
  EXPECT_EQ(*read_latest(files, snapshots()), 40u);
}

TEST_F(SnapshotVerbs, AnAliasNamesASnapshotAndKeepsIt) {
  const TypedVerb set = run({"snapshot", "alias", data_dir(), "champion", "20"});
  EXPECT_EQ(set.exit_code, 0) << set.err;
  EXPECT_THAT(run({"snapshot", "list", data_dir()}).out, HasSubstr("champion"));
  const TypedVerb shown = run({"snapshot", "show", data_dir(), "champion", "--json"});
  EXPECT_EQ(json::parse(shown.out)["sequence"], 20);
  const TypedVerb pruned = run({"snapshot", "prune", data_dir(), "--keep", "1", "--json"});
  EXPECT_EQ(json::parse(pruned.out)["kept"], json({20, 40}));
  EXPECT_EQ(run({"snapshot", "alias", data_dir(), "champion", "--remove"}).exit_code, 0);
  EXPECT_EQ(run({"snapshot", "alias", data_dir(), "champion", "--remove"}).exit_code, 2);
  const TypedVerb again = run({"snapshot", "prune", data_dir(), "--keep", "1", "--json"});
  EXPECT_EQ(json::parse(again.out), json({{"removed", {20}}, {"kept", {40}}}));
}

TEST_F(SnapshotVerbs, AnOperatorMayMoveLatestEitherWay) {
  RealFileSystem files;
  ASSERT_EQ(run({"snapshot", "alias", data_dir(), "candidate", "40"}).exit_code, 0);
  EXPECT_EQ(run({"snapshot", "alias", data_dir(), "LATEST", "20"}).exit_code, 0);
  EXPECT_EQ(*read_latest(files, snapshots()), 20u);
  const TypedVerb on = run({"snapshot", "alias", data_dir(), "LATEST", "candidate", "--json"});
  EXPECT_EQ(json::parse(on.out), json({{"alias", "LATEST"}, {"snapshot", 40}, {"was", 20}}));
  EXPECT_EQ(run({"snapshot", "alias", data_dir(), "LATEST", "--remove"}).exit_code, 2);
}

TEST_F(SnapshotVerbs, AnAliasNamesNothingDamaged) {
  damage("weights.safetensors");
  EXPECT_EQ(run({"snapshot", "alias", data_dir(), "champion", "20"}).exit_code, 1);
  EXPECT_EQ(run({"snapshot", "alias", data_dir(), "../LATEST", "40"}).exit_code, 2);
  EXPECT_EQ(run({"snapshot", "show", data_dir(), "champion"}).exit_code, 2);
}

TEST_F(SnapshotVerbs, DiffTellsWhichTablesAndLayersMoved) {
  const TypedVerb outcome = run({"snapshot", "diff", data_dir(), "20", "LATEST", "--json"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const json difference = json::parse(outcome.out);
  EXPECT_GT(difference["tables"]["user"]["changed"], 0);
  EXPECT_GT(difference["tables"]["user"]["largest_move"], 0.0);
  EXPECT_EQ(difference["tables"]["tags"]["added"], 0);
  for (const auto& layer : difference["layers"]) EXPECT_GT(layer["move"], 0.0);
  EXPECT_THAT(run({"snapshot", "diff", data_dir(), "20"}).out, HasSubstr("largest move"));

  const json none = json::parse(run({"snapshot", "diff", data_dir(), "40", "40", "--json"}).out);
  for (const auto& table : none["tables"]) EXPECT_EQ(table["changed"], 0);
  for (const auto& layer : none["layers"]) EXPECT_EQ(layer["move"], 0.0);
}

TEST_F(SnapshotVerbs, ListMarksLatest) {
  const TypedVerb text = run({"snapshot", "list", data_dir()});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  const auto lines = printed_lines(text.out);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_THAT(lines[0], HasSubstr("event time"));
  EXPECT_THAT(lines[1], ::testing::StartsWith("20 "));
  EXPECT_THAT(lines[1], ::testing::Not(HasSubstr("LATEST")));
  EXPECT_THAT(lines[2], ::testing::EndsWith("LATEST"));

  const json entries = json::parse(run({"snapshot", "list", data_dir(), "--json"}).out);
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0]["latest"], false);
  EXPECT_EQ(entries[1]["sequence"], 40);
  EXPECT_EQ(entries[1]["time"], "2023-11-14T22:13:20Z");
  EXPECT_TRUE(entries[1]["auc"]["ctr"].is_number());
  EXPECT_EQ(entries[1]["bytes"],
            fs::file_size(snapshots() / "000000000040" / "weights.safetensors"));
}

TEST_F(SnapshotVerbs, ListNamesADamagedManifest) {
  damage("manifest.json");
  const TypedVerb outcome = run({"snapshot", "list", data_dir()});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("000000000020 is damaged: manifest.json"));
  EXPECT_THAT(outcome.out, HasSubstr("LATEST"));
}

TEST_F(SnapshotVerbs, ShowPrintsTheManifest) {
  const json manifest = json::parse(run({"snapshot", "show", data_dir(), "20", "--json"}).out);
  EXPECT_EQ(manifest["sequence"], 20);
  EXPECT_EQ(manifest["features"].size(), 6u);
  const TypedVerb text = run({"snapshot", "show", data_dir()});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr("000000000040"));
  EXPECT_THAT(text.out, HasSubstr("user.age"));
  EXPECT_THAT(text.out, HasSubstr("normalized entropy"));
}

TEST_F(SnapshotVerbs, VerifyNamesWhatIsDamaged) {
  EXPECT_EQ(run({"snapshot", "verify", data_dir(), "--all"}).exit_code, 0);
  damage("weights.safetensors");
  EXPECT_EQ(run({"snapshot", "verify", data_dir()}).exit_code, 0) << "LATEST is another";
  const TypedVerb outcome = run({"snapshot", "verify", data_dir(), "--all"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err,
              HasSubstr("000000000020 is damaged: weights.safetensors does not have its checksum"));
  EXPECT_THAT(outcome.out, HasSubstr("000000000040 is whole"));
  const TypedVerb as_json = run({"snapshot", "verify", data_dir(), "20", "--json"});
  EXPECT_EQ(as_json.exit_code, 1);
  EXPECT_EQ(json::parse(as_json.out)[0]["whole"], false);

  fs::remove_all(snapshots() / "000000000040");
  const TypedVerb no_latest = run({"snapshot", "verify", data_dir(), "--all"});
  EXPECT_EQ(no_latest.exit_code, 1);
  EXPECT_THAT(no_latest.err, HasSubstr("LATEST names 000000000040, which is not there"));
}

TEST_F(SnapshotVerbs, WrongUseIsExitCode2) {
  EXPECT_EQ(run({"snapshot", "list", data_dir() + "/absent"}).exit_code, 2);
  EXPECT_EQ(run({"snapshot", "show", data_dir(), "21"}).exit_code, 2);
  EXPECT_EQ(run({"snapshot", "verify", data_dir(), "20", "--all"}).exit_code, 2);
  EXPECT_EQ(run({"score", data_dir(), "--in", data_dir() + "/absent"}).exit_code, 2);
  EXPECT_EQ(run({"score", data_dir(), "--model", "other"}).exit_code, 2);
}

TEST_F(SnapshotVerbs, ScoreAnswersLineByLine) {
  const std::string in = write(small_impression(1) + "\nnonsense\r\n\n" + std::string(5000, 'x') +
                               "\n" + small_impression(2));  // no end of the last line
  const TypedVerb outcome = run({"score", data_dir(), "--in", in});
  EXPECT_EQ(outcome.exit_code, 1);
  const auto lines = printed_lines(outcome.out);
  ASSERT_EQ(lines.size(), 5u);
  const json first = json::parse(lines[0]);
  EXPECT_EQ(first["impression_id"], "i1");
  EXPECT_EQ(first.size(), 4u);
  EXPECT_EQ(first["pctcvr"].get<double>(),
            first["pctr"].get<double>() * first["pcvr"].get<double>());
  EXPECT_THAT(json::parse(lines[1])["error"], HasSubstr("malformed"));
  EXPECT_THAT(json::parse(lines[2])["error"], HasSubstr("malformed"));
  EXPECT_THAT(json::parse(lines[3])["error"], HasSubstr("oversized"));
  EXPECT_EQ(json::parse(lines[4])["impression_id"], "i2");
  EXPECT_THAT(outcome.err, HasSubstr("line 2: malformed"));
  EXPECT_THAT(outcome.err, HasSubstr("line 4: oversized"));

  const TypedVerb good = run({"score", (snapshots() / "000000000040").string(), "--in",
                              write(small_impression(1) + "\n")});
  EXPECT_EQ(good.exit_code, 0);
  EXPECT_THAT(good.err, IsEmpty());
  EXPECT_EQ(good.out, lines[0] + "\n");
  EXPECT_THAT(run({"score", data_dir(), "--in", write("")}).out, IsEmpty());
}

// The printed digits are the numbers themselves.
TEST_F(SnapshotVerbs, ScoresReadBackAsTheSameBits) {
  std::string in;
  for (int i = 0; i < 200; ++i) in += small_impression(i) + "\n";
  const TypedVerb outcome = run({"score", data_dir(), "--in", write(in)});
  const auto lines = printed_lines(outcome.out);
  ASSERT_EQ(lines.size(), 200u);
  for (const std::string& line : lines) {
    const json score = json::parse(line);
    ASSERT_EQ(score["pctcvr"].get<double>(),
              score["pctr"].get<double>() * score["pcvr"].get<double>());
  }
}

}  // namespace
}  // namespace sluice
