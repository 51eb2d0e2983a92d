// Named arrays in the safetensors format (https://github.com/huggingface/safetensors: 8 bytes header
// length, a JSON header, raw little-endian data), and folders of such files that appear whole or not
// at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/hash.h"
#include "base/result.h"

namespace sluice {

enum class TensorType : std::uint8_t { u8, i64, u64, f32, f64 };  // "U8", "I64", "U64", "F32", "F64"

// A named array that owns its bytes, row-major, little-endian.
struct Tensor {
  TensorType type = TensorType::f32;
  std::vector<std::uint64_t> shape;
  std::string bytes;  // product(shape) * size of type

  std::uint64_t elements() const;
  // The elements; T must be of `type` (checked).
  template <class T>
  static Tensor of(std::vector<std::uint64_t> shape, const std::vector<T>& values);
  template <class T>
  Result<std::vector<T>> values() const;  // an error where the type is another
};

using Tensors = std::map<std::string, Tensor>;

// Deterministic: equal tensors give equal bytes (names sorted, each array aligned to 8 bytes).
std::string encode_tensors(const Tensors& tensors);
// Refuses what is cut, overlapping, of an overflowing or wrong size, or of an unknown type.
Result<Tensors> decode_tensors(std::string_view bytes);

// A folder of files under a parent, published as one: `<parent>/<name>/` with a manifest.json that
// lists every other file with its size and XXH3-128 (key "files") and is written last.
struct FolderFile {
  std::string name;
  std::string bytes;
};

// Writes aside (`<parent>/.<name>.tmp`), syncs every file and the folder, renames, syncs the parent.
// `manifest` gets its "files" entry here; files named in `unlisted` (provenance.json) are left out of
// it. Where `<name>` is there already: its manifest and listed files must be equal, else a stop
// error ("made again, it came out different"); equal is success and nothing is written.
Status publish_folder(FileSystem& files, const std::filesystem::path& parent,
                      const std::string& name, nlohmann::ordered_json manifest,
                      const std::vector<FolderFile>& listed,
                      const std::vector<FolderFile>& unlisted);

// A published folder, every listed file read and checked against its size and checksum.
struct PublishedFolder {
  nlohmann::ordered_json manifest;
  std::map<std::string, std::string> files;  // name -> bytes; listed ones only
};
Result<PublishedFolder> read_folder(FileSystem& files, const std::filesystem::path& folder);

// Published folders under `parent` whose names are decimal numbers, ascending; temporary ones are
// not listed. An absent parent has none.
Result<std::vector<std::uint64_t>> list_numbered_folders(FileSystem& files,
                                                         const std::filesystem::path& parent);
// Removes what a crash left unpublished.
Status remove_temporary_folders(FileSystem& files, const std::filesystem::path& parent);

}  // namespace sluice
