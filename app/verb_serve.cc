// sluice serve: snapshots answer over HTTP, each new one as soon as it is there.
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <CLI/CLI.hpp>

#include "app/report_error.h"
#include "app/serving.h"
#include "app/stop_signal.h"
#include "app/verbs.h"
#include "base/file.h"
#include "config/load.h"
#include "config/toml_tree.h"

namespace sluice {
namespace {

constexpr DurationMs kSignalWatchMs = 50;

struct ServeOptions {
  std::string config;
  std::string data_dir = "sluice-data";
  std::string snapshots;
  std::string log_predictions;
  std::vector<std::string> overrides;
};

// Without a file only [serving] is of interest, and only what --set says of it can be wrong.
Result<Config> load(const ServeOptions& options) {
  if (!options.config.empty()) return load_config_or_error(options.config, options.overrides);
  LoadedConfig loaded = parse_config("", "", fs::path(), options.overrides);
  std::string text;
  for (const ConfigProblem& problem : loaded.problems) {
    if (problem.file != kOverrideFile) continue;
    text += (text.empty() ? "" : "\n") + problem.text();
  }
  if (!text.empty()) return usage_error(text);
  return std::move(loaded.config);
}

Status serve(const ServeOptions& options) {
  SLUICE_ASSIGN(Config config, load(options));
  if (!options.log_predictions.empty()) config.serving.log_predictions = options.log_predictions;
  const bool is_data_dir = options.snapshots.empty();
  const fs::path where = is_data_dir ? options.data_dir : options.snapshots;
  if (!RealFileSystem().exists(where)) {
    return usage_error(std::string(is_data_dir ? "--data-dir " : "--snapshots ") + where.string() +
                       ": there is no such folder");
  }
  spdlog::set_default_logger(spdlog::stderr_logger_mt("sluice"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
  watch_stop_signals();
  SystemClock clock;
  const std::string model = is_data_dir || options.config.empty() ? "" : config.model.name;
  SLUICE_ASSIGN(const std::unique_ptr<Serving> serving,
                Serving::start(config.serving, where, model, clock));
  std::printf("serving %s at %s\n", where.c_str(), serving->url().c_str());
  std::fflush(stdout);
  while (stop_signal() == 0) clock.sleep_ms(kSignalWatchMs);
  spdlog::info("{}: answers what was begun and stops", strsignal(stop_signal()));
  serving->stop();
  return {};
}

constexpr const char* kServeFooter = R"(
Every model of a data folder is served by its name, by the snapshot that LATEST names; a newer one
is read in the background, checked whole, and takes over between two requests. --snapshots serves
one folder of snapshots instead, as it was copied from elsewhere; then CONFIG is not needed.

  sluice serve shop.toml --data-dir live &
  curl -s localhost:8080/v1/models/model:predict -H 'Content-Type: application/json' \
    -d '{"instances": [{"user": "u7", "item": 42}]}'

  {"predictions":[{"pctr":0.041,"pcvr":0.015,"pctcvr":0.000615}]}

An instance names features as [features] of the config does (or is a whole event, as in the log).
The other form is that of the Open Inference Protocol v2 (KServe, Triton's clients):

  curl -s localhost:8080/v2/models/model/infer -H 'Content-Type: application/json' \
    -d '{"inputs": [{"name": "user", "shape": [1], "datatype": "BYTES", "data": ["u7"]}]}'

GET /v2/health/ready, /v2/models/model (what it wants) and /metrics (Prometheus) answer too. [serving] of
the config has the address, a token, TLS and the limits: docs/serving.md. SIGTERM answers what was
begun and exits 0.
)";

}  // namespace

void add_serve(CLI::App& root, int& exit_code) {
  CLI::App* verb =
      root.add_subcommand("serve", "Scores impressions over HTTP by the newest snapshot");
  const auto options = std::make_shared<ServeOptions>();
  verb->add_option("CONFIG", options->config, "the config, for [serving]; defaults without");
  CLI::Option* data_dir =
      verb->add_option("--data-dir", options->data_dir, "the folder that `sluice run` writes to")
          ->capture_default_str();
  verb->add_option("--snapshots", options->snapshots,
                   "a folder of snapshots, or a model's, in place of a data folder")
      ->excludes(data_dir);
  verb->add_option("--log-predictions", options->log_predictions,
                   "FILE for a JSON line a row served; `sluice score --compare` reads it");
  verb->add_option("--set", options->overrides,
                   "section.key=value: any key of the config; may be repeated")
      ->allow_extra_args(false);
  verb->footer(kServeFooter);
  verb->callback([options, &exit_code] {
    if (const Status done = serve(*options); !done) exit_code = report_error(done.error());
  });
}

}  // namespace sluice
