// Lines of a file or pipe, as many at a time as have arrived: a long input is handled in large
// pieces, and whoever types or pipes line by line gets each answer at once.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sluice {

class LineReader {
 public:
  // Reads on from where the descriptor stands, which stays the caller's. Of a longer line only
  // max_line_bytes + 1 bytes are kept, enough to tell that it is too long.
  LineReader(int descriptor, std::uint64_t max_line_bytes);

  // The lines that are there; waits for the first. Empty at the end of the input.
  Result<std::vector<std::string>> read();

 private:
  void take(std::string_view bytes, std::vector<std::string>& lines);

  int descriptor_;
  std::uint64_t max_bytes_;
  std::string buffer_;
  std::string line_;
  bool has_begun_ = false;
  bool at_end_ = false;
};

}  // namespace sluice
