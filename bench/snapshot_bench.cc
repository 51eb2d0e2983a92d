// What snapshots cost a learner that goes on: the longest batch while one is copied and written,
// how long until it is published, and its bytes. On the workload of bench/workload.h with all rows
// there; everything is written under --folder and removed.
//
//   snapshot_bench [--threads N] [--rows N] [--batch N] [--between N] [--folder DIR]
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include "app/snapshot_writer.h"
#include "base/file.h"
#include "base/time.h"
#include "bench/serve.h"
#include "bench/workload.h"
#include "learner/trainer.h"
#include "store/published_folder.h"

namespace {

using sluice::bench::Batches;
using sluice::bench::Slice;

struct Arguments {
  std::size_t threads = 2;
  std::size_t rows = 10'000'000;  // of all tables
  std::size_t batch = 1'024;
  std::size_t between = 10;  // batches between two cuts
  std::string folder = "build/bench-snapshots";
};

// Cuts when asked to, and writes what is copied; called at each batch end.
struct Cutter {
  sluice::Trainer& trainer;
  sluice::SnapshotWriter& writer;
  std::optional<sluice::CutRows> wanted = {};
  bool is_copying = false;
  std::uint64_t rows = 0;  // of the last one

  sluice::Status at_batch_end() {
    if (wanted) {
      trainer.begin_snapshot(*wanted);
      wanted.reset();
      is_copying = true;
    }
    if (!is_copying || !trainer.is_snapshot_copied()) return {};
    is_copying = false;
    sluice::FrozenModel model = trainer.take_snapshot();
    rows = 0;
    for (const auto& table : model.tables) rows += table.rows();
    nlohmann::ordered_json manifest = {{"format", 1}, {"kind", "full"}};
    for (const auto& [key, value] : model.json.items()) manifest[key] = value;
    writer.start({std::move(manifest), std::move(model)});
    return writer.check();
  }
};

double longest_ms(const Slice& slice) {
  return 1e3 * sluice::bench::quantile(slice.batch_seconds, 1);
}

// Trains on until what was begun is published; the longest batch on the way.
void measure(const char* name, sluice::CutRows rows, const Arguments& arguments, Batches& batches,
             Cutter& cutter) {
  sluice::SystemClock clock;
  cutter.wanted = rows;
  const auto before = cutter.writer.newest();
  const sluice::DurationMs begin = clock.steady_ms();
  Slice slice;
  while (cutter.writer.newest() == before) batches.train_some(arguments.batch, 1, slice);
  const double seconds = static_cast<double>(clock.steady_ms() - begin) / 1e3;
  const auto path = std::filesystem::path(arguments.folder) /
                    sluice::numbered_folder_name(*cutter.writer.newest()) / "weights.safetensors";
  std::printf(
      "%s: %llu rows, %.1f MB; published after %.2f s and %zu batches, the longest %.1f ms\n", name,
      static_cast<unsigned long long>(cutter.rows),
      static_cast<double>(std::filesystem::file_size(path)) / 1e6, seconds,
      slice.batch_seconds.size(), longest_ms(slice));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("What a snapshot costs the learner");
  app.add_option("--threads", arguments.threads)->check(CLI::Range(1, 64));
  app.add_option("--rows", arguments.rows)
      ->check(CLI::Range(std::size_t{2'000}, std::size_t{200'000'000}));
  app.add_option("--batch", arguments.batch)
      ->check(CLI::Range(std::size_t{1}, sluice::bench::kLargestBatch));
  app.add_option("--between", arguments.between, "batches between two cuts");
  app.add_option("--folder", arguments.folder, "where snapshots are written; removed before");
  CLI11_PARSE(app, argc, argv);

  const sluice::Config config = sluice::bench::workload_config();
  const sluice::bench::Workload workload(arguments.rows / sluice::bench::kFields);
  sluice::Workers workers(arguments.threads);
  sluice::Trainer trainer(config, workers);
  Batches batches(trainer, workload);
  batches.name_every_id(sluice::bench::kLargestBatch);
  Slice slice = batches.train(arguments.batch, 2);
  std::printf("without: %.0f samples/s, median batch %.1f ms, the longest %.1f ms\n",
              static_cast<double>(slice.samples) / slice.seconds,
              1e3 * sluice::bench::quantile(slice.batch_seconds, 0.5), longest_ms(slice));
  std::fflush(stdout);

  sluice::RealFileSystem files;
  sluice::SystemClock clock;
  if (!files.remove_all(arguments.folder) || !files.create_directories(arguments.folder)) return 1;
  sluice::SnapshotsConfig snapshots;
  snapshots.keep = 2;
  sluice::SnapshotWriter writer(arguments.folder, snapshots, "{}", files, clock,
                                sluice::make_background_thread());
  Cutter cutter{trainer, writer};
  trainer.set_listener([&](const sluice::TrainedBatch&) { return cutter.at_batch_end(); });
  measure("first, full", sluice::CutRows::all, arguments, batches, cutter);
  for (int n = 0; n < 2; ++n) {
    Slice other;
    batches.train_some(arguments.batch, arguments.between, other);
    measure("delta", sluice::CutRows::changed, arguments, batches, cutter);
  }
  measure("full", sluice::CutRows::all, arguments, batches, cutter);
  slice = batches.train(arguments.batch, 2);
  std::printf("after: %.0f samples/s\n", static_cast<double>(slice.samples) / slice.seconds);
  return files.remove_all(arguments.folder) ? 0 : 1;
}
