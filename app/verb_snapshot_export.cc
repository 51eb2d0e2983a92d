// sluice snapshot export: a snapshot in a form that other programs read.
#include <memory>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "app/report_error.h"
#include "app/verbs.h"
#include "serving/onnx_export.h"
#include "serving/snapshots.h"
#include "store/published_folder.h"

namespace sluice {
namespace {

struct ExportOptions {
  std::string where = "sluice-data";
  std::optional<std::uint64_t> sequence;
  std::optional<std::string> model;
  std::string format;
  std::string out;
};

constexpr const char* kOnnxTowers = "onnx-towers";
constexpr const char* kOnnx = "onnx";
constexpr const char* kSafetensors = "safetensors";

// A full snapshot of its own, also of a delta.
Status export_folder(FileSystem& files, const Snapshot& snapshot, const fs::path& out) {
  nlohmann::ordered_json manifest = snapshot.manifest;
  for (const char* key : {"files", "checksum", "base"}) manifest.erase(key);
  manifest["kind"] = "full";
  const fs::path parent = out.has_parent_path() ? out.parent_path() : fs::path(".");
  const fs::path name = out.filename();
  if (name.empty() || name == "." || name == "..") {
    return usage_error("--out " + out.string() + " is not the name of a folder");
  }
  SLUICE_TRY(files.create_directories(parent));
  return publish_folder(files, parent, name.string(), std::move(manifest),
                        {{"weights.safetensors", encode_tensors(snapshot.model.tensors())}}, {});
}

Status export_snapshot(const ExportOptions& options) {
  RealFileSystem files;
  SLUICE_ASSIGN(const fs::path folder,
                find_snapshot(files, options.where, options.model, options.sequence));
  SLUICE_ASSIGN(const Snapshot snapshot, read_snapshot(files, folder));
  if (options.format == kSafetensors) return export_folder(files, snapshot, options.out);
  const auto onnx =
      options.format == kOnnx ? export_onnx(snapshot.model) : export_onnx_towers(snapshot.model);
  if (!onnx) {
    return stop_error("cannot export " + folder.string() + ": " + onnx.error().message);
  }
  return write_atomically(files, options.out, *onnx);
}

constexpr const char* kFooter = R"(
  onnx-towers   an ONNX file from pooled inputs to the rates; look-ups are the caller's
  onnx          an ONNX file from the rows' keys to the rates, with all rows inside; below 2 GB
  safetensors   a folder: all weights, also those that a delta takes from its base, and the manifest

docs/deploying.md says how each is used and to which precision it agrees with `sluice score`.
)";

}  // namespace

void add_snapshot_export(CLI::App& group, int& exit_code) {
  CLI::App* verb = group.add_subcommand("export", "Writes a snapshot for other programs");
  const auto options = std::make_shared<ExportOptions>();
  verb->add_option("DIR", options->where, "A data folder, a folder of snapshots, or a snapshot's")
      ->capture_default_str();
  verb->add_option("SEQUENCE", options->sequence, "Its number; default: what LATEST names");
  verb->add_option("--model", options->model, "Which one, where a data folder has several models");
  verb->add_option("--format", options->format, "onnx-towers, onnx or safetensors")
      ->required()
      ->check(CLI::IsMember({kOnnxTowers, kOnnx, kSafetensors}));
  verb->add_option("--out", options->out, "The file to write; of safetensors the folder")
      ->required();
  verb->footer(kFooter);
  verb->callback([options, &exit_code] {
    const Status done = export_snapshot(*options);
    exit_code = done ? 0 : report_error(done.error());
  });
}

}  // namespace sluice
