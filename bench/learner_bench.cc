// Samples per second of training alone, on the workload of bench/workload.h with all rows there.
//
//   learner_bench [--threads N] [--precision f32|bf16] [--rows N] [--batch N] [--seconds S]
//   learner_bench --serve ...     as bench/serve.h says; bench/learner_table.py drives it
#include <cstdio>
#include <fstream>
#include <string>

#include <CLI/CLI.hpp>

#include "bench/serve.h"
#include "bench/workload.h"
#include "learner/trainer.h"

namespace {

using sluice::bench::Slice;

struct Arguments {
  std::size_t threads = 1;
  std::string precision = "f32";
  std::size_t rows = 2'000'000;  // of all tables
  std::size_t fill_batch = sluice::bench::kLargestBatch;
  std::size_t batch = 1'024;
  double seconds = 2;
  bool is_serving = false;
};

// Resident memory of this process, in bytes.
double resident_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    double kibibytes = 0;
    if (word == "VmRSS:" && status >> kibibytes) return 1024 * kibibytes;
  }
  return 0;
}

void parse(CLI::App& app, Arguments& arguments) {
  app.add_option("--threads", arguments.threads)->check(CLI::Range(1, 64));
  app.add_option("--precision", arguments.precision)->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--rows", arguments.rows, "of all tables; they exist before the timing begins")
      ->check(CLI::Range(std::size_t{2'000}, std::size_t{200'000'000}));
  const auto is_batch = CLI::Range(std::size_t{1}, sluice::bench::kLargestBatch);
  app.add_option("--fill-batch", arguments.fill_batch, "of the batches that make the rows")
      ->check(is_batch);
  app.add_option("--batch", arguments.batch)->check(is_batch);
  app.add_option("--seconds", arguments.seconds)->check(CLI::Range(0.01, 600.0));
  app.add_flag("--serve", arguments.is_serving, "slices on request, see bench/serve.h");
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("The learner alone: samples per second");
  parse(app, arguments);
  CLI11_PARSE(app, argc, argv);

  sluice::Config config = sluice::bench::workload_config();
  if (arguments.precision == "bf16") {
    config.model.precision = sluice::ModelConfig::Precision::bf16;
  }
  const sluice::bench::Workload workload(arguments.rows / sluice::bench::kFields);
  const double empty_bytes = resident_bytes();
  sluice::Workers workers(arguments.threads);
  sluice::Trainer trainer(config, workers);
  sluice::bench::Batches batches(trainer, workload);
  // As in any stream, likely ids are seen first, and their rows lie together; then come all others.
  batches.train(arguments.fill_batch, 1e-3);
  batches.train(arguments.fill_batch, 1e-3);
  const Slice fill = batches.name_every_id(arguments.fill_batch);
  const std::size_t rows = workload.ids_a_field() * sluice::bench::kFields;
  const double row_bytes = (resident_bytes() - empty_bytes) / static_cast<double>(rows);

  if (arguments.is_serving) {
    std::printf(
        "{\"isa\": \"%s\", \"rows\": %zu, \"bytes_a_row\": %.1f, \"fill_s\": %.2f, "
        "\"fill_longest_ms\": %.2f, \"fill_p99_ms\": %.2f, \"fill_median_ms\": %.2f}\n",
        SLUICE_ISA, rows, row_bytes, fill.seconds,
        1e3 * sluice::bench::quantile(fill.batch_seconds, 1),
        1e3 * sluice::bench::quantile(fill.batch_seconds, 0.99),
        1e3 * sluice::bench::quantile(fill.batch_seconds, 0.5));
    std::fflush(stdout);
    return sluice::bench::serve(
        [&](std::size_t batch, double seconds) { return batches.train(batch, seconds); });
  }
  const Slice slice = batches.train(arguments.batch, arguments.seconds);
  std::printf("%s, %zu threads, batch %zu, %zu rows of %.0f bytes: %.0f samples/s\n",
              arguments.precision.c_str(), arguments.threads, arguments.batch, rows, row_bytes,
              static_cast<double>(slice.samples) / slice.seconds);
  return 0;
}
