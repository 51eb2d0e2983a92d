// The decoder of records, beside an oracle that reads JSON with another library: both must accept
// the same records and find the same time and ids in them. What is accepted can be kept by the join
// and read back, and its features are a blob that the learner takes.
//   input := configuration and stream (u8), the record
#include <array>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "config/load.h"
#include "ingest/decoder.h"
#include "joiner/impression_pages.h"
#include "learner/schema.h"
#include "tests/fuzz/fuzz_input.h"

namespace sluice::fuzz {
namespace {

constexpr const char* kFeatures = R"(
[features]
user    = { path = "user.id",  type = "id" }
friends = { path = "friends",  type = "ids", table = "user" }
tags    = { path = "tags",     type = "weighted_ids" }
price   = { path = "price",    type = "number", buckets = "log:2" }
stars   = { path = "stars",    type = "number", buckets = [1.5, 3.0] }
age     = { path = "user.age", type = "number" }
whole   = { path = "user",     type = "id" }
again   = { path = "user.id",  type = "number" }
)";

const std::array<std::string, 4> kConfigs = {
    std::string("[source]\nroot = \"x\"\n"),
    std::string("[source]\nroot = \"x\"\n[join]\nattribution = \"user_item\"\n"
                "purchase_label = \"at_close\"\npurchase_value = \"sum\"\n[streams]\n"
                "value = \"price\"\n"
                "log_time = \"log.time\"\nts = \"log.at\"\nimpression_id = \"ids.impression\"\n"
                "user_id = \"user.id\"\n"),
    std::string("[source]\nroot = \"x\"\n[streams]\nmax_record_bytes = 100\nmax_depth = 2\n"),
    std::string("[source]\nroot = \"x\"\n[streams]\nnot_before = \"1970-01-01\"\nts = \"a\"\n"
                "impression_id = \"a.b\"\nuser_id = \"a.b.c\"\nmax_depth = 1000\n"),
};

struct Setting {
  Config config;
  Decoder decoder;
  Schema schema;
};

Setting make_setting(const std::string& text) {
  LoadedConfig loaded = parse_config(text + kFeatures, "fuzz.toml", "/", {});
  SLUICE_CHECK(loaded.problems.empty());
  Config& config = loaded.config;
  Decoder decoder(config.streams, config.join, config.features);
  Schema schema(config.features, config.model);
  return {std::move(config), std::move(decoder), std::move(schema)};
}

// ---- the oracle: an event-driven walk that notes every value outside lists under its path, the
// first one where a key comes twice

struct Value {
  enum class Kind { null, integer, text, other } kind = Kind::other;
  std::string text;                   // an integer's decimal form, a string's bytes
  std::optional<std::int64_t> int64;  // where it fits
  std::optional<double> number;       // of one with a point or an exponent
};

class Walk : public nlohmann::json_sax<nlohmann::json> {
 public:
  using Path = std::vector<std::string>;

  bool is_object = false;
  bool has_huge_integer = false;
  std::uint64_t depth = 0;  // the deepest level that is not empty; the record is level 1
  std::map<Path, Value> values;

  bool null() override { return note({Value::Kind::null, {}, {}, {}}); }
  bool boolean(bool) override { return note({}); }
  bool number_integer(number_integer_t value) override {
    return note({Value::Kind::integer, std::to_string(value), value, {}});
  }
  bool number_unsigned(number_unsigned_t value) override {
    const bool fits = value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    return note({Value::Kind::integer,
                 std::to_string(value),
                 fits ? std::optional(static_cast<std::int64_t>(value)) : std::nullopt,
                 {}});
  }
  bool number_float(number_float_t value, const string_t& token) override {
    has_huge_integer |= token.find_first_of(".eE") == std::string::npos;
    return note({Value::Kind::other, {}, {}, value});
  }
  bool string(string_t& value) override { return note({Value::Kind::text, value, {}, {}}); }
  bool binary(binary_t&) override { return false; }

  bool start_object(std::size_t) override {
    if (levels_.empty()) is_object = true;
    begin({});
    return true;
  }
  bool start_array(std::size_t) override {
    begin({});
    levels_.back().is_ignored = true;
    return true;
  }
  bool key(string_t& key) override {
    Level& level = levels_.back();
    level.is_repeated = !level.keys.insert(key).second;
    level.key = key;
    return true;
  }
  bool end_object() override { return end(); }
  bool end_array() override { return end(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

 private:
  struct Level {
    bool is_ignored = false;   // in a list, or in a field that stood before
    bool is_repeated = false;  // the present key
    std::string key;
    std::set<std::string> keys;
  };

  bool is_ignored() const {
    return !levels_.empty() && (levels_.back().is_ignored || levels_.back().is_repeated);
  }
  bool note(Value value) {
    depth = std::max<std::uint64_t>(depth, levels_.size());
    if (is_ignored() || levels_.empty()) return true;
    Path path;
    for (const Level& level : levels_) path.push_back(level.key);
    values.emplace(std::move(path), std::move(value));
    return true;
  }
  void begin(Value value) {
    const bool ignored = is_ignored();
    note(std::move(value));
    levels_.emplace_back().is_ignored = ignored;
  }
  bool end() {
    levels_.pop_back();
    return true;
  }

  std::vector<Level> levels_;
};

const Value* find(const Walk& walk, std::string_view dotted) {
  Walk::Path path;
  while (true) {
    const std::size_t dot = dotted.find('.');
    path.emplace_back(dotted.substr(0, dot));
    if (dot == std::string_view::npos) break;
    dotted.remove_prefix(dot + 1);
  }
  const auto found = walk.values.find(path);
  const bool is_there = found != walk.values.end() && found->second.kind != Value::Kind::null;
  return is_there ? &found->second : nullptr;
}

struct Expected {
  TimeMs time = 0;
  std::array<std::string, 4> ids;  // event, impression, user, item
  std::optional<Micros> value;
};

// None: malformed.
std::optional<Expected> expect(const Config& config, Stream stream, const std::string& text) {
  const StreamsConfig& streams = config.streams;
  Walk walk;
  const bool is_json = nlohmann::json::sax_parse(text, &walk);
  // The other library passes over a byte order mark, and ends at a zero byte.
  const bool is_text = !text.starts_with("\xef\xbb\xbf") && text.find('\0') == std::string::npos;
  if (!is_json || !is_text || !walk.is_object || walk.has_huge_integer ||
      walk.depth > streams.max_depth) {
    return std::nullopt;
  }
  Expected expected;
  const Value* const ts = find(walk, streams.ts);
  if (ts == nullptr || !ts->int64 || *ts->int64 < streams.not_before ||
      *ts->int64 > 253'402'300'799'999) {
    return std::nullopt;
  }
  expected.time = *ts->int64;
  if (!streams.log_time.empty()) {
    const Value* const log_time = find(walk, streams.log_time);
    if (log_time != nullptr && !log_time->int64) return std::nullopt;
  }
  const bool by_id = config.join.attribution == JoinConfig::Attribution::impression_id;
  const std::array<std::pair<std::string, bool>, 4> fields = {
      {{streams.event_id, false},
       {streams.impression_id, by_id || stream == Stream::impressions},
       {streams.user_id, !by_id},
       {streams.item_id, !by_id}}};
  for (std::size_t i = 0; i < fields.size(); ++i) {
    const Value* const id = find(walk, fields[i].first);
    if (id != nullptr && id->kind == Value::Kind::other) return std::nullopt;
    if (id != nullptr) expected.ids[i] = id->text;
    if (fields[i].second && expected.ids[i].empty()) return std::nullopt;
  }
  const Value* const value = find(walk, streams.value);
  if (value != nullptr && stream == Stream::purchases && config.join.sums_values()) {
    if (value->kind == Value::Kind::integer) {
      expected.value =
          value->int64 ? to_micros_of_integer(*value->int64) : std::numeric_limits<Micros>::max();
    } else if (value->number) {
      expected.value = to_micros(*value->number);
    }
  }
  if (stream == Stream::impressions && expected.ids[0].empty()) expected.ids[0] = expected.ids[1];
  return expected;
}

// ---- what an accepted record must be good for

void check_accepted(const Setting& setting, Stream stream, const Event& event,
                    const std::string& text) {
  if (stream != Stream::impressions) {
    SLUICE_CHECK(event.record() == text);
    return;
  }
  std::string bytes;
  encode_impression({event.time(), event.id(), event.impression_id(), event.user_id(),
                     event.item_id(), event.features()},
                    bytes);
  ByteReader reader(bytes);
  const Impression back = decode_impression(reader);
  SLUICE_CHECK(reader.ok() && reader.at_end() && back.time == event.time());
  SLUICE_CHECK(back.event_id == event.id() && back.impression_id == event.impression_id() &&
               back.user_id == event.user_id() && back.item_id == event.item_id() &&
               back.features == event.features());
  DecodedSamples decoded = setting.schema.make_decoded();
  Digest context;
  SLUICE_CHECK(setting.schema.decode(event.features(), 0, true, decoded, context));
}

void decode_one(Input input) {
  static std::vector<Setting> settings = [] {
    std::vector<Setting> made;
    for (const std::string& text : kConfigs) made.push_back(make_setting(text));
    return made;
  }();
  const std::uint8_t choice = input.byte();
  const auto stream = static_cast<Stream>(choice % kStreams);
  Setting& setting = settings[choice / kStreams % settings.size()];
  Record record;
  record.bytes = input.rest();
  const auto decoded = setting.decoder.decode(stream, record);
  if (record.bytes.size() > setting.config.streams.max_record_bytes) {
    SLUICE_CHECK(!decoded && decoded.error().reason == Refusal::oversized);
    return;
  }
  const auto expected = expect(setting.config, stream, record.bytes);
  SLUICE_CHECK(decoded.has_value() == expected.has_value());
  if (!decoded) {
    SLUICE_CHECK(decoded.error().reason == Refusal::malformed && !decoded.error().detail.empty());
    return;
  }
  const Event& event = decoded->event;
  SLUICE_CHECK(event.time() == expected->time && event.id() == expected->ids[0]);
  SLUICE_CHECK(event.impression_id() == expected->ids[1] && event.user_id() == expected->ids[2] &&
               event.item_id() == expected->ids[3]);
  SLUICE_CHECK(event.value() == expected->value);
  check_accepted(setting, stream, event, record.bytes);
}

}  // namespace
}  // namespace sluice::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sluice::fuzz::decode_one({data, size});
  return 0;
}
