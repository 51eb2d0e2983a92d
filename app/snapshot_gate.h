// Whether a new snapshot may be served: a model that a burst of bad events has spoilt is kept as a
// candidate and does not become LATEST ([snapshots.gate]).
#pragma once

#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "config/config.h"

namespace sluice {

// The alias of the newest snapshot that was held back.
inline constexpr const char* kCandidate = "candidate";

// Why not, in words with the figures; none: it may. Judged are the window metrics of CTR and CTCVR,
// that is, over the samples since the snapshot before, each predicted before it was learned: the
// AUC against that of the snapshot which LATEST names (`latest`, its manifest; null where there is
// none or where it cannot be read, which holds nothing up), the calibration by itself. A task with
// fewer than gate.min_positives in its window is not judged.
std::optional<std::string> gate_refusal(const GateConfig& gate,
                                        const nlohmann::ordered_json& manifest,
                                        const nlohmann::ordered_json& latest);

}  // namespace sluice
