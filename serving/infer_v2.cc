#include "serving/infer_v2.h"

#include <cstring>
#include <optional>

#include "base/json_text.h"
#include "serving/json_body.h"
#include "serving/tensor_input.h"

namespace sluice {
namespace {

namespace dom = simdjson::dom;
using nlohmann::ordered_json;

constexpr std::string_view kImpressionId = "impression_id";

// The feature "impression_id" of rows that name their impressions: an id.
const InputForm::Feature kIdInput = {std::string(kImpressionId), FeatureConfig::Type::id, 0};

// A request's inputs: read one by one, then put together row by row.
class InputReader {
 public:
  InputReader(const InputForm& form, const RequestLimits& limits, std::string_view binary)
      : form_(form), limits_(limits), binary_(binary), columns_(form.features().size()) {}

  Answer<void> read(const dom::element& element) {
    dom::object input;
    if (element.get_object().get(input)) return refuse(400, "an input is no object");
    SLUICE_TAKE(const TensorHead head, read_head(input));
    const InputForm::Feature* feature = form_.find(head.name);
    const bool is_id = feature == nullptr && head.name == kImpressionId;
    if (feature == nullptr && !is_id) return refuse(400, form_.unknown(head.name));
    std::optional<std::vector<std::string>>& column =
        is_id ? ids_ : columns_[static_cast<std::size_t>(feature - form_.features().data())];
    if (column) return refuse(400, "input \"" + head.name + "\" stands twice");
    if (head.rows() > limits_.max_rows) {
      return refuse(
          413, "more than " + std::to_string(limits_.max_rows) + " impressions (serving.max_rows)");
    }
    if (rows_ && *rows_ != head.rows()) {
      return refuse(400, "the inputs are not of one number of impressions: \"" + head.name +
                             "\" has " + std::to_string(head.rows()) + ", those before it " +
                             std::to_string(*rows_));
    }
    rows_ = head.rows();
    const bool is_list = !is_id && feature->type == FeatureConfig::Type::ids;
    is_column_ = is_column_ || (head.shape.size() == 2 && !is_list);
    const std::uint64_t width = head.shape.size() == 2 ? head.shape[1] : 1;
    // The rows are few enough that this does not overflow where the width is not beyond its bound.
    if (width > limits_.max_elements || (elements_ += head.rows() * width) > limits_.max_elements) {
      return refuse(
          413, "more than " + std::to_string(limits_.max_elements) + " elements in all tensors");
    }
    SLUICE_TAKE(std::vector<std::string> elements, read_data(head, input));
    SLUICE_TAKE(column, values_of(head, is_id ? kIdInput : *feature, std::move(elements)));
    return {};
  }

  Answer<std::vector<std::string>> events() const {
    if (!binary_.empty()) return refuse(400, "there are more binary data than the inputs name");
    if (rows_.value_or(0) == 0) return refuse(400, "there are no impressions");
    InputForm::Row row(form_);
    std::vector<std::string> events;
    for (std::size_t number = 0; number < *rows_; ++number) {
      row.clear();
      for (std::size_t i = 0; i < columns_.size(); ++i) {
        if (columns_[i] && !row.set(form_.features()[i], (*columns_[i])[number])) {
          return refuse(400, "impression " + std::to_string(number) + ": \"" +
                                 form_.features()[i].name +
                                 "\" and another feature of its path have different values");
        }
      }
      SLUICE_TAKE(const std::string id, id_of(number));
      auto event = row.event(id);
      if (!event) {
        return refuse(400, "impression " + std::to_string(number) + ": " + event.error().message);
      }
      events.push_back(*std::move(event));
    }
    return events;
  }

  bool is_column() const { return is_column_; }

 private:
  Answer<std::vector<std::string>> read_data(const TensorHead& head, const dom::object& input) {
    std::uint64_t size = 0;
    if (input["parameters"]["binary_data_size"].get_uint64().get(size)) {
      return read_elements(head, input);
    }
    if (size > binary_.size()) {
      return refuse(400, "input \"" + head.name + "\": there are less binary data than it names");
    }
    const std::string_view mine = binary_.substr(0, size);
    binary_.remove_prefix(size);
    return read_binary(head, mine);
  }
  Answer<std::string> id_of(std::size_t number) const {
    if (!ids_) return "#" + std::to_string(number);
    const std::string& json = (*ids_)[number];
    if (json.front() != '"') return json == "null" ? "#" + std::to_string(number) : json;
    JsonReader reader;
    SLUICE_TAKE(const dom::element text, reader.read(json));
    return std::string(text.get_string().value_unsafe());
  }

  const InputForm& form_;
  const RequestLimits& limits_;
  std::string_view binary_;                                       // what is not read yet
  std::vector<std::optional<std::vector<std::string>>> columns_;  // by feature
  std::optional<std::vector<std::string>> ids_;
  std::optional<std::uint64_t> rows_;
  std::uint64_t elements_ = 0;  // of all inputs
  bool is_column_ = false;
};

// All three where none is named.
Answer<std::vector<InferRequest::Output>> read_outputs(const dom::object& root) {
  bool is_binary = false;
  const bool has_default =
      root["parameters"]["binary_data_output"].get_bool().get(is_binary) == simdjson::SUCCESS;
  if (!has_default) is_binary = false;
  std::vector<InferRequest::Output> outputs;
  dom::array list;
  if (root["outputs"].get_array().get(list)) {
    for (const OutputRate rate : {OutputRate::pctr, OutputRate::pcvr, OutputRate::pctcvr}) {
      outputs.push_back({rate, is_binary});
    }
    return outputs;
  }
  for (const dom::element element : list) {
    std::string_view name;
    if (element["name"].get_string().get(name)) return refuse(400, "an output has no \"name\"");
    std::size_t rate = 0;
    while (rate < kOutputNames.size() && name != kOutputNames[rate]) ++rate;
    if (rate == kOutputNames.size()) {
      return refuse(400, "the model's outputs are pctr, pcvr and pctcvr");
    }
    for (const InferRequest::Output& output : outputs) {
      if (output.rate == static_cast<OutputRate>(rate)) {
        return refuse(400, "output \"" + std::string(name) + "\" stands twice");
      }
    }
    bool own = is_binary;
    if (element["parameters"]["binary_data"].get_bool().get(own)) own = is_binary;
    outputs.push_back({static_cast<OutputRate>(rate), own});
  }
  if (outputs.empty()) return refuse(400, "no output is asked for");
  return outputs;
}

double rate_of(const Prediction& prediction, OutputRate rate) {
  switch (rate) {
    case OutputRate::pctr:
      return prediction.ctr.yes;
    case OutputRate::pcvr:
      return prediction.cvr.yes;
    case OutputRate::pctcvr:
      break;
  }
  return prediction.ctcvr.yes;
}

}  // namespace

Answer<InferRequest> read_infer(const HttpRequest& http, const InputForm& form,
                                const RequestLimits& limits) {
  const std::size_t json_bytes = http.json_bytes.value_or(http.body.size());
  if (json_bytes > http.body.size()) {
    return refuse(400, "Inference-Header-Content-Length is more than the body has");
  }
  JsonReader reader;
  SLUICE_TAKE(const dom::element element,
              reader.read(std::string_view(http.body).substr(0, json_bytes)));
  dom::object root;
  dom::array inputs;
  if (element.get_object().get(root) || root["inputs"].get_array().get(inputs)) {
    return refuse(400,
                  "the body must be {\"inputs\": [{\"name\", \"shape\", \"datatype\", "
                  "\"data\"}, ...]}, one input a feature");
  }
  InferRequest request;
  dom::element id;
  if (!root["id"].get(id)) {
    if (!id.is_string()) return refuse(400, "\"id\" is no text");
    append_json(request.id, id);
  }
  SLUICE_TAKE(request.outputs, read_outputs(root));
  InputReader rows(form, limits, std::string_view(http.body).substr(json_bytes));
  for (const dom::element input : inputs) {
    if (auto done = rows.read(input); !done) return tl::make_unexpected(std::move(done).error());
  }
  SLUICE_TAKE(request.events, rows.events());
  request.is_column = rows.is_column();
  return request;
}

HttpReply infer_reply(const InferRequest& request, const std::string& model,
                      const std::string& version, std::span<const Prediction> predictions) {
  HttpReply reply;
  std::string binary;
  std::string& text = reply.body;
  text = R"({"model_name":)";
  append_json_text(text, model);
  text += R"(,"model_version":)";
  append_json_text(text, version);
  if (!request.id.empty()) text += R"(,"id":)" + request.id;
  text += R"(,"outputs":[)";
  const std::string shape =
      "[" + std::to_string(predictions.size()) + (request.is_column ? ",1]" : "]");
  for (std::size_t i = 0; i < request.outputs.size(); ++i) {
    const InferRequest::Output& output = request.outputs[i];
    if (i > 0) text += ',';
    text += R"({"name":")" + std::string(kOutputNames[static_cast<std::size_t>(output.rate)]) +
            R"(","datatype":"FP64","shape":)" + shape;
    if (output.is_binary) {
      text += R"(,"parameters":{"binary_data_size":)" +
              std::to_string(predictions.size() * sizeof(double)) + "}}";
      for (const Prediction& prediction : predictions) {
        const double value = rate_of(prediction, output.rate);
        binary.append(reinterpret_cast<const char*>(&value), sizeof value);
      }
      continue;
    }
    char before = '[';
    text += R"(,"data":)";
    for (const Prediction& prediction : predictions) {
      text += before;
      before = ',';
      append_json_number(text, rate_of(prediction, output.rate));
    }
    text += "]}";
  }
  text += "]}";
  if (!binary.empty()) {
    reply.content_type = "application/octet-stream";
    reply.headers.emplace_back("Inference-Header-Content-Length", std::to_string(text.size()));
    text += binary;
  }
  return reply;
}

ordered_json input_metadata(const InputForm& form) {
  ordered_json inputs = ordered_json::array();
  for (const InputForm::Feature& feature : form.features()) {
    const bool is_number = feature.type == FeatureConfig::Type::number;
    ordered_json shape = {-1};
    if (feature.type == FeatureConfig::Type::ids) shape.push_back(-1);
    inputs.push_back({{"name", feature.name},
                      {"datatype", is_number ? "FP64" : "BYTES"},
                      {"shape", std::move(shape)}});
  }
  return inputs;
}

ordered_json output_metadata() {
  ordered_json outputs = ordered_json::array();
  for (const char* name : kOutputNames) {
    outputs.push_back({{"name", name}, {"datatype", "FP64"}, {"shape", {-1}}});
  }
  return outputs;
}

}  // namespace sluice
