#include "config/suggest.h"

#include <algorithm>

#include "base/check.h"
#include "config/schema.h"

namespace sluice {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // Row i holds the distances from the first i characters of `a` to each start of `b`.
  std::vector<std::size_t> before_last(b.size() + 1);
  std::vector<std::size_t> last(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before_last.swap(last);
    last.swap(row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, replaced});
      const bool is_swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (is_swap) row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
  }
  return row[b.size()];
}

Nearest nearest_word(std::string_view word, const std::vector<std::string>& known) {
  SLUICE_CHECK(!known.empty());
  Nearest nearest{"", static_cast<std::size_t>(-1), false};
  for (const std::string& candidate : known) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < nearest.distance) nearest = {candidate, distance, false};
  }
  const std::size_t length = std::max(word.size(), nearest.name.size());
  nearest.is_likely = nearest.distance <= std::max<std::size_t>(1, length / 3);
  return nearest;
}

Nearest nearest_key(const std::string& key, const std::vector<std::string>& known) {
  const auto [section, last] = split_key(key);
  std::vector<std::string> neighbours;
  for (const std::string& candidate : known) {
    const auto [other_section, other_last] = split_key(candidate);
    if (other_section == section) neighbours.push_back(other_last);
  }
  if (!neighbours.empty()) {
    Nearest nearest = nearest_word(last, neighbours);
    if (nearest.is_likely) {
      if (!section.empty()) nearest.name = section + "." + nearest.name;
      return nearest;
    }
  }
  for (const std::string& candidate : known) {
    if (split_key(candidate).second == last) return {candidate, 0, true};
  }
  return nearest_word(key, known);
}

}  // namespace sluice
