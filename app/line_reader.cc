#include "app/line_reader.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <unistd.h>

namespace sluice {

LineReader::LineReader(int descriptor, std::uint64_t max_line_bytes)
    : descriptor_(descriptor), max_bytes_(max_line_bytes + 1), buffer_(1 << 18, '\0') {}

Result<std::vector<std::string>> LineReader::read() {
  std::vector<std::string> lines;
  while (lines.empty() && !at_end_) {
    const ssize_t size = ::read(descriptor_, buffer_.data(), buffer_.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return stop_error(std::string("cannot read the input: ") + std::strerror(errno));
    at_end_ = size == 0;
    take(std::string_view(buffer_).substr(0, static_cast<std::size_t>(size)), lines);
    // A last line without an end counts.
    if (at_end_ && has_begun_) lines.push_back(std::move(line_));
  }
  return lines;
}

void LineReader::take(std::string_view bytes, std::vector<std::string>& lines) {
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    const std::string_view part = bytes.substr(0, end);
    line_.append(part.substr(0, max_bytes_ - line_.size()));
    has_begun_ = true;
    if (end == std::string_view::npos) return;
    lines.push_back(std::move(line_));
    line_.clear();
    has_begun_ = false;
    bytes.remove_prefix(end + 1);
  }
}

}  // namespace sluice
