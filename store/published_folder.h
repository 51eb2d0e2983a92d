// Folders of files that appear whole or not at all: snapshots and checkpoints. One holds any files
// and a manifest.json that lists them with size and XXH3-128; docs/formats.md has the form.
//
// A folder is written aside under a temporary name (it begins with a dot and ends with ".tmp"),
// synced and renamed. What a crash leaves under such names was never published.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/result.h"

namespace sluice {

struct FolderFile {
  std::string name;  // a plain file name
  std::string bytes;
};

// Makes `<parent>/<name>/` durable as one. `manifest`, an object, gets its last two entries here:
// "files" (the `listed` ones) and "checksum" (of the manifest's text before it); `unlisted` files
// (provenance.json) are written beside them.
// Where `<name>` is there already it must be equal in manifest and listed files: then nothing is
// written; else a stop error ("made again, it came out different") that names what differs. One
// that fails its own checksums is no witness: it is replaced.
Status publish_folder(FileSystem& files, const std::filesystem::path& parent,
                      const std::string& name, nlohmann::ordered_json manifest,
                      const std::vector<FolderFile>& listed,
                      const std::vector<FolderFile>& unlisted);

// The manifest's text with its last two entries, and its checksum, by which other folders may name
// this one.
struct SealedManifest {
  std::string text;
  std::string checksum;
};
SealedManifest seal_manifest(nlohmann::ordered_json manifest,
                             const std::vector<FolderFile>& listed);
// The same as above with a manifest that was sealed before.
Status publish_sealed_folder(FileSystem& files, const std::filesystem::path& parent,
                             const std::string& name, const SealedManifest& manifest,
                             const std::vector<FolderFile>& listed,
                             const std::vector<FolderFile>& unlisted);

// A published folder, the manifest and every listed file read and checked against its checksum. The
// error names everything that is damaged or missing.
struct PublishedFolder {
  nlohmann::ordered_json manifest;
  std::map<std::string, std::string> files;  // name -> bytes; listed ones only
};
Result<PublishedFolder> read_folder(FileSystem& files, const std::filesystem::path& folder);

// Only the manifest, checked against its own checksum.
Result<nlohmann::ordered_json> read_manifest(FileSystem& files,
                                             const std::filesystem::path& folder);

// Makes the folder and those above it where they are missing; they survive a crash of the machine
// once this has returned.
Status make_durable_folders(FileSystem& files, const std::filesystem::path& folder);

// The name of a snapshot's or checkpoint's folder: the sequence number, filled up with zeros to 12
// digits, so that names sort as numbers.
std::string numbered_folder_name(std::uint64_t sequence);
// The number of such a name; none for any other.
std::optional<std::uint64_t> folder_number(const std::string& name);

// The numbers of the folders under `parent` that are named so, ascending. An absent parent has
// none.
Result<std::vector<std::uint64_t>> list_numbered_folders(FileSystem& files,
                                                         const std::filesystem::path& parent);

// Removes what a crash left unpublished. An absent parent has nothing.
Status remove_temporary_folders(FileSystem& files, const std::filesystem::path& parent);

// Removes all numbered folders but the `keep` newest, those in `also_keep` and those that LATEST or
// an alias names. A crash on the way leaves each whole or under a temporary name.
Status keep_newest(FileSystem& files, const std::filesystem::path& parent, std::size_t keep,
                   const std::set<std::uint64_t>& also_keep = {});

// LATEST: a file beside the numbered folders that names one of them, replaced atomically.
inline constexpr const char* kLatest = "LATEST";
// What names folders and removes them, by several processes, is done under this lock.
Result<std::unique_ptr<FileLock>> lock_names(FileSystem& files,
                                             const std::filesystem::path& parent);

// Does nothing where LATEST names `sequence` or a later one, or did before choose_latest(): it
// never moves back by itself, nor on to what was left behind.
Status set_latest(FileSystem& files, const std::filesystem::path& parent, std::uint64_t sequence);
// None where there is no LATEST yet.
Result<std::optional<std::uint64_t>> read_latest(FileSystem& files,
                                                 const std::filesystem::path& parent);

// Makes this one LATEST, for an operator; it is not held back any more. By itself LATEST then moves
// on with the first one that is newer than all that were it: what a restart publishes again does
// not undo the choice. A file ROLLED_BACK_FROM beside LATEST, of its form, names the newest of
// these.
Status choose_latest(FileSystem& files, const std::filesystem::path& parent,
                     std::uint64_t sequence);
// The newest that was ever LATEST; none where there is none yet.
Result<std::optional<std::uint64_t>> newest_published(FileSystem& files,
                                                      const std::filesystem::path& parent);

// HELD: those that were kept from becoming LATEST, a line each as LATEST's, ascending; what is not
// there any more falls out of it with the next one.
Status add_held(FileSystem& files, const std::filesystem::path& parent, std::uint64_t sequence);
Result<std::set<std::uint64_t>> read_held(FileSystem& files, const std::filesystem::path& parent);

// Aliases: names that an operator gives to snapshots, in aliases/<name> beside them, each a file as
// LATEST. A name is of letters, digits, '-' and '_', at most 64 of
// them and not all digits (else a usage error).
inline constexpr const char* kAliases = "aliases";
Status set_alias(FileSystem& files, const std::filesystem::path& parent, const std::string& alias,
                 std::uint64_t sequence);
// None where there is no such alias.
Result<std::optional<std::uint64_t>> read_alias(FileSystem& files,
                                                const std::filesystem::path& parent,
                                                const std::string& alias);
// All of them; what is in the folder and no alias is passed over.
Result<std::map<std::string, std::uint64_t>> read_aliases(FileSystem& files,
                                                          const std::filesystem::path& parent);
// What LATEST and the aliases name.
Result<std::set<std::uint64_t>> named_snapshots(FileSystem& files,
                                                const std::filesystem::path& parent);
// A usage error where there is none of this name.
Status remove_alias(FileSystem& files, const std::filesystem::path& parent,
                    const std::string& alias);

}  // namespace sluice
