#include "app/digest_log.h"

#include <string_view>

#include <nlohmann/json.hpp>

#include "store/published_folder.h"

namespace sluice {

using Json = nlohmann::ordered_json;

DigestLog::DigestLog(FileSystem& files, std::filesystem::path data_dir)
    : files_(files), data_dir_(std::move(data_dir)), path_(data_dir_ / "digests.jsonl") {}

Result<std::unique_ptr<DigestLog>> DigestLog::open(FileSystem& files,
                                                   const std::filesystem::path& data_dir) {
  std::unique_ptr<DigestLog> log(new DigestLog(files, data_dir));
  SLUICE_TRY(log->load());
  return log;
}

Status DigestLog::load() {
  if (!files_.exists(path_)) return {};
  SLUICE_ASSIGN(std::string text, files_.read(path_));
  // A crash may have cut the last line, and what could not be synced can be read but may not last:
  // from here on it counts as written.
  text.resize(text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1);
  SLUICE_TRY(write_atomically(files_, path_, text));
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string line(rest.substr(0, rest.find('\n')));
    rest.remove_prefix(line.size() + 1);
    const Json json = Json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("sequence") || !json["sequence"].is_number_unsigned()) {
      return stop_error(path_.string() + " has a line that is none of ours: " + line);
    }
    const Json model = json.value("model", Json());
    if (!model.is_string()) continue;  // no name of a model
    lines_[{model.get<std::string>(), json["sequence"].get<std::uint64_t>()}] = line;
  }
  return {};
}

Status DigestLog::add(const char* kind, const ModelAt& at) {
  const std::string samples = at.samples_digest.hex();
  const std::string model = at.model_digest.hex();
  const Json json = {{"sequence", at.sequence},
                     {"model", at.model},
                     {"kind", kind},
                     {"samples_digest", samples},
                     {"model_digest", model}};
  const std::lock_guard lock(mutex_);
  SLUICE_TRY(outcome_);
  std::string& line = lines_[{at.model, at.sequence}];
  if (line.empty()) {
    line = json.dump();
    return outcome_ = append(line + "\n");
  }
  const Json before = Json::parse(line, nullptr, false);
  if (before.value("samples_digest", Json()) != Json(samples) ||
      before.value("model_digest", Json()) != Json(model)) {
    return stop_error("sequence " + std::to_string(at.sequence) +
                      " came out with other digests than before: " + path_.string() + " has " +
                      line + ", now samples " + samples + ", model " + model);
  }
  return {};
}

Status DigestLog::append(const std::string& line) {
  const bool is_new = !files_.exists(path_);
  SLUICE_ASSIGN(auto file, files_.append_to(path_));
  SLUICE_TRY(file->append(line));
  SLUICE_TRY(file->sync());
  if (is_new) SLUICE_TRY(files_.sync_directory(data_dir_));
  return file->close();
}

}  // namespace sluice
