// sluice snapshot export: a snapshot in a form that other programs read.
#include <memory>
#include <string>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "app/snapshot_verb.h"
#include "serving/onnx_export.h"
#include "serving/snapshots.h"
#include "store/published_folder.h"

namespace sluice {
namespace {

struct ExportOptions {
  std::shared_ptr<SnapshotOptions> of = std::make_shared<SnapshotOptions>();
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
  if (name.empty() || name.string().starts_with('.')) {
    return usage_error("--out " + out.string() +
                       ": a folder's name that does not begin with a dot");
  }
  // Publishing replaces what is damaged, which another's folder would be.
  if (files.exists(out)) return usage_error("--out " + out.string() + " is there already");
  SLUICE_TRY(files.create_directories(parent));
  return publish_folder(files, parent, name.string(), std::move(manifest),
                        {{kWeightsFile, encode_tensors(snapshot.model.tensors())}}, {});
}

Result<int> export_snapshot(const ExportOptions& options) {
  RealFileSystem files;
  SLUICE_ASSIGN(const fs::path folder, find_named_snapshot(files, *options.of, options.of->which));
  SLUICE_ASSIGN(const Snapshot snapshot, read_snapshot(files, folder));
  if (options.format == kSafetensors) {
    SLUICE_TRY(export_folder(files, snapshot, options.out));
  } else {
    const auto onnx =
        options.format == kOnnx ? export_onnx(snapshot.model) : export_onnx_towers(snapshot.model);
    if (!onnx) {
      return stop_error("cannot export " + folder.string() + ": " + onnx.error().message);
    }
    SLUICE_TRY(write_atomically(files, options.out, *onnx));
  }
  const nlohmann::ordered_json json = {
      {"snapshot", folder.string()}, {"format", options.format}, {"out", options.out}};
  print(options.of->json
            ? json.dump(2) + "\n"
            : options.out + " has snapshot " + folder.string() + " as " + options.format + "\n");
  return 0;
}

constexpr const char* kExportFooter = R"(
  onnx-towers   an ONNX file from pooled inputs to the rates; look-ups are the caller's
  onnx          an ONNX file from the rows' keys to the rates, with all rows inside; below 2 GB
  safetensors   a folder: all weights, also those that a delta takes from its base, and the manifest

docs/deploying.md says how each is used and to which precision it agrees with `sluice score`.
)";

}  // namespace

void add_snapshot_export(CLI::App& group, int& exit_code) {
  const auto options = std::make_shared<ExportOptions>();
  CLI::App* verb = add_snapshot_verb(
      group, "export", "Writes a snapshot for other programs", options->of,
      [options] { return export_snapshot(*options); }, exit_code);
  add_which(*verb, options->of->which);
  verb->add_option("--format", options->format, "onnx-towers, onnx or safetensors")
      ->required()
      ->check(CLI::IsMember({kOnnxTowers, kOnnx, kSafetensors}));
  verb->add_option("--out", options->out, "The file to write; of safetensors the folder")
      ->required();
  verb->footer(kExportFooter);
}

}  // namespace sluice
