// What is made from the list of keys, or must agree with it: the reference, the JSON Schema and the
// annotated default.
#include <cstdlib>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "config/load.h"
#include "config/schema.h"
#include "tests/config/sample_configs.h"

namespace sluice {
namespace {

const fs::path kSourceFolder = SLUICE_SOURCE_DIR;

std::string read_file(const fs::path& path) {
  RealFileSystem files;
  return files.read(path).value();
}

TEST(Reference, ThePageIsTheOneMadeFromTheKeys) {
  const std::string made = config_reference_markdown();
  const fs::path page = kSourceFolder / "docs/config.md";
  // To write the page anew: SLUICE_WRITE_DOCS=1 config_test --gtest_filter=Reference.*
  if (std::getenv("SLUICE_WRITE_DOCS") != nullptr) {
    RealFileSystem files;
    ASSERT_TRUE(write_atomically(files, page, made));
  }
  EXPECT_EQ(read_file(page), made) << "docs/config.md is out of date; see the comment above";
}

TEST(Reference, NamesEveryKey) {
  const std::string made = config_reference_markdown();
  for (const Key<Config>& key : config_keys()) {
    EXPECT_FALSE(key.description.empty()) << key.name;
    if (key.type == ValueType::table) {
      EXPECT_THAT(made, ::testing::HasSubstr("## [" + key.name + "]")) << key.name;
    } else {
      const std::string section = "## [" + split_key(key.name).first + "]\n";
      const std::size_t begin = made.find(section);
      ASSERT_NE(begin, std::string::npos) << key.name;
      const std::string text = made.substr(begin, made.find("\n## ", begin + 1) - begin);
      EXPECT_THAT(text, ::testing::HasSubstr("| `" + split_key(key.name).second + "` |"))
          << key.name;
    }
  }
}

TEST(JsonSchema, HasEveryKeyWithItsDefault) {
  const auto schema = nlohmann::json::parse(config_json_schema());
  const Config defaults;
  for (const Key<Config>& key : config_keys()) {
    std::string pointer;
    for (const char c : "." + key.name) pointer += c == '.' ? "/properties/" : std::string(1, c);
    const nlohmann::json::json_pointer place(pointer);
    ASSERT_TRUE(schema.contains(place)) << key.name;
    if (key.type == ValueType::table) continue;
    ASSERT_TRUE(schema.at(place).contains("default")) << key.name;
    EXPECT_TRUE(schema.at(place).contains("description")) << key.name;
  }
  EXPECT_EQ(schema["/properties/join/properties/tick/default"_json_pointer], "1 s");
  EXPECT_EQ(schema["/properties/join/additionalProperties"_json_pointer], false);
  EXPECT_EQ(schema["/properties/training/properties/lane/maximum"_json_pointer], 65536);
  EXPECT_EQ(schema["/properties/training/properties/dense/properties/beta1/default"_json_pointer],
            0.9);
  EXPECT_EQ(schema["/properties/features/additionalProperties/properties/type/enum"_json_pointer],
            (nlohmann::json{"id", "ids", "weighted_ids", "number"}));
  EXPECT_EQ(schema["/properties/model/properties/hidden/default"_json_pointer],
            (nlohmann::json{200, 80}));
}

TEST(AnnotatedDefault, HasEveryKeyAtItsDefault) {
  const fs::path path = kSourceFolder / "config/sluice.toml";
  LoadedConfig loaded = load_config(path, {});
  for (const ConfigProblem& problem : loaded.problems) ADD_FAILURE() << problem.text();
  ASSERT_TRUE(loaded.problems.empty());
  EXPECT_EQ(loaded.config.source.root, kSourceFolder / "config/logs");
  EXPECT_FALSE(loaded.config.features.empty());

  Config expected;  // but for the two that have no default
  expected.source.root = loaded.config.source.root;
  expected.features = loaded.config.features;
  EXPECT_EQ(loaded.config, expected) << effective_toml(loaded.config);

  const auto document = parse_toml(read_file(path), path);
  ASSERT_TRUE(document);
  for (const Key<Config>& key : config_keys()) {
    // A stream's own follows from that of all streams.
    const auto [section, name] = split_key(key.name);
    if (section != "streams" && name == "max_out_of_orderness") continue;
    EXPECT_NE(document->find_path(key.name), nullptr) << key.name;
  }
}

}  // namespace
}  // namespace sluice
