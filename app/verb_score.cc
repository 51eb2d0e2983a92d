// sluice score: impressions in, rates out, one line for each.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "app/line_reader.h"
#include "app/report_error.h"
#include "app/score_compare.h"
#include "app/verbs.h"
#include "base/json_text.h"
#include "serving/scorer.h"

namespace sluice {
namespace {

struct ScoreOptions {
  std::string snapshot;
  std::optional<std::string> model;
  std::string in = "-";
  std::string compare;
};

std::string json_text(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string score_line(const Score& score) {
  std::string line = "{\"impression_id\": " + json_text(score.impression_id) + ", \"pctr\": ";
  append_json_number(line, score.prediction.ctr.yes);
  line += ", \"pcvr\": ";
  append_json_number(line, score.prediction.cvr.yes);
  line += ", \"pctcvr\": ";
  append_json_number(line, score.prediction.ctcvr.yes);
  return line + "}\n";
}

// Why a line has no score, if it has none.
std::optional<std::string> reason_of(const tl::expected<Score, std::string>& result) {
  if (!result) return result.error();
  if (!is_finite(result->prediction)) return "the model gives no number for it";
  return std::nullopt;
}

Status write_out(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    return stop_error(std::string("cannot write the scores: ") + std::strerror(errno));
  }
  return {};
}

Result<std::shared_ptr<const Scorer>> find_scorer(const ScoreOptions& options) {
  RealFileSystem files;
  SLUICE_ASSIGN(const fs::path folder,
                find_snapshot(files, options.snapshot, options.model, std::nullopt));
  return open_scorer(files, folder);
}

// Whether every line got its score.
Result<bool> score_all(const Scorer& scorer, int input) {
  LineReader reader(input, scorer.max_record_bytes());
  std::uint64_t line = 0;
  bool all_scored = true;
  while (true) {
    SLUICE_ASSIGN(const std::vector<std::string> impressions, reader.read());
    if (impressions.empty()) return all_scored;
    std::string out;
    for (const auto& result : scorer.score(impressions)) {
      ++line;
      const std::optional<std::string> reason = reason_of(result);
      if (!reason) {
        out += score_line(*result);
        continue;
      }
      all_scored = false;
      out += "{\"error\": " + json_text(*reason) + "}\n";
      std::fprintf(stderr, "sluice: line %llu: %s\n", static_cast<unsigned long long>(line),
                   reason->c_str());
    }
    SLUICE_TRY(write_out(out));
  }
}

// Whether what was served is what the snapshots say.
int compare(const ScoreOptions& options) {
  const auto skew = measure_skew({options.compare, options.snapshot, options.model, options.in});
  if (!skew) return report_error(skew.error());
  std::string largest;
  append_json_number(largest, skew->largest_difference);
  std::printf(
      "{\"compared\": %llu, \"unequal\": %llu, \"largest_difference\": %s, "
      "\"not_found\": %llu}\n",
      static_cast<unsigned long long>(skew->compared),
      static_cast<unsigned long long>(skew->unequal), largest.c_str(),
      static_cast<unsigned long long>(skew->not_found));
  if (skew->unequal > 0) {
    std::fprintf(stderr, "sluice: of %s another rate was served than its version gives\n",
                 skew->largest_id.c_str());
  }
  if (skew->compared == 0) {
    std::fprintf(stderr, "sluice: none of the impressions was served\n");
  }
  return skew->unequal == 0 && skew->compared > 0 ? 0 : 1;
}

int score(const ScoreOptions& options) {
  if (!options.compare.empty()) return compare(options);
  const bool is_stdin = options.in == "-";
  const int input = is_stdin ? STDIN_FILENO : ::open(options.in.c_str(), O_RDONLY | O_CLOEXEC);
  if (input < 0) {
    return report_error(usage_error("cannot read " + options.in + ": " + std::strerror(errno)));
  }
  const auto scorer = find_scorer(options);
  auto all_scored = scorer ? score_all(**scorer, input) : Result<bool>(scorer.error());
  if (!is_stdin) ::close(input);
  if (!all_scored) return report_error(all_scored.error());
  return *all_scored ? 0 : 1;
}

constexpr const char* kScoreFooter = R"(
Each line of the input is one impression as in the impressions stream: a JSON object with the fields
and features that the model was trained on (`sluice snapshot show` lists them). A feature that is
absent or null counts as absent. Each line of the output answers the line of the same number:

  {"impression_id": "i7", "pctr": 0.041, "pcvr": 0.015, "pctcvr": 0.000615}

pctr is the probability of a click, pcvr that of a purchase once clicked, pctcvr of both. A line that
is no impression is answered by {"error": "why"}; then the exit code is 1.

  zstdcat impressions/00000.jsonl.zst | sluice score sluice-data > scores.jsonl

--compare FILE scores the same impressions once more by the versions that served them, as FILE of
`sluice serve --log-predictions` names them, and tells the skew: how many were compared, how many
are not the same bits, and by how much at most. It exits with 1 where one is not, or none was there.
FILE.1, what was served before FILE was begun, is compared in the same way.
)";

}  // namespace

void add_score(CLI::App& root, int& exit_code) {
  CLI::App* verb = root.add_subcommand("score", "Scores impressions by a snapshot");
  const auto options = std::make_shared<ScoreOptions>();
  verb->add_option("SNAPSHOT", options->snapshot,
                   "A snapshot's folder; or a data folder, for the one that LATEST names")
      ->required();
  verb->add_option("--model", options->model, "Which one, where a data folder has several models");
  verb->add_option("--in", options->in, "A file of impressions; - is the standard input")
      ->capture_default_str();
  verb->add_option("--compare", options->compare,
                   "FILE of predictions that were served: tells whether they are the snapshots'");
  verb->footer(kScoreFooter);
  verb->callback([options, &exit_code] { exit_code = score(*options); });
}

}  // namespace sluice
