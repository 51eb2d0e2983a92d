#include "app/snapshot_gate.h"

#include <array>
#include <cstdint>
#include <cstdio>

namespace sluice {
namespace {

using nlohmann::ordered_json;

// A number of a task's window; none where it is missing, null or no number.
std::optional<double> window_metric(const ordered_json& manifest, const char* task,
                                    const char* name) {
  const ordered_json* at = &manifest;
  for (const char* key : {"window_metrics", task, name}) {
    if (!at->is_object() || !at->contains(key)) return std::nullopt;
    at = &(*at)[key];
  }
  return at->is_number() ? std::optional(at->get<double>()) : std::nullopt;
}

bool has_enough(const ordered_json& manifest, const char* task, const GateConfig& gate) {
  const auto positives = window_metric(manifest, task, "positives");
  return positives.value_or(0) >= static_cast<double>(gate.min_positives);
}

std::string four_decimals(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.4f", value);
  return text.data();
}

}  // namespace

std::optional<std::string> gate_refusal(const GateConfig& gate, const ordered_json& manifest,
                                        const ordered_json& latest, bool was_held) {
  const bool is_off =
      gate.max_auc_drop >= 1 && gate.calibration_min <= 0 && gate.calibration_max <= 0;
  if (is_off) return std::nullopt;
  bool is_judged = false;
  for (const char* task : {"ctr", "ctcvr"}) {
    if (!has_enough(manifest, task, gate)) continue;
    is_judged = true;
    const auto calibration = window_metric(manifest, task, "calibration");
    if (calibration && *calibration < gate.calibration_min) {
      return std::string(task) + " calibration " + four_decimals(*calibration) +
             " is below snapshots.gate.calibration_min = " + four_decimals(gate.calibration_min);
    }
    if (calibration && gate.calibration_max > 0 && *calibration > gate.calibration_max) {
      return std::string(task) + " calibration " + four_decimals(*calibration) +
             " is above snapshots.gate.calibration_max = " + four_decimals(gate.calibration_max);
    }
    const auto before = has_enough(latest, task, gate) ? window_metric(latest, task, "auc")
                                                       : std::optional<double>();
    const auto auc = window_metric(manifest, task, "auc");
    if (before && auc && *before - *auc > gate.max_auc_drop) {
      return std::string(task) + " AUC fell from " + four_decimals(*before) + " to " +
             four_decimals(*auc) +
             ", by more than snapshots.gate.max_auc_drop = " + four_decimals(gate.max_auc_drop);
    }
  }
  if (is_judged || !was_held) return std::nullopt;
  return "the one before was held back, and since then there are too few positives to judge by";
}

}  // namespace sluice
