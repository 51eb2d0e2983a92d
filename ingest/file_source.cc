// Logs in files: <root>/<topic>/<partition>.jsonl[.zst|.gz], or
// <root>/<topic>/<partition>/<segment>.jsonl[.zst|.gz] with segments in numeric order. A file
// without segments is segment 0. New segments and plain files that grow are seen while reading.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <map>
#include <utility>

#include "base/check.h"
#include "ingest/byte_stream.h"
#include "ingest/source.h"
#include "ingest/spare_records.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr int kOffsetBits = 40;
constexpr Position kOffsetMask = (Position{1} << kOffsetBits) - 1;
// One read gives no more than about this much, however long the records are.
constexpr std::size_t kReadBytes = 1 << 20;
constexpr std::uint64_t kMaxNumber = (Position{1} << (64 - kOffsetBits)) - 2;

struct Segment {
  std::uint64_t number = 0;
  fs::path path;
  Compression compression = Compression::none;

  Position begin() const { return number << kOffsetBits; }
  // Where the next record would be when all of it has been read. A compressed segment cannot grow,
  // and its length is not known without reading it: its end is the last offset there is.
  Position end_at(std::uint64_t offset) const {
    return begin() | (compression == Compression::none ? offset : kOffsetMask);
  }
};

// "00003.jsonl.zst" -> 3 and zstd; nothing for other names.
std::optional<Segment> parse_name(const fs::path& path) {
  const std::string name = path.filename().string();
  Segment segment;
  segment.path = path;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), segment.number);
  if (error != std::errc() || segment.number > kMaxNumber) return std::nullopt;
  const std::string_view rest(end, static_cast<std::size_t>(name.data() + name.size() - end));
  if (rest == ".jsonl") {
    segment.compression = Compression::none;
  } else if (rest == ".jsonl.zst") {
    segment.compression = Compression::zstd;
  } else if (rest == ".jsonl.gz") {
    segment.compression = Compression::gzip;
  } else {
    return std::nullopt;
  }
  return segment;
}

Result<std::vector<fs::path>> list_folder(const fs::path& folder) {
  std::error_code code;
  std::vector<fs::path> paths;
  for (fs::directory_iterator it(folder, code), end; !code && it != end; it.increment(code)) {
    paths.push_back(it->path());
  }
  if (code) return stop_error("cannot list " + folder.string() + ": " + code.message());
  return paths;
}

// The segments in a folder, in numeric order; an error where two have one number.
Result<std::vector<Segment>> list_segments(const fs::path& folder) {
  SLUICE_ASSIGN(const auto paths, list_folder(folder));
  std::vector<Segment> segments;
  for (const fs::path& path : paths) {
    if (auto segment = parse_name(path)) segments.push_back(*std::move(segment));
  }
  std::sort(segments.begin(), segments.end(),
            [](const Segment& a, const Segment& b) { return a.number < b.number; });
  for (std::size_t index = 1; index < segments.size(); ++index) {
    if (segments[index].number == segments[index - 1].number) {
      return usage_error(segments[index - 1].path.string() + " and " +
                         segments[index].path.filename().string() + " have one number");
    }
  }
  return segments;
}

// Reads lines from one segment; knows where each begins.
class LineReader {
 public:
  static Result<LineReader> open(const Segment& segment, std::uint64_t offset,
                                 std::uint64_t max_record_bytes) {
    SLUICE_ASSIGN(auto stream, open_byte_stream(segment.path, segment.compression));
    SLUICE_TRY(stream->skip(offset));
    return LineReader(segment, offset, max_record_bytes, std::move(stream));
  }

  std::uint64_t segment_number() const { return segment_.number; }
  Position position() const { return segment_.begin() | line_begin_; }
  Position end() const { return segment_.end_at(line_begin_); }
  std::uint64_t consumed() const { return stream_->consumed(); }
  bool has_unfinished() const { return line_bytes_ > 0; }

  // The next line with an end; false at the segment's present end. What has been read of an
  // unfinished line stays for the next call.
  Result<bool> next(Record& record) {
    while (true) {
      const char* const begin = buffer_.data() + begin_;
      const auto* newline = static_cast<const char*>(std::memchr(begin, '\n', end_ - begin_));
      const std::size_t count =
          newline != nullptr ? static_cast<std::size_t>(newline - begin) : end_ - begin_;
      begin_ += count;
      if (newline != nullptr) {
        ++begin_;
        take({begin, count}, 1, record);
        return true;
      }
      keep({begin, count});
      SLUICE_ASSIGN(end_, stream_->read(buffer_));
      begin_ = 0;
      if (end_ == 0) return false;
    }
  }

  Result<std::optional<Record>> next() {
    Record record;
    SLUICE_ASSIGN(const bool is_there, next(record));
    return is_there ? std::optional<Record>(std::move(record)) : std::nullopt;
  }

  // The line without an end that next() waits before, if there is one.
  std::optional<Record> unfinished() {
    if (line_bytes_ == 0) return std::nullopt;
    Record record;
    take({}, 0, record);
    return record;
  }

 private:
  LineReader(Segment segment, std::uint64_t offset, std::uint64_t max_record_bytes,
             std::unique_ptr<ByteStream> stream)
      : segment_(std::move(segment)),
        max_record_bytes_(max_record_bytes),
        stream_(std::move(stream)),
        buffer_(1 << 17),
        line_begin_(offset) {}

  void keep(std::string_view bytes) {
    line_bytes_ += bytes.size();
    line_.append(bytes.substr(0, max_record_bytes_ + 1 - line_.size()));
  }

  // The line that ends with `rest`: what came before it was kept.
  void take(std::string_view rest, std::size_t line_end_bytes, Record& record) {
    // The parser reads a little past the end: leave room, or it copies every record.
    constexpr std::size_t kParserPadding = 64;
    if (line_bytes_ > 0) {
      keep(rest);
      rest = line_;
    } else {
      line_bytes_ = rest.size();
      rest = rest.substr(0, max_record_bytes_ + 1);
    }
    record.position = position();
    record.log_time.reset();
    record.bytes.reserve(rest.size() + kParserPadding);
    record.bytes.assign(rest);
    line_begin_ += line_bytes_ + line_end_bytes;
    record.next = position();
    line_.clear();
    line_bytes_ = 0;
  }

  Segment segment_;
  std::uint64_t max_record_bytes_;
  std::unique_ptr<ByteStream> stream_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;  // unread bytes of buffer_: [begin_, end_)
  std::size_t end_ = 0;
  std::uint64_t line_begin_;      // offset in the segment of the line that is being read
  std::uint64_t line_bytes_ = 0;  // read of that line, also what line_ does not keep
  std::string line_;
};

class FileSource final : public Source {
 public:
  FileSource(const Config& config, Clock* clock)
      : clock_(clock),
        root_(config.source.root),
        streams_(config.streams.count()),
        topics_(config.streams.topic),
        max_record_bytes_(config.streams.max_record_bytes) {}

  Result<std::uint32_t> partitions() override {
    std::array<std::uint32_t, kStreams> counts{};
    for (std::size_t stream = 0; stream < streams_; ++stream) {
      SLUICE_ASSIGN(counts[stream], count_partitions(root_ / topics_[stream]));
    }
    for (std::size_t stream = 1; stream < streams_; ++stream) {
      if (counts[stream] != counts[0]) {
        return stop_error((root_ / topics_[0]).string() + " has " + std::to_string(counts[0]) +
                          " partitions but " + (root_ / topics_[stream]).string() + " has " +
                          std::to_string(counts[stream]) + ": all streams need the same number");
      }
    }
    SLUICE_TRY(measure());
    return counts[0];
  }

  std::optional<double> fraction_read() const override {
    if (total_bytes_ == 0) return 1.0;
    std::uint64_t read = passed_bytes_;
    for (const auto& [where, reader] : readers_) read += reader.consumed();
    return std::min(1.0, static_cast<double>(read) / static_cast<double>(total_bytes_));
  }

  Result<Position> first_position(StreamPartition where) override {
    SLUICE_ASSIGN(const auto segments, segments_of(where));
    return segments.empty() ? Position{0} : segments.front().begin();
  }

  Result<Position> end_position(StreamPartition where) override {
    SLUICE_ASSIGN(const auto segments, segments_of(where));
    if (segments.empty()) return Position{0};
    std::error_code code;
    const std::uintmax_t size = fs::file_size(segments.back().path, code);
    if (code)
      return stop_error("cannot read " + segments.back().path.string() + ": " + code.message());
    return segments.back().end_at(size);
  }

  Status seek(StreamPartition where, Position position) override {
    SLUICE_ASSIGN(const auto segments, segments_of(where));
    const std::uint64_t number = position >> kOffsetBits;
    if (!segments.empty() && segments.front().number > number && position != 0) {
      return stop_error(to_string(where) + ": the log was read up to " + describe(where, position) +
                        " but now begins with " + segments.front().path.string() +
                        "; what lies between is lost");
    }
    const bool is_gone =
        std::none_of(segments.begin(), segments.end(),
                     [&](const Segment& segment) { return segment.number == number; });
    if (is_gone && position != 0 && !segments.empty()) {
      return stop_error("the log was read up to " + describe(where, position) +
                        " but that segment is not there any more; what it held is lost");
    }
    readers_.erase(where);
    positions_[where] = position;
    return {};
  }

  Result<ReadResult> read(StreamPartition where, std::size_t max_records,
                          DurationMs wait_ms) override {
    // The time of looking, not of having looked: what is appended meanwhile may be missed.
    const TimeMs wall_ms = clock_ == nullptr ? 0 : clock_->wall_ms();
    SLUICE_ASSIGN(auto result, read_present(where, max_records));
    if (clock_ == nullptr || !result.at_end) return result;
    const auto reader = readers_.find(where);
    if (reader != readers_.end() && reader->second.has_unfinished()) {
      confirmed_.erase(where);
    } else {
      confirmed_[where] = {*result.at_end, wall_ms, clock_->steady_ms()};
    }
    if (wait_ms > 0) clock_->sleep_ms(wait_ms);
    return result;
  }

  void give_back(std::vector<Record> records) override { spare_.give_back(std::move(records)); }

  Result<std::optional<Record>> unfinished(StreamPartition where) override {
    const auto found = readers_.find(where);
    if (found == readers_.end()) return std::optional<Record>();
    auto record = found->second.unfinished();
    if (record) positions_[where] = record->next;
    return record;
  }

  Result<std::optional<Record>> record_at(StreamPartition where, Position position) override {
    SLUICE_ASSIGN(const auto segments, segments_of(where));
    for (const Segment& segment : segments) {
      if (segment.number != position >> kOffsetBits) continue;
      SLUICE_ASSIGN(auto reader,
                    LineReader::open(segment, position & kOffsetMask, max_record_bytes_));
      SLUICE_ASSIGN(auto record, reader.next());
      if (!record) record = reader.unfinished();
      if (!record) {
        return stop_error(segment.path.string() + " is shorter than what was read of it before");
      }
      return record;
    }
    return std::optional<Record>();
  }

  std::optional<EndConfirmation> confirmed_end(StreamPartition where) override {
    const auto found = confirmed_.find(where);
    if (found == confirmed_.end()) return std::nullopt;
    return found->second;
  }

  std::string describe(StreamPartition where, Position position) const override {
    return topics_[static_cast<std::size_t>(where.stream)] + "/" + std::to_string(where.partition) +
           " segment " + std::to_string(position >> kOffsetBits) + " byte " +
           std::to_string(position & kOffsetMask);
  }

 private:
  // What is there now, up to max_records.
  Result<ReadResult> read_present(StreamPartition where, std::size_t max_records) {
    ReadResult result;
    std::size_t bytes = 0;
    while (result.records.size() < max_records && bytes < kReadBytes) {
      SLUICE_ASSIGN(LineReader* const reader, reader_at(where));
      if (reader == nullptr) {
        if (result.records.empty()) result.at_end = positions_[where];
        break;
      }
      Record& record = result.records.emplace_back(spare_.take());
      SLUICE_ASSIGN(const bool is_there, reader->next(record));
      if (is_there) {
        positions_[where] = record.next;
        bytes += record.bytes.size();
        continue;
      }
      spare_.give_back(std::move(result.records.back()));
      result.records.pop_back();
      SLUICE_ASSIGN(const bool moved, next_segment(where, *reader, result));
      if (moved) continue;
      if (result.records.empty()) result.at_end = positions_[where];
      break;
    }
    return result;
  }

  // The size of all segments, for fraction_read().
  Status measure() {
    total_bytes_ = 0;
    for (const std::string& topic : topics_) {
      for (const auto& [partition, path] : partition_paths_[(root_ / topic).string()]) {
        std::error_code code;
        if (!fs::is_directory(path, code)) {
          total_bytes_ += fs::file_size(path, code);
          continue;
        }
        SLUICE_ASSIGN(const auto segments, list_segments(path));
        for (const Segment& segment : segments) total_bytes_ += fs::file_size(segment.path, code);
      }
    }
    return {};
  }

  // Partitions 0..n-1, as files or folders; at least one.
  Result<std::uint32_t> count_partitions(const fs::path& folder) {
    SLUICE_ASSIGN(const auto paths, list_folder(folder));
    std::map<std::uint64_t, fs::path> found;
    for (const fs::path& path : paths) {
      std::optional<Segment> name = parse_name(path);
      if (!name) name = parse_name(fs::path(path) += ".jsonl");
      if (!name) continue;
      if (!found.emplace(name->number, path).second) {
        return usage_error(path.string() + " and " + found[name->number].string() +
                           " are one partition twice");
      }
    }
    if (found.empty()) {
      return stop_error(folder.string() +
                        " holds no partition: 00000.jsonl (or .zst, .gz), or a "
                        "folder 00000 of segments");
    }
    if (found.rbegin()->first + 1 != found.size()) {
      std::uint64_t missing = 0;
      while (found.count(missing) != 0) ++missing;
      return stop_error(folder.string() + " has no partition " + std::to_string(missing) +
                        " although it has " + std::to_string(found.rbegin()->first));
    }
    partition_paths_[folder.string()] = found;
    return static_cast<std::uint32_t>(found.size());
  }

  Result<std::vector<Segment>> segments_of(StreamPartition where) {
    const fs::path folder = root_ / topics_[static_cast<std::size_t>(where.stream)];
    if (partition_paths_.count(folder.string()) == 0) {
      SLUICE_TRY(count_partitions(folder));
    }
    const auto& paths = partition_paths_[folder.string()];
    const auto found = paths.find(where.partition);
    SLUICE_CHECK(found != paths.end());
    std::error_code code;
    if (fs::is_directory(found->second, code)) return list_segments(found->second);
    std::optional<Segment> segment = parse_name(found->second);
    SLUICE_CHECK(segment.has_value());
    segment->number = 0;
    return std::vector<Segment>{*std::move(segment)};
  }

  // The reader at the partition's position; null where there is no segment to read yet.
  Result<LineReader*> reader_at(StreamPartition where) {
    const auto found = readers_.find(where);
    if (found != readers_.end()) return &found->second;
    SLUICE_ASSIGN(const auto segments, segments_of(where));
    const Position position = positions_[where];
    for (const Segment& segment : segments) {
      if (segment.number < position >> kOffsetBits) continue;
      const bool is_inside = segment.number == position >> kOffsetBits;
      const std::uint64_t offset = is_inside ? position & kOffsetMask : 0;
      if (segment.compression != Compression::none && offset == kOffsetMask) continue;
      SLUICE_ASSIGN(auto reader, LineReader::open(segment, offset, max_record_bytes_));
      return &readers_.emplace(where, std::move(reader)).first->second;
    }
    return nullptr;
  }

  // At a segment's present end: goes on to the next one if there is one (then an unfinished last
  // line is a record like any other). A compressed segment is never unfinished.
  Result<bool> next_segment(StreamPartition where, LineReader& reader, ReadResult& result) {
    SLUICE_ASSIGN(const auto segments, segments_of(where));
    const Segment* current = nullptr;
    const Segment* next = nullptr;
    for (const Segment& segment : segments) {
      if (segment.number == reader.segment_number()) current = &segment;
      if (segment.number > reader.segment_number() && next == nullptr) next = &segment;
    }
    const bool is_compressed = current != nullptr && current->compression != Compression::none;
    if (next == nullptr && !is_compressed) return false;
    // Lines may have been added between the look at this segment's end and at the folder.
    SLUICE_ASSIGN(auto record, reader.next());
    if (record) {
      positions_[where] = record->next;
      result.records.push_back(*std::move(record));
      return true;
    }
    if (auto last = reader.unfinished()) result.records.push_back(*std::move(last));
    positions_[where] = next != nullptr ? next->begin() : reader.end();
    if (!result.records.empty()) result.records.back().next = positions_[where];
    passed_bytes_ += reader.consumed();
    readers_.erase(where);
    return next != nullptr;
  }

  Clock* clock_;
  std::map<StreamPartition, EndConfirmation> confirmed_;
  fs::path root_;
  std::size_t streams_;  // the first so many topics are read
  std::array<std::string, kStreams> topics_;
  std::uint64_t max_record_bytes_;
  std::map<std::string, std::map<std::uint64_t, fs::path>> partition_paths_;
  std::map<StreamPartition, LineReader> readers_;
  std::map<StreamPartition, Position> positions_;
  SpareRecords spare_;
  std::uint64_t total_bytes_ = 0;
  std::uint64_t passed_bytes_ = 0;  // of segments read to their ends
};

}  // namespace

Result<std::unique_ptr<Source>> open_file_source(const Config& config, Clock* clock) {
  return std::unique_ptr<Source>(std::make_unique<FileSource>(config, clock));
}

Result<std::unique_ptr<Source>> open_source(const Config& config, Clock& clock) {
  switch (config.source.type) {
    case SourceConfig::Type::files:
      return open_file_source(config, &clock);
    case SourceConfig::Type::kafka:
      return open_kafka_source(config, clock);
  }
  SLUICE_CHECK(false);
}

}  // namespace sluice
