// Which models a comparison has, and what it refuses.
#include "app/compare_models.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "app/compare_result.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CompareModelsTest : public ::testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& more) {
    const fs::path path = folder_.path() / (name + ".toml");
    std::ofstream(path) << "[source]\ntype = \"files\"\nroot = \".\"\n"
                        << "[features]\nuser = { path = \"user_id\", type = \"id\" }\n"
                        << "[model]\nname = \"" << name << "\"\n"
                        << more;
    return path;
  }
  std::vector<ComparedModel> load(const ComparedConfigs& asked) {
    auto models = load_compared_models(asked);
    EXPECT_TRUE(models) << models.error().message;
    return models ? *models : std::vector<ComparedModel>();
  }
  std::string refusal(const ComparedConfigs& asked) {
    const auto models = load_compared_models(asked);
    EXPECT_FALSE(models);
    if (models) return {};
    EXPECT_EQ(models.error().kind, ErrorKind::usage);
    return models.error().message;
  }

  TemporaryFolder folder_;
};

std::vector<std::string> names(const std::vector<ComparedModel>& models) {
  std::vector<std::string> result;
  for (const ComparedModel& model : models) result.push_back(model.config.model.name);
  return result;
}

TEST_F(CompareModelsTest, EachConfigWithEachSeed) {
  const auto models =
      load({{write("a", "hidden = [8]\n"), write("b", "hidden = [4]\n")}, {}, "", 2});
  EXPECT_THAT(names(models), ElementsAre("a-seed1", "a-seed2", "b-seed1", "b-seed2"));
  EXPECT_EQ(models[1].group, "a");
  EXPECT_EQ(models[1].config.model.seed, 2U);
  EXPECT_EQ(models[2].config.model.hidden, (std::vector<std::uint64_t>{4}));
  EXPECT_THAT(differing_keys(models), ElementsAre("model.hidden", "model.seed"));
}

TEST_F(CompareModelsTest, RecipesNameTheModels) {
  const auto models = load({{write("a", "")}, {}, "esmm", 2});
  EXPECT_THAT(names(models), ElementsAre("esmm-seed1", "esmm-seed2"));
  EXPECT_THAT(names(load({{write("a", ""), write("b", "seed = 2\n")}, {}, "esmm", 0})),
              ElementsAre("a-esmm", "b-esmm"));
  EXPECT_THAT(refusal({{write("a", "")}, {}, "esmm,esmmm", 0}), HasSubstr("model.recipe"));
}

TEST_F(CompareModelsTest, AnOverrideIsForEveryConfig) {
  const auto models =
      load({{write("a", ""), write("b", "seed = 2\n")}, {"training.batch_size=77"}, "", 0});
  for (const ComparedModel& model : models) EXPECT_EQ(model.config.training.batch_size, 77U);
}

TEST_F(CompareModelsTest, OneJoinFeedsThemAll) {
  const fs::path a = write("a", "");
  EXPECT_THAT(refusal({{a, write("b", "[join]\ntick = \"2 s\"\n")}, {}, "", 0}),
              HasSubstr("join.tick is \"2 s\", not \"1 s\""));
  EXPECT_THAT(refusal({{a, write("b", "[streams]\nts = \"time\"\n")}, {}, "", 0}),
              HasSubstr("streams.ts"));
  EXPECT_THAT(refusal({{a, write("b", "[streams.clicks]\ntopic = \"taps\"\n")}, {}, "", 0}),
              HasSubstr("streams.clicks.topic is taps, not clicks"));
  fs::create_directories(folder_.path() / "else");
  const fs::path moved = folder_.path() / "else" / "b.toml";
  fs::copy_file(write("b", ""), moved);
  EXPECT_THAT(refusal({{a, moved}, {}, "", 0}), HasSubstr("source.root is"));
}

std::string feature(const std::string& name, const std::string& path, const std::string& more) {
  return "[features." + name + "]\npath = \"" + path + "\"\n" + more + "\n";
}
const std::string kId = "type = \"id\"";

TEST_F(CompareModelsTest, TheLogHoldsTheFeaturesOfAll) {
  const std::string age = "type = \"number\"\nbuckets = [18, 30]";
  const auto models = load({{write("a", feature("site", "s", kId)),
                             write("b", feature("age", "a.age", age) + feature("zip", "z", kId)),
                             write("c", feature("site", "s", kId + "\ntable = \"other\""))},
                            {},
                            "",
                            2});
  std::vector<std::string> logged;
  for (const FeatureConfig& one : logged_features(models)) {
    logged.push_back(one.name + " " + one.path);
    EXPECT_TRUE(one.edges.empty());
    EXPECT_EQ(one.type == FeatureConfig::Type::number, one.name == "age");
  }
  EXPECT_THAT(logged, ElementsAre("age a.age", "site s", "user user_id", "zip z"));
  EXPECT_EQ(models[0].config.features.size(), 2U);
  EXPECT_THAT(differing_keys(models), ::testing::Contains("features.zip"));
  const auto reversed = logged_features({models[4], models[2], models[0]});
  EXPECT_EQ(reversed, logged_features(models));
}

// Both configs are named, also where neither is the first.
TEST_F(CompareModelsTest, ANameHasOnePathAndOneType) {
  const fs::path a = write("a", "");
  const fs::path b = write("b", feature("site", "s", kId));
  for (const auto& [path, type] : {std::pair("t", "id"), std::pair("s", "ids")}) {
    const fs::path c = write("c", feature("site", path, std::string("type = \"") + type + "\""));
    EXPECT_THAT(
        refusal({{a, b, c}, {}, "", 0}),
        AllOf(HasSubstr(c.string() + " cannot be compared with " + b.string()),
              HasSubstr(std::string("features.site is ") + path + ", " + type + ", not s, id")));
  }
}

TEST_F(CompareModelsTest, TablesAndBucketsMayDiffer) {
  const fs::path path = write("b", "");
  std::ofstream(path) << "[source]\ntype = \"files\"\nroot = \"./.\"\n[model]\nname = \"b\"\n"
                      << "[features]\n"
                      << "user = { path = \"user_id\", type = \"id\", table = \"other\" }\n";
  EXPECT_THAT(names(load({{write("a", ""), path}, {}, "", 0})), ElementsAre("a", "b"));
}

TEST_F(CompareModelsTest, NamesAreTheirOwnAndTwoAtLeast) {
  const fs::path a = write("a", "");
  EXPECT_THAT(refusal({{a, a}, {}, "", 0}), HasSubstr("two models are named a"));
  EXPECT_THAT(refusal({{a}, {}, "", 0}), HasSubstr("two models or more"));
  EXPECT_THAT(refusal({{a}, {}, "esmm", 0}), HasSubstr("two models or more"));
  EXPECT_THAT(refusal({{folder_.path() / "none.toml"}, {}, "", 2}), HasSubstr("none.toml"));
  const fs::path long_name = write(std::string(60, 'n'), "");
  EXPECT_THAT(refusal({{long_name}, {}, "", 2}), HasSubstr("too long"));
}

TEST_F(CompareModelsTest, ABaselineIsAModelOrAGroup) {
  const auto models = load({{write("a", ""), write("b", "")}, {}, "", 2});
  for (const char* known : {"", "a", "b", "b-seed2"}) EXPECT_TRUE(check_baseline(models, known));
  const Status refused = check_baseline(models, "c");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("there are a, a-seed1, a-seed2, b, b-seed1"));
}

TEST(CompareRecipes, AreSplitAtCommasButNotInsideParameters) {
  EXPECT_THAT(split_recipes("esmm,base"), ElementsAre("esmm", "base"));
  EXPECT_THAT(split_recipes("aman:rate=0.2,gamma=1,base,own.toml:a=1"),
              ElementsAre("aman:rate=0.2,gamma=1", "base", "own.toml:a=1"));
  EXPECT_THAT(split_recipes(""), ElementsAre());
}

TEST(CompareRecipes, GiveNames) {
  EXPECT_EQ(model_name_of("esmm_ns"), "esmm_ns");
  EXPECT_EQ(model_name_of("aman:rate=0.2"), "aman-rate-0-2");
  EXPECT_EQ(model_name_of("some/own.toml:a=1,b=2"), "own-a-1-b-2");
}

}  // namespace
}  // namespace sluice
