// The tensor form of the Open Inference Protocol v2 (REST), with its extension of binary tensors:
// an input is one feature, or "impression_id", of all impressions; outputs are pctr, pcvr and
// pctcvr.
//
// An input's shape is [n] or [n,1]; of lists of ids [n,k], k ids an impression. What no tensor can
// hold (lists of several lengths, ids with weights) is BYTES of shape [n]: each element is the
// value as it stands in the log, in JSON. A null in a tensor's JSON data is absent; in
// binary data of FP32 and FP64 NaN is.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "learner/prediction.h"
#include "serving/http_message.h"
#include "serving/instance.h"

namespace sluice {

enum class OutputRate { pctr, pcvr, pctcvr };
inline constexpr std::array<const char*, 3> kOutputNames = {"pctr", "pcvr", "pctcvr"};

struct InferRequest {
  struct Output {
    OutputRate rate = OutputRate::pctr;
    bool is_binary = false;
  };
  std::string id;          // a JSON text; empty: none
  bool is_column = false;  // the inputs are [n,1], so the outputs are
  std::vector<Output> outputs;
  std::vector<std::string> events;
};

Answer<InferRequest> read_infer(const HttpRequest& http, const InputForm& form,
                                const RequestLimits& limits);

HttpReply infer_reply(const InferRequest& request, const std::string& model,
                      const std::string& version, std::span<const Prediction> predictions);

// The "inputs" and "outputs" of a model's metadata.
nlohmann::ordered_json input_metadata(const InputForm& form);
nlohmann::ordered_json output_metadata();

}  // namespace sluice
