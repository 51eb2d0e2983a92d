// How an impression's feature values are kept between the log and the learner: typed and compact,
// not yet hashed, so that the join knows nothing of models.
//
// Grammar (version 1; the features are those of the config, or of all configs that follow one join,
// in the order of their names):
//   features := value*            one a feature
//   value    := 0x00              absent or null
//             | 0x01              of a wrong type: absent, and counted by feature
//             | 0x02 svarint      an id that is a canonical decimal 64-bit integer (5 and "5")
//             | 0x03 text         any other id
//             | 0x04 f64          a number
//             | 0x05 n value^n    a list of ids (n a varint, each value 0x02 or 0x03)
//             | 0x06 n (value f64)^n   weighted ids, in the record's order
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "config/config.h"

namespace sluice {

enum class FeatureTag : std::uint8_t {
  absent = 0,
  wrong_type = 1,
  integer = 2,
  text = 3,
  number = 4,
  list = 5,
  weighted = 6,
};

class FeatureWriter {
 public:
  explicit FeatureWriter(std::string& out) : bytes_(out) {}
  void absent() { tag(FeatureTag::absent); }
  void wrong_type() { tag(FeatureTag::wrong_type); }
  void id(std::int64_t value) {
    tag(FeatureTag::integer);
    bytes_.svarint(value);
  }
  // Writes an integer where the text is one in canonical decimal form.
  void id(std::string_view value);
  void number(double value) {
    tag(FeatureTag::number);
    bytes_.f64(value);
  }
  void list(std::size_t count) {  // `count` ids follow
    tag(FeatureTag::list);
    bytes_.varint(count);
  }
  void weighted(std::size_t count) {  // `count` ids follow, each followed by its weight()
    tag(FeatureTag::weighted);
    bytes_.varint(count);
  }
  void weight(double value) { bytes_.f64(value); }

 private:
  void tag(FeatureTag value) { bytes_.u8(static_cast<std::uint8_t>(value)); }
  ByteWriter bytes_;
};

// Reads what FeatureWriter wrote; the caller follows the grammar.
class FeatureReader {
 public:
  explicit FeatureReader(std::string_view bytes) : bytes_(bytes) {}
  bool ok() const { return bytes_.ok(); }
  bool at_end() const { return bytes_.at_end(); }
  std::size_t remaining() const { return bytes_.remaining(); }
  FeatureTag tag() { return static_cast<FeatureTag>(bytes_.u8()); }
  std::int64_t integer() { return bytes_.svarint(); }
  std::string_view text() { return bytes_.text(); }
  double number() { return bytes_.f64(); }
  std::size_t count() { return bytes_.varint(); }

 private:
  ByteReader bytes_;
};

// Takes some features' values out of blobs that hold more: what is left is the blob of these
// features alone, byte by byte.
class FeatureColumns {
 public:
  // Both are sorted by name; every wanted one is among the kept ones, of the same path and type
  // (checked).
  FeatureColumns(const std::vector<FeatureConfig>& kept, const std::vector<FeatureConfig>& wanted);

  bool are_all() const { return wanted_ == is_wanted_.size(); }
  // None where the blob is not one of the kept features.
  std::optional<std::string> of(std::string_view blob) const;

 private:
  std::vector<bool> is_wanted_;  // [kept]
  std::size_t wanted_ = 0;
};

}  // namespace sluice
