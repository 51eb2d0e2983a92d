// From TOML text to a Config: all problems at once, each with its place and what would be allowed.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"
#include "config/config.h"

namespace sluice {

struct ConfigProblem {
  std::string file;     // or "--set" for an override; a recipe's own file
  int line = 0;         // 1-based; 0 where there is none (--set)
  int column = 0;       // 1-based
  std::string key;      // "section.key"
  std::string message;  // names the value and what is allowed; ends with the nearest known key for
                        // an unknown one
  // "expedia.toml:12:3: join.click_windw: unknown key; did you mean join.click_window?"
  std::string text() const;
};

struct LoadedConfig {
  Config config;                        // meaningful only when `problems` is empty
  std::vector<ConfigProblem> problems;  // sorted by place
};

// Reads `path` and applies `overrides` ("section.key=value", the value in TOML or a bare word; last
// wins; a table replaces the whole table). source.root, a recipe's file and those of [serving] are
// found from the file's folder, in an override from the working directory. A file that cannot be
// read or is no TOML is one problem. The recipe is checked too; problems in its own file have
// places there.
LoadedConfig load_config(const std::filesystem::path& path,
                         const std::vector<std::string>& overrides);

// The same from text; `folder` is what paths are relative to.
LoadedConfig parse_config(const std::string& text, const std::string& file,
                          const std::filesystem::path& folder,
                          const std::vector<std::string>& overrides);

// load_config as a Result: the problems, one a line, as one usage error.
Result<Config> load_config_or_error(const std::filesystem::path& path,
                                    const std::vector<std::string>& overrides);

// The whole config as TOML that loads to an equal Config, every default written out, each key with
// a comment: unit, kind, what it does. Secrets among source.properties are masked as ***, which is
// refused when it is loaded, so that it is never taken for the secret.
std::string effective_toml(const Config& config);

// The reference of all keys as Markdown (docs/config.md) and as JSON Schema (`check --schema`).
std::string config_reference_markdown();
std::string config_json_schema();

}  // namespace sluice
