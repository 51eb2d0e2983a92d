#include "app/predictions_file.h"

#include <array>
#include <bit>
#include <charconv>
#include <cstdio>
#include <span>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/micros.h"
#include "learner/metrics.h"

namespace sluice {
namespace {

constexpr std::string_view kPredictionsHeader =
    "sequence,impression_id,y,y_final,z,z_final,pctr,pcvr,pctcvr";
constexpr std::size_t kFileBufferBytes = 1 << 20;

void append_number(double value, std::string& out) {
  std::array<char, 32> text;
  const auto written = std::to_chars(text.data(), text.data() + text.size(), value);
  out.append(text.data(), written.ptr);
}

// A new file's name is durable with its folder only: a checkpoint relies on the file.
Status sync_folder_of(FileSystem& files, const fs::path& path) {
  return files.sync_directory(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

// RFC 4180: quoted where it holds a comma, a quote or a line end.
void append_field(std::string_view value, std::string& out) {
  if (value.find_first_of(",\"\r\n") == std::string_view::npos) {
    out += value;
    return;
  }
  out += '"';
  for (const char c : value) {
    if (c == '"') out += '"';
    out += c;
  }
  out += '"';
}

// The byte after line `sequence` (the header is line 0). Line ends inside quotes do not count.
Result<std::uint64_t> end_of_line(FileSystem& files, const fs::path& path, std::uint64_t sequence) {
  std::uint64_t lines = 0;
  bool is_quoted = false;
  for (std::uint64_t offset = 0; files.exists(path);) {
    SLUICE_ASSIGN(const std::string bytes, files.read_range(path, offset, kFileBufferBytes));
    if (bytes.empty()) break;
    for (std::size_t index = 0; index < bytes.size(); ++index) {
      if (bytes[index] == '"') is_quoted = !is_quoted;
      if (bytes[index] != '\n' || is_quoted) continue;
      if (++lines == sequence + 1) return offset + index + 1;
    }
    offset += bytes.size();
  }
  return usage_error("--predictions: " + path.string() + " lacks lines of samples up to " +
                     std::to_string(sequence) +
                     " that were learned before; predictions are made once: give the file of the "
                     "first start, or replay into a new data folder");
}

}  // namespace

Result<std::unique_ptr<PredictionsFile>> PredictionsFile::open(FileSystem& files,
                                                               const std::filesystem::path& path,
                                                               std::uint64_t trained_sequence,
                                                               const PredictionColumns& columns) {
  if (trained_sequence == 0) {
    SLUICE_ASSIGN(auto file, files.create(path));
    SLUICE_TRY(file->append(std::string(kPredictionsHeader) + (columns.value ? ",value" : "") +
                            (columns.action ? ",action,action_final" : "") + "\n"));
    SLUICE_TRY(sync_folder_of(files, path));
    return std::unique_ptr<PredictionsFile>(new PredictionsFile(std::move(file), columns));
  }
  SLUICE_ASSIGN(const std::uint64_t end, end_of_line(files, path, trained_sequence));
  SLUICE_TRY(files.truncate(path, end));
  SLUICE_ASSIGN(auto file, files.append_to(path));
  return std::unique_ptr<PredictionsFile>(new PredictionsFile(std::move(file), columns));
}

Status PredictionsFile::add(const TrainedBatch& batch) {
  for (std::size_t index = 0; index < batch.samples.size(); ++index) {
    const Sample& sample = batch.samples[index];
    const Prediction& prediction = batch.predictions[index];
    buffer_ += std::to_string(sample.sequence);
    buffer_ += ',';
    append_field(sample.impression_id, buffer_);
    for (const bool flag : {sample.y, sample.y_final, sample.z, sample.z_final}) {
      buffer_ += flag ? ",1" : ",0";
    }
    for (const double rate : {prediction.ctr.yes, prediction.cvr.yes, prediction.ctcvr.yes}) {
      buffer_ += ',';
      append_number(rate, buffer_);
    }
    if (columns_.value) buffer_ += "," + format_micros(sample.value);
    if (columns_.action) {
      buffer_ += sample.action ? ",1" : ",0";
      buffer_ += sample.action_final ? ",1" : ",0";
    }
    buffer_ += '\n';
  }
  return buffer_.size() >= kFileBufferBytes ? flush() : Status();
}

Status PredictionsFile::flush() {
  SLUICE_TRY(file_->append(buffer_));
  buffer_.clear();
  return {};
}

Status PredictionsFile::sync() {
  SLUICE_TRY(flush());
  return file_->sync();
}

std::uint64_t score_flags(const SampleLabels& sample) {
  return (sample.y ? 1U : 0U) | (sample.y_final ? 2U : 0U) | (sample.z ? 4U : 0U) |
         (sample.z_final ? 8U : 0U);
}

ScoreRecord read_score(ByteReader& bytes, const Objective& objective) {
  std::array<float, kMostTowers> logits = {};
  for (std::size_t t = 0; t < objective.towers(); ++t) {
    logits[t] = std::bit_cast<float>(bytes.u32());
  }
  const Prediction prediction = objective.predict(std::span(logits).first(objective.towers()));
  return {prediction, bytes.u64()};
}

Result<std::unique_ptr<ScoreLog>> ScoreLog::open(FileSystem& files,
                                                 const std::filesystem::path& path,
                                                 std::uint64_t trained_sequence,
                                                 std::size_t towers) {
  const std::uint64_t wanted = trained_sequence * score_bytes(towers);
  const bool is_new = !files.exists(path);
  std::uint64_t size = 0;
  if (!is_new) {
    SLUICE_ASSIGN(size, files.size(path));
  }
  if (size < wanted) return std::unique_ptr<ScoreLog>(new ScoreLog(nullptr));
  if (size > wanted) SLUICE_TRY(files.truncate(path, wanted));
  SLUICE_ASSIGN(auto file, files.append_to(path));
  if (is_new) SLUICE_TRY(sync_folder_of(files, path));
  return std::unique_ptr<ScoreLog>(new ScoreLog(std::move(file)));
}

Status ScoreLog::add(const TrainedBatch& batch) {
  if (file_ == nullptr) return {};
  const std::size_t towers = batch.logits.size() / batch.samples.size();
  std::string records;
  ByteWriter bytes(records);
  for (std::size_t index = 0; index < batch.samples.size(); ++index) {
    for (const float logit : batch.logits.subspan(index * towers, towers)) {
      bytes.u32(std::bit_cast<std::uint32_t>(logit));
    }
    bytes.u64(score_flags(batch.samples[index]));
  }
  return file_->append(records);
}

Status ScoreLog::sync() {
  return file_ == nullptr ? Status() : file_->sync();
}

Result<bool> read_scores(FileSystem& files, const std::filesystem::path& path,
                         std::uint64_t samples, std::uint64_t first, const Objective& objective,
                         const ScoreVisitor& visit) {
  const std::uint64_t record_bytes = score_bytes(objective.towers());
  if (!files.exists(path)) return false;
  SLUICE_ASSIGN(const std::uint64_t size, files.size(path));
  if (size != samples * record_bytes) return false;
  for (std::uint64_t offset = first * record_bytes; offset < size;) {
    SLUICE_ASSIGN(const std::string records, files.read_range(path, offset, kFileBufferBytes));
    if (records.size() < record_bytes) {
      return stop_error(path.string() + " was cut while it was read");
    }
    ByteReader bytes(records);
    while (bytes.remaining() >= record_bytes) {
      const auto [prediction, flags] = read_score(bytes, objective);
      FinalLabels labels;
      labels.y = (flags & 1) != 0;
      labels.y_final = (flags & 2) != 0;
      labels.z = (flags & 4) != 0;
      labels.z_final = (flags & 8) != 0;
      visit(labels, prediction);
    }
    offset += records.size() - bytes.remaining();
  }
  return true;
}

Result<nlohmann::ordered_json> second_half_metrics(FileSystem& files,
                                                   const std::filesystem::path& path,
                                                   std::uint64_t samples,
                                                   const Objective& objective) {
  ProgressiveMetrics metrics;
  SLUICE_ASSIGN(const bool is_whole,
                read_scores(files, path, samples, samples / 2, objective,
                            [&](const FinalLabels& labels, const Prediction& prediction) {
                              metrics.add(labels, prediction);
                            }));
  if (!is_whole) return nlohmann::ordered_json(nullptr);
  return metrics.json();
}

}  // namespace sluice
