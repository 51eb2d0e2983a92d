// A model as an ONNX file, for runtimes that are not Sluice (docs/deploying.md).
#pragma once

#include <string>

#include "base/result.h"
#include "learner/scoring_model.h"

namespace sluice {

// The towers alone: a reader gathers and pools the rows.
//   inputs   "inputs" f32 [n, inputs], of several embedding sets "inputs.<set>"; columns as in
//            docs/formats.md, "From an impression to its rates"
//   outputs  "pctr", "pcvr", "pctcvr" f32 [n]
Result<std::string> export_onnx_towers(const ScoringModel& model);

// The model with its rows inside.
//   inputs   of a feature with a table, "<feature>.keys" i64 [n, k], the rows' keys (as two's
//            complement), and "<feature>.weights" f32 [n, k]: 0 where there is no id; k may differ
//            from feature to feature and from call to call. Of a dense number, "<feature>" f32 [n]
//   outputs  as above
// A key that the model does not hold has its row's initial values, computed in the graph: the same
// numbers as in Sluice.
Result<std::string> export_onnx(const ScoringModel& model);

}  // namespace sluice
