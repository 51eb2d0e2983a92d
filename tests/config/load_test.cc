#include "config/load.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "tests/config/sample_configs.h"

namespace sluice {
namespace {

using ::testing::IsEmpty;

std::vector<std::string> texts(const LoadedConfig& loaded) {
  std::vector<std::string> lines;
  for (const ConfigProblem& problem : loaded.problems) lines.push_back(problem.text());
  return lines;
}

LoadedConfig parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return parse_config(text, "shop.toml", "/shop", overrides);
}

void expect_expedia(const Config& config) {
  EXPECT_EQ(config.source.type, SourceConfig::Type::files);
  EXPECT_EQ(config.streams.max_out_of_orderness,
            (std::array<DurationMs, 4>{10'000, 10'000, 10'000, 10'000}));
  EXPECT_EQ(config.join.click_window, 30 * 60'000);
  EXPECT_EQ(config.join.conversion_window, 24 * 3'600'000);
  ASSERT_EQ(config.features.size(), 26u);
  EXPECT_EQ(config.features.front().name, "adults");
  EXPECT_EQ(config.features.back().name, "stars");
  EXPECT_EQ(config.model.hidden, (std::vector<std::uint64_t>{360, 200, 80}));
  EXPECT_EQ(config.model.seed, 7u);
  EXPECT_EQ(config.training.batch_size, 32u);
  EXPECT_EQ(config.training.dense.learning_rate, 1e-3);
  EXPECT_EQ(config.training.embeddings.learning_rate, 3e-3);
  EXPECT_EQ(config.snapshots.every, 30LL * 86'400'000);
}

TEST(Load, TheExpediaConfigOfThisTest) {
  const LoadedConfig loaded = parse(kExpediaToml);
  ASSERT_THAT(texts(loaded), IsEmpty());
  expect_expedia(loaded.config);
  EXPECT_EQ(loaded.config.source.root, "/data/expedia");
}

TEST(Load, TheSharedExpediaConfigAsItStands) {
  const fs::path path = fs::path(SLUICE_SOURCE_DIR) / "../shared/configs/expedia.toml";
  if (!fs::exists(path)) GTEST_SKIP() << "the shared configs are not beside this checkout";
  const LoadedConfig loaded = load_config(path, {});
  ASSERT_THAT(texts(loaded), IsEmpty());
  expect_expedia(loaded.config);
  EXPECT_EQ(loaded.config.source.root,
            (fs::path(SLUICE_SOURCE_DIR) / "../shared/data/expedia").lexically_normal());
}

}  // namespace
}  // namespace sluice
