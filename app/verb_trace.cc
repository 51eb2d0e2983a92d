// sluice trace: the life of one impression, as JSON or for people.
#include <unistd.h>

#include <array>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <spdlog/spdlog.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "app/report_error.h"
#include "app/text_table.h"
#include "app/trace.h"
#include "app/verbs.h"
#include "config/load.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;
using Rows = std::vector<std::vector<std::string>>;

struct TraceArguments {
  std::string config;
  std::string id;
  std::vector<std::string> overrides;
  std::string data_dir;
  bool to_end = false;
  bool json = false;
};

// ---- the trace as JSON

Json time_json(const std::optional<TimeMs>& time) {
  return time ? Json(format_time(*time)) : Json(nullptr);
}

Json record_json(const TracedRecord& record) {
  constexpr std::array<const char*, 3> kOutcomes = {"undecided", "used", "refused"};
  Json json = {{"stream", kStreamNames[static_cast<std::size_t>(record.where.stream)]},
               {"partition", record.where.partition},
               {"position", record.position},
               {"place", record.place},
               {"time", time_json(record.time)},
               {"event_id", record.event_id},
               {"outcome", kOutcomes[static_cast<std::size_t>(record.outcome)]}};
  if (record.outcome == TracedRecord::Outcome::refused) {
    json["reason"] = to_string(record.reason);
    if (!record.detail.empty()) json["detail"] = record.detail;
  }
  if (!record.used_for.empty()) json["used_for"] = record.used_for;
  if (record.is_replaced) json["replaced"] = true;
  if (record.value) json["value"] = to_double(*record.value);
  return json;
}

bool is_skipped(const Config& config, std::uint64_t sequence) {
  const auto& ranges = config.training.skip_samples;
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const SampleRange& range) { return range.holds(sequence); });
}

Result<Json> sample_json(const TracedSample& traced, const Config& config,
                         const TraceFolder* folder, FileSystem& files) {
  const Sample& sample = traced.sample;
  Json json = {{"sequence", sample.sequence},
               {"time", format_time(sample.time)},
               {"tick", format_time(traced.tick)},
               {"y", sample.y ? 1 : 0},
               {"y_final", sample.y_final},
               {"z", sample.z ? 1 : 0},
               {"z_final", sample.z_final},
               {"batch",
                {{"number", traced.batch.number},
                 {"from", traced.batch.from},
                 {"to", traced.batch.to},
                 {"complete", traced.batch.is_complete}}}};
  if (config.join.sums_values()) json["value"] = to_double(sample.value);
  if (config.streams.has_actions()) {
    json["action"] = sample.action ? 1 : 0;
    json["action_final"] = sample.action_final;
  }
  if (folder == nullptr) return json;
  SLUICE_ASSIGN(const TraceFolder::Facts facts, folder->facts(files, sample));
  const auto number = [](const std::optional<std::uint64_t>& value) {
    return value ? Json(*value) : Json(nullptr);
  };
  Json& entry = json["data_folder"];
  entry = {{"committed", facts.is_committed},
           {"trained", facts.is_trained},
           {"skipped", is_skipped(config, sample.sequence)},
           {"checkpoint", number(facts.checkpoint)},
           {"kept_checkpoint", number(facts.kept_checkpoint)},
           {"snapshot", number(facts.snapshot)},
           {"kept_snapshot", number(facts.kept_snapshot)},
           {"prediction", nullptr}};
  if (facts.prediction) {
    entry["prediction"] = {{"pctr", facts.prediction->ctr.yes},
                           {"pcvr", facts.prediction->cvr.yes},
                           {"pctcvr", facts.prediction->ctcvr.yes}};
  }
  return json;
}

// A label: final since when, or open until when at the latest.
Json label_json(const std::optional<Sample>& sample, bool value, TimeMs until) {
  if (sample) return {{"final", true}, {"value", value ? 1 : 0}, {"at", format_time(sample->time)}};
  return {{"final", false}, {"until", format_time(until)}};
}

Result<Json> impression_json(const TracedImpression& impression, const Config& config,
                             const TraceFolder* folder, FileSystem& files) {
  const JoinConfig& join = config.join;
  std::optional<Sample> y, action, z;
  Json samples = Json::array();
  for (const TracedSample& traced : impression.samples) {
    if (traced.sample.y_final) y = traced.sample;
    if (traced.sample.action_final) action = traced.sample;
    if (traced.sample.z_final) z = traced.sample;
    SLUICE_ASSIGN(Json sample, sample_json(traced, config, folder, files));
    samples.push_back(std::move(sample));
  }
  const TimeMs click_end = impression.click_window_end(join);
  const auto conversion_end = impression.conversion_window_end(join);
  Json json = {
      {"shard", impression.shard},
      {"time", format_time(impression.time)},
      {"event_id", impression.event_id},
      {"user_id", impression.user_id},
      {"item_id", impression.item_id},
      {"click_window",
       {{"from", format_time(impression.time - join.clock_skew)}, {"to", format_time(click_end)}}},
      {"click", time_json(impression.click_time)},
      {"conversion_window", nullptr},
      {"purchase", time_json(impression.purchase_time)},
      {"y", label_json(y, y && y->y, click_end)},
      {"z", label_json(z, z && z->z, conversion_end.value_or(click_end))},
      {"samples", samples}};
  if (conversion_end) {
    json["conversion_window"] = {{"from", format_time(*impression.click_time)},
                                 {"to", format_time(*conversion_end)}};
  }
  if (join.sums_values()) json["value"] = to_double(impression.value);
  if (!config.streams.has_actions()) return json;
  const auto action_end = impression.action_window_end(config);
  json["action_window"] = nullptr;
  if (action_end) {
    json["action_window"] = {{"from", format_time(*impression.click_time)},
                             {"to", format_time(*action_end)}};
  }
  json["action_time"] = time_json(impression.action_time);
  json["action"] = label_json(action, action && action->action, action_end.value_or(click_end));
  return json;
}

Result<Json> trace_json(const Trace& trace, const std::string& id, const Config& config,
                        const TraceFolder* folder, FileSystem& files) {
  Json json = {
      {"impression_id", id},
      {"event_time", trace.event_time == kTimeMin ? Json() : Json(format_time(trace.event_time))},
      {"everything_final", trace.is_settled},
      {"records_read", trace.records_read},
      {"records_decided", trace.records_decided},
      {"records", Json::array()},
      {"impressions", Json::array()},
      {"data_folder", nullptr}};
  for (const TracedRecord& record : trace.records) json["records"].push_back(record_json(record));
  for (const TracedImpression& impression : trace.impressions) {
    SLUICE_ASSIGN(Json entry, impression_json(impression, config, folder, files));
    json["impressions"].push_back(std::move(entry));
  }
  if (folder != nullptr) {
    json["data_folder"] = {{"path", folder->path.string()},
                           {"samples", folder->progress.next_sequence - 1},
                           {"compared_up_to", trace.compared_up_to},
                           {"compared", trace.compared_up_to != 0}};
  }
  return json;
}

// ---- for people

std::string cell_of(const Json& value) {
  return value.is_null() ? "-" : value.is_string() ? value.get<std::string>() : value.dump();
}

std::string records_text(const Json& trace) {
  Rows rows = {{"records", "event time", "where", ""}};
  for (const Json& record : trace["records"]) {
    std::string outcome = record["outcome"].get<std::string>();
    const bool is_impression = record["stream"] == kStreamNames[0];
    if (outcome == "used") outcome = is_impression ? "opens it" : "counts";
    if (record.contains("used_for")) outcome += " for " + cell_of(record["used_for"]);
    if (record.contains("replaced")) outcome += ", until a later click does";
    if (record.contains("value")) outcome += ", value " + cell_of(record["value"]);
    if (outcome == "undecided") outcome = "not decided yet: event time has not come so far";
    if (record.contains("reason")) outcome += ": " + cell_of(record["reason"]);
    if (record.contains("detail")) outcome += ", " + cell_of(record["detail"]);
    rows.push_back({"  " + cell_of(record["stream"]), cell_of(record["time"]),
                    cell_of(record["place"]), one_line(outcome)});
  }
  return text_table(rows);
}

std::string label_text(const Json& label) {
  if (label["final"] == true) {
    return label["value"].dump() + ", final at " + cell_of(label["at"]);
  }
  return "open, until " + cell_of(label["until"]) + " at the latest";
}

std::string window_text(const Json& window) {
  return window.is_null() ? "-"
                          : "[" + cell_of(window["from"]) + ", " + cell_of(window["to"]) + ")";
}

std::string percent(const Json& rate) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.6f", rate.get<double>());
  return text.data();
}

void add_folder_rows(const Json& facts, Rows& rows) {
  const auto made = [&facts](const char* what, const char* kept) {
    if (facts[what].is_null()) return std::string("in none so far");
    return "first in " + facts[what].dump() +
           (facts[kept].is_null() ? ", none of those with it is kept"
                                  : ", of those kept in " + facts[kept].dump());
  };
  rows.push_back({"    data folder",
                  std::string(facts["committed"] == true ? "committed" : "not committed yet") +
                      (facts["skipped"] == true   ? ", not learned (training.skip_samples)"
                       : facts["trained"] == true ? ", trained"
                                                  : ", not trained yet")});
  rows.push_back({"    checkpoint", made("checkpoint", "kept_checkpoint")});
  rows.push_back({"    snapshot", made("snapshot", "kept_snapshot")});
  const Json& prediction = facts["prediction"];
  if (prediction.is_null()) return;
  rows.push_back({"    predicted", "pCTR " + percent(prediction["pctr"]) + ", pCVR " +
                                       percent(prediction["pcvr"]) + ", pCTCVR " +
                                       percent(prediction["pctcvr"])});
}

std::string impression_text(const Json& impression) {
  Rows rows = {
      {"impression", cell_of(impression["time"]) + ", shard " + cell_of(impression["shard"])},
      {"  user, item", cell_of(impression["user_id"]) + ", " + cell_of(impression["item_id"])},
      {"  click window", window_text(impression["click_window"])},
      {"  click", cell_of(impression["click"])},
      {"  conv. window", window_text(impression["conversion_window"])},
      {"  purchase", cell_of(impression["purchase"])},
      {"  y (clicked)", label_text(impression["y"])},
      {"  z (purchased)", label_text(impression["z"])}};
  if (impression.contains("action")) {
    rows.push_back({"  action window", window_text(impression["action_window"])});
    rows.push_back({"  action", cell_of(impression["action_time"])});
    rows.push_back({"  acted", label_text(impression["action"])});
  }
  if (impression.contains("value")) {
    rows.push_back({"  value", cell_of(impression["value"]) +
                                   (impression["z"]["final"] == true ? "" : ", so far")});
  }
  for (const Json& sample : impression["samples"]) {
    const Json& batch = sample["batch"];
    const auto label = [&sample](const char* name, const char* final) {
      return std::string(name) + " " + sample[name].dump() +
             (sample[final] == true ? " final" : "");
    };
    rows.push_back(
        {"  sample", "sequence " + sample["sequence"].dump() + ", " + label("y", "y_final") + ", " +
                         label("z", "z_final") +
                         (sample.contains("action") ? ", " + label("action", "action_final") : "") +
                         ", tick " + cell_of(sample["tick"])});
    rows.push_back(
        {"    batch", batch["number"].dump() + ", sequences [" + batch["from"].dump() + ", " +
                          batch["to"].dump() +
                          (batch["complete"] == true ? "]" : "] so far, not complete yet")});
    if (sample.contains("data_folder")) add_folder_rows(sample["data_folder"], rows);
  }
  return "\n" + text_table(rows);
}

std::string trace_text(const Json& trace) {
  std::string text = "impression " + trace["impression_id"].get<std::string>() + "\n\n";
  text += records_text(trace);
  for (const Json& impression : trace["impressions"]) text += impression_text(impression);
  if (trace["impressions"].empty()) {
    text += "\nno impression of this id was opened: it has no sample\n";
  }
  text += "\n" + trace["records_read"].dump() + " records read, event time " +
          cell_of(trace["event_time"]);
  if (trace["everything_final"] == true) text += "; everything about it is final";
  const Json& folder = trace["data_folder"];
  if (!folder.is_null() && folder["compared_up_to"] != 0) {
    text += "; the samples up to " + folder["compared_up_to"].dump() + " are those of " +
            cell_of(folder["path"]);
  } else if (!folder.is_null()) {
    text += "; the samples were not compared with those of " + cell_of(folder["path"]) +
            ": it has no digest so early" +
            (folder["samples"] == 0 ? ", nor any sample" : " (--to-end reads on)");
  }
  return text + "\n";
}

// ---- the verb

// On a terminal a line that is drawn anew, elsewhere one now and then.
class ProgressLine {
 public:
  explicit ProgressLine(Clock& clock)
      : clock_(clock), is_terminal_(isatty(STDERR_FILENO) == 1), shown_at_(clock.steady_ms()) {}
  ~ProgressLine() {
    if (is_terminal_) std::fputs("\r\033[K", stderr);
  }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void show(const JoinStatus& status) {
    const DurationMs now = clock_.steady_ms();
    if (now - shown_at_ < (is_terminal_ ? 200 : 10'000)) return;
    shown_at_ = now;
    const std::string line = "reading: " + std::to_string(status.samples) + " samples" +
                             (status.frontier == kTimeMin || status.frontier >= kTimeMax / 2
                                  ? ""
                                  : ", event time " + format_time(status.frontier));
    std::fprintf(stderr, is_terminal_ ? "\r\033[K%s" : "sluice: %s\n", line.c_str());
  }

 private:
  Clock& clock_;
  const bool is_terminal_;
  DurationMs shown_at_;
};

Result<std::optional<TraceFolder>> open_folder(FileSystem& files, const TraceArguments& arguments,
                                               const Config& config) {
  const fs::path path = arguments.data_dir.empty() ? "sluice-data" : arguments.data_dir;
  if (arguments.data_dir.empty() && !files.exists(path / "store")) {
    return std::optional<TraceFolder>();
  }
  SLUICE_ASSIGN(auto folder, TraceFolder::open(files, path, config));
  return std::optional(std::move(folder));
}

Result<int> trace(const TraceArguments& arguments) {
  SLUICE_ASSIGN(const Config config, load_config_or_error(arguments.config, arguments.overrides));
  if (arguments.id.empty()) return usage_error("ID is empty; no impression has such an id");
  if (config.source.type == SourceConfig::Type::kafka && config.source.start == "latest") {
    return usage_error(
        "source.start = \"latest\" does not say where the lineage began; take --set "
        "source.start=TIME with the time of its first start");
  }
  spdlog::set_level(spdlog::level::err);  // other records' refusals are nobody's question here
  RealFileSystem files;
  SystemClock clock;
  SLUICE_ASSIGN(const auto folder, open_folder(files, arguments, config));
  SLUICE_ASSIGN(const auto source, config.source.type == SourceConfig::Type::files
                                       ? open_file_source(config)
                                       : open_source(config, clock));
  TraceOptions options;
  options.folder = folder ? &*folder : nullptr;
  options.to_end = arguments.to_end;
  Trace found;
  {
    ProgressLine line(clock);
    options.progress = [&line](const JoinStatus& status) { line.show(status); };
    SLUICE_ASSIGN(found, trace_impression(config, arguments.id, *source, clock, options));
  }
  SLUICE_ASSIGN(const Json json, trace_json(found, arguments.id, config, options.folder, files));
  if (found.records.empty()) {
    const bool is_cut = found.event_time != kTimeMin && found.event_time < kTimeMax / 2;
    return stop_error("no record names impression " + arguments.id + ", of " +
                      std::to_string(found.records_read) + " that were read" +
                      (is_cut ? ", up to event time " + format_time(found.event_time) +
                                    ", which not all logs go beyond"
                              : "") +
                      "; ids are compared as they are written in " + config.streams.impression_id);
  }
  const std::string text = arguments.json
                               ? json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"
                               : trace_text(json);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace

void add_trace(CLI::App& root, int& exit_code) {
  CLI::App* verb =
      root.add_subcommand("trace", "The life of one impression: records, labels, samples, batch");
  const auto arguments = std::make_shared<TraceArguments>();
  verb->add_option("CONFIG", arguments->config, "the config of the run or replay")->required();
  verb->add_option("ID", arguments->id, "the impression's id")->required();
  verb->add_option("--data-dir", arguments->data_dir,
                   "also tells what this data folder has of it; a service may be using it "
                   "[sluice-data, where it is there]");
  verb->add_option("--set", arguments->overrides,
                   "section.key=value: any key of the config; may be repeated")
      ->allow_extra_args(false);
  verb->add_flag("--to-end", arguments->to_end,
                 "reads the logs to their ends, also when everything about it is final");
  verb->add_flag("--json", arguments->json, "Prints JSON");
  verb->footer(
      "Derives it anew from the logs and the config, with the join itself; nothing is trained or "
      "written.\nThe logs are read from their beginning until everything about the impression is "
      "final: to the ends\nthat a closed data folder has pinned, else to their present ends.\n"
      "Examples:\n"
      "  sluice trace shop.toml 5-12\n"
      "  sluice trace shop.toml 5-12 --data-dir live --json\n"
      "Exit code 1 where no record names it.\n");
  verb->callback([arguments, &exit_code] {
    const Result<int> outcome = trace(*arguments);
    exit_code = outcome ? *outcome : report_error(outcome.error());
  });
}

}  // namespace sluice
