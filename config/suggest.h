// Which known name a mistyped one was meant to be.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

// Insertions, removals, replacements and swaps of neighbours that make `a` of `b` (restricted
// Damerau-Levenshtein distance).
std::size_t edit_distance(std::string_view a, std::string_view b);

// The nearest of `known` (not empty), the first of equals, and how far it is.
struct Nearest {
  std::string name;
  std::size_t distance = 0;
  // Near enough to ask "did you mean".
  bool is_likely = false;
};
Nearest nearest_word(std::string_view word, const std::vector<std::string>& known);

// The nearest of the dotted `known` keys: in the same section if one is likely there, else one of
// the same last part in another section, else by the whole name.
Nearest nearest_key(const std::string& key, const std::vector<std::string>& known);

}  // namespace sluice
