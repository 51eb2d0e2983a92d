#include <algorithm>

#include "app/import.h"

namespace sluice {
namespace {

constexpr const char* kImportedLearner = R"(
[model]
recipe        = "esmm"
embedding_dim = 18
hidden        = [200, 80]
seed          = 1

[training]
batch_size = 1024
dense      = { optimizer = "adam", learning_rate = 1e-3 }
embeddings = { optimizer = "adam", learning_rate = 3e-3 }

[snapshots]
every = "1 d"       # of event time
keep  = 4
)";

std::string feature_lines(const std::vector<ImportFeature>& features) {
  std::size_t width = 0;
  for (const ImportFeature& feature : features) width = std::max(width, feature.name.size());
  std::string text;
  for (const ImportFeature& feature : features) {
    text += feature.name + std::string(width - feature.name.size(), ' ') + " = { path = \"" +
            feature.path + "\", " + feature.type + " }\n";
  }
  return text;
}

}  // namespace

std::string import_config(const ImportOptions& options, const ImportLogs& logs,
                          const std::vector<ImportFeature>& features) {
  std::string text =
      "# A table of the format " + options.format + ", replayed:  sluice replay sluice.toml\n" +
      "# The windows are long enough for each of its labels, the bound for its disorder.\n\n" +
      "[source]\ntype = \"files\"\nroot = \".\"          # relative to this file\n\n";
  text += "[streams]\nmax_out_of_orderness = \"" + format_duration(logs.max_out_of_orderness());
  text += "\"\n\n[join]\nattribution       = \"impression_id\"\nclick_window      = \"" +
          format_duration(logs.click_window());
  text += "\"\nconversion_window = \"" + format_duration(logs.conversion_window()) + "\"\n";
  text += "\n[features]\n" + feature_lines(features);
  return text + kImportedLearner;
}

}  // namespace sluice
