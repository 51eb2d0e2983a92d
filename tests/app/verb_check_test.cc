#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "app/verbs.h"
#include "config/load.h"
#include "tests/app/typed_verb.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

TypedVerb run_check(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "check");
  return type_verb(add_check, arguments);
}

class Check : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ =
        fs::temp_directory_path() / ("sluice_check_" + std::to_string(::getpid()) + info->name());
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& text) {
    const fs::path path = folder_ / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
    return path.string();
  }
  std::string write_config() {
    return write("shop.toml", "[source]\nroot = \"logs\"\n[features]\nsite = { path = \"a.b\" }\n");
  }
  void write_logs() {
    for (const char* topic : {"impressions", "clicks", "purchases"}) {
      write(std::string("logs/") + topic + "/0.jsonl", "");
      write(std::string("logs/") + topic + "/00001/0.jsonl.zst", "");
    }
  }

  fs::path folder_;
};

TEST_F(Check, SaysThatAConfigIsValidAndSumsItUp) {
  write_logs();
  const std::string path = write_config();
  const TypedVerb outcome = run_check({path, "--set", "join.click_window=2 h"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.err, IsEmpty());
  EXPECT_THAT(outcome.out, StartsWith(path + " is valid\n"));
  EXPECT_THAT(outcome.out, HasSubstr("click window 2 h"));
  EXPECT_THAT(outcome.out, HasSubstr("1: 1 with embeddings in 1 tables, 0 dense"));
}

TEST_F(Check, TellsOfActionsWhereThereAreSome) {
  write_logs();
  EXPECT_THAT(run_check({write_config()}).out, ::testing::Not(HasSubstr("action")));
  const TypedVerb outcome = run_check({write_config(), "--set", "streams.actions.topic=carts"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.out, HasSubstr("actions (carts, out of order by at most 10 s)"));
  EXPECT_THAT(outcome.out, HasSubstr("conversion window 1 d, action window 1 d"));
  EXPECT_THAT(outcome.err, HasSubstr("streams.actions.topic: there are no logs"));
}

TEST_F(Check, PrintsEveryProblemOnALineOfItsOwn) {
  const std::string path = write("shop.toml", "[join]\ntick = 3\nclick_windw = \"1 h\"\n");
  const TypedVerb outcome = run_check({"--set", "model.seed=-1", path});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.out, IsEmpty());
  EXPECT_THAT(outcome.err, HasSubstr(path + ":2:8: join.tick: 3 is not allowed"));
  EXPECT_THAT(outcome.err, HasSubstr(path + ":3:1: join.click_windw: unknown key; did you mean "
                                            "join.click_window?\n"));
  EXPECT_THAT(outcome.err, HasSubstr("--set: model.seed: -1 is not allowed"));
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 5);
}

TEST_F(Check, PrintsTheEffectiveConfigWhichLoadsAgain) {
  const std::string path = write_config();
  const TypedVerb outcome = run_check({"--effective", path});
  EXPECT_EQ(outcome.exit_code, 0);
  const LoadedConfig again = parse_config(outcome.out, "effective", "", {});
  EXPECT_THAT(again.problems, IsEmpty());
  EXPECT_EQ(again.config, load_config(path, {}).config);
}

TEST_F(Check, PrintsTheRecipeWhichIsOneOfItsOwn) {
  const std::string path = write_config();
  const TypedVerb outcome = run_check({"--recipe", "--set", "model.recipe=aman:rate=0.2", path});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.out, StartsWith("summary = \"AMAN: "));
  EXPECT_THAT(outcome.out, HasSubstr("chance = \"0.2\""));
  const std::string own = write("own.toml", outcome.out);
  const TypedVerb again = run_check({"--recipe", "--set", "model.recipe=" + own, path});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(again.out, outcome.out.substr(outcome.out.find("[towers]")));
}

TEST_F(Check, PrintsTheSchemaWithoutAConfig) {
  const TypedVerb outcome = run_check({"--schema"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_TRUE(nlohmann::json::parse(outcome.out).contains("properties"));
}

TEST_F(Check, RefusesToCheckNothing) {
  const TypedVerb outcome = run_check({});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("CONFIG is missing"));
}

TEST_F(Check, AFileThatIsNotThereIsAProblem) {
  const TypedVerb outcome = run_check({(folder_ / "none.toml").string()});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("none.toml"));
}

TEST_F(Check, WarnsOfLogsThatAreNotThere) {
  const std::string path = write_config();
  write_logs();
  fs::remove_all(folder_ / "logs/clicks");
  fs::remove(folder_ / "logs/purchases/0.jsonl");
  const TypedVerb outcome = run_check({path});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.err, HasSubstr("warning: streams.clicks.topic: there are no logs in "));
  EXPECT_THAT(outcome.err, HasSubstr("warning: streams.purchases.topic: "));
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 2);
}

}  // namespace
}  // namespace sluice
