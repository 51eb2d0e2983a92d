// A model's weights from a full snapshot's and those of the deltas that follow it.
#pragma once

#include <vector>

#include "base/result.h"
#include "store/tensors.h"

namespace sluice {

// The rows of `full` and all deltas, each key with the values of the last one that has it; towers
// of the last. `deltas` in the order of their snapshots. An error where names, types or shapes do
// not fit, or keys are not ascending.
Result<Tensors> apply_deltas(Tensors full, const std::vector<Tensors>& deltas);

}  // namespace sluice
