#include "store/tensors.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>

#include <nlohmann/json.hpp>

namespace sluice {
namespace {

using nlohmann::json;

// As the reference implementation: a longer header is an accident.
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr const char* kMetadata = "__metadata__";

constexpr std::array kTypes = {TensorType::u8, TensorType::i64, TensorType::u64, TensorType::f32,
                               TensorType::f64};

std::optional<TensorType> type_named(std::string_view name) {
  for (const TensorType type : kTypes) {
    if (name == to_string(type)) return type;
  }
  return std::nullopt;
}

// None on overflow.
std::optional<std::uint64_t> checked_bytes(TensorType type,
                                           const std::vector<std::uint64_t>& shape) {
  std::uint64_t bytes = element_bytes(type);
  for (const std::uint64_t dimension : shape) {
    if (__builtin_mul_overflow(bytes, dimension, &bytes)) return std::nullopt;
  }
  return bytes;
}

Error damaged(const std::string& what) {
  return stop_error("no valid safetensors: " + what);
}

// Parses the header; a name that comes twice is ambiguous and refused.
Result<json> parse_header(std::string_view text) {
  std::vector<std::set<std::string>> names;  // by depth
  bool repeated = false;
  const auto note_names = [&](int /*depth*/, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) names.emplace_back();
    if (event == json::parse_event_t::object_end) names.pop_back();
    if (event == json::parse_event_t::key) {
      repeated |= !names.back().insert(parsed.get<std::string>()).second;
    }
    return true;
  };
  json header = json::parse(text, note_names, /*allow_exceptions=*/false);
  if (!header.is_object()) return damaged("the header is no JSON object in UTF-8");
  if (repeated) return damaged("a name comes twice in the header");
  return header;
}

// One entry of the header, its bytes not yet taken.
struct Entry {
  std::string name;
  Tensor tensor;
  std::uint64_t begin = 0;  // offsets into the data
  std::uint64_t end = 0;
};

std::optional<std::vector<std::uint64_t>> unsigned_list(const json& value) {
  if (!value.is_array()) return std::nullopt;
  std::vector<std::uint64_t> numbers;
  for (const json& number : value) {
    if (!number.is_number_unsigned()) return std::nullopt;
    numbers.push_back(number.get<std::uint64_t>());
  }
  return numbers;
}

Result<Entry> parse_entry(const std::string& name, const json& value) {
  const std::string quoted = "tensor '" + name + "' ";
  if (!value.is_object() || value.size() != 3 || !value.contains("dtype") ||
      !value.contains("shape") || !value.contains("data_offsets")) {
    return damaged(quoted + "needs exactly dtype, shape and data_offsets");
  }
  const json& dtype = value["dtype"];
  const auto type = dtype.is_string() ? type_named(dtype.get<std::string>()) : std::nullopt;
  if (!type) {
    // Only a text is shown: printing lists in lists without end would exhaust the stack.
    return damaged(quoted + "is of the unknown type " +
                   (dtype.is_string() ? dtype.dump() : dtype.type_name()));
  }
  auto shape = unsigned_list(value["shape"]);
  if (!shape) return damaged(quoted + "has a shape that is no list of sizes");
  const auto offsets = unsigned_list(value["data_offsets"]);
  if (!offsets || offsets->size() != 2 || offsets->at(0) > offsets->at(1)) {
    return damaged(quoted + "has offsets that are no ascending pair");
  }
  const auto bytes = checked_bytes(*type, *shape);
  if (!bytes || *bytes != offsets->at(1) - offsets->at(0)) {
    return damaged(quoted + "has a shape that does not fit its offsets");
  }
  return Entry{name, {*type, std::move(*shape), {}}, offsets->at(0), offsets->at(1)};
}

}  // namespace

const char* to_string(TensorType type) {
  switch (type) {
    case TensorType::u8:
      return "U8";
    case TensorType::i64:
      return "I64";
    case TensorType::u64:
      return "U64";
    case TensorType::f32:
      return "F32";
    case TensorType::f64:
      return "F64";
  }
  SLUICE_CHECK(false);
}

std::uint64_t element_bytes(TensorType type) {
  switch (type) {
    case TensorType::u8:
      return 1;
    case TensorType::f32:
      return 4;
    case TensorType::i64:
    case TensorType::u64:
    case TensorType::f64:
      return 8;
  }
  SLUICE_CHECK(false);
}

std::uint64_t Tensor::elements() const {
  const auto total = checked_bytes(type, shape);
  SLUICE_CHECK(total.has_value());
  return *total / element_bytes(type);
}

Error Tensor::wrong_type(TensorType wanted) const {
  return stop_error(std::string("a tensor is of type ") + to_string(type) + ", not " +
                    to_string(wanted));
}

std::string encode_tensors(const Tensors& tensors) {
  std::vector<const Tensors::value_type*> order;
  std::uint64_t data_bytes = 0;
  for (const auto& entry : tensors) {
    SLUICE_CHECK(entry.first != kMetadata);
    SLUICE_CHECK(checked_bytes(entry.second.type, entry.second.shape) == entry.second.bytes.size());
    order.push_back(&entry);
    data_bytes += entry.second.bytes.size();
  }
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return element_bytes(a->second.type) > element_bytes(b->second.type);
  });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  std::uint64_t offset = 0;
  for (const auto* entry : order) {
    const Tensor& tensor = entry->second;
    header[entry->first] = {{"dtype", to_string(tensor.type)},
                            {"shape", tensor.shape},
                            {"data_offsets", {offset, offset + tensor.bytes.size()}}};
    offset += tensor.bytes.size();
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception&) {
    SLUICE_CHECK(!"tensor names are UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');

  const std::uint64_t header_bytes = text.size();
  std::string out;
  out.reserve(sizeof header_bytes + text.size() + data_bytes);
  out.append(reinterpret_cast<const char*>(&header_bytes), sizeof header_bytes);
  out += text;
  for (const auto* entry : order) out += entry->second.bytes;
  return out;
}

Result<Tensors> decode_tensors(std::string_view bytes) {
  std::uint64_t header_bytes = 0;
  if (bytes.size() < sizeof header_bytes) return damaged("shorter than the header's length");
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  bytes.remove_prefix(sizeof header_bytes);
  if (header_bytes > bytes.size() || header_bytes > kMaxHeaderBytes) {
    return damaged("a header of " + std::to_string(header_bytes) + " bytes does not fit");
  }
  if (!bytes.substr(0, header_bytes).starts_with('{')) {
    return damaged("the header does not begin with '{'");
  }
  SLUICE_ASSIGN(const json header, parse_header(bytes.substr(0, header_bytes)));
  const std::string_view data = bytes.substr(header_bytes);

  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadata) continue;
    SLUICE_ASSIGN(Entry entry, parse_entry(name, value));
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  Tensors tensors;
  std::uint64_t expected = 0;
  for (Entry& entry : entries) {
    if (entry.begin != expected || entry.end > data.size()) {
      return damaged("tensor '" + entry.name + "' leaves a gap, overlaps another or is cut");
    }
    entry.tensor.bytes = data.substr(entry.begin, entry.end - entry.begin);
    expected = entry.end;
    tensors.emplace(std::move(entry.name), std::move(entry.tensor));
  }
  if (expected != data.size()) return damaged("bytes that belong to no tensor at the end");
  return tensors;
}

}  // namespace sluice
