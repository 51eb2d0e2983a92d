// How the fuzzers take their inputs apart. A fuzzer is a function that must come back from any
// bytes: what it is given was read from outside, so it is a value or an error, never an abort, and
// its own claims about the result are SLUICE_CHECKs. Each lies in <name>_fuzz.cc; the inputs that
// every build replays lie in corpus/<name>/ (README.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::fuzz {

// Past the end every read gives zero or an empty text.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size)
      : rest_(reinterpret_cast<const char*>(data), size) {}

  bool empty() const { return rest_.empty(); }
  std::uint8_t byte() {
    if (rest_.empty()) return 0;
    const auto value = static_cast<std::uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return value;
  }
  std::string_view bytes(std::size_t count) {
    const std::string_view result = rest_.substr(0, count);
    rest_.remove_prefix(result.size());
    return result;
  }
  std::string_view rest() { return bytes(rest_.size()); }
  // Up to the next zero byte, which is dropped.
  std::string_view text() {
    const std::string_view result = rest_.substr(0, rest_.find('\0'));
    rest_.remove_prefix(result.size());
    byte();
    return result;
  }

 private:
  std::string_view rest_;
};

// The rest of the input as edits of a valid document, so that a short input reaches deep into it:
//   edits := (place (u16, little-endian, modulo the size), removed (u8), added (u8), bytes)*
inline std::string edited(std::string document, Input& input) {
  while (!input.empty()) {
    const std::size_t low = input.byte();
    const std::size_t place = (low | std::size_t{input.byte()} << 8) % (document.size() + 1);
    const std::size_t removed = input.byte();
    const std::size_t added = input.byte();
    document.replace(place, removed, input.bytes(added));
  }
  return document;
}

// The valid document, edited, or another in its place.
inline std::string document(const std::string& valid, bool is_replaced, Input& input) {
  return is_replaced ? std::string(input.rest()) : edited(valid, input);
}

}  // namespace sluice::fuzz
