// The row form of TensorFlow Serving's REST API: {"instances": [{...}, ...]} in, {"predictions":
// [{"pctr": .., "pcvr": .., "pctcvr": ..}, ...]} out. An instance names features, or is a whole
// event as in the log.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "learner/prediction.h"
#include "serving/http_message.h"
#include "serving/instance.h"

namespace sluice {

// The instances as events, in their order. A named row may hold "impression_id"; without, an
// instance's place is its id, as in "#3".
Answer<std::vector<std::string>> read_predict(const std::string& body, const InputForm& form,
                                              const RequestLimits& limits);

std::string predict_reply(std::span<const Prediction> predictions);

}  // namespace sluice
