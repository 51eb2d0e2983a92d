#include "app/shop_files.h"

#include <zstd.h>

#include <algorithm>
#include <utility>

#include "app/shop_text.h"
#include "base/check.h"

namespace sluice {
namespace {

constexpr std::size_t kBufferBytes = 256 << 10;
constexpr int kCompressionLevel = 3;
// 512 KiB: with many partitions, many files are compressed at once.
constexpr int kWindowLog = 19;

}  // namespace

std::string file_number(std::uint64_t number) {
  std::string digits;
  append_number(digits, number);
  return digits.size() < 5 ? std::string(5 - digits.size(), '0') + digits : digits;
}

Status write_text(FileSystem& files, const fs::path& path, std::string_view text) {
  SLUICE_ASSIGN(const auto file, files.create(path));
  SLUICE_TRY(file->append(text));
  return file->close();
}

void TextFile::FreeContext::operator()(void* context) const {
  ZSTD_freeCCtx(static_cast<ZSTD_CCtx*>(context));
}

Result<TextFile> TextFile::create(FileSystem& files, const fs::path& path,
                                  ShopOptions::Compression compression) {
  TextFile text;
  SLUICE_ASSIGN(text.file_, files.create(path));
  if (compression == ShopOptions::Compression::zstd) {
    ZSTD_CCtx* context = ZSTD_createCCtx();
    SLUICE_CHECK(context != nullptr);
    text.compressor_.reset(context);
    SLUICE_CHECK(
        !ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, kCompressionLevel)));
    SLUICE_CHECK(!ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, kWindowLog)));
    text.compressed_.resize(ZSTD_CStreamOutSize());
  }
  return text;
}

Status TextFile::append(std::string_view text) {
  buffer_ += text;
  return buffer_.size() < kBufferBytes ? Status() : write(false);
}

Status TextFile::close() {
  SLUICE_TRY(write(true));
  compressor_.reset();
  return file_->close();
}

Status TextFile::write(bool is_end) {
  if (!compressor_) {
    SLUICE_TRY(file_->append(buffer_));
    buffer_.clear();
    return {};
  }
  ZSTD_inBuffer in{buffer_.data(), buffer_.size(), 0};
  std::size_t unfinished = 0;
  do {
    ZSTD_outBuffer out{compressed_.data(), compressed_.size(), 0};
    unfinished = ZSTD_compressStream2(static_cast<ZSTD_CCtx*>(compressor_.get()), &out, &in,
                                      is_end ? ZSTD_e_end : ZSTD_e_continue);
    SLUICE_CHECK(!ZSTD_isError(unfinished));
    SLUICE_TRY(file_->append(std::string_view(compressed_).substr(0, out.pos)));
  } while (is_end ? unfinished != 0 : in.pos < in.size);
  buffer_.clear();
  return {};
}

Result<ShopLogs> ShopLogs::create(FileSystem& files, const fs::path& root,
                                  const ShopOptions& options, OnWritten on_written) {
  ShopLogs logs(files, root, options, std::move(on_written));
  for (std::size_t s = 0; s < options.streams(); ++s) {
    for (std::uint32_t p = 0; p < options.partitions; ++p) {
      Log log;
      log.stream = static_cast<Stream>(s);
      log.partition = p;
      const fs::path path = logs.path(log);
      SLUICE_TRY(files.create_directories(path.parent_path()));
      SLUICE_ASSIGN(log.file, TextFile::create(files, path, options.compression));
      logs.logs_.push_back(std::move(log));
    }
  }
  return logs;
}

fs::path ShopLogs::path(const Log& log) const {
  std::string name = file_number(log.partition);
  if (options_->segments > 0) name += "/" + file_number(log.segment);
  name += ".jsonl";
  if (options_->compression == ShopOptions::Compression::zstd) name += ".zst";
  return root_ / kStreamNames[static_cast<std::size_t>(log.stream)] / name;
}

// Segments are equal shares of the span; the last one has all that arrives after it.
TimeMs ShopLogs::segment_end(std::uint32_t segment) const {
  if (segment + 1 >= options_->segments) return kTimeMax;
  return options_->start + options_->span / options_->segments * (segment + 1);
}

bool ShopLogs::arrives_later(std::uint32_t a, std::uint32_t b) const {
  const Slot& left = slots_[a];
  const Slot& right = slots_[b];
  return std::pair(left.record.arrival, left.order) > std::pair(right.record.arrival, right.order);
}

void ShopLogs::add(ShopRecord record) {
  Log& log =
      logs_[static_cast<std::size_t>(record.stream) * options_->partitions + record.partition];
  std::uint32_t slot = 0;
  if (free_slots_.empty()) {
    slot = static_cast<std::uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  slots_[slot] = {std::move(record), added_++};
  log.waiting.push_back(slot);
  std::push_heap(log.waiting.begin(), log.waiting.end(),
                 [this](auto a, auto b) { return arrives_later(a, b); });
}

Status ShopLogs::write_first(Log& log) {
  std::pop_heap(log.waiting.begin(), log.waiting.end(),
                [this](auto a, auto b) { return arrives_later(a, b); });
  const std::uint32_t slot = log.waiting.back();
  log.waiting.pop_back();
  free_slots_.push_back(slot);
  const ShopRecord& record = slots_[slot].record;
  while (record.arrival >= segment_end(log.segment)) SLUICE_TRY(next_segment(log));
  auto verdict = ShopVerdict::accepted;
  if (record.is_malformed) {
    verdict = ShopVerdict::malformed;
  } else if (record.time < log.highest_time - options_->max_out_of_orderness) {
    verdict = ShopVerdict::late;
  } else {
    log.highest_time = std::max(log.highest_time, record.time);
  }
  on_written_(record, verdict);
  return log.file.append(record.line);
}

Status ShopLogs::next_segment(Log& log) {
  SLUICE_TRY(log.file.close());
  ++log.segment;
  SLUICE_ASSIGN(log.file, TextFile::create(*files_, path(log), options_->compression));
  return {};
}

Status ShopLogs::write_until(TimeMs time) {
  for (Log& log : logs_) {
    while (!log.waiting.empty() && slots_[log.waiting.front()].record.arrival < time) {
      SLUICE_TRY(write_first(log));
    }
  }
  return {};
}

Status ShopLogs::finish() {
  SLUICE_TRY(write_until(kTimeMax));
  for (Log& log : logs_) {
    while (log.segment + 1 < options_->segments) SLUICE_TRY(next_segment(log));
    SLUICE_TRY(log.file.close());
  }
  return {};
}

}  // namespace sluice
