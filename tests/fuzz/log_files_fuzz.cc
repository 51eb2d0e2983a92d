// Log files of any bytes, plain, zstd and gzip: read in any portions they give the same bytes or
// an error, and the source gives the same lines at the same positions.
//   input := compression (u8), the file
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include <stdlib.h>

#include "base/check.h"
#include "base/file.h"
#include "config/load.h"
#include "ingest/byte_stream.h"
#include "ingest/source.h"
#include "tests/fuzz/fuzz_input.h"

namespace sluice::fuzz {
namespace {

constexpr std::size_t kMostBytes = 1 << 18;  // a small file can unpack to very many
constexpr std::size_t kMostRecords = 300;

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "log_files_fuzz-XXXXXX").string();
    SLUICE_CHECK(mkdtemp(name.data()) != nullptr);
    root_ = name;
    for (const char* stream : kStreamNames) {
      fs::create_directory(root_ / stream);
      if (stream != kStreamNames[0]) write(root_ / stream / "0.jsonl", "");
    }
  }
  ~Folder() { fs::remove_all(root_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const fs::path& root() const { return root_; }
  static void write(const fs::path& path, std::string_view bytes) {
    RealFileSystem files;
    auto file = files.create(path);
    SLUICE_CHECK(file.has_value() && (*file)->append(bytes).has_value());
  }

 private:
  fs::path root_;
};

struct Unpacked {
  std::string bytes;
  std::string error;
};

Unpacked unpack(const fs::path& path, Compression compression, std::size_t portion) {
  Unpacked result;
  auto stream = open_byte_stream(path, compression);
  SLUICE_CHECK(stream.has_value());
  std::vector<char> buffer(portion);
  while (result.bytes.size() < kMostBytes) {
    const auto count = (*stream)->read(buffer);
    if (!count) {
      result.error = count.error().message;
      SLUICE_CHECK(!result.error.empty());
      break;
    }
    SLUICE_CHECK(*count <= portion);
    if (*count == 0) break;
    result.bytes.append(buffer.data(), *count);
  }
  result.bytes.resize(std::min(result.bytes.size(), kMostBytes));
  return result;
}

// The lines that the source gives are those of the unpacked bytes, each found again by its place.
void check_source(const Folder& folder, const Unpacked& unpacked) {
  Config config;
  config.source.root = folder.root().string();
  config.streams.max_record_bytes = 1'000;
  auto source = open_file_source(config);
  SLUICE_CHECK(source.has_value() && (*source)->partitions().has_value());
  const StreamPartition where{Stream::impressions, 0};
  SLUICE_CHECK((*source)->seek(where, 0).has_value());
  std::size_t read = 0;
  std::size_t offset = 0;
  while (read < kMostRecords && offset < kMostBytes / 2) {
    const auto result = (*source)->read(where, 100, 0);
    if (!result) {
      SLUICE_CHECK(!result.error().message.empty());
      return;
    }
    if (result->records.empty()) return;
    for (const Record& record : result->records) {
      SLUICE_CHECK(record.position == offset && record.next > record.position);
      std::string_view line = std::string_view(unpacked.bytes).substr(offset);
      line = line.substr(0, line.find('\n'));
      SLUICE_CHECK(record.bytes == line.substr(0, config.streams.max_record_bytes + 1));
      offset += line.size() + 1;
      ++read;
      if (offset >= kMostBytes / 2) return;
    }
    if (!unpacked.error.empty()) continue;  // a damaged file may be refused before that place
    const Record& last = result->records.back();
    const auto again = (*source)->record_at(where, last.position);
    SLUICE_CHECK(again.has_value() && again->has_value() && (*again)->bytes == last.bytes);
  }
}

void read_one(Input input) {
  static const Folder folder;
  constexpr std::array<const char*, 3> kNames = {"0.jsonl", "0.jsonl.zst", "0.jsonl.gz"};
  const std::size_t kind = input.byte() % kNames.size();
  const fs::path path = folder.root() / "impressions" / kNames.at(kind);
  Folder::write(path, input.rest());
  const auto compression = static_cast<Compression>(kind);
  const Unpacked whole = unpack(path, compression, 1 << 16);
  Unpacked parts;
  for (const std::size_t portion : {4'096, 7}) {
    parts = unpack(path, compression, portion);
    // What came before an error in the same portion is not given.
    const std::size_t common = std::min(parts.bytes.size(), whole.bytes.size());
    SLUICE_CHECK(parts.bytes.compare(0, common, whole.bytes, 0, common) == 0);
    // libzstd checks a frame's declared size only where it unpacks the frame in one piece.
    if (compression != Compression::zstd && parts.bytes.size() < kMostBytes) {
      SLUICE_CHECK(parts.error.empty() == whole.error.empty());
    }
    if (whole.error.empty() && parts.error.empty()) SLUICE_CHECK(parts.bytes == whole.bytes);
  }
  check_source(folder, parts);
  fs::remove(path);
}

}  // namespace
}  // namespace sluice::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sluice::fuzz::read_one({data, size});
  return 0;
}
