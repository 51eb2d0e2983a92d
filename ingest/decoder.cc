#include "ingest/decoder.h"

#include <array>
#include <charconv>
#include <string_view>
#include <utility>

#include <simdjson.h>

#include "base/check.h"
#include "ingest/features.h"

namespace sluice {
namespace {

namespace dom = simdjson::dom;

// The latest event time: the end of year 9999, far from any overflow of window arithmetic.
constexpr TimeMs kLatest = 253'402'300'799'999;

// The wanted fields of a record, found in one walk over it. Slots of the event's own fields come
// first, features after them.
enum Slot : std::size_t { kTs, kEventId, kImpressionId, kUserId, kItemId, kLogTime, kFeatures };

struct PathNode {
  std::string key;
  std::vector<std::size_t> slots;  // several features may lie at one path
  std::vector<PathNode> children;
  std::uint64_t last_seen = 0;  // number of the last record that had this field
};

void add_path(PathNode& root, std::string_view path, std::size_t slot) {
  PathNode* node = &root;
  while (!path.empty()) {
    const std::size_t dot = path.find('.');
    const std::string_view key = path.substr(0, dot);
    path = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
    PathNode* next = nullptr;
    for (PathNode& child : node->children) {
      if (child.key == key) next = &child;
    }
    if (next == nullptr) next = &node->children.emplace_back(PathNode{std::string(key), {}, {}, 0});
    node = next;
  }
  node->slots.push_back(slot);
}

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

tl::unexpected<Rejection> malformed(std::string detail) {
  return tl::make_unexpected(Rejection{Refusal::malformed, std::move(detail)});
}

}  // namespace

struct Decoder::Impl {
  StreamsConfig streams;
  std::vector<FeatureConfig> features;
  // Required ids by stream.
  std::array<bool, kStreams> needs_impression_id{};
  bool needs_user_item = false;
  PathNode event_paths;       // clicks, purchases
  PathNode impression_paths;  // with the features
  dom::parser parser;
  std::uint64_t records = 0;  // whose fields were looked for
  Fields fields;
  std::string encoded_features;

  // An id as bytes: a string's own, an integer's decimal text (in `buffer`). Empty where absent;
  // false where it is neither.
  static bool read_id(const std::optional<dom::element>& field, std::array<char, 24>& buffer,
                      std::string_view& id) {
    id = {};
    if (is_absent(field)) return true;
    if (field->is_string()) {
      id = field->get_string().value_unsafe();
      return true;
    }
    std::to_chars_result written{};
    if (field->is_int64()) {
      written = std::to_chars(buffer.data(), buffer.data() + buffer.size(),
                              field->get_int64().value_unsafe());
    } else if (field->is_uint64()) {
      written = std::to_chars(buffer.data(), buffer.data() + buffer.size(),
                              field->get_uint64().value_unsafe());
    } else {
      return false;
    }
    id = std::string_view(buffer.data(), static_cast<std::size_t>(written.ptr - buffer.data()));
    return true;
  }

  tl::expected<Decoded, Rejection> read_fields(Stream stream, const Record& record) {
    const auto is_time = [](const std::optional<dom::element>& field) {
      return field && field->is_int64();
    };
    if (is_absent(fields[kTs])) return malformed(streams.ts + ": absent");
    if (!is_time(fields[kTs])) return malformed(streams.ts + ": no integer");
    const TimeMs time = fields[kTs]->get_int64().value_unsafe();
    if (time < streams.not_before || time > kLatest) {
      return malformed(streams.ts + ": " + std::to_string(time) +
                       " is not between streams.not_before and the year 9999");
    }
    std::optional<TimeMs> log_time = record.log_time;
    if (!is_absent(fields[kLogTime])) {
      if (!is_time(fields[kLogTime])) return malformed(streams.log_time + ": no integer");
      log_time = fields[kLogTime]->get_int64().value_unsafe();
    }

    std::array<std::array<char, 24>, 4> buffers;
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
      if (!read_id(fields[wanted.slot], buffers[index], wanted.id)) {
        return malformed(wanted.name + ": neither a string nor an integer");
      }
      if (wanted.is_required && wanted.id.empty()) return malformed(wanted.name + ": absent");
    }
    encoded_features.clear();
    if (stream == Stream::impressions) {
      if (texts.id.empty()) texts.id = texts.impression_id;
      FeatureEncoder encoder(encoded_features);
      for (std::size_t index = 0; index < features.size(); ++index) {
        encoder.encode(features[index], fields[kFeatures + index]);
      }
      texts.features = encoded_features;
    } else {
      texts.record = record.bytes;
    }
    return Decoded{Event(stream, time, record.position, texts), log_time};
  }
};

Decoder::Decoder(const StreamsConfig& streams, JoinConfig::Attribution attribution,
                 const std::vector<FeatureConfig>& features)
    : impl_(std::make_unique<Impl>()) {
  Impl& impl = *impl_;
  impl.streams = streams;
  impl.features = features;
  const bool by_id = attribution == JoinConfig::Attribution::impression_id;
  impl.needs_impression_id = {true, by_id, by_id};
  impl.needs_user_item = !by_id;
  for (PathNode* root : {&impl.event_paths, &impl.impression_paths}) {
    add_path(*root, streams.ts, kTs);
    add_path(*root, streams.event_id, kEventId);
    add_path(*root, streams.impression_id, kImpressionId);
    add_path(*root, streams.user_id, kUserId);
    add_path(*root, streams.item_id, kItemId);
    if (!streams.log_time.empty()) add_path(*root, streams.log_time, kLogTime);
  }
  for (std::size_t index = 0; index < features.size(); ++index) {
    add_path(impl.impression_paths, features[index].path, kFeatures + index);
  }
  impl.fields.resize(kFeatures + features.size());
}

Decoder::~Decoder() = default;
Decoder::Decoder(Decoder&&) noexcept = default;

tl::expected<Decoded, Rejection> Decoder::decode(Stream stream, const Record& record) {
  Impl& impl = *impl_;
  if (record.bytes.size() > impl.streams.max_record_bytes) {
    return tl::make_unexpected(
        Rejection{Refusal::oversized, std::to_string(record.bytes.size()) + " bytes"});
  }
  // Grown to the longest record so far: it cannot be above streams.max_record_bytes.
  // The parser's own limit is the first depth that it refuses.
  const std::size_t too_deep = impl.streams.max_depth + 1;
  if (impl.parser.capacity() < record.bytes.size() || impl.parser.max_depth() != too_deep) {
    const std::size_t capacity = std::max<std::size_t>(record.bytes.size(), 4096);
    // Want of memory says nothing of the record: it must not decide whether the record is used.
    SLUICE_CHECK(impl.parser.allocate(capacity, too_deep) == simdjson::SUCCESS);
  }
  dom::element root;
  if (const auto error = impl.parser.parse(record.bytes).get(root); error != simdjson::SUCCESS) {
    SLUICE_CHECK(error != simdjson::MEMALLOC);
    return malformed(std::string("JSON: ") + simdjson::error_message(error));
  }
  dom::object object;
  if (root.get_object().get(object) != simdjson::SUCCESS) return malformed("no JSON object");
  for (auto& field : impl.fields) field.reset();
  collect(object, stream == Stream::impressions ? impl.impression_paths : impl.event_paths,
          ++impl.records, impl.fields);
  return impl.read_fields(stream, record);
}

}  // namespace sluice
