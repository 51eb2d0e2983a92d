// Rows of a text table, one at a time: fields between delimiters, by RFC 4180 where `has_quotes`
// (quoted fields may hold delimiters, line ends and doubled quotes). Lines end with LF or CR LF,
// the last one need not; a byte order mark before the first field is dropped, and lines without a
// byte are passed over. A quote inside a field that does not begin with one stands for itself.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "ingest/byte_stream.h"

namespace sluice {

struct CsvDialect {
  char delimiter = ',';
  bool has_quotes = true;
};

enum class CsvProblem {
  none,
  oversized,  // longer than the reader's bound, or of too many fields; cut, up to its line's end
  quotes,     // bytes between a closing quote and the next delimiter, or no closing quote at all
};

struct CsvRow {
  std::vector<std::string_view> fields;  // valid until the next row is read
  std::uint64_t line = 0;                // where it begins, from 1
  CsvProblem problem = CsvProblem::none;
};

// Used by one thread. Memory is bounded by most_row_bytes.
class CsvReader {
 public:
  static constexpr std::size_t kMostRowBytes = 4 << 20;

  static constexpr std::size_t kBufferBytes = 256 << 10;

  // `stream` outlives the reader. buffer_bytes: at least the byte order mark's three.
  CsvReader(ByteStream& stream, CsvDialect dialect, std::size_t most_row_bytes = kMostRowBytes,
            std::size_t buffer_bytes = kBufferBytes);

  // False at the end. An error is the stream's.
  Result<bool> next(CsvRow& row);

 private:
  enum class State { field_begin, plain, quoted, quote_in_quoted, after_quotes, skipped };

  Result<bool> fill();
  Status drop_byte_order_mark();
  void take_plain();
  void take_quoted();
  void append(std::size_t count);
  bool take_mark(char c);  // true where it ends the row
  void end_field();
  bool end_line();
  void give(CsvRow& row);

  ByteStream& stream_;
  CsvDialect dialect_;
  std::size_t most_row_bytes_;
  std::string buffer_;
  std::size_t begin_ = 0, end_ = 0;  // what is left of the buffer
  bool has_begun_ = false;
  std::uint64_t line_ = 1;  // of the next byte

  // The present row.
  State state_ = State::field_begin;
  std::string text_;               // its fields, one after the other
  std::vector<std::size_t> ends_;  // of the fields in text_
  std::uint64_t first_line_ = 1;
  CsvProblem problem_ = CsvProblem::none;
};

}  // namespace sluice
