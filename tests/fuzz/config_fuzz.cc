// The config from TOML text and overrides: problems, each with a message, or a Config whose
// effective text loads to an equal one.
//   input := the file (text up to a zero byte), override (the same)*
#include <string>
#include <vector>

#include "base/check.h"
#include "config/load.h"
#include "config/schema.h"
#include "tests/fuzz/fuzz_input.h"

namespace sluice::fuzz {
namespace {

void load_one(Input input) {
  const std::string text(input.text());
  std::vector<std::string> overrides;
  while (!input.empty()) overrides.emplace_back(input.text());
  const LoadedConfig loaded = parse_config(text, "fuzz.toml", "/", overrides);
  for (const ConfigProblem& problem : loaded.problems) {
    SLUICE_CHECK(!problem.message.empty() && !problem.file.empty());
    SLUICE_CHECK(problem.line >= 0 && problem.column >= 0);
  }
  if (!loaded.problems.empty()) return;
  const std::string effective = effective_toml(loaded.config);
  const LoadedConfig again = parse_config(effective, "effective.toml", "/", {});
  // Secrets are masked in it, and a masked one is refused.
  for (const auto& [name, value] : loaded.config.source.properties) {
    if (!is_secret_property(name)) continue;
    SLUICE_CHECK(!again.problems.empty());
    return;
  }
  SLUICE_CHECK(again.problems.empty());
  SLUICE_CHECK(again.config == loaded.config);
  for (const KeyGroup group : {KeyGroup::join, KeyGroup::learner}) {
    SLUICE_CHECK(semantic_hash(again.config, group) == semantic_hash(loaded.config, group));
  }
}

}  // namespace
}  // namespace sluice::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sluice::fuzz::load_one({data, size});
  return 0;
}
