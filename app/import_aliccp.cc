// Ali-CCP: skeletons (sample id, click, buy, common features' index, number of features, features)
// that share rows of common features (index, number, features). A feature list is
// field \x02 id \x03 value, one after the other with \x01 between them.
#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "app/import_table.h"
#include "app/import_text.h"
#include "base/bytes.h"
#include "base/hash.h"
#include "base/json_text.h"

namespace sluice {
namespace {

constexpr std::string_view kUserField = "101";
constexpr std::string_view kItemField = "205";
constexpr std::string_view kCommon = "common";  // where the common features lie in the event
constexpr std::size_t kMostFeatureFields =
    4'096;  // features of one config: there are 23 in the data

using Names = std::set<std::string, std::less<>>;

struct FeatureList {
  std::string json;  // field -> {id: value, ...}, without the outer braces
  std::string user_id, item_id;
};

// Fields in the order of their first entry, so that one key stands once.
class FeatureListReader {
 public:
  explicit FeatureListReader(const std::vector<std::string>& kept) : kept_(kept) {}

  const Names& fields() const { return fields_; }

  // What is wrong with it, or empty.
  std::string read(std::string_view text, std::string_view count, FeatureList& out) {
    out = {};
    order_.clear();
    values_.clear();
    std::size_t entries = 0;
    for (; !text.empty(); ++entries) {
      const std::string_view entry = text.substr(0, text.find('\x01'));
      text.remove_prefix(std::min(text.size(), entry.size() + 1));
      if (std::string problem = add(entry, out); !problem.empty()) return problem;
    }
    if (count != std::to_string(entries)) {
      return "says " + std::string(count.substr(0, 20)) + " features, but has " +
             std::to_string(entries);
    }
    for (const std::string_view field : order_) {
      if (!out.json.empty()) out.json += ',';
      append_json_text(out.json, field);
      out.json += ":{" + values_[field] + '}';
    }
    return {};
  }

 private:
  std::string add(std::string_view entry, FeatureList& out) {
    const std::size_t id_at = entry.find('\x02');
    const std::size_t value_at = entry.find('\x03');
    const bool has_parts = id_at != std::string_view::npos && id_at > 0 &&
                           value_at != std::string_view::npos && value_at > id_at + 1;
    if (!has_parts) return "an entry is not field, \\x02, id, \\x03, value";
    const std::string_view field = entry.substr(0, id_at);
    const std::string_view id = entry.substr(id_at + 1, value_at - id_at - 1);
    const auto value = parse_number(entry.substr(value_at + 1));
    if (!value) return "the value of an entry is no number";
    if (feature_name(field) != field || field == kCommon) return "a field has no usual name";
    if (field == kUserField) out.user_id = id;
    if (field == kItemField) out.item_id = id;
    if (!kept_.empty() && !matches_any(kept_, std::string(field))) return {};
    if (!fields_.contains(field)) {
      if (fields_.size() == kMostFeatureFields) return "there are too many fields";
      fields_.emplace(field);
    }
    std::string& values = values_[field];
    if (values.empty()) {
      order_.push_back(field);
    } else {
      values += ',';
    }
    append_json_text(values, id);
    values += ':';
    append_json_number(values, *value);
    return {};
  }

  const std::vector<std::string>& kept_;
  Names fields_;
  std::vector<std::string_view> order_;
  std::map<std::string_view, std::string> values_;
};

// The common features: in memory where each row lies in a file, which is theirs alone.
class CommonFeatures {
 public:
  CommonFeatures(FileSystem& files, fs::path path, const std::vector<std::string>& kept)
      : files_(files), path_(std::move(path)), reader_(kept) {}
  ~CommonFeatures() { static_cast<void>(files_.remove_all(path_)); }
  CommonFeatures(const CommonFeatures&) = delete;
  CommonFeatures& operator=(const CommonFeatures&) = delete;

  const Names& fields() const { return reader_.fields(); }

  Status load(const std::vector<std::string>& tables, const OnBadRow& on_bad_row) {
    SLUICE_ASSIGN(file_, files_.create(path_));
    for (const std::string& table : tables) {
      SLUICE_ASSIGN(const auto stream, open_table(table));
      CsvReader rows(*stream, {',', false});
      CsvRow row;
      while (true) {
        SLUICE_ASSIGN(const bool has_row, rows.next(row));
        if (!has_row) break;
        SLUICE_ASSIGN(const auto problem, add(row));
        if (problem) on_bad_row(table, row.line, *problem);
      }
    }
    SLUICE_TRY(flush());
    return file_->close();
  }

  // None where there is no such row; valid until the next call.
  Result<const FeatureList*> find(std::string_view index) {
    if (index == present_index_) return &present_;
    const auto place = places_.find(hash64(index));
    if (place == places_.end()) return static_cast<const FeatureList*>(nullptr);
    SLUICE_ASSIGN(const std::string bytes,
                  files_.read_range(path_, place->second.offset, place->second.size));
    ByteReader reader(bytes);
    if (reader.text() != index) return static_cast<const FeatureList*>(nullptr);
    present_.user_id = reader.text();
    present_.json = reader.text();
    if (!reader.ok()) return stop_error(path_.string() + " was changed while it was read");
    present_index_ = index;
    return &present_;
  }

 private:
  struct Place {
    std::uint64_t offset = 0;
    std::uint32_t size = 0;
  };

  Result<std::optional<RowProblem>> add(const CsvRow& row) {
    if (auto problem = row_problem(row)) return problem;
    if (row.fields.size() != 3) {
      return std::optional(
          RowProblem{"columns", 0, std::to_string(row.fields.size()) + " fields, but 3 columns"});
    }
    FeatureList list;
    if (std::string wrong = reader_.read(row.fields[2], row.fields[1], list); !wrong.empty()) {
      return std::optional(RowProblem{"features", 3, std::move(wrong)});
    }
    const auto [place, is_new] = places_.try_emplace(hash64(row.fields[0]));
    if (!is_new) {
      return std::optional(
          RowProblem{"repeated_common_features", 1, "this index was there before"});
    }
    const std::size_t begin = buffer_.size();
    ByteWriter writer(buffer_);
    writer.text(row.fields[0]);
    writer.text(list.user_id);
    writer.text(list.json);
    place->second = {written_ + begin, static_cast<std::uint32_t>(buffer_.size() - begin)};
    constexpr std::size_t kBufferBytes = 1 << 20;
    if (buffer_.size() >= kBufferBytes) SLUICE_TRY(flush());
    return std::optional<RowProblem>();
  }
  Status flush() {
    SLUICE_TRY(file_->append(buffer_));
    written_ += buffer_.size();
    buffer_.clear();
    return {};
  }

  FileSystem& files_;
  fs::path path_;
  FeatureListReader reader_;
  std::unique_ptr<WritableFile> file_;
  std::string buffer_;
  std::uint64_t written_ = 0;
  std::unordered_map<std::uint64_t, Place> places_;  // by the index's hash; checked when it is read
  std::optional<std::string> present_index_;         // skeletons of one user follow each other
  FeatureList present_;
};

class AliccpFormat final : public TableFormat {
 public:
  AliccpFormat(const ImportOptions& options, FileSystem& files, const fs::path& scratch)
      : kept_(options.features),
        common_(files, scratch / "common_features", kept_),
        reader_(kept_) {}

  Status load(const std::vector<std::string>& tables, const OnBadRow& on_bad_row) {
    return common_.load(tables, on_bad_row);
  }
  CsvDialect dialect() const override { return {',', false}; }
  UnclickedConversion unclicked_conversion() const override {
    return UnclickedConversion::implies_click;
  }
  bool needs_header() const override { return false; }
  Result<bool> begin_file(const CsvRow&, const std::string&) override { return false; }

  Result<std::optional<RowProblem>> read(const CsvRow& row, ImportRow& out) override {
    constexpr std::size_t kColumns = 6;
    const auto refuse = [](const char* reason, std::size_t column, std::string detail) {
      return std::optional(RowProblem{reason, column, std::move(detail)});
    };
    if (row.fields.size() != kColumns) {
      return refuse("columns", 0, std::to_string(row.fields.size()) + " fields, but 6 columns");
    }
    const auto click = parse_label(row.fields[1]);
    const auto buy = parse_label(row.fields[2]);
    if (!click || !buy) return refuse("label", click ? 3 : 2, "is neither 0 nor 1");
    FeatureList list;
    if (std::string wrong = reader_.read(row.fields[5], row.fields[4], list); !wrong.empty()) {
      return refuse("features", 6, std::move(wrong));
    }
    SLUICE_ASSIGN(const FeatureList* common, common_.find(row.fields[3]));
    if (common == nullptr) {
      return refuse("no_common_features", 4,
                    "'" + std::string(row.fields[3].substr(0, 40)) + "' is in no --common table");
    }
    out = {};
    out.clicked = *click;
    out.converted = *buy;
    out.user_id = common->user_id.empty() ? std::string(row.fields[3]) : common->user_id;
    out.item_id = list.item_id;
    out.features =
        '{' + list.json + (list.json.empty() ? "" : ",") + "\"common\":{" + common->json + "}}";
    return std::optional<RowProblem>();
  }

  std::vector<ImportFeature> features() const override {
    std::vector<ImportFeature> result;
    for (const std::string& field : common_.fields()) {
      result.push_back({feature_name("common_" + field), "features.common." + field,
                        "type = \"weighted_ids\", group = \"common\""});
    }
    for (const std::string& field : reader_.fields()) {
      result.push_back(
          {feature_name("sample_" + field), "features." + field, "type = \"weighted_ids\""});
    }
    return result;
  }

  Status check_features() const override {
    for (const std::string& pattern : kept_) {
      const auto fits = [&](const std::string& field) { return matches(pattern, field); };
      if (std::none_of(common_.fields().begin(), common_.fields().end(), fits) &&
          std::none_of(reader_.fields().begin(), reader_.fields().end(), fits)) {
        return usage_error("no row has a field '" + pattern + "' (--features)");
      }
    }
    if (common_.fields().empty() && reader_.fields().empty()) {
      return usage_error("no row has a feature");
    }
    return {};
  }

 private:
  std::vector<std::string> kept_;
  CommonFeatures common_;
  FeatureListReader reader_;
};

}  // namespace

Result<std::unique_ptr<TableFormat>> make_aliccp_format(const ImportOptions& options,
                                                        FileSystem& files, const fs::path& scratch,
                                                        const OnBadRow& on_bad_row) {
  auto format = std::make_unique<AliccpFormat>(options, files, scratch);
  SLUICE_TRY(format->load(options.common, on_bad_row));
  return std::unique_ptr<TableFormat>(std::move(format));
}

}  // namespace sluice
