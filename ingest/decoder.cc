#include "ingest/decoder.h"

#include <array>
#include <charconv>
#include <cstring>
#include <string_view>
#include <utility>

#include <simdjson.h>

#include "base/check.h"
#include "ingest/features.h"
#include "ingest/field_paths.h"
#include "ingest/record_template.h"

namespace sluice {
namespace {

namespace dom = simdjson::dom;

// The latest event time: the end of year 9999, far from any overflow of window arithmetic.
constexpr TimeMs kLatest = 253'402'300'799'999;

// The wanted fields of a record, found in one walk over it. Slots of the event's own fields come
// first, features after them.
enum Slot : std::size_t {
  kTs,
  kEventId,
  kImpressionId,
  kUserId,
  kItemId,
  kLogTime,
  kValue,  // of purchases, where it is asked for
  kFeatures
};

using Fields = std::vector<std::optional<dom::element>>;

void collect(const dom::object& object, PathNode& node, std::uint64_t record, Fields& fields) {
  for (const dom::key_value_pair field : object) {
    for (PathNode& child : node.children) {
      if (child.key != field.key) continue;
      // A field that stands twice counts where it stands first, with all that is inside it.
      if (child.last_seen == record) break;
      child.last_seen = record;
      for (const std::size_t slot : child.slots) fields[slot] = field.value;
      if (!child.children.empty() && field.value.is_object()) {
        collect(field.value.get_object().value_unsafe(), child, record, fields);
      }
      break;
    }
  }
}

bool is_absent(const std::optional<dom::element>& field) {
  return !field || field->is_null();
}

// Feature values: what is not of the declared type is written as a wrong type.
class FeatureEncoder {
 public:
  explicit FeatureEncoder(std::string& out) : out_(out), writer_(out) {}

  void encode(const FeatureConfig& feature, const std::optional<dom::element>& field) {
    if (is_absent(field)) {
      writer_.absent();
      return;
    }
    const std::size_t begin = out_.size();
    if (!encode_value(feature.type, *field)) {
      out_.resize(begin);
      writer_.wrong_type();
    }
  }

 private:
  bool encode_value(FeatureConfig::Type type, const dom::element& value) {
    switch (type) {
      case FeatureConfig::Type::id:
        return encode_id(value);
      case FeatureConfig::Type::ids:
        return encode_ids(value);
      case FeatureConfig::Type::weighted_ids:
        return encode_weighted(value);
      case FeatureConfig::Type::number:
        return encode_number(value);
    }
    SLUICE_CHECK(false);
  }
  bool encode_id(const dom::element& value) {
    if (value.is_int64()) {
      writer_.id(value.get_int64().value_unsafe());
    } else if (value.is_uint64()) {
      writer_.id(std::to_string(value.get_uint64().value_unsafe()));
    } else if (value.is_string()) {
      writer_.id(value.get_string().value_unsafe());
    } else {
      return false;
    }
    return true;
  }
  bool encode_number(const dom::element& value) {
    if (!value.is_number()) return false;
    writer_.number(value.get_double().value_unsafe());
    return true;
  }
  bool encode_ids(const dom::element& value) {
    if (!value.is_array()) return false;
    const dom::array list = value.get_array().value_unsafe();
    writer_.list(count(list));
    for (const dom::element id : list) {
      if (!encode_id(id)) return false;
    }
    return true;
  }
  // {"id": weight, ...} or [["id", weight], ...].
  bool encode_weighted(const dom::element& value) {
    if (value.is_object()) {
      const dom::object object = value.get_object().value_unsafe();
      std::size_t size = 0;
      for (const dom::key_value_pair field : object) {
        static_cast<void>(field);
        ++size;
      }
      writer_.weighted(size);
      for (const dom::key_value_pair field : object) {
        if (!field.value.is_number()) return false;
        writer_.id(field.key);
        writer_.weight(field.value.get_double().value_unsafe());
      }
      return true;
    }
    if (!value.is_array()) return false;
    const dom::array list = value.get_array().value_unsafe();
    writer_.weighted(count(list));
    for (const dom::element pair : list) {
      dom::array parts;
      dom::element id;
      dom::element weight;
      if (pair.get_array().get(parts) != simdjson::SUCCESS || count(parts) != 2 ||
          parts.at(0).get(id) != simdjson::SUCCESS ||
          parts.at(1).get(weight) != simdjson::SUCCESS || !encode_id(id) || !weight.is_number()) {
        return false;
      }
      writer_.weight(weight.get_double().value_unsafe());
    }
    return true;
  }
  // dom::array::size() saturates at 2^24; lists of records are far below it, but count all the
  // same.
  static std::size_t count(const dom::array& list) {
    std::size_t size = 0;
    for (const dom::element element : list) {
      static_cast<void>(element);
      ++size;
    }
    return size;
  }

  std::string& out_;
  FeatureWriter writer_;
};

// A field as the event's own fields are judged. Integers from 2^63 on are told by their text.
FieldValue to_value(const std::optional<dom::element>& field, std::array<char, 24>& buffer) {
  FieldValue value;
  if (is_absent(field)) return value;
  if (field->is_string()) {
    value.kind = FieldValue::Kind::text;
    value.text = field->get_string().value_unsafe();
  } else if (field->is_int64()) {
    value.kind = FieldValue::Kind::integer;
    value.integer = field->get_int64().value_unsafe();
  } else if (field->is_uint64()) {
    value.kind = FieldValue::Kind::other;
    const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(),
                                            field->get_uint64().value_unsafe());
    static_cast<void>(error);
    value.text = {buffer.data(), static_cast<std::size_t>(end - buffer.data())};
  } else {
    value.kind = FieldValue::Kind::other;
  }
  return value;
}

// A purchase's value, by the full parser and by a template, which knows integers only.
std::optional<Micros> read_value(const std::optional<dom::element>& field) {
  if (is_absent(field) || !field->is_number()) return std::nullopt;
  if (field->is_int64()) return to_micros_of_integer(field->get_int64().value_unsafe());
  if (field->is_uint64()) return INT64_MAX;  // from 2^63 on
  return to_micros(field->get_double().value_unsafe());
}
std::optional<Micros> read_value(const FieldValue& field) {
  if (field.kind != FieldValue::Kind::integer) return std::nullopt;
  return to_micros_of_integer(field.integer);
}

// An id as bytes: a string's own, an integer's decimal text (in `buffer`). Empty where absent;
// false where it is neither.
bool read_id(const FieldValue& value, std::array<char, 24>& buffer, std::string_view& id) {
  id = value.kind == FieldValue::Kind::absent ? std::string_view() : value.text;
  if (value.kind == FieldValue::Kind::other) return !id.empty();
  if (value.kind != FieldValue::Kind::integer) return true;
  const auto [end, error] =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value.integer);
  static_cast<void>(error);
  id = {buffer.data(), static_cast<std::size_t>(end - buffer.data())};
  return true;
}

tl::unexpected<Rejection> malformed(std::string detail) {
  return tl::make_unexpected(Rejection{Refusal::malformed, std::move(detail)});
}

// What a template gave, as FeatureEncoder would have it.
void encode_feature(FeatureConfig::Type type, const FieldValue& value, FeatureWriter& writer) {
  const bool is_integer = value.kind == FieldValue::Kind::integer;
  if (value.kind == FieldValue::Kind::absent) {
    writer.absent();
  } else if (type == FeatureConfig::Type::id) {
    if (is_integer) {
      writer.id(value.integer);
    } else {
      writer.id(value.text);
    }
  } else if (type == FeatureConfig::Type::number && is_integer) {
    writer.number(static_cast<double>(value.integer));
  } else {
    writer.wrong_type();
  }
}

// The template of a stream's records, learned again where they have come to look different; more
// and more seldom where no template holds for long.
class LearnedTemplate {
 public:
  bool match(std::string_view text, FieldValue* values) const {
    return template_.match(text, values);
  }
  // `text` did not match, and is a valid record.
  void missed(std::string_view text, PathNode& wanted) {
    if (--patience_ > 0) return;
    template_.learn(text, wanted);
    next_patience_ = std::min(2 * next_patience_, kMostPatience);
    patience_ = next_patience_;
  }

 private:
  static constexpr int kMostPatience = 1'024;
  RecordTemplate template_;
  int patience_ = 1;
  int next_patience_ = 1;
};

}  // namespace

struct Decoder::Impl {
  StreamsConfig streams;
  std::vector<FeatureConfig> features;
  // Required ids by stream.
  std::array<bool, kStreams> needs_impression_id{};
  bool needs_user_item = false;
  PathNode click_paths;       // of actions too
  PathNode purchase_paths;    // with the value, where it is asked for
  PathNode impression_paths;  // with the features
  std::array<LearnedTemplate, kStreams> templates;
  dom::parser parser;
  std::uint64_t records = 0;  // whose fields were looked for
  Fields fields;
  std::vector<FieldValue> values;  // of a record that matched, by slot; kept for their memory
  std::string encoded_features;
  std::vector<char> integers;  // room for all features, if all are integers
  EventArena arena;

  PathNode& paths(Stream stream) {
    if (stream == Stream::impressions) return impression_paths;
    return stream == Stream::purchases ? purchase_paths : click_paths;
  }

  // Without the full parser; false where that has to look at the record.
  bool match(Stream stream, const Record& record) {
    const auto& learned = templates[static_cast<std::size_t>(stream)];
    for (FieldValue& value : values) value.kind = FieldValue::Kind::absent;
    if (!learned.match(record.bytes, values.data())) return false;
    encoded_features.clear();
    if (stream != Stream::impressions) return true;
    encode_matched();
    return true;
  }

  // Integers, as most ids are, on a short way.
  void encode_matched() {
    char* const begin = integers.data();
    char* end = begin;
    FeatureWriter writer(encoded_features);
    for (std::size_t index = 0; index < features.size(); ++index) {
      const FieldValue& value = values[kFeatures + index];
      if (value.kind == FieldValue::Kind::integer &&
          features[index].type == FeatureConfig::Type::id) {
        *end++ = static_cast<char>(FeatureTag::integer);
        end = put_svarint(end, value.integer);
        continue;
      }
      encoded_features.append(begin, end);
      end = begin;
      encode_feature(features[index].type, value, writer);
    }
    encoded_features.append(begin, end);
  }

  tl::expected<Decoded, Rejection> parse(Stream stream, const Record& record);

  // From the event's own fields, and the features that were encoded.
  tl::expected<Decoded, Rejection> finish(Stream stream, const Record& record,
                                          const FieldValue* own,
                                          const std::optional<Micros>& value) {
    const FieldValue& ts = own[kTs];
    if (ts.kind == FieldValue::Kind::absent) return malformed(streams.ts + ": absent");
    if (ts.kind != FieldValue::Kind::integer) return malformed(streams.ts + ": no integer");
    const TimeMs time = ts.integer;
    if (time < streams.not_before || time > kLatest) {
      return malformed(streams.ts + ": " + std::to_string(time) +
                       " is not between streams.not_before and the year 9999");
    }
    std::optional<TimeMs> log_time = record.log_time;
    if (const FieldValue& stated = own[kLogTime]; stated.kind != FieldValue::Kind::absent) {
      if (stated.kind != FieldValue::Kind::integer) {
        return malformed(streams.log_time + ": no integer");
      }
      log_time = stated.integer;
    }

    std::array<std::array<char, 24>, 4> buffers;
    const ValueText value_text(value);
    Event::Texts texts;
    const auto stream_index = static_cast<std::size_t>(stream);
    const struct {
      Slot slot;
      const std::string& name;
      bool is_required;
      std::string_view& id;
    } ids[] = {
        {kEventId, streams.event_id, false, texts.id},
        {kImpressionId, streams.impression_id, needs_impression_id[stream_index],
         texts.impression_id},
        {kUserId, streams.user_id, needs_user_item, texts.user_id},
        {kItemId, streams.item_id, needs_user_item, texts.item_id},
    };
    for (std::size_t index = 0; index < std::size(ids); ++index) {
      const auto& wanted = ids[index];
      if (!read_id(own[wanted.slot], buffers[index], wanted.id)) {
        return malformed(wanted.name + ": neither a string nor an integer");
      }
      if (wanted.is_required && wanted.id.empty()) return malformed(wanted.name + ": absent");
    }
    if (stream == Stream::impressions) {
      if (texts.id.empty()) texts.id = texts.impression_id;
      texts.features = encoded_features;
    } else {
      texts.features = value_text.text();
      texts.record = record.bytes;
    }
    return Decoded{Event(stream, time, record.position, texts, arena), log_time};
  }
};

Decoder::Decoder(const StreamsConfig& streams, const JoinConfig& join,
                 const std::vector<FeatureConfig>& features)
    : impl_(std::make_unique<Impl>()) {
  Impl& impl = *impl_;
  impl.streams = streams;
  impl.features = features;
  const bool by_id = join.attribution == JoinConfig::Attribution::impression_id;
  impl.needs_impression_id = {true, by_id, by_id, by_id};
  impl.needs_user_item = !by_id;
  for (PathNode* root : {&impl.click_paths, &impl.purchase_paths, &impl.impression_paths}) {
    root->add(streams.ts, kTs);
    root->add(streams.event_id, kEventId);
    root->add(streams.impression_id, kImpressionId);
    root->add(streams.user_id, kUserId);
    root->add(streams.item_id, kItemId);
    if (!streams.log_time.empty()) root->add(streams.log_time, kLogTime);
  }
  if (join.sums_values()) impl.purchase_paths.add(streams.value, kValue);
  for (std::size_t index = 0; index < features.size(); ++index) {
    impl.impression_paths.add(features[index].path, kFeatures + index);
  }
  impl.fields.resize(kFeatures + features.size());
  impl.values.resize(kFeatures + features.size());
  impl.integers.resize((1 + kMostVarintBytes) * features.size());
}

Decoder::~Decoder() = default;
Decoder::Decoder(Decoder&&) noexcept = default;

tl::expected<Decoded, Rejection> Decoder::decode(Stream stream, const Record& record) {
  if (record.bytes.size() <= impl_->streams.max_record_bytes && impl_->match(stream, record)) {
    return impl_->finish(stream, record, impl_->values.data(), read_value(impl_->values[kValue]));
  }
  return impl_->parse(stream, record);
}

tl::expected<Decoded, Rejection> Decoder::decode_by_parser(Stream stream, const Record& record) {
  return impl_->parse(stream, record);
}

tl::expected<Decoded, Rejection> Decoder::Impl::parse(Stream stream, const Record& record) {
  if (record.bytes.size() > streams.max_record_bytes) {
    return tl::make_unexpected(
        Rejection{Refusal::oversized, std::to_string(record.bytes.size()) + " bytes"});
  }
  // Grown to the longest record so far: it cannot be above streams.max_record_bytes.
  // The parser's own limit is the first depth that it refuses.
  const std::size_t too_deep = streams.max_depth + 1;
  if (parser.capacity() < record.bytes.size() || parser.max_depth() != too_deep) {
    const std::size_t capacity = std::max<std::size_t>(record.bytes.size(), 4096);
    // Want of memory says nothing of the record: it must not decide whether the record is used.
    SLUICE_CHECK(parser.allocate(capacity, too_deep) == simdjson::SUCCESS);
  }
  dom::element root;
  if (const auto error = parser.parse(record.bytes).get(root); error != simdjson::SUCCESS) {
    SLUICE_CHECK(error != simdjson::MEMALLOC);
    return malformed(std::string("JSON: ") + simdjson::error_message(error));
  }
  dom::object object;
  if (root.get_object().get(object) != simdjson::SUCCESS) return malformed("no JSON object");
  for (auto& field : fields) field.reset();
  collect(object, paths(stream), ++records, fields);
  templates[static_cast<std::size_t>(stream)].missed(record.bytes, paths(stream));

  std::array<FieldValue, kFeatures> own;
  std::array<std::array<char, 24>, kFeatures> buffers;
  for (std::size_t slot = 0; slot < kFeatures; ++slot) {
    own[slot] = to_value(fields[slot], buffers[slot]);
  }
  encoded_features.clear();
  if (stream == Stream::impressions) {
    FeatureEncoder encoder(encoded_features);
    for (std::size_t index = 0; index < features.size(); ++index) {
      encoder.encode(features[index], fields[kFeatures + index]);
    }
  }
  return finish(stream, record, own.data(), read_value(fields[kValue]));
}

}  // namespace sluice
