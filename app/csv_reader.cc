#include "app/csv_reader.h"

#include <algorithm>
#include <cstring>

namespace sluice {
namespace {

constexpr std::size_t kMostFields = 1 << 16;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

}  // namespace

CsvReader::CsvReader(ByteStream& stream, CsvDialect dialect, std::size_t most_row_bytes,
                     std::size_t buffer_bytes)
    : stream_(stream),
      dialect_(dialect),
      most_row_bytes_(most_row_bytes),
      buffer_(buffer_bytes, '\0') {}

Result<bool> CsvReader::fill() {
  if (begin_ < end_) return true;
  begin_ = 0;
  SLUICE_ASSIGN(end_, stream_.read(buffer_));
  return end_ > 0;
}

Status CsvReader::drop_byte_order_mark() {
  has_begun_ = true;
  SLUICE_ASSIGN(const bool has_bytes, fill());
  const std::string_view start(buffer_.data(), end_);
  if (has_bytes && start.starts_with(kByteOrderMark)) begin_ = kByteOrderMark.size();
  return {};
}

Result<bool> CsvReader::next(CsvRow& row) {
  if (!has_begun_) SLUICE_TRY(drop_byte_order_mark());
  state_ = State::field_begin;
  text_.clear();
  ends_.clear();
  problem_ = CsvProblem::none;
  first_line_ = line_;
  while (true) {
    SLUICE_ASSIGN(const bool has_bytes, fill());
    if (!has_bytes) break;
    if (state_ == State::quoted) {
      take_quoted();
    } else {
      take_plain();
    }
    if (begin_ == end_) continue;
    if (take_mark(buffer_[begin_++])) {
      give(row);
      return true;
    }
  }
  if (state_ == State::field_begin && ends_.empty()) return false;
  if (state_ == State::quoted) problem_ = CsvProblem::quotes;
  end_field();
  give(row);
  return true;
}

// Up to the next byte that may mean something, which is left to take_mark().
void CsvReader::take_plain() {
  const char* const from = buffer_.data() + begin_;
  const char* const to = buffer_.data() + end_;
  const char* stop = from;
  if (state_ == State::skipped) {
    const void* found = std::memchr(from, '\n', static_cast<std::size_t>(to - from));
    begin_ = found == nullptr ? end_ : begin_ + (static_cast<const char*>(found) - from);
    return;
  }
  if (state_ != State::plain && state_ != State::field_begin) return;
  const char delimiter = dialect_.delimiter;
  const bool may_open = state_ == State::field_begin && dialect_.has_quotes;
  if (may_open && *from == '"') return;
  while (stop != to && *stop != delimiter && *stop != '\n') ++stop;
  if (stop != from) {
    state_ = State::plain;
    append(static_cast<std::size_t>(stop - from));
  }
}

void CsvReader::take_quoted() {
  const char* const from = buffer_.data() + begin_;
  const void* found = std::memchr(from, '"', end_ - begin_);
  const std::size_t count = found == nullptr
                                ? end_ - begin_
                                : static_cast<std::size_t>(static_cast<const char*>(found) - from);
  // Were it too long, its line's end must still be seen.
  if (text_.size() + count > most_row_bytes_) {
    const std::size_t kept = most_row_bytes_ - text_.size();
    line_ += static_cast<std::uint64_t>(std::count(from, from + kept, '\n'));
    append(kept);
    problem_ = CsvProblem::oversized;
    state_ = State::skipped;
    take_plain();
    return;
  }
  line_ += static_cast<std::uint64_t>(std::count(from, from + count, '\n'));
  append(count);
}

void CsvReader::append(std::size_t count) {
  if (text_.size() + count > most_row_bytes_) {
    problem_ = CsvProblem::oversized;
    state_ = State::skipped;
  } else {
    text_.append(buffer_, begin_, count);
  }
  begin_ += count;
}

bool CsvReader::take_mark(char c) {
  if (state_ == State::quoted) {  // c closes it, or is the first of two
    state_ = State::quote_in_quoted;
    return false;
  }
  if (state_ == State::quote_in_quoted && c == '"') {
    state_ = State::quoted;
    --begin_;
    append(1);
    return false;
  }
  if (state_ == State::field_begin && c == '"' && dialect_.has_quotes) {
    state_ = State::quoted;
    return false;
  }
  if (c == '\n') {
    ++line_;
    return end_line();
  }
  if (c == dialect_.delimiter && state_ != State::after_quotes && state_ != State::skipped) {
    end_field();
    if (ends_.size() < kMostFields) return false;
    problem_ = CsvProblem::oversized;
  } else if (c == '\r' && state_ == State::quote_in_quoted) {
    state_ = State::after_quotes;
    return false;
  } else if (problem_ == CsvProblem::none) {  // behind a closing quote, and no line's end
    problem_ = CsvProblem::quotes;
  }
  state_ = State::skipped;
  return false;
}

void CsvReader::end_field() {
  if (state_ == State::after_quotes) problem_ = CsvProblem::quotes;  // a CR, and no LF behind it
  ends_.push_back(text_.size());
  state_ = State::field_begin;
}

// CR LF is one end: the CR belongs to no field. False where nothing stands on the line.
bool CsvReader::end_line() {
  if (state_ == State::after_quotes) state_ = State::quote_in_quoted;
  if (state_ == State::plain && text_.back() == '\r') {
    text_.pop_back();
    if (text_.empty() && ends_.empty()) state_ = State::field_begin;
  }
  if (state_ == State::field_begin && ends_.empty()) {
    first_line_ = line_;
    return false;
  }
  end_field();
  return true;
}

void CsvReader::give(CsvRow& row) {
  row.fields.clear();
  std::size_t begin = 0;
  for (const std::size_t end : ends_) {
    row.fields.push_back(std::string_view(text_).substr(begin, end - begin));
    begin = end;
  }
  row.line = first_line_;
  row.problem = problem_;
}

}  // namespace sluice
