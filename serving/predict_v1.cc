#include "serving/predict_v1.h"

#include "base/json_text.h"
#include "serving/json_body.h"

namespace sluice {
namespace {

namespace dom = simdjson::dom;

constexpr std::string_view kIdKey = "impression_id";

// Rows one after the other; the texts of one row's values are kept for the next.
class RowReader {
 public:
  explicit RowReader(const InputForm& form)
      : form_(form), row_(form), texts_(form.features().size()) {}

  Answer<std::string> read(const dom::element& instance, std::size_t number) {
    dom::object fields;
    if (instance.get_object().get(fields)) return refuse(400, "is no object");
    bool has_time = false;
    bool has_id = false;
    for (const dom::key_value_pair field : fields) {
      has_time = has_time || field.key == form_.time_key();
      has_id = has_id || field.key == form_.id_key();
    }
    if (!form_.is_event(has_time, has_id)) return read_named(fields, number);
    std::string text;
    append_json(text, instance);
    return text;
  }

 private:
  Answer<std::string> read_named(const dom::object& fields, std::size_t number) {
    row_.clear();
    for (std::string& text : texts_) text.clear();
    std::string id = "#" + std::to_string(number);
    for (const dom::key_value_pair field : fields) {
      const InputForm::Feature* feature = form_.find(field.key);
      if (feature == nullptr && field.key == kIdKey) {
        if (!read_id(field.value, id)) {
          return refuse(400, "its impression_id is neither a text nor an integer");
        }
        continue;
      }
      if (feature == nullptr) {
        return refuse(400, form_.unknown(field.key) +
                               " (an instance is either features by name, or a whole event)");
      }
      std::string& text = texts_[static_cast<std::size_t>(feature - form_.features().data())];
      if (!text.empty()) return refuse(400, "feature \"" + feature->name + "\" stands twice");
      append_json(text, field.value);
      if (!row_.set(*feature, text)) {
        return refuse(
            400, "\"" + feature->name + "\" and another feature of its path have different values");
      }
    }
    auto event = row_.event(id);
    if (!event) return refuse(400, event.error().message);
    return *std::move(event);
  }
  static bool read_id(const dom::element& value, std::string& id) {
    if (value.is_string()) {
      id = value.get_string().value_unsafe();
    } else if (value.is_int64()) {
      id = std::to_string(value.get_int64().value_unsafe());
    } else {
      return false;
    }
    return !id.empty();
  }

  const InputForm& form_;
  InputForm::Row row_;
  std::vector<std::string> texts_;  // by feature; empty: not named yet
};

}  // namespace

Answer<std::vector<std::string>> read_predict(const std::string& body, const InputForm& form,
                                              const RequestLimits& limits) {
  JsonReader reader;
  SLUICE_TAKE(const dom::element root, reader.read(body));
  dom::array instances;
  if (root["instances"].get_array().get(instances)) {
    return refuse(400,
                  "the body must be {\"instances\": [{...}, ...]}, one object an impression "
                  "(the columnar form, \"inputs\", is that of /v2/models/.../infer)");
  }
  RowReader rows(form);
  std::vector<std::string> events;
  for (const dom::element instance : instances) {
    if (events.size() == limits.max_rows) {
      return refuse(
          413, "more than " + std::to_string(limits.max_rows) + " instances (serving.max_rows)");
    }
    auto event = rows.read(instance, events.size());
    if (!event) {
      return refuse(event.error().status,
                    "instance " + std::to_string(events.size()) + ": " + event.error().message);
    }
    events.push_back(*std::move(event));
  }
  if (events.empty()) return refuse(400, "there are no instances");
  return events;
}

std::string predict_reply(std::span<const Prediction> predictions) {
  std::string text = R"({"predictions":[)";
  bool is_first = true;
  for (const Prediction& prediction : predictions) {
    text += is_first ? R"({"pctr":)" : R"(,{"pctr":)";
    is_first = false;
    append_json_number(text, prediction.ctr.yes);
    text += R"(,"pcvr":)";
    append_json_number(text, prediction.cvr.yes);
    text += R"(,"pctcvr":)";
    append_json_number(text, prediction.ctcvr.yes);
    text += '}';
  }
  return text + "]}";
}

}  // namespace sluice
