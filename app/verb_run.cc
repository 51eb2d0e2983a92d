// `sluice run` and `sluice replay`.
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "app/report_error.h"
#include "app/service.h"
#include "app/verbs.h"
#include "base/time.h"

namespace sluice {
namespace {

struct RunArguments {
  ServiceOptions options;
  std::string at_end;
  std::string report;
  std::string predictions;
  std::vector<std::string> skip_samples;
  bool accept_lost = false;
};

Result<EndPolicy> parse_end(const std::string& text, bool is_live) {
  EndPolicy policy;
  policy.is_live = is_live;
  if (text == "close") {
    policy.kind = EndPolicy::Kind::close;
  } else if (text == "hold") {
    policy.kind = EndPolicy::Kind::hold;
  } else if (const auto time = parse_time(text)) {
    policy.kind = EndPolicy::Kind::at_time;
    policy.time = *time;
  } else {
    return usage_error("--at-end: '" + text +
                       "' is neither close, hold nor a time as in 2013-06-30T12:00:00Z");
  }
  return policy;
}

Status execute(RunArguments& arguments, bool is_live) {
  ServiceOptions& options = arguments.options;
  SLUICE_ASSIGN(options.end, parse_end(arguments.at_end, is_live));
  options.lost = arguments.accept_lost ? LostRecords::pass_over : LostRecords::stop;
  if (!arguments.skip_samples.empty()) {
    std::string ranges;
    for (const std::string& range : arguments.skip_samples) {
      ranges += (ranges.empty() ? "" : ", ") + range;
    }
    options.overrides.push_back("training.skip_samples=\"" + ranges + "\"");
  }
  if (!arguments.report.empty()) options.report = arguments.report;
  if (!arguments.predictions.empty()) options.predictions = arguments.predictions;
  return run_service(options);
}

void add_verb(CLI::App& root, int& exit_code, const std::string& name, bool is_live,
              const std::string& default_end, const std::string& description,
              const std::string& footer) {
  auto arguments = std::make_shared<RunArguments>();
  arguments->at_end = default_end;
  CLI::App* verb = root.add_subcommand(name, description);
  ServiceOptions& options = arguments->options;
  verb->add_option("CONFIG", options.config, "the config, in TOML; sluice check explains it")
      ->required();
  verb->add_option(
          "--data-dir", options.data_dir,
          "state, sample log, checkpoints and snapshots; begun if absent, else gone on with")
      ->capture_default_str();
  verb->add_option("--set", options.overrides,
                   "section.key=value: any key of the config; may be repeated")
      ->allow_extra_args(false);
  verb->add_option("--threads", options.threads,
                   "threads that compute; the result is the same with any number (0: one a core)")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  verb->add_option(
          "--at-end", arguments->at_end,
          "at the logs' ends: close (event time runs out, every window closes), hold (wait "
          "there; a later start goes on), or a TIME that every watermark becomes")
      ->capture_default_str();
  verb->add_option("--report", arguments->report,
                   "FILE for one JSON object: events, labels, refusals, digests, metrics");
  verb->add_option("--predictions", arguments->predictions,
                   "FILE for a CSV line a sample, as predicted before it was learned");
  verb->add_option("--skip-samples", arguments->skip_samples,
                   "A..B: sequence numbers of samples that are predicted but not learned, since "
                   "they spoilt a model; for a new data folder; may be repeated, ascending")
      ->allow_extra_args(false);
  verb->add_flag("--accept-lost", arguments->accept_lost,
                 "go on without records that the logs have lost up to this start, where it would "
                 "stop and name them; snapshots say \"reproducible\": false from then on");
  verb->footer(footer);
  verb->callback([arguments, is_live, &exit_code] {
    if (const Status done = execute(*arguments, is_live); !done) {
      exit_code = report_error(done.error());
    }
  });
}

}  // namespace

void add_run_and_replay(CLI::App& root, int& exit_code) {
  add_verb(
      root, exit_code, "run", true, "hold",
      "The service: reads, joins, learns and publishes snapshots until SIGTERM",
      "SIGTERM or SIGINT drains, commits, writes a checkpoint and exits 0; the next start goes "
      "on where it was. Killed instead, it loses nothing either: the result is the same.\n"
      "A status line goes to stderr every 10 s.\n");
  add_verb(root, exit_code, "replay", false, "close", "Reads the logs to their ends, then stops",
           "Examples:\n"
           "  sluice replay shop.toml\n"
           "  sluice replay shop.toml --data-dir d1 --set training.batch_size=512 --report r.json\n"
           "The same logs and the same config give the same digests, on any number of threads, in\n"
           "one go or killed and started again.\n");
}

}  // namespace sluice
