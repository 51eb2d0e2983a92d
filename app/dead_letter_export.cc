// Dead letters as logs. What is written is a root for `source.root`: every partition has its file,
// and the lines of each are ordered so that a new lineage need not find any of them late.
#include <algorithm>
#include <cstdio>
#include <map>
#include <utility>

#include "app/dead_letters.h"
#include "base/check.h"
#include "ingest/decoder.h"
#include "ingest/source.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kExportBufferBytes = 1 << 20;
constexpr DurationMs kReadWaitMs = 100;

// A file that is written in large pieces.
class Lines {
 public:
  static Result<Lines> create(FileSystem& files, const fs::path& path) {
    Lines lines;
    SLUICE_ASSIGN(lines.file_, files.create(path));
    return lines;
  }
  std::uint64_t written() const { return written_; }
  Status add(std::string_view line) {
    buffer_ += line;
    buffer_ += '\n';
    ++written_;
    return buffer_.size() < kExportBufferBytes ? Status() : flush();
  }
  // A last line without its end.
  Status add_unfinished(std::string_view line) {
    buffer_ += line;
    return {};
  }
  Status close() {
    SLUICE_TRY(flush());
    return file_->close();
  }

 private:
  Status flush() {
    SLUICE_TRY(file_->append(buffer_));
    buffer_.clear();
    return {};
  }
  std::unique_ptr<WritableFile> file_;
  std::string buffer_;
  std::uint64_t written_ = 0;
};

// One line: a line feed, which a Kafka message may hold, becomes a carriage return, which is the
// same to JSON, between values as inside a string.
std::string as_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', '\r');
  return text;
}

struct Selected {
  Position position = 0;
  std::uint64_t number = 0;
  TimeMs time = 0;  // of the repaired record; only where records are judged
};

class Exporter {
 public:
  Exporter(const DeadLetterFolder& folder, const DeadLetterExport& options, FileSystem& files,
           Clock& clock)
      : folder_(folder), options_(options), files_(files), clock_(clock) {}

  Result<DeadLetterExportSummary> run();

 private:
  struct Repaired {
    DeadLetter letter;
    RepairedRecord record;
    TimeMs time = 0;
  };

  Status open();
  Status select();
  Result<std::optional<Repaired>> repair(DeadLetter letter, bool tells);
  Result<Repaired> repaired(std::uint64_t number);
  Status write(Lines& lines, const Repaired& repaired, bool is_moved);
  Status write_alone(StreamPartition where, Lines& lines);
  Status write_merged(StreamPartition where, Lines& lines);
  Status read_log(StreamPartition where, const std::function<Status(const Record&)>& visit,
                  std::optional<Record>& unfinished);
  // Letters as (time, number), by the position of the record that they come before.
  using Places = std::map<Position, std::vector<std::pair<TimeMs, std::uint64_t>>>;
  Result<Places> places(StreamPartition where);
  std::string topic(Stream stream) const {
    const auto index = static_cast<std::size_t>(stream);
    // Where there is one: the config may know nothing of the folder's actions.
    const bool is_named =
        options_.config != nullptr && !options_.config->streams.topic[index].empty();
    return is_named ? options_.config->streams.topic[index] : kStreamNames[index];
  }

  const DeadLetterFolder& folder_;
  const DeadLetterExport& options_;
  FileSystem& files_;
  Clock& clock_;
  std::unique_ptr<Source> source_;  // of a merge
  std::optional<Decoder> decoder_;  // where there is a config
  std::map<StreamPartition, std::vector<Selected>> selected_;
  std::optional<Lines> origins_;
  std::optional<Lines> unrepairable_;
  DeadLetterExportSummary summary_;
};

Result<DeadLetterExportSummary> Exporter::run() {
  SLUICE_TRY(open());
  SLUICE_TRY(select());
  for (std::size_t stream = 0; stream < folder_.progress().streams(); ++stream) {
    const fs::path parent = options_.out / topic(static_cast<Stream>(stream));
    SLUICE_TRY(files_.create_directories(parent));
    for (std::uint32_t partition = 0; partition < folder_.partitions(); ++partition) {
      std::array<char, 32> name{};
      std::snprintf(name.data(), name.size(), "%05u.jsonl", partition);
      SLUICE_ASSIGN(Lines lines, Lines::create(files_, parent / name.data()));
      const StreamPartition where{static_cast<Stream>(stream), partition};
      SLUICE_TRY(options_.merges ? write_merged(where, lines) : write_alone(where, lines));
      SLUICE_TRY(lines.close());
    }
  }
  SLUICE_TRY(origins_->close());
  SLUICE_TRY(unrepairable_->close());
  return summary_;
}

Status Exporter::open() {
  if (files_.exists(options_.out)) {
    SLUICE_ASSIGN(const auto names, files_.list(options_.out));
    if (!names.empty()) return usage_error("--out " + options_.out.string() + " is not empty");
  }
  if (options_.config != nullptr) {
    decoder_.emplace(options_.config->streams, options_.config->join, std::vector<FeatureConfig>());
  }
  if (options_.merges) {
    SLUICE_CHECK(options_.config != nullptr);
    const bool is_files = options_.config->source.type == SourceConfig::Type::files;
    SLUICE_ASSIGN(source_, is_files ? open_file_source(*options_.config)
                                    : open_source(*options_.config, clock_));
    SLUICE_ASSIGN(const std::uint32_t partitions, source_->partitions());
    if (partitions != folder_.partitions()) {
      return usage_error("the logs have " + std::to_string(partitions) +
                         " partitions but the data folder's had " +
                         std::to_string(folder_.partitions()) + ": these are other logs");
    }
  }
  SLUICE_TRY(files_.create_directories(options_.out));
  SLUICE_ASSIGN(origins_, Lines::create(files_, options_.out / "origins.jsonl"));
  SLUICE_ASSIGN(unrepairable_, Lines::create(files_, options_.out / "unrepairable.jsonl"));
  return {};
}

// Finds out which letters can be written, and where each belongs.
Status Exporter::select() {
  Status status;
  SLUICE_TRY(folder_.read(options_.filter, [&](DeadLetter letter) {
    const StreamPartition where = letter.record.where;
    Selected selected{letter.record.position, letter.number, 0};
    auto result = repair(std::move(letter), true);
    if (!result) {
      status = result.error();
      return false;
    }
    if (*result) {
      selected.time = (*result)->time;
      selected_[where].push_back(selected);
    }
    return true;
  }));
  for (auto& [where, all] : selected_) {
    std::sort(all.begin(), all.end(), [](const Selected& a, const Selected& b) {
      return a.time != b.time ? a.time < b.time : a.position < b.position;
    });
  }
  return status;
}

// None where it cannot be repaired; `tells` says so in unrepairable.jsonl.
Result<std::optional<Exporter::Repaired>> Exporter::repair(DeadLetter letter, bool tells) {
  auto record = repair_record(options_.repair, letter.record.bytes);
  std::string problem = record ? "" : record.error().message;
  TimeMs time = 0;
  if (record && decoder_) {
    Record judged;
    judged.position = letter.record.position;
    judged.bytes = record->text;
    const auto decoded = decoder_->decode(letter.record.where.stream, judged);
    if (decoded) {
      time = decoded->event.time();
    } else {
      problem = std::string("would be ") + to_string(decoded.error().reason) +
                " again: " + decoded.error().detail;
    }
  }
  if (problem.empty()) {
    return std::optional(Repaired{std::move(letter), *std::move(record), time});
  }
  if (tells) {
    ++summary_.unrepairable;
    Json json = dead_letter_json(letter, true);
    json["problem"] = problem;
    SLUICE_TRY(unrepairable_->add(json.dump(-1, ' ', false, Json::error_handler_t::replace)));
  }
  return std::optional<Repaired>();
}

Result<Exporter::Repaired> Exporter::repaired(std::uint64_t number) {
  SLUICE_ASSIGN(auto letter, folder_.find(number));
  if (!letter) return stop_error("dead letter " + std::to_string(number) + " is gone");
  SLUICE_ASSIGN(auto result, repair(*std::move(letter), false));
  if (!result) return stop_error("dead letter " + std::to_string(number) + " was changed");
  return *std::move(result);
}

Status Exporter::write(Lines& lines, const Repaired& repaired, bool is_moved) {
  SLUICE_TRY(lines.add(as_line(repaired.record.text)));
  ++summary_.written;
  if (!repaired.record.edits.empty()) ++summary_.repaired;
  if (is_moved) ++summary_.moved;
  Json origin = dead_letter_json(repaired.letter, false);
  origin["line"] = lines.written();
  origin["edits"] = repaired.record.edits;
  if (options_.merges) origin["moved"] = is_moved;
  return origins_->add(origin.dump(-1, ' ', false, Json::error_handler_t::replace));
}

// Without a config times are unknown and all letters stand in the order of their log; with one, in
// the order of their times.
Status Exporter::write_alone(StreamPartition where, Lines& lines) {
  for (const Selected& selected : selected_[where]) {
    SLUICE_ASSIGN(const Repaired all, repaired(selected.number));
    SLUICE_TRY(write(lines, all, false));
  }
  return {};
}

// Gives each record up to the log's end as it was at the beginning.
Status Exporter::read_log(StreamPartition where, const std::function<Status(const Record&)>& visit,
                          std::optional<Record>& unfinished) {
  SLUICE_ASSIGN(const Position begin, source_->first_position(where));
  SLUICE_ASSIGN(const Position end, source_->end_position(where));
  SLUICE_TRY(source_->seek(where, begin));
  for (bool is_at_end = begin >= end; !is_at_end;) {
    SLUICE_ASSIGN(const ReadResult result, source_->read(where, 1'000, kReadWaitMs));
    for (const Record& record : result.records) {
      if (record.position >= end) return {};
      SLUICE_TRY(visit(record));
    }
    is_at_end = result.at_end.has_value();
  }
  SLUICE_ASSIGN(unfinished, source_->unfinished(where));
  return {};
}

// The letters to be written before the record at a position; a letter's own position stands for its
// place. One that would be late there goes before the first record that is later than it; of
// several at one place none may make another one late, so they stand in the order of their times.
Result<Exporter::Places> Exporter::places(StreamPartition where) {
  std::map<Position, const Selected*> by_position;
  for (const Selected& selected : selected_[where]) by_position[selected.position] = &selected;
  const DurationMs bound =
      options_.config->streams.max_out_of_orderness[static_cast<std::size_t>(where.stream)];
  Places places;
  // Where event time went on: (highest time so far, position), a step apart that lateness allows.
  std::vector<std::pair<TimeMs, Position>> advances;
  TimeMs highest = kTimeMin;
  std::optional<Record> unfinished;
  SLUICE_TRY(read_log(
      where,
      [&](const Record& record) -> Status {
        const auto letter = by_position.find(record.position);
        TimeMs time = kTimeMin;
        if (letter != by_position.end()) {
          time = letter->second->time;
          Position place = record.position;
          if (highest != kTimeMin && time < highest - bound) {
            place =
                std::upper_bound(advances.begin(), advances.end(), std::pair(time, ~Position{0}))
                    ->second;
          }
          places[place].emplace_back(time, letter->second->number);
        } else if (const auto decoded = decoder_->decode(where.stream, record)) {
          time = decoded->event.time();
        }
        if (time > highest) {
          highest = time;
          if (advances.empty() || time > advances.back().first + bound / 2) {
            advances.emplace_back(time, record.position);
          }
        }
        return {};
      },
      unfinished));
  for (auto& [place, letters] : places) std::sort(letters.begin(), letters.end());
  return places;
}

Status Exporter::write_merged(StreamPartition where, Lines& lines) {
  Places to_write;
  std::map<Position, std::uint64_t> in_place;
  if (!selected_[where].empty()) {
    SLUICE_ASSIGN(to_write, places(where));
  }
  for (const Selected& selected : selected_[where]) in_place[selected.position] = selected.number;
  std::optional<Record> unfinished;
  std::uint64_t found = 0;
  const auto visit = [&](const Record& record) -> Status {
    const auto replaced = in_place.find(record.position);
    if (const auto here = to_write.find(record.position); here != to_write.end()) {
      for (const auto& [time, number] : here->second) {
        SLUICE_ASSIGN(const Repaired letter, repaired(number));
        SLUICE_TRY(write(lines, letter, letter.letter.record.position != record.position));
      }
    }
    if (replaced == in_place.end()) {
      ++summary_.copied;
      return lines.add(as_line(record.bytes));
    }
    ++found;
    return {};
  };
  SLUICE_TRY(read_log(where, visit, unfinished));
  if (unfinished) {
    if (const auto letter = in_place.find(unfinished->position); letter != in_place.end()) {
      SLUICE_ASSIGN(const Repaired whole, repaired(letter->second));
      SLUICE_TRY(write(lines, whole, false));
      ++found;
    } else {
      SLUICE_TRY(lines.add_unfinished(as_line(unfinished->bytes)));
    }
  }
  if (found == in_place.size()) return {};
  return stop_error(to_string(where) + ": " + std::to_string(in_place.size() - found) +
                    " dead letters have no place in the logs: these are other logs, or retention "
                    "has removed the records; export without --merge");
}

}  // namespace

Result<DeadLetterExportSummary> export_dead_letters(const DeadLetterFolder& folder,
                                                    const DeadLetterExport& options,
                                                    FileSystem& files, Clock& clock) {
  return Exporter(folder, options, files, clock).run();
}

}  // namespace sluice
