#include "app/report.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

std::string number(const Json& value, const char* format) {
  if (!value.is_number()) return "-";
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), format, value.get<double>());
  return text.data();
}

std::string row(const std::string& name, const Json& metrics) {
  std::array<char, 160> text{};
  std::snprintf(text.data(), text.size(), "  %-7s %8s %10s %11s %13s\n", name.c_str(),
                number(metrics["auc"], "%.4f").c_str(), number(metrics["log_loss"], "%.5f").c_str(),
                number(metrics["normalized_entropy"], "%.4f").c_str(),
                number(metrics["calibration"], "%.3f").c_str());
  return text.data();
}

double per_second(std::uint64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

// Most often a wrong path: no error, since a feature may well be rare, but nobody means it.
std::string never_there(const Json& report) {
  std::string text;
  const auto impressions = report["labels"]["impressions"].get<std::uint64_t>();
  for (const auto& [name, count] : report["absent"].items()) {
    const auto absent = count.get<std::uint64_t>();
    const auto wrong = report["wrong_types"][name].get<std::uint64_t>();
    if (impressions == 0 || absent + wrong < impressions) continue;
    text += "warning   feature " + name + ": no impression has a value of its type" +
            (wrong == 0 ? " at its path" : "") + "; check features." + name + "\n";
  }
  return text;
}

// The same of the value of purchases.
std::string never_valued(const Json& report) {
  const Json& labels = report["labels"];
  const auto used = report["used"]["purchases"].get<std::uint64_t>();
  if (used == 0 || !labels.contains("without_value") || labels["without_value"] != used) return "";
  return "warning   no purchase that counts has a number as its value; check streams.value\n";
}

bool has_ratio(const Recipe& recipe) {
  return std::any_of(recipe.nodes.begin(), recipe.nodes.end(),
                     [](const RecipeNode& node) { return node.op == RecipeNode::Op::ratio; });
}

}  // namespace

Result<Json> make_report(const JoinStage& stage, Learning& learning, const Throughput& throughput,
                         bool with_second_half) {
  const JoinProgress& join = stage.committed();
  const JoinStatus status = stage.status();
  const Trainer& trainer = learning.trainer();
  Json report;
  report["format"] = 1;
  report["closed"] = join.is_closed;
  report["reproducible"] = !join.irreproducible_from.has_value();
  report["event_time"] = format_time(join.frontier);  // "the end" once closed
  for (std::size_t stream = 0; stream < join.streams(); ++stream) {
    report["events"][kStreamNames[stream]] = join.counters.read(static_cast<Stream>(stream));
  }
  for (std::size_t stream = 0; stream < join.streams(); ++stream) {
    report["used"][kStreamNames[stream]] = join.counters.used[stream];
  }
  report["labels"] = {{"impressions", join.counters.labelled_impressions},
                      {"clicked", join.counters.clicked},
                      {"converted", join.counters.converted}};
  if (stage.join_config().sums_values()) {
    report["labels"]["value"] = join.counters.value.value();
    report["labels"]["without_value"] = join.counters.without_value;
  }
  if (join.streams() == kStreams) report["labels"]["acted"] = join.counters.acted;
  for (std::size_t index = 0; index < kRefusals; ++index) {
    const auto reason = static_cast<Refusal>(index);
    report["refused"][to_string(reason)] = join.counters.refused_for(reason);
    for (std::size_t stream = 0; stream < kStreams; ++stream) {
      const std::uint64_t count = join.counters.refused[stream][index];
      if (count > 0) report["refused_by_stream"][kStreamNames[stream]][to_string(reason)] = count;
    }
  }
  report["open"] = {{"impressions", status.open_impressions}, {"waiting", status.waiting_records}};
  report["dead_letters"] = {{"kept", join.next_dead_letter - join.first_dead_letter},
                            {"trimmed", join.trimmed_dead_letters},
                            {"unsent", status.unsent_dead_letters},
                            {"trimmed_unsent", join.trimmed_unsent_dead_letters}};
  report["samples"] = join.next_sequence - 1;
  report["samples_digest"] = join.samples_digest.hex();
  report["trained"] = trainer.trained_sequence() - learning.skipped();
  if (learning.skipped() > 0) report["skipped"] = learning.skipped();
  report["model_digest"] = trainer.model_digest().hex();
  report["wrong_types"] = trainer.wrong_types();
  report["absent"] = trainer.absent();
  report["metrics"] = trainer.metrics();
  if (has_ratio(trainer.objective().recipe())) {
    report["model"] = {{"cut_ratios", trainer.cut_ratios()}};
  }
  if (with_second_half) {
    SLUICE_ASSIGN(report["metrics"]["second_half"], learning.second_half_metrics());
  }
  if (const auto snapshot = learning.last_snapshot()) report["snapshot"] = *snapshot;
  if (const auto candidate = learning.candidate()) report["candidate"] = *candidate;
  report["throughput"] = {{"events", throughput.events},
                          {"samples", throughput.samples},
                          {"seconds", throughput.seconds},
                          {"join_seconds", throughput.join_seconds},
                          {"events_per_s", per_second(throughput.events, throughput.join_seconds)},
                          {"samples_per_s", per_second(throughput.samples, throughput.seconds)}};
  if (const auto& freshness = throughput.freshness) {
    report["throughput"]["freshness_ms"] = {
        {"median", freshness->median}, {"p99", freshness->p99}, {"longest", freshness->longest}};
  }
  return report;
}

std::string summarize(const Json& report) {
  const auto count = [](const Json& value) { return std::to_string(value.get<std::uint64_t>()); };
  const Json& events = report["events"];
  const Json& labels = report["labels"];
  std::string text =
      "read      " + count(events["impressions"]) + " impressions, " + count(events["clicks"]) +
      " clicks, " + (events.contains("actions") ? count(events["actions"]) + " actions, " : "") +
      count(events["purchases"]) + " purchases\nlabels    " + count(labels["impressions"]) +
      " impressions, " + count(labels["clicked"]) + " clicked, " +
      (labels.contains("acted") ? count(labels["acted"]) + " acted, " : "") +
      count(labels["converted"]) + " converted";
  if (labels.contains("value")) text += ", value " + number(labels["value"], "%.2f");
  text += "\n";
  std::string refused;
  for (const auto& [reason, refusals] : report["refused"].items()) {
    if (refusals.get<std::uint64_t>() == 0) continue;
    refused += (refused.empty() ? " " : ", ") + count(refusals) + " " + reason;
  }
  text += "refused  " + (refused.empty() ? " nothing" : refused) + "\n";
  text += never_there(report) + never_valued(report);
  text += "samples   " + count(report["samples"]) + ", " + count(report["trained"]) +
          " of them trained" +
          (report.contains("skipped") ? " (" + count(report["skipped"]) + " skipped)" : "") +
          ", digest " + report["samples_digest"].get<std::string>() + "\n";
  text += "model     digest " + report["model_digest"].get<std::string>() + "\n";
  text += "          so far, each impression predicted before it was learned:\n";
  text += "               AUC   log loss  norm. entr.  pred./observed\n";
  text += row("CTR", report["metrics"]["ctr"]) + row("CVR", report["metrics"]["cvr"]) +
          row("CTCVR", report["metrics"]["ctcvr"]);
  const Json& metrics = report["metrics"];
  if (const auto half = metrics.find("second_half"); half != metrics.end() && half->is_object()) {
    text += "          of these, the second half of the samples:\n";
    text +=
        row("CTR", (*half)["ctr"]) + row("CVR", (*half)["cvr"]) + row("CTCVR", (*half)["ctcvr"]);
  }
  return text;
}

}  // namespace sluice
