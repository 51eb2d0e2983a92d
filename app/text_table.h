// Tables for a terminal.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

// A text for one line of a terminal: control characters become spaces, and what is longer than
// `most` bytes is cut there, between two characters, and ends with "...".
inline std::string one_line(std::string_view text, std::size_t most = std::string_view::npos) {
  std::string line(text);
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  if (line.size() <= most) return line;
  std::size_t end = most < 3 ? 0 : most - 3;
  while (end > 0 && (static_cast<unsigned char>(line[end]) & 0xc0) == 0x80) --end;
  line.resize(end);
  return line + "...";
}

// Columns as wide as their longest cell, two spaces apart; lines are cut to `width` bytes.
inline std::string text_table(const std::vector<std::vector<std::string>>& rows,
                              std::size_t width = std::string_view::npos) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i] + std::string(widths[i] + 2 - row[i].size(), ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += one_line(line, width) + "\n";
  }
  return text;
}

}  // namespace sluice
