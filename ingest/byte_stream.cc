#include "ingest/byte_stream.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr const char* kShorter =
    " is shorter than what was read of it before: the log was changed; take the right logs, or "
    "replay "
    "into a new data folder";

class PlainStream final : public ByteStream {
 public:
  PlainStream(int descriptor, fs::path path) : descriptor_(descriptor), path_(std::move(path)) {}
  ~PlainStream() override { ::close(descriptor_); }
  PlainStream(const PlainStream&) = delete;
  PlainStream& operator=(const PlainStream&) = delete;

  Result<std::size_t> read(std::span<char> buffer) override {
    std::size_t filled = 0;
    while (filled < buffer.size()) {
      const ssize_t count = ::read(descriptor_, buffer.data() + filled, buffer.size() - filled);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) {
        return stop_error("cannot read " + path_.string() + ": " + std::strerror(errno));
      }
      if (count == 0) break;
      filled += static_cast<std::size_t>(count);
    }
    consumed_ += filled;
    return filled;
  }
  Status skip(std::uint64_t count) override {
    struct stat info {};
    const off_t here = ::lseek(descriptor_, 0, SEEK_CUR);
    if (here < 0 || ::fstat(descriptor_, &info) != 0 ||
        static_cast<std::uint64_t>(info.st_size - here) < count ||
        ::lseek(descriptor_, static_cast<off_t>(count), SEEK_CUR) < 0) {
      return stop_error(path_.string() + kShorter);
    }
    consumed_ += count;
    return {};
  }
  std::uint64_t consumed() const override { return consumed_; }

 private:
  int descriptor_;
  fs::path path_;
  std::uint64_t consumed_ = 0;
};

// What the two compressed formats share: input from a plain stream, and skipping by reading.
class CompressedStream : public ByteStream {
 public:
  CompressedStream(std::unique_ptr<ByteStream> input, fs::path path)
      : input_(std::move(input)), path_(std::move(path)), in_(1 << 17) {}

  Status skip(std::uint64_t count) override {
    std::vector<char> buffer(1 << 16);
    while (count > 0) {
      const std::size_t wanted = std::min<std::uint64_t>(count, buffer.size());
      SLUICE_ASSIGN(const std::size_t got, read({buffer.data(), wanted}));
      if (got == 0) {
        return stop_error(path_.string() + kShorter);
      }
      count -= got;
    }
    return {};
  }
  std::uint64_t consumed() const override { return input_->consumed(); }

 protected:
  // Reads more input when there is none left; false at the file's end.
  Result<bool> fill() {
    if (in_begin_ < in_end_) return true;
    SLUICE_ASSIGN(in_end_, input_->read(in_));
    in_begin_ = 0;
    return in_end_ > 0;
  }
  Error damaged(const std::string& why) const {
    return stop_error("cannot read " + path_.string() + ": " + why);
  }

  std::unique_ptr<ByteStream> input_;
  fs::path path_;
  std::vector<char> in_;
  std::size_t in_begin_ = 0;
  std::size_t in_end_ = 0;
};

class ZstdStream final : public CompressedStream {
 public:
  using CompressedStream::CompressedStream;
  ~ZstdStream() override { ZSTD_freeDStream(stream_); }

  Result<std::size_t> read(std::span<char> buffer) override {
    ZSTD_outBuffer out{buffer.data(), buffer.size(), 0};
    while (out.pos < out.size) {
      SLUICE_ASSIGN(const bool has_input, fill());
      if (!has_input && is_between_frames_) break;
      ZSTD_inBuffer in{in_.data(), in_end_, in_begin_};
      const std::size_t out_before = out.pos;
      const std::size_t hint = ZSTD_decompressStream(stream_, &out, &in);
      if (ZSTD_isError(hint) != 0) {
        return damaged(std::string("no valid zstd: ") + ZSTD_getErrorName(hint));
      }
      in_begin_ = in.pos;
      is_between_frames_ = hint == 0;
      if (!has_input && hint != 0 && out.pos == out_before) {
        return damaged("cut short: its last zstd frame has no end");
      }
    }
    return out.pos;
  }

 private:
  ZSTD_DStream* stream_ = ZSTD_createDStream();
  bool is_between_frames_ = true;  // an empty file is an empty log
};

class GzipStream final : public CompressedStream {
 public:
  GzipStream(std::unique_ptr<ByteStream> input, fs::path path)
      : CompressedStream(std::move(input), std::move(path)) {
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    is_ready_ = inflateInit2(&stream_, kGzipOnly) == Z_OK;
  }
  ~GzipStream() override { inflateEnd(&stream_); }

  Result<std::size_t> read(std::span<char> buffer) override {
    if (!is_ready_) return damaged("zlib has no memory");
    stream_.next_out = reinterpret_cast<Bytef*>(buffer.data());
    stream_.avail_out = static_cast<uInt>(buffer.size());
    while (stream_.avail_out > 0) {
      SLUICE_ASSIGN(const bool has_input, fill());
      if (!has_input) {
        if (is_between_members_) break;
        return damaged("cut short: its last gzip member has no end");
      }
      stream_.next_in = reinterpret_cast<Bytef*>(in_.data() + in_begin_);
      stream_.avail_in = static_cast<uInt>(in_end_ - in_begin_);
      const int code = inflate(&stream_, Z_NO_FLUSH);
      in_begin_ = in_end_ - stream_.avail_in;
      if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR) {
        return damaged("no valid gzip");
      }
      is_between_members_ = code == Z_STREAM_END;
      if (is_between_members_) inflateReset(&stream_);
    }
    return buffer.size() - stream_.avail_out;
  }

 private:
  z_stream stream_{};
  bool is_ready_ = false;
  bool is_between_members_ = true;
};

}  // namespace

Result<std::unique_ptr<ByteStream>> open_byte_stream(const fs::path& path,
                                                     Compression compression) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    return stop_error("cannot read " + path.string() + ": " + std::strerror(errno));
  }
  std::unique_ptr<ByteStream> plain = std::make_unique<PlainStream>(descriptor, path);
  switch (compression) {
    case Compression::none:
      return plain;
    case Compression::zstd:
      return std::unique_ptr<ByteStream>(std::make_unique<ZstdStream>(std::move(plain), path));
    case Compression::gzip:
      return std::unique_ptr<ByteStream>(std::make_unique<GzipStream>(std::move(plain), path));
  }
  return plain;
}

}  // namespace sluice
