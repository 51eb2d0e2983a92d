#include "store/published_folder.h"

#include <algorithm>
#include <charconv>

#include "base/check.h"
#include "base/hash.h"

namespace sluice {
namespace {

using nlohmann::ordered_json;

constexpr const char* kManifest = "manifest.json";
constexpr const char* kRolledBackFrom = "ROLLED_BACK_FROM";
constexpr const char* kHeld = "HELD";
constexpr std::size_t kNameDigits = 12;
// What is read may have been copied from anywhere: a manifest beyond these is an accident or worse.
constexpr std::uint64_t kMaxManifestBytes = 64 << 20;
constexpr int kMaxManifestDepth = 32;

bool is_plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

// `kind` tells temporary folders of one number apart; it is empty for one that is being written.
std::string temporary_name(const std::string& name, const std::string& kind = {}) {
  return "." + name + kind + ".tmp";
}

bool is_temporary(std::string_view name) {
  return (name.starts_with('.') && name.ends_with(".tmp")) ||
         name == std::string(kLatest) + ".tmp" ||  // as write_atomically names it
         name == std::string(kRolledBackFrom) + ".tmp" || name == std::string(kHeld) + ".tmp";
}

// The text's end from the checksum on, given all that comes before it.
std::string manifest_tail(std::string_view head) {
  return "\"checksum\": \"" + hash128(head).hex() + "\"\n}\n";
}

// What lies in a folder, and in words what is wrong with it. An Error is for what could not be
// read.
struct Loaded {
  std::string text;  // of the manifest
  PublishedFolder folder;
  std::vector<std::string> damage;
};

// Discarded where it is no JSON, or lists in lists that whoever compares or prints it would exhaust
// the stack by.
ordered_json parse_manifest(const std::string& text) {
  bool is_too_deep = false;
  const auto note_depth = [&](int depth, ordered_json::parse_event_t, ordered_json&) {
    is_too_deep |= depth > kMaxManifestDepth;
    return !is_too_deep;
  };
  ordered_json manifest = ordered_json::parse(text, note_depth, /*allow_exceptions=*/false);
  if (is_too_deep) return ordered_json(ordered_json::value_t::discarded);
  return manifest;
}

Result<Loaded> load_manifest(FileSystem& files, const fs::path& folder) {
  Loaded loaded;
  if (!files.exists(folder / kManifest)) {
    loaded.damage.emplace_back("manifest.json is missing");
    return loaded;
  }
  SLUICE_ASSIGN(const std::uint64_t size, files.size(folder / kManifest));
  if (size > kMaxManifestBytes) {
    loaded.damage.push_back("manifest.json has " + std::to_string(size) +
                            " bytes, which is more than any");
    return loaded;
  }
  SLUICE_ASSIGN(loaded.text, files.read(folder / kManifest));
  const std::size_t tail = loaded.text.rfind("\"checksum\"");
  if (tail == std::string::npos ||
      std::string_view(loaded.text).substr(tail) !=
          manifest_tail(std::string_view(loaded.text).substr(0, tail))) {
    loaded.damage.emplace_back("manifest.json does not have its checksum");
    return loaded;
  }
  loaded.folder.manifest = parse_manifest(loaded.text);
  if (!loaded.folder.manifest.is_object() || !loaded.folder.manifest.contains("files") ||
      !loaded.folder.manifest["files"].is_object()) {
    loaded.damage.emplace_back("manifest.json is no manifest");
  }
  return loaded;
}

// Reads one listed file into `loaded`.
Status load_file(FileSystem& files, const fs::path& folder, const std::string& name,
                 const ordered_json& entry, Loaded& loaded) {
  if (!is_plain_name(name) || !entry.is_object() || !entry.contains("bytes") ||
      !entry["bytes"].is_number_unsigned() || !entry.contains("xxh3_128") ||
      !entry["xxh3_128"].is_string()) {
    loaded.damage.push_back("manifest.json lists '" + name + "' in a wrong way");
    return {};
  }
  if (!files.exists(folder / name)) {
    loaded.damage.push_back(name + " is missing");
    return {};
  }
  const auto size = entry["bytes"].get<std::uint64_t>();
  // Asked for before it is read: memory is taken for what was listed, and no more.
  SLUICE_ASSIGN(std::uint64_t there, files.size(folder / name));
  std::string bytes;
  if (there == size) {
    SLUICE_ASSIGN(bytes, files.read(folder / name));
    there = bytes.size();
  }
  if (there != size) {
    loaded.damage.push_back(name + " has " + std::to_string(there) + " bytes instead of " +
                            std::to_string(size));
  } else if (hash128(bytes).hex() != entry["xxh3_128"].get<std::string>()) {
    loaded.damage.push_back(name + " does not have its checksum");
  }
  loaded.folder.files.emplace(name, std::move(bytes));
  return {};
}

Result<Loaded> load_folder(FileSystem& files, const fs::path& folder) {
  SLUICE_ASSIGN(Loaded loaded, load_manifest(files, folder));
  if (!loaded.damage.empty()) return loaded;
  for (const auto& [name, entry] : loaded.folder.manifest["files"].items()) {
    SLUICE_TRY(load_file(files, folder, name, entry, loaded));
  }
  return loaded;
}

std::string join(const std::vector<std::string>& words, const char* between) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : between) + word;
  return text;
}

Error damaged(const fs::path& folder, const std::vector<std::string>& damage) {
  return stop_error(folder.string() + " is damaged: " + join(damage, "; "));
}

// The keys whose values differ, below "files" by name.
void collect_differences(const ordered_json& a, const ordered_json& b, const std::string& prefix,
                         std::set<std::string>& names) {
  for (const auto& [one, other] : {std::pair(&a, &b), std::pair(&b, &a)}) {
    for (const auto& [key, value] : one->items()) {
      if (key == "checksum" && prefix.empty()) continue;
      if (other->contains(key) && (*other)[key] == value) continue;
      if (key == "files" && prefix.empty() && other->contains(key)) {
        collect_differences(value, (*other)[key], "files.", names);
      } else {
        names.insert(prefix + key);
      }
    }
  }
}

Error came_out_different(const fs::path& folder, const ordered_json& there,
                         const std::string& made) {
  std::set<std::string> names;
  collect_differences(there, ordered_json::parse(made), "", names);
  return stop_error(folder.string() + " was made again and came out different in " +
                    (names.empty() ? std::string("the order of its keys")
                                   : join({names.begin(), names.end()}, ", ")) +
                    ": the logs, the build or the machine are not the same as before, or this is a"
                    " bug; move the folder away to go on without it");
}

Status write_file(FileSystem& files, const fs::path& path, std::string_view bytes) {
  SLUICE_ASSIGN(auto file, files.create(path));
  SLUICE_TRY(file->append(bytes));
  SLUICE_TRY(file->sync());
  return file->close();
}

// Unpublishes at once, then removes: a crash in between leaves a temporary folder.
Status remove_folder(FileSystem& files, const fs::path& parent, const std::string& name) {
  const fs::path aside = parent / temporary_name(name, ".removed");
  SLUICE_TRY(files.remove_all(aside));
  SLUICE_TRY(files.rename(parent / name, aside));
  SLUICE_TRY(files.sync_directory(parent));
  return files.remove_all(aside);
}

}  // namespace

Status make_durable_folders(FileSystem& files, const fs::path& folder) {
  std::vector<fs::path> missing;
  // A slash at the end would make it a path of its own.
  const fs::path plain = folder.has_filename() ? folder : folder.parent_path();
  for (fs::path path = plain; !path.empty() && !files.exists(path); path = path.parent_path()) {
    missing.push_back(path);
  }
  SLUICE_TRY(files.create_directories(plain));
  for (const fs::path& path : missing) {
    const fs::path parent = path.parent_path();
    SLUICE_TRY(files.sync_directory(parent.empty() ? fs::path(".") : parent));
  }
  return {};
}

SealedManifest seal_manifest(ordered_json manifest, const std::vector<FolderFile>& listed) {
  SLUICE_CHECK(manifest.is_object() && !manifest.contains("files") &&
               !manifest.contains("checksum"));
  std::map<std::string, ordered_json> entries;
  for (const FolderFile& file : listed) {
    SLUICE_CHECK(is_plain_name(file.name) && file.name != kManifest);
    const bool is_new =
        entries
            .emplace(file.name, ordered_json{{"bytes", file.bytes.size()},
                                             {"xxh3_128", hash128(file.bytes).hex()}})
            .second;
    SLUICE_CHECK(is_new);
  }
  manifest["files"] = ordered_json::object();
  for (auto& [name, entry] : entries) manifest["files"][name] = std::move(entry);
  std::string text;
  try {
    text = manifest.dump(2);
  } catch (const nlohmann::json::exception&) {
    SLUICE_CHECK(!"a manifest's texts are UTF-8");
  }
  text.erase(text.size() - 2);  // "\n}"
  text += ",\n  ";
  std::string checksum = hash128(text).hex();
  return {text + manifest_tail(text), std::move(checksum)};
}

Status publish_folder(FileSystem& files, const fs::path& parent, const std::string& name,
                      ordered_json manifest, const std::vector<FolderFile>& listed,
                      const std::vector<FolderFile>& unlisted) {
  return publish_sealed_folder(files, parent, name, seal_manifest(std::move(manifest), listed),
                               listed, unlisted);
}

Status publish_sealed_folder(FileSystem& files, const fs::path& parent, const std::string& name,
                             const SealedManifest& manifest, const std::vector<FolderFile>& listed,
                             const std::vector<FolderFile>& unlisted) {
  SLUICE_CHECK(is_plain_name(name) && !name.starts_with('.'));
  const std::string& text = manifest.text;
  const fs::path target = parent / name;
  const bool is_there = files.exists(target);
  if (is_there) {
    SLUICE_ASSIGN(const Loaded there, load_folder(files, target));
    if (there.damage.empty()) {
      // Synced again: the one who published it may have been killed just before.
      if (there.text == text) return files.sync_directory(parent);
      return came_out_different(target, there.folder.manifest, text);
    }
  }

  const fs::path aside = parent / temporary_name(name);
  SLUICE_TRY(make_durable_folders(files, parent));
  SLUICE_TRY(files.remove_all(aside));
  SLUICE_TRY(files.create_directories(aside));
  for (const auto* group : {&listed, &unlisted}) {
    for (const FolderFile& file : *group) {
      SLUICE_CHECK(is_plain_name(file.name) && file.name != kManifest);
      SLUICE_TRY(write_file(files, aside / file.name, file.bytes));
    }
  }
  SLUICE_TRY(write_file(files, aside / kManifest, text));
  SLUICE_TRY(files.sync_directory(aside));
  if (is_there) SLUICE_TRY(remove_folder(files, parent, name));
  SLUICE_TRY(files.rename(aside, target));
  return files.sync_directory(parent);
}

Result<PublishedFolder> read_folder(FileSystem& files, const fs::path& folder) {
  SLUICE_ASSIGN(Loaded loaded, load_folder(files, folder));
  if (!loaded.damage.empty()) return damaged(folder, loaded.damage);
  return std::move(loaded.folder);
}

Result<ordered_json> read_manifest(FileSystem& files, const fs::path& folder) {
  SLUICE_ASSIGN(Loaded loaded, load_manifest(files, folder));
  if (!loaded.damage.empty()) return damaged(folder, loaded.damage);
  return std::move(loaded.folder.manifest);
}

std::string numbered_folder_name(std::uint64_t sequence) {
  const std::string digits = std::to_string(sequence);
  return std::string(kNameDigits - std::min(kNameDigits, digits.size()), '0') + digits;
}

std::optional<std::uint64_t> folder_number(const std::string& name) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || name != numbered_folder_name(number)) return std::nullopt;
  return number;
}

Result<std::vector<std::uint64_t>> list_numbered_folders(FileSystem& files,
                                                         const fs::path& parent) {
  std::vector<std::uint64_t> numbers;
  if (!files.exists(parent)) return numbers;
  SLUICE_ASSIGN(const std::vector<std::string> names, files.list(parent));
  for (const std::string& name : names) {
    if (const auto number = folder_number(name)) numbers.push_back(*number);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

Status remove_temporary_folders(FileSystem& files, const fs::path& parent) {
  if (!files.exists(parent)) return {};
  SLUICE_ASSIGN(const std::vector<std::string> names, files.list(parent));
  for (const std::string& name : names) {
    if (is_temporary(name)) SLUICE_TRY(files.remove_all(parent / name));
  }
  return {};
}

Status keep_newest(FileSystem& files, const fs::path& parent, std::size_t keep,
                   const std::set<std::uint64_t>& also_keep) {
  SLUICE_ASSIGN(const std::vector<std::uint64_t> numbers, list_numbered_folders(files, parent));
  if (numbers.size() <= keep) return {};
  SLUICE_ASSIGN(const std::set<std::uint64_t> named, named_snapshots(files, parent));
  // A delta goes before its base, so that whatever is there can be read.
  for (std::size_t i = numbers.size() - keep; i-- > 0;) {
    if (also_keep.contains(numbers[i]) || named.contains(numbers[i])) continue;
    SLUICE_TRY(remove_folder(files, parent, numbered_folder_name(numbers[i])));
  }
  return {};
}

Status set_latest(FileSystem& files, const fs::path& parent, std::uint64_t sequence) {
  SLUICE_ASSIGN(const std::optional<std::uint64_t> newest, newest_published(files, parent));
  if (newest && *newest >= sequence) return {};
  return write_atomically(files, parent / kLatest, numbered_folder_name(sequence) + "\n");
}

namespace {

Error not_a_name(const fs::path& path) {
  return stop_error(path.string() +
                    " does not name one of the numbered folders: write the name of the"
                    " wanted one into it, or remove it");
}

Status write_held(FileSystem& files, const fs::path& parent, const std::set<std::uint64_t>& held) {
  std::string text;
  for (const std::uint64_t sequence : held) text += numbered_folder_name(sequence) + "\n";
  return write_atomically(files, parent / kHeld, text);
}

Result<std::optional<std::uint64_t>> read_name(FileSystem& files, const fs::path& path) {
  if (!files.exists(path)) return std::optional<std::uint64_t>();
  SLUICE_ASSIGN(std::string text, files.read(path));
  if (text.ends_with('\n')) text.pop_back();
  const auto number = folder_number(text);
  if (!number) return not_a_name(path);
  return number;
}

Status check_alias(const std::string& alias) {
  const bool is_fine =
      !alias.empty() && alias.size() <= 64 && std::all_of(alias.begin(), alias.end(), [](char c) {
        return ('a' <= c && c <= 'z') || ('A' <= c && c <= 'Z') || ('0' <= c && c <= '9') ||
               c == '-' || c == '_';
      });
  const bool is_number = alias.find_first_not_of("0123456789") == std::string::npos;
  if (is_fine && !is_number) return {};
  return usage_error("'" + alias + "' is no alias: letters, digits, - and _, at most 64 of them, " +
                     "not digits alone, which are a snapshot's number");
}

}  // namespace

Result<std::unique_ptr<FileLock>> lock_names(FileSystem& files, const fs::path& parent) {
  return files.lock(parent / "LOCK");
}

Result<std::optional<std::uint64_t>> read_latest(FileSystem& files, const fs::path& parent) {
  return read_name(files, parent / kLatest);
}

Result<std::optional<std::uint64_t>> newest_published(FileSystem& files, const fs::path& parent) {
  SLUICE_ASSIGN(const auto latest, read_latest(files, parent));
  SLUICE_ASSIGN(const auto left, read_name(files, parent / kRolledBackFrom));
  return std::max(latest, left);  // none is below every number
}

Status choose_latest(FileSystem& files, const fs::path& parent, std::uint64_t sequence) {
  SLUICE_ASSIGN(const auto newest, newest_published(files, parent));
  if (newest > sequence) {
    SLUICE_TRY(
        write_atomically(files, parent / kRolledBackFrom, numbered_folder_name(*newest) + "\n"));
  }
  SLUICE_ASSIGN(auto held, read_held(files, parent));
  if (held.erase(sequence) > 0) SLUICE_TRY(write_held(files, parent, held));
  return write_atomically(files, parent / kLatest, numbered_folder_name(sequence) + "\n");
}

Status add_held(FileSystem& files, const fs::path& parent, std::uint64_t sequence) {
  SLUICE_ASSIGN(auto held, read_held(files, parent));
  std::erase_if(
      held, [&](std::uint64_t one) { return !files.exists(parent / numbered_folder_name(one)); });
  held.insert(sequence);
  return write_held(files, parent, held);
}

Result<std::set<std::uint64_t>> read_held(FileSystem& files, const fs::path& parent) {
  std::set<std::uint64_t> held;
  const fs::path path = parent / kHeld;
  if (!files.exists(path)) return held;
  SLUICE_ASSIGN(const std::string text, files.read(path));
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const auto number = folder_number(text.substr(begin, end - begin));
    if (!number) return not_a_name(path);
    held.insert(*number);
    begin = end + 1;
  }
  return held;
}

Status set_alias(FileSystem& files, const fs::path& parent, const std::string& alias,
                 std::uint64_t sequence) {
  SLUICE_TRY(check_alias(alias));
  SLUICE_TRY(make_durable_folders(files, parent / kAliases));
  return write_atomically(files, parent / kAliases / alias, numbered_folder_name(sequence) + "\n");
}

Result<std::optional<std::uint64_t>> read_alias(FileSystem& files, const fs::path& parent,
                                                const std::string& alias) {
  SLUICE_TRY(check_alias(alias));
  return read_name(files, parent / kAliases / alias);
}

Result<std::map<std::string, std::uint64_t>> read_aliases(FileSystem& files,
                                                          const fs::path& parent) {
  std::map<std::string, std::uint64_t> aliases;
  if (!files.exists(parent / kAliases)) return aliases;
  SLUICE_ASSIGN(const std::vector<std::string> names, files.list(parent / kAliases));
  for (const std::string& name : names) {
    if (!check_alias(name)) continue;
    SLUICE_ASSIGN(const auto sequence, read_alias(files, parent, name));
    if (sequence) aliases[name] = *sequence;
  }
  return aliases;
}

Result<std::set<std::uint64_t>> named_snapshots(FileSystem& files, const fs::path& parent) {
  std::set<std::uint64_t> named;
  SLUICE_ASSIGN(const std::optional<std::uint64_t> latest, read_latest(files, parent));
  if (latest) named.insert(*latest);
  SLUICE_ASSIGN(const auto aliases, read_aliases(files, parent));
  for (const auto& [alias, sequence] : aliases) named.insert(sequence);
  return named;
}

Status remove_alias(FileSystem& files, const fs::path& parent, const std::string& alias) {
  SLUICE_ASSIGN(const auto sequence, read_alias(files, parent, alias));
  if (!sequence) return usage_error("there is no alias " + alias + " in " + parent.string());
  SLUICE_TRY(files.remove_all(parent / kAliases / alias));
  return files.sync_directory(parent / kAliases);
}

}  // namespace sluice
