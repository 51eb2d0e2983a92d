// Records of one producer look alike: the same keys in the same order, other values. A template is
// what stays the same, so that the next record is read by comparing that and taking the values out.
//
// It knows integers and plain strings. Whatever else stands in a record, a template does not match
// or is not made: then a full parser has to say what the record is. A match says that the record is
// valid JSON with the same fields as the one that was learned. Internal to ingest/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ingest/field_paths.h"

namespace sluice {

// A field's value as far as records need it told apart.
struct FieldValue {
  enum class Kind : std::uint8_t { absent, integer, text, other };
  Kind kind = Kind::absent;  // null is absent
  std::int64_t integer = 0;  // of an integer only
  std::string_view text;     // of a text only; of another: of an integer from 2^63 on, else empty
};

class RecordTemplate {
 public:
  // Makes the template of `text`, which is one valid JSON object. Where it cannot, there is none
  // and nothing matches.
  void learn(std::string_view text, PathNode& wanted);

  // True where `text` is as learned: then the wanted fields that it has are in `values`, by slot
  // (the texts are views into `text`), and all others must be absent. Else values are undefined.
  bool match(std::string_view text, FieldValue* values) const;

 private:
  static constexpr std::uint32_t kNoSlot = ~std::uint32_t{0};
  enum class After : std::uint8_t { integer, text, nothing };
  // So many literal bytes, then a value.
  struct Piece {
    std::uint32_t begin = 0;  // in literals_
    std::uint32_t size = 0;
    After after = After::nothing;
    std::uint32_t slot = 0;  // kNoSlot where nobody wants the value
  };
  class Learner;

  std::vector<Piece> pieces_;
  std::string literals_;  // and some bytes more, so that they can be read in blocks
  // Further slots of a field that several want: (from, to).
  std::vector<std::pair<std::uint32_t, std::uint32_t>> copies_;
};

}  // namespace sluice
