// The reader of text tables, beside an oracle that has the whole text before it: both must find the
// same fields, lines and problems, whatever the portions. With a small bound on a row nothing
// longer comes through. What a row without a problem holds becomes JSON that another library reads
// back.
//   input := dialect (u8), bytes of the buffer (u8), the table
#include <algorithm>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "app/csv_reader.h"
#include "app/import_table.h"
#include "app/import_text.h"
#include "base/check.h"
#include "base/json_text.h"
#include "tests/fuzz/fuzz_input.h"

namespace sluice::fuzz {
namespace {

class TextStream final : public ByteStream {
 public:
  explicit TextStream(std::string_view text) : rest_(text) {}
  Result<std::size_t> read(std::span<char> buffer) override {
    const std::size_t count = rest_.copy(buffer.data(), buffer.size());
    rest_.remove_prefix(count);
    return count;
  }
  Status skip(std::uint64_t) override { return stop_error("is not used"); }
  std::uint64_t consumed() const override { return 0; }

 private:
  std::string_view rest_;
};

struct Row {
  std::vector<std::string> fields;  // not told where there is a problem
  std::uint64_t line = 0;
  CsvProblem problem = CsvProblem::none;
  friend bool operator==(const Row&, const Row&) = default;
};

// ---- what becomes of a field

void check_as_json(const std::string& field) {
  std::string json;
  append_json_text(json, field);
  const auto value = nlohmann::json::parse(json, nullptr, false);
  SLUICE_CHECK(value.is_string() && value.get<std::string>() == field);
  json.clear();
  append_json_id(json, field);
  const auto id = nlohmann::json::parse(json, nullptr, false);
  SLUICE_CHECK(id.is_string() || (id.is_number_integer() && id.dump() == field));
  if (const auto number = parse_number(field)) {
    json.clear();
    append_json_number(json, *number);
    const auto read = nlohmann::json::parse(json, nullptr, false);
    SLUICE_CHECK(read.is_number() && read.get<double>() == *number);
  }
  for (const auto unit : {TimeUnit::iso, TimeUnit::seconds, TimeUnit::milliseconds_from_start}) {
    static_cast<void>(parse_table_time(field, unit, 1'704'067'200'000));
  }
}

// The other library's parser says what UTF-8 is.
bool is_json_text(const std::string& field) {
  std::string json;
  append_json_text(json, field);
  return nlohmann::json::accept(json);
}

// A row has no problem exactly where each of its fields can be a text in JSON.
void check_fields(const CsvRow& row) {
  const std::vector<std::string> fields(row.fields.begin(), row.fields.end());
  const bool is_good = !row_problem(row);
  SLUICE_CHECK(is_good == std::all_of(fields.begin(), fields.end(), is_json_text));
  if (!is_good) return;
  for (const std::string& field : fields) check_as_json(field);
}

// ---- the reader

std::vector<Row> read_rows(std::string_view text, CsvDialect dialect, std::size_t most_row_bytes,
                           std::size_t buffer_bytes) {
  TextStream stream(text);
  CsvReader reader(stream, dialect, most_row_bytes, buffer_bytes);
  std::vector<Row> rows;
  CsvRow row;
  while (true) {
    const auto has_row = reader.next(row);
    SLUICE_CHECK(has_row.has_value());
    if (!*has_row) return rows;
    std::size_t bytes = 0;
    for (const std::string_view field : row.fields) bytes += field.size();
    SLUICE_CHECK(bytes <= most_row_bytes);
    rows.push_back({{}, row.line, row.problem});
    if (row.problem != CsvProblem::none) continue;
    rows.back().fields.assign(row.fields.begin(), row.fields.end());
    check_fields(row);
  }
}

// ---- the oracle: by position in the whole text

class Oracle {
 public:
  Oracle(std::string_view text, CsvDialect dialect) : text_(text), dialect_(dialect) {
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;
  }

  std::vector<Row> rows() {
    std::vector<Row> rows;
    while (at_ < text_.size()) {
      if (const std::size_t end = line_end(at_); end > 0) {
        at_ += end;
        continue;
      }
      const auto before = text_.substr(0, at_);
      const auto line = 1 + std::count(before.begin(), before.end(), '\n');
      rows.push_back({{}, static_cast<std::uint64_t>(line), CsvProblem::none});
      read_row(rows.back());
    }
    return rows;
  }

 private:
  std::size_t line_end(std::size_t at) const {
    if (text_.substr(at, 1) == "\n") return 1;
    return text_.substr(at, 2) == "\r\n" ? 2 : 0;
  }
  void read_row(Row& row) {
    do {
      const bool is_quoted = dialect_.has_quotes && text_.substr(at_, 1) == "\"";
      if (is_quoted ? !read_quoted(row) : !read_plain(row)) return;
    } while (true);
  }
  // True where a delimiter, and so another field, follows.
  bool read_plain(Row& row) {
    const std::string marks{dialect_.delimiter, '\n'};
    const std::size_t end = std::min(text_.find_first_of(marks, at_), text_.size());
    std::string_view field = text_.substr(at_, end - at_);
    at_ = end;
    if (text_.substr(end, 1) == "\n" && field.ends_with('\r')) field.remove_suffix(1);
    row.fields.emplace_back(field);
    if (at_ < text_.size()) ++at_;
    return end < text_.size() && text_[end] == dialect_.delimiter;
  }
  bool read_quoted(Row& row) {
    std::string field;
    for (++at_; text_.substr(at_, 1) != "\"" || text_.substr(at_, 2) == "\"\""; ++at_) {
      if (at_ >= text_.size()) return fail(row);
      field += text_[at_];
      if (text_[at_] == '"') ++at_;
    }
    ++at_;
    row.fields.push_back(std::move(field));
    if (at_ >= text_.size()) return false;
    if (const std::size_t end = line_end(at_); end > 0) {
      at_ += end;
      return false;
    }
    if (text_[at_] != dialect_.delimiter) return fail(row);
    ++at_;
    return true;
  }
  bool fail(Row& row) {
    row.problem = CsvProblem::quotes;
    row.fields.clear();
    at_ =
        at_ >= text_.size() ? text_.size() : std::min(text_.find('\n', at_), text_.size() - 1) + 1;
    return false;
  }

  std::string_view text_;
  CsvDialect dialect_;
  std::size_t at_ = 0;
};

void read_one(Input input) {
  constexpr char kDelimiters[] = {',', '\t', ';', '|'};
  constexpr std::size_t kUnbounded = 1 << 20;
  const std::uint8_t choice = input.byte();
  const CsvDialect dialect{kDelimiters[choice / 2 % 4], choice % 2 == 0};
  const std::size_t buffer_bytes = 3 + input.byte() % 64;
  const std::string_view text = input.rest();
  const std::vector<Row> rows = read_rows(text, dialect, kUnbounded, buffer_bytes);
  SLUICE_CHECK(rows == read_rows(text, dialect, kUnbounded, kUnbounded));
  SLUICE_CHECK(rows == Oracle(text, dialect).rows());
  const std::vector<Row> bounded = read_rows(text, dialect, 16, buffer_bytes);
  SLUICE_CHECK(bounded == read_rows(text, dialect, 16, kUnbounded));
}

}  // namespace
}  // namespace sluice::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sluice::fuzz::read_one({data, size});
  return 0;
}
