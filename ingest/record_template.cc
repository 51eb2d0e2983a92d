#include "ingest/record_template.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include <emmintrin.h>

namespace sluice {
namespace {

constexpr std::ptrdiff_t kBlock = 16;

bool is_digit(char c) {
  return '0' <= c && c <= '9';
}

std::uint64_t load8(const char* from) {
  std::uint64_t value = 0;
  std::memcpy(&value, from, sizeof value);
  return value;
}

__m128i load16(const char* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

// The value of the first `count` of eight digits, 1..8, given without their '0'.
std::uint64_t digits_value(std::uint64_t digits, unsigned count) {
  digits <<= 8 * (8 - count);
  digits = digits * 10 + (digits >> 8);
  constexpr std::uint64_t kMask = 0x000000FF000000FFULL;
  return (((digits & kMask) * 0x000F424000000064ULL) +
          (((digits >> 16) & kMask) * 0x0000271000000001ULL)) >>
         32;
}

// How many of eight bytes, from the first on, are digits; `digits` gets them without their '0'.
unsigned count_digits(std::uint64_t bytes, std::uint64_t& digits) {
  digits = bytes ^ 0x3030303030303030ULL;
  // Above 9 a byte's own sum reaches 0x80; what a carry does to the byte after it does not matter.
  const std::uint64_t others = ((digits + 0x7676767676767676ULL) | digits) & 0x8080808080808080ULL;
  return static_cast<unsigned>(std::countr_zero(others)) / 8;
}

// An integer of at most 18 digits, without a zero in front, from `at` on. The place after it; null
// where there is none.
inline __attribute__((always_inline)) const char* read_integer(const char* at, const char* end,
                                                               std::int64_t& value) {
  const bool is_negative = at < end && *at == '-';
  if (is_negative) ++at;
  const char* const begin = at;
  std::uint64_t sum = 0;
  if (end - at >= 8) {
    std::uint64_t digits = 0;
    const unsigned count = count_digits(load8(at), digits);
    if (count == 0) return nullptr;
    sum = digits_value(digits, count);
    at += count;
    if (count < 8) end = at;  // the number ends here
  }
  while (at < end && is_digit(*at)) {
    if (at - begin >= 18) return nullptr;
    sum = sum * 10 + static_cast<std::uint64_t>(*at++ - '0');
  }
  // 01 is no number, and -0 is left to those who know what it is.
  if (at == begin || (*begin == '0' && (at - begin > 1 || is_negative))) return nullptr;
  value = is_negative ? -static_cast<std::int64_t>(sum) : static_cast<std::int64_t>(sum);
  return at;
}

// The quote that ends a string of printable ASCII without escapes; null where it is another.
const char* find_quote(const char* at, const char* end) {
  while (end - at >= kBlock) {
    const __m128i block = load16(at);
    // Signed: bytes from 0x80 on are below a space too.
    const __m128i stops = _mm_or_si128(_mm_cmplt_epi8(block, _mm_set1_epi8(' ')),
                                       _mm_or_si128(_mm_cmpeq_epi8(block, _mm_set1_epi8('"')),
                                                    _mm_cmpeq_epi8(block, _mm_set1_epi8('\\'))));
    const auto mask = static_cast<unsigned>(_mm_movemask_epi8(stops));
    if (mask != 0) {
      at += std::countr_zero(mask);
      return *at == '"' ? at : nullptr;
    }
    at += kBlock;
  }
  for (; at < end; ++at) {
    if (*at == '"') return at;
    if (static_cast<signed char>(*at) < ' ' || *at == '\\') return nullptr;
  }
  return nullptr;
}

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

}  // namespace

// One walk over a record that is known to be valid.
class RecordTemplate::Learner {
 public:
  Learner(RecordTemplate& out, std::string_view text) : out_(out), text_(text) {}

  bool learn(PathNode& wanted) {
    skip_space();
    if (at() != '{' || !object(&wanted)) return false;
    add_piece(text_.size(), After::nothing, nullptr);
    return true;
  }

 private:
  char at() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void skip_space() {
    while (is_space(at())) ++at_;
  }

  // From '{' to after '}'. `node`: what is wanted of it; null: nothing.
  bool object(PathNode* node) {
    std::vector<std::string_view> keys;
    ++at_;
    for (skip_space(); at() != '}'; skip_space()) {
      if (at() == ',') ++at_;
      skip_space();
      const std::size_t begin = ++at_;
      while (at() != '"') {
        if (at() == '\\' || at_ >= text_.size()) return false;
        ++at_;
      }
      const std::string_view key = text_.substr(begin, at_++ - begin);
      if (std::find(keys.begin(), keys.end(), key) != keys.end()) return false;
      keys.push_back(key);
      skip_space();
      ++at_;  // the colon
      skip_space();
      if (!value(node == nullptr ? nullptr : node->child(key))) return false;
    }
    ++at_;
    return true;
  }

  bool value(PathNode* node) {
    const bool is_wanted = node != nullptr && !node->slots.empty();
    if (at() == '{') return !is_wanted && object(node);
    if (at() == '"') {
      const std::size_t begin = at_ + 1;
      const char* const quote = find_quote(text_.data() + begin, text_.data() + text_.size());
      if (quote == nullptr) return false;
      add_piece(begin, After::text, node);
      piece_begin_ = static_cast<std::size_t>(quote - text_.data());
      at_ = piece_begin_ + 1;
      return true;
    }
    const std::string_view rest = text_.substr(at_);
    for (const std::string_view word : {"null", "true", "false"}) {
      if (!rest.starts_with(word)) continue;
      at_ += word.size();
      return word == "null" || !is_wanted;  // part of the literal
    }
    std::int64_t number = 0;
    const char* const begin = text_.data() + at_;
    const char* const end = read_integer(begin, text_.data() + text_.size(), number);
    if (end == nullptr || *end == '.' || *end == 'e' || *end == 'E') return false;
    add_piece(at_, After::integer, node);
    piece_begin_ = at_ = static_cast<std::size_t>(end - text_.data());
    return true;
  }

  // What stands between the last value and `end`.
  void add_piece(std::size_t end, After after, const PathNode* node) {
    Piece piece;
    piece.begin = static_cast<std::uint32_t>(out_.literals_.size());
    piece.size = static_cast<std::uint32_t>(end - piece_begin_);
    piece.after = after;
    piece.slot = kNoSlot;
    out_.literals_ += text_.substr(piece_begin_, end - piece_begin_);
    for (std::size_t index = 0; node != nullptr && index < node->slots.size(); ++index) {
      const auto slot = static_cast<std::uint32_t>(node->slots[index]);
      if (index == 0) {
        piece.slot = slot;
      } else {
        out_.copies_.emplace_back(piece.slot, slot);
      }
    }
    out_.pieces_.push_back(piece);
  }

  RecordTemplate& out_;
  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t piece_begin_ = 0;
};

void RecordTemplate::learn(std::string_view text, PathNode& wanted) {
  pieces_.clear();
  literals_.clear();
  copies_.clear();
  if (!Learner(*this, text).learn(wanted)) pieces_.clear();
  literals_.append(kBlock, '\0');
}

bool RecordTemplate::match(std::string_view text, FieldValue* values) const {
  const char* at = text.data();
  const char* const end = at + text.size();
  FieldValue unwanted;
  for (const Piece& piece : pieces_) {
    const std::ptrdiff_t size = piece.size;
    const char* const literal = literals_.data() + piece.begin;
    if (size <= kBlock && end - at >= kBlock) {
      const __m128i equal = _mm_cmpeq_epi8(load16(at), load16(literal));
      const auto differing = ~static_cast<unsigned>(_mm_movemask_epi8(equal));
      if ((differing & ((1u << size) - 1)) != 0) return false;
    } else if (end - at < size || std::memcmp(at, literal, piece.size) != 0) {
      return false;
    }
    at += size;
    FieldValue& value = piece.slot == kNoSlot ? unwanted : values[piece.slot];
    if (piece.after == After::integer) {
      at = read_integer(at, end, value.integer);
      if (at == nullptr) return false;
      value.kind = FieldValue::Kind::integer;
    } else if (piece.after == After::text) {
      const char* const quote = find_quote(at, end);
      if (quote == nullptr) return false;
      value.text = {at, static_cast<std::size_t>(quote - at)};
      value.kind = FieldValue::Kind::text;
      at = quote;
    }
  }
  if (at != end) return false;
  for (const auto& [from, to] : copies_) values[to] = values[from];
  return !pieces_.empty();
}

}  // namespace sluice
