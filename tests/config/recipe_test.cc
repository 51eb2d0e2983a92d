#include "config/recipe.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "base/hash.h"
#include "config/recipe_expression.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A recipe with one line in place of another.
std::string esmm_with(const std::string& line, const std::string& other) {
  std::string text(find_built_in_recipe("esmm")->text);
  const std::size_t at = text.find(line);
  EXPECT_NE(at, std::string::npos) << line;
  return text.replace(at, line.size(), other);
}

std::string recipe_problems(const std::string& text,
                            const std::map<std::string, double>& parameters = {}) {
  std::string all;
  for (const ConfigProblem& problem : parse_recipe(text, "r", parameters).problems) {
    all += problem.text() + "\n";
  }
  return all;
}

TEST(Recipe, BuiltInsAreTheFiles) {
  std::string last;
  for (const BuiltInRecipe& recipe : built_in_recipes()) {
    EXPECT_LT(last, recipe.name);
    last = recipe.name;
    std::ifstream file(std::string(SLUICE_SOURCE_DIR) + "/config/recipes/" + last + ".toml");
    std::ostringstream text;
    text << file.rdbuf();
    EXPECT_EQ(recipe.text, text.str()) << last;
  }
  EXPECT_EQ(built_in_recipes().size(), 17U);
}

TEST(Recipe, BuiltInsParseAndSaySomething) {
  for (const BuiltInRecipe& built_in : built_in_recipes()) {
    SCOPED_TRACE(built_in.name);
    const ParsedRecipe parsed = parse_recipe(built_in.text, std::string(built_in.name));
    for (const ConfigProblem& problem : parsed.problems) ADD_FAILURE() << problem.text();
    EXPECT_THAT(parsed.recipe.summary, ::testing::EndsWith("."));
    const bool has_action = built_in.name.starts_with("esm") && !built_in.name.starts_with("esmm");
    EXPECT_EQ(parsed.recipe.uses_action(), has_action);
  }
}

// The canonical text says all of a recipe but its summary and the parameters' names.
TEST(Recipe, CanonicalTextParsesToAnEqualRecipe) {
  for (const BuiltInRecipe& built_in : built_in_recipes()) {
    SCOPED_TRACE(built_in.name);
    const Recipe recipe = parse_recipe(built_in.text, "r").recipe;
    const ParsedRecipe again = parse_recipe(recipe.canonical, "again");
    ASSERT_TRUE(again.problems.empty()) << again.problems[0].text();
    EXPECT_EQ(again.recipe.canonical, recipe.canonical);
    EXPECT_EQ(again.recipe.nodes, recipe.nodes);
    EXPECT_EQ(again.recipe.towers, recipe.towers);
    EXPECT_EQ(again.recipe.terms, recipe.terms);
    EXPECT_EQ(again.recipe.embedding_sets, recipe.embedding_sets);
    EXPECT_EQ(again.recipe.pctr, recipe.pctr);
    EXPECT_EQ(again.recipe.pcvr, recipe.pcvr);
    EXPECT_EQ(again.recipe.pctcvr, recipe.pctcvr);
  }
}

TEST(Recipe, CanonicalTextIsOneForTextsThatMeanTheSame) {
  const std::string other = R"toml(
# a comment
terms = [ { loss = "bce(y,pctr)", name = "ctr" },
          { name = "ctcvr", samples = "all", loss = " bce( z , ( pctcvr ) )", normalize = "batch" } ]
[rates]
pctcvr = "(pctr) * pcvr"
pctr = "sigmoid(ctr)"
pcvr = "sigmoid((cvr))"
[towers.cvr]
[towers.ctr]
kind = "mlp"
)toml";
  EXPECT_EQ(recipe_problems(other), "");
  EXPECT_EQ(parse_recipe(other, "r").recipe.canonical,
            parse_recipe(find_built_in_recipe("esmm")->text, "r").recipe.canonical);
}

// The page of models has each built-in with its parameters, and its example is a recipe.
TEST(Recipe, ThePageOfModelsIsTrue) {
  std::ifstream file(std::string(SLUICE_SOURCE_DIR) + "/docs/models.md");
  std::ostringstream text;
  text << file.rdbuf();
  const std::string page = text.str();
  for (const BuiltInRecipe& recipe : built_in_recipes()) {
    EXPECT_THAT(page, HasSubstr("[`" + std::string(recipe.name) + "`](#")) << recipe.name;
    for (const auto& [name, value] : parse_recipe(recipe.text, "r").recipe.defaults) {
      EXPECT_THAT(page, HasSubstr("`" + name + "` = " + format_expression_number(value)))
          << recipe.name;
    }
  }
  const std::size_t begin = page.find("summary = ");
  ASSERT_NE(begin, std::string::npos);
  const std::string example = page.substr(begin, page.find("```", begin) - begin);
  EXPECT_EQ(recipe_problems(example), "");
  EXPECT_EQ(recipe_problems(example, {{"share", 0.5}}), "");
}

// A data folder keeps a built-in recipe by its name alone: what the name means may not change.
TEST(Recipe, BuiltInsMeanWhatTheyMeant) {
  const std::map<std::string_view, std::string> meanings = {
      {"aman", "e36bfb98b09513b3a61fd144e8ac7877"},
      {"base", "6e8cb0f68d03a471eb6a98cc886c6117"},
      {"dcmt", "5a541d6f289dd88be89fe90b4f2210e7"},
      {"division", "2668dc4dd3a7b46abec070d30f7f7a57"},
      {"escm2_dr", "a6f388c0cc381ebf73b968a169d4d203"},
      {"escm2_ips", "23487424e7e00f49091caec8841f5129"},
      {"escm2_snips", "41514ffe1205af53656e3333ca5af150"},
      {"esm2", "d0022313fa6e97454719b2ebc210f288"},
      {"esmc", "e31df6191fd9e2443e397e8a9a5cbeb2"},
      {"esmg", "8f42f8cd375a9418bae0f49a3816e0e0"},
      {"esmm", "d26055707d8a3fff9c86dca2e4453b73"},
      {"esmm_ns", "ac766faf5cdb2516d7f4153a009dc296"},
      {"esms", "3045764ac5ba0499217a7a286f3a5801"},
      {"fm", "fff887106a43f83c5bbcee01dd27cdd1"},
      {"lr", "3095de338fbb76ef6787d05c1d32f2b6"},
      {"oversampling", "956deefe05f7b890402374688ee93fbf"},
      {"unbias", "8db2e0c3e36bb7fa17e15849e835d054"},
  };
  EXPECT_EQ(meanings.size(), built_in_recipes().size());
  for (const BuiltInRecipe& recipe : built_in_recipes()) {
    const std::string canonical = parse_recipe(recipe.text, "r").recipe.canonical;
    const auto meaning = meanings.find(recipe.name);
    ASSERT_NE(meaning, meanings.end()) << recipe.name;
    EXPECT_EQ(hash128(canonical).hex(), meaning->second) << canonical;
  }
}

TEST(Recipe, EsmmIsWhatItSays) {
  const Recipe recipe = parse_recipe(find_built_in_recipe("esmm")->text, "r").recipe;
  ASSERT_EQ(recipe.towers.size(), 2U);
  EXPECT_EQ(recipe.towers[0].name, "ctr");
  EXPECT_EQ(recipe.towers[1].name, "cvr");
  EXPECT_THAT(recipe.embedding_sets, ElementsAre("shared"));
  ASSERT_EQ(recipe.terms.size(), 2U);
  EXPECT_TRUE(recipe.terms[0].uses_y && !recipe.terms[0].uses_z);
  EXPECT_TRUE(recipe.terms[1].uses_z && !recipe.terms[1].uses_y);
  EXPECT_EQ(recipe.nodes[recipe.pctcvr].op, RecipeNode::Op::product);
}

TEST(Recipe, SeparateEmbeddingsAreSeparate) {
  const Recipe recipe = parse_recipe(find_built_in_recipe("esmm_ns")->text, "r").recipe;
  EXPECT_THAT(recipe.embedding_sets, ElementsAre("ctr", "cvr"));
  EXPECT_EQ(recipe.towers[0].embeddings, 0U);
  EXPECT_EQ(recipe.towers[1].embeddings, 1U);
}

TEST(Recipe, ParametersReplaceDefaults) {
  const auto aman = [](double rate) {
    return parse_recipe(find_built_in_recipe("aman")->text, "r", {{"rate", rate}}).recipe;
  };
  EXPECT_THAT(aman(0.25).canonical, HasSubstr("chance = \"0.25\""));
  EXPECT_EQ(aman(0.1).canonical,
            parse_recipe(find_built_in_recipe("aman")->text, "r").recipe.canonical);
  EXPECT_THAT(recipe_problems(std::string(find_built_in_recipe("aman")->text), {{"rat", 1}}),
              HasSubstr("r: parameters.rat: the recipe has no such parameter; did you mean rate?"));
  EXPECT_THAT(recipe_problems(std::string(find_built_in_recipe("esmm")->text), {{"rate", 1}}),
              HasSubstr("the recipe has no parameters"));
  EXPECT_THAT(recipe_problems(std::string(find_built_in_recipe("aman")->text), {{"rate", 1.5}}),
              HasSubstr("the chance can be outside [0, 1]"));
}

struct Mistake {
  const char* line;   // of esmm.toml
  const char* other;  // in its place
  const char* said;
};

// esmm.toml has [towers] on line 3, [rates] on 7, the terms on 12 and 16.
constexpr Mistake kMistakes[] = {
    // what there is
    {"pctr = \"sigmoid(ctr)\"", "pctr = \"sigmoid(ctrr)\"",
     "r:8:17: rates.pctr: unknown name \"ctrr\""},
    {"pctr = \"sigmoid(ctr)\"", "pctr = \"sigmoid(ctrr)\"", "did you mean ctr?"},
    {"bce(y, pctr)", "bce(x, pctr)", "r:14:13: terms.ctr.loss: unknown name \"x\""},
    {"bce(y, pctr)", "bse(y, pctr)",
     "r:14:9: terms.ctr.loss: unknown function \"bse\"; did you mean bce?"},
    {"pctcvr = \"pctr * pcvr\"", "", "r:7:2: rates.pctcvr: is missing"},
    {"[towers]", "[tower]", "r:3:2: tower: unknown section; did you mean towers?"},
    {"loss = \"bce(y, pctr)\"", "los = \"bce(y, pctr)\"",
     "r:14:1: terms.ctr.los: unknown key; did you mean loss?"},
    {"loss = \"bce(y, pctr)\"", "", "terms.ctr.loss: is missing"},
    {"name = \"ctr\"", "name = \"ctcvr\"", "there is another term of this name"},
    {"name = \"ctr\"", "", "r:12:1: terms.1.name: is missing"},
    {"embeddings = \"shared\" }\ncvr", "embedings = \"shared\" }\ncvr",
     "r:4:9: towers.ctr.embedings: unknown key; did you mean embeddings?"},
    {"embeddings = \"shared\" }\ncvr", "kind = \"mpl\" }\ncvr",
     "r:4:16: towers.ctr.kind: \"mpl\" is not allowed; must be \"mlp\", \"linear\" or \"fm\"; did "
     "you mean \"mlp\"?"},
    {"loss = \"bce(y, pctr)\"", "loss = \"bce(y, pctr)\"\nsamples = \"click\"",
     "r:15:11: terms.ctr.samples: \"click\" is not allowed; must be \"all\", \"clicked\", "
     "\"unclicked\" or "
     "\"acted\""},
    {"pcvr = \"sigmoid(cvr)\"", "pcvr = \"sigmoid(cvr)\"\ncvr = \"pcvr\"",
     "r:10:1: rates.cvr: the name has another meaning"},
    {"pcvr = \"sigmoid(cvr)\"", "pcvr = \"sigmoid(cvr)\"\nz = \"pcvr\"",
     "r:10:1: rates.z: the name is a label's or a function's"},
    {"cvr = { embeddings = \"shared\" }", "cvr = { embeddings = \"shared\" }\nextra = {}",
     "r:6:1: towers.extra: no term's loss reaches this tower"},
    // rates that go in a circle
    {"pctr = \"sigmoid(ctr)\"", "pctr = \"pctcvr * sigmoid(ctr)\"", "the rates go in a circle: "},
    {"pctr = \"sigmoid(ctr)\"", "pctr = \"1 - pctr\"",
     "r:8:13: rates.pctr: the rates go in a circle: pctr needs pctr"},
    // kinds of values
    {"\"pctr * pcvr\"", "\"pctr + pcvr\"", "r:10:16: rates.pctcvr: a rate is needed here"},
    {"\"pctr * pcvr\"", "\"ctr\"", "r:10:11: rates.pctcvr: a rate is needed here"},
    {"\"pctr * pcvr\"", "\"1\"", "a number must be above 0 and below 1"},
    {"\"pctr * pcvr\"", "\"sigmoid(pctr)\"", "this is a rate already"},
    {"\"pctr * pcvr\"", "\"mix(ctr, pctr, pcvr)\"", "r:10:15: rates.pctcvr: a rate is needed here"},
    {"bce(y, pctr)", "bce(pctr, y)", "bce() takes a label first: y, action, z, 0 or 1"},
    {"bce(y, pctr)", "bce(y, ctr)", "a rate is needed here"},
    {"bce(y, pctr)", "bce(y)", "it has 1 arguments; must be bce(label, rate)"},
    {"bce(y, pctr)", "y", "passes no gradient to a tower"},
    {"bce(y, pctr)", "stop(bce(y, pctr))", "passes no gradient to a tower"},
    {"bce(z, pctcvr)", "bce(z, ratio(pctcvr, pctr))", "the rate may be exactly 1"},
    {"bce(z, pctcvr)", "bce(z, 1 - ratio(pctcvr, pctr))", "the rate may be exactly 0"},
    {"bce(z, pctcvr)", "log(1 - ratio(pctcvr, pctr))", "the rate may be exactly 0"},
    {"\"pctr * pcvr\"", "\"ratio(pctr, pcvr) * ratio(pcvr, pctr)\"", "both may be exactly 1"},
    {"\"pctr * pcvr\"", "\"mix(pctr, pcvr, ratio(pcvr, pctr))\"", "mix() takes rates between"},
    // what could be infinite, or out of bounds
    {"bce(z, pctcvr)", "bce(z, pctcvr) / pctr", "this may be 0 / 0"},
    {"bce(z, pctcvr)", "bce(z, pctcvr) / ctr", "this may divide by 0"},
    {"bce(z, pctcvr)", "bce(z, pctcvr) / 0", "this divides by 0"},
    {"bce(z, pctcvr)", "bce(z, pctcvr) * (1 / pctr)", "this can be infinite"},
    {"bce(z, pctcvr)", "1 / pctr", "the loss can be infinite"},
    {"loss = \"bce(z, pctcvr)\"", "loss = \"bce(z, pctcvr)\"\nweight = \"1 / pctr\"",
     "r:19:13: terms.ctcvr.weight: the weight has no upper bound"},
    {"loss = \"bce(z, pctcvr)\"", "loss = \"bce(z, pctcvr)\"\nweight = \"ctr\"",
     "the weight can be negative"},
    {"loss = \"bce(z, pctcvr)\"", "loss = \"bce(z, pctcvr)\"\nweight = -1",
     "the weight can be negative"},
    {"loss = \"bce(z, pctcvr)\"", "loss = \"bce(z, pctcvr)\"\nchance = \"min(1 / pctr, 2)\"",
     "r:19:11: terms.ctcvr.chance: the chance can be outside [0, 1]"},
    // expressions that are none
    {"bce(y, pctr)", "bce(y, pctr",
     "r:14:20: terms.ctr.loss: the expression ends, where an operator, a comma or )"},
    {"bce(y, pctr)", "bce(y, pctr))", "\")\" stands, where an operator or the end belongs"},
    {"bce(y, pctr)", "bce(y, 1.2.3)", "not a number that is written as"},
    {"bce(y, pctr)", "bce(y, 1e999)", "not a number that is written as"},
    {"bce(y, pctr)", "* pctr", "r:14:9: terms.ctr.loss: \"*\" stands, where a number, a name or ("},
    {"bce(y, pctr)", "", "the expression ends, where a number, a name or ("},
    {"\"bce(y, pctr)\"", "true", "true is not allowed; must be an expression in quotes"},
    {"\"bce(y, pctr)\"", "inf", "inf is no finite number"},
};

TEST(Recipe, MistakesAreToldWithTheirPlace) {
  for (const Mistake& mistake : kMistakes) {
    EXPECT_THAT(recipe_problems(esmm_with(mistake.line, mistake.other)), HasSubstr(mistake.said))
        << mistake.line << " -> " << mistake.other;
  }
}

TEST(Recipe, EachMistakeIsToldOnce) {
  const std::string text = esmm_with("sigmoid(ctr)", "sigmoid(ctrr)");
  EXPECT_EQ(parse_recipe(text, "r").problems.size(), 1U) << recipe_problems(text);
}

TEST(Recipe, SeveralMistakesAreToldTogetherInOrder) {
  std::string text = esmm_with("sigmoid(ctr)", "sigmoid(ctrr)");
  text.replace(text.find("bce(y"), 3, "bse");
  text.replace(text.find("[towers]"), 8, "[towers]\nlog = {}");
  const auto problems = parse_recipe(text, "r").problems;
  ASSERT_EQ(problems.size(), 3U) << recipe_problems(text);
  EXPECT_EQ(problems[0].line, 4);
  EXPECT_EQ(problems[1].line, 9);
  EXPECT_EQ(problems[2].line, 15);
}

TEST(Recipe, WithoutSectionsItSaysWhatIsMissing) {
  const std::string said = recipe_problems("");
  for (const char* name : {"towers: is missing", "rates: is missing", "terms: is missing"}) {
    EXPECT_THAT(said, HasSubstr(name));
  }
}

// What is allowed although it looks near to what is not.
TEST(Recipe, BoundsAreFollowedThroughExpressions) {
  const std::string loss = "loss = \"bce(z, pctcvr)\"";
  for (const char* more : {
           "weight = \"min(1 / pctr, 15)\"",
           "weight = \"clip(1 / pctr, 1, 15)\"",
           "weight = \"1 + 4 * z\"",
           "weight = \"2 - z\"",
           "weight = \"square(2 * z - 1)\"",
           "weight = \"abs(y - pctr)\"",
           "weight = \"max(y - pctr, 0)\"",
           "weight = 0.5",
           "chance = \"pctr\"",
           "chance = \"1 - pctr\"",
           "chance = \"min(0.01 / pctr, 1)\"",
           "chance = \"0.5 * y\"",
           "chance = 1",
       }) {
    EXPECT_EQ(recipe_problems(esmm_with(loss, loss + "\n" + more)), "") << more;
  }
}

TEST(Recipe, EndlessExpressionsAreRefused) {
  const std::string deep = std::string(300, '(') + "1" + std::string(300, ')');
  EXPECT_THAT(recipe_problems(esmm_with("bce(y, pctr)", deep)),
              HasSubstr("expressions in each other"));
  EXPECT_THAT(recipe_problems(esmm_with("bce(y, pctr)", std::string(300, '-') + "1")),
              HasSubstr("expressions in each other"));
  EXPECT_THAT(recipe_problems(esmm_with("bce(y, pctr)", std::string(2'000, ' ') + "1")),
              HasSubstr("longer than 1000 bytes"));
  std::string towers;
  for (int n = 0; n < 100; ++n) towers += "t" + std::to_string(n) + " = {}\n";
  const std::string many = esmm_with("[towers]\n", "[towers]\n" + towers);
  EXPECT_THAT(recipe_problems(many), HasSubstr("more than 16 towers"));
  std::string chain;
  for (int n = 0; n < 40; ++n) {
    chain += "r" + std::to_string(100 + n) + " = \"r" + std::to_string(101 + n) + "\"\n";
  }
  chain += "r140 = \"sigmoid(ctr)\"\n";
  EXPECT_THAT(recipe_problems(esmm_with("[rates]\n", "[rates]\n" + chain)),
              HasSubstr("more than 16 rates rest on each other"));
  std::string rates;
  for (int n = 0; n < 100; ++n) {
    rates += "r" + std::to_string(n) + " = \"r" + std::to_string(n + 1) + "\"\n";
  }
  EXPECT_THAT(recipe_problems(esmm_with("[rates]\n", "[rates]\n" + rates)),
              HasSubstr("more than 64 rates"));
}

// Random trees; parentheses come out where they are needed and nowhere else.
std::string random_expression(int depth) {
  const int kind = *rc::gen::inRange(0, depth > 0 ? 7 : 2);
  const auto inner = [&] { return random_expression(depth - 1); };
  switch (kind) {
    case 0:
      return std::string(1, *rc::gen::element('a', 'b', 'c'));
    case 1:
      return *rc::gen::element<std::string>("1", "0.25", "-3", "1e-05");
    case 2:
      return "(" + inner() + *rc::gen::element<std::string>("+", " - ") + inner() + ")";
    case 3:
      return "(" + inner() + " )" + *rc::gen::element<std::string>(" *", "/ ") + "( " + inner() +
             ")";
    case 4:
      return "-(" + inner() + ")";
    case 5:
      return "f(" + inner() + "," + inner() + ")";
    default:
      return "(" + inner() + ")";
  }
}

bool are_equal(const Expression& a, const Expression& b) {
  if (a.kind != b.kind || a.number != b.number || a.name != b.name) return false;
  return std::equal(a.children.begin(), a.children.end(), b.children.begin(), b.children.end(),
                    are_equal);
}

RC_GTEST_PROP(RecipeExpression, CanonicalTextIsOfTheSameTree, ()) {
  const std::string text = random_expression(4);
  RC_PRE(text.size() <= kMostExpressionBytes);
  const auto tree = parse_expression(text);
  RC_ASSERT(tree.has_value());
  const std::string canonical = format_expression(*tree);
  const auto again = parse_expression(canonical);
  RC_ASSERT(again.has_value());
  RC_ASSERT(are_equal(*tree, *again));
  RC_ASSERT(format_expression(*again) == canonical);
  const auto parentheses = [](const std::string& one) {
    return std::count(one.begin(), one.end(), '(');
  };
  RC_ASSERT(parentheses(canonical) <= parentheses(text));
}

RC_GTEST_PROP(RecipeExpression, AnyTextIsReadOrRefused, (const std::string& text)) {
  const auto tree = parse_expression(text);
  RC_ASSERT(tree.has_value() || tree.error().at <= text.size());
}

TEST(RecipeName, IsReadAndWritten) {
  const auto read = [](const std::string& text) {
    const Result<RecipeName> name = parse_recipe_name(text);
    return name ? format_recipe_name(*name) : "refused: " + name.error().message;
  };
  EXPECT_EQ(read("esmm"), "esmm");
  EXPECT_EQ(read("aman:rate=0.20"), "aman:rate=0.2");
  EXPECT_EQ(read("own.toml:b=1,a=-2e-3"), "own.toml:a=-0.002,b=1");
  EXPECT_EQ(read("/a:b/own.toml"), "/a:b/own.toml");
  for (const char* wrong :
       {"aman:", "aman:rate", "aman:rate=", "aman:=1", "aman:rate=x", "aman:rate=1,",
        "aman:rate=1,rate=2", "aman:rate=inf", ":rate=1", "aman:rate=1 "}) {
    EXPECT_THAT(read(wrong), ::testing::StartsWith("refused")) << wrong;
  }
}

// A config that names a recipe, and files beside it.
class ConfigRecipe : public ::testing::Test {
 protected:
  ConfigRecipe() { std::filesystem::create_directories(folder_); }
  ~ConfigRecipe() override { std::filesystem::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
  }
  LoadedConfig load(const std::string& recipe, const std::string& more = "") const {
    const std::string text =
        "[source]\nroot = \"logs\"\n[features]\na = { path = \"a\", type = \"id\" }\n"
        "[model]\nrecipe = \"" +
        recipe + "\"\n" + more;
    return parse_config(text, "c.toml", folder_, {});
  }
  std::string problem_of(const std::string& recipe) const {
    const LoadedConfig loaded = load(recipe);
    EXPECT_EQ(loaded.problems.size(), 1U) << recipe;
    return loaded.problems.empty() ? "" : loaded.problems[0].text();
  }
  static std::string kept(const Config& config) {
    return semantic_keys(config, KeyGroup::learner).at("model.recipe");
  }

  const std::filesystem::path folder_ =
      std::filesystem::path(::testing::TempDir()) /
      ("recipe." + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
};

TEST_F(ConfigRecipe, ABuiltInIsKeptByItsName) {
  EXPECT_EQ(kept(load("esmm").config), "\"esmm\"");
  EXPECT_EQ(kept(load("aman:rate=0.20").config), "\"aman:rate=0.2\"");
  EXPECT_EQ(kept(load("aman:rate=0.1").config), "\"aman\"") << "the default";
  EXPECT_EQ(load("aman:rate=0.2").config.model.recipe_text, "");
  const Result<Recipe> recipe = recipe_of(load("aman:rate=0.2").config.model);
  ASSERT_TRUE(recipe);
  EXPECT_THAT(recipe->canonical, HasSubstr("chance = \"0.2\""));
}

TEST_F(ConfigRecipe, AFileIsKeptByItsContentAndNotItsPath) {
  const std::string text(find_built_in_recipe("aman")->text);
  write("own.toml", text);
  write("other.toml", "# another comment\n" + text);
  const LoadedConfig own = load("own.toml");
  ASSERT_TRUE(own.problems.empty()) << own.problems[0].text();
  EXPECT_EQ(own.config.model.recipe, (folder_ / "own.toml").string());
  EXPECT_EQ(own.config.model.recipe_text, parse_recipe(text, "r").recipe.canonical);
  EXPECT_EQ(kept(load("other.toml").config), kept(own.config));
  EXPECT_NE(kept(load("own.toml:rate=0.3").config), kept(own.config));
  const Result<Recipe> recipe = recipe_of(load("own.toml:rate=0.3").config.model);
  ASSERT_TRUE(recipe);
  EXPECT_THAT(recipe->canonical, HasSubstr("chance = \"0.3\""));
  // What `check --effective` prints names the file by its whole path.
  const LoadedConfig again = parse_config(effective_toml(own.config), "e.toml", "/nowhere", {});
  ASSERT_TRUE(again.problems.empty()) << again.problems[0].text();
  EXPECT_TRUE(again.config == own.config);
}

TEST_F(ConfigRecipe, ProblemsHaveTheirPlace) {
  EXPECT_THAT(problem_of("aman:rate=2"), HasSubstr("recipe aman:"));
  EXPECT_THAT(problem_of("aman:share=0.2"),
              HasSubstr("c.toml:6:10: model.recipe: recipe aman: parameters.share: "));
  EXPECT_THAT(problem_of("esm2"),
              HasSubstr("c.toml:6:10: model.recipe: recipe esm2 needs the label action"));
  EXPECT_THAT(problem_of("none.toml"), HasSubstr("c.toml:6:10: model.recipe: cannot read "));
  EXPECT_THAT(problem_of("bases"), HasSubstr("did you mean \"base\"?"));
  write("wrong.toml", esmm_with("sigmoid(ctr)", "sigmoid(ctrr)"));
  EXPECT_THAT(problem_of("wrong.toml"), HasSubstr("wrong.toml:8:17: rates.pctr: unknown name"));
  write("no.toml", "[towers");
  EXPECT_THAT(problem_of("no.toml"), HasSubstr("no.toml:1:"));
}

TEST_F(ConfigRecipe, AnActionNeedsItsStream) {
  const std::string stream = "[streams.actions]\ntopic = \"actions\"\n";
  for (const char* recipe : {"esm2", "esmc", "esmg", "esms"}) {
    EXPECT_THAT(problem_of(recipe), HasSubstr("streams.actions.topic")) << recipe;
    EXPECT_TRUE(load(recipe, stream).problems.empty()) << recipe;
  }
  std::string both(find_built_in_recipe("esm2")->text);
  both += "[[terms]]\nname = \"both\"\nsamples = \"acted\"\nloss = \"bce(z, pcvr)\"\n";
  write("both.toml", both);
  const LoadedConfig loaded = load("both.toml", stream);
  ASSERT_EQ(loaded.problems.size(), 1U);
  EXPECT_THAT(loaded.problems[0].text(), HasSubstr("term both uses both action and z"));
}

TEST(RecipeOf, WhatThisBuildDoesNotHaveIsAnError) {
  ModelConfig model;
  model.recipe = "later";
  EXPECT_THAT(recipe_of(model).error().message, HasSubstr("no recipe \"later\""));
  model.recipe_text = "[towers]";
  EXPECT_THAT(recipe_of(model).error().message, HasSubstr("cannot run the recipe"));
}

}  // namespace
}  // namespace sluice
