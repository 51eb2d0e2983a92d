// `sluice compare`: the command line around run_compare().
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "app/compare.h"
#include "app/report_error.h"
#include "app/verbs.h"

namespace sluice {
namespace {

constexpr const char* kCompareFooter =
    "Examples:\n"
    "  sluice compare small.toml large.toml --data-dir trial --out trial/page\n"
    "  sluice compare shop/shop.toml --recipes esmm,base --seeds 3 --data-dir trial\n"
    "  sluice compare shop/shop.toml --seeds 5 --set training.batch_size=512\n"
    "One join feeds all models; each becomes what `sluice replay` would make of it alone, to the\n"
    "bit, and lies in the data folder under models/. Killed, the same command goes on; finished\n"
    "before, it prints its tables again. docs/compare.md says what each number is.\n";

struct CompareArguments {
  CompareOptions options;
  std::vector<std::string> configs;
  std::string out, truth;
};

void add_model_options(CLI::App& verb, CompareArguments& arguments) {
  ComparedConfigs& models = arguments.options.models;
  verb.add_option("CONFIG", arguments.configs,
                  "configs with the same logs, [streams] and [join], and names of their own "
                  "(model.name); a feature's path and type are the same wherever it is named")
      ->required();
  verb.add_option(
          "--recipes", models.recipes,
          "each config once with each of these: model.recipe, which also names the model; a "
          "file's path counts from the working directory")
      ->type_name("A,B,...");
  verb.add_option(
          "--seeds", models.seeds,
          "each model so many times, with model.seed = 1, 2, ...; the tables have the means")
      ->check(CLI::Range(1, 1000));
  verb.add_option("--set", models.overrides,
                  "section.key=value: any key of every config; may be repeated")
      ->allow_extra_args(false);
}

void add_run_options(CLI::App& verb, CompareArguments& arguments) {
  CompareOptions& options = arguments.options;
  verb.add_option("--data-dir", options.data_dir,
                  "state, sample log and all models; begun if absent, else gone on with")
      ->capture_default_str();
  verb.add_option("--threads", options.threads,
                  "threads that compute; the result is the same with any number (0: one a core)")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  verb.add_option("--out", arguments.out,
                  "DIR for compare.html (one page, no network), compare.csv and compare.json");
  verb.add_option("--truth", arguments.truth,
                  "DIR of true rates, as `sluice generate` writes them; default: truth/ beside the "
                  "logs, where that is there");
  verb.add_option("--from", options.from, "judge the samples from this share of them on; 0: all")
      ->check(CLI::Range(0.0, 0.999999))
      ->capture_default_str();
  verb.add_option("--baseline", options.baseline,
                  "the model that the others are compared with; default: the first");
  verb.add_option("--bootstrap", options.bootstrap,
                  "resamplings of the users for the intervals; 0: no intervals")
      ->check(CLI::Range(0, 100'000))
      ->capture_default_str();
}

}  // namespace

void add_compare(CLI::App& root, int& exit_code) {
  CLI::App* verb = root.add_subcommand(
      "compare", "The same samples into several models, side by side, and how well each predicts");
  const auto arguments = std::make_shared<CompareArguments>();
  add_model_options(*verb, *arguments);
  add_run_options(*verb, *arguments);
  verb->footer(kCompareFooter);
  verb->callback([arguments, &exit_code] {
    CompareOptions& options = arguments->options;
    options.models.configs.assign(arguments->configs.begin(), arguments->configs.end());
    if (!arguments->out.empty()) options.out = arguments->out;
    if (!arguments->truth.empty()) options.truth = arguments->truth;
    if (const Status done = run_compare(options); !done) exit_code = report_error(done.error());
  });
}

}  // namespace sluice
