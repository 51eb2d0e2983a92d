#include "app/dead_letters.h"

#include <utility>

#include "base/utf8.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

std::string hex(std::string_view bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace

bool DeadLetterFilter::allows(const DeadLetter& letter) const {
  const RefusedRecord& record = letter.record;
  return (reasons.empty() || reasons.contains(record.reason)) &&
         (streams.empty() || streams.contains(record.where.stream)) &&
         (!since || letter.wall_ms >= *since) && record.detail.find(detail) != std::string::npos;
}

Result<DeadLetterFolder> DeadLetterFolder::open(const std::filesystem::path& data_dir) {
  std::error_code code;
  if (!std::filesystem::exists(data_dir / "store", code)) {
    return usage_error(data_dir.string() + " is no data folder of sluice: there is no " +
                       (data_dir / "store").string() + "; --data-dir names another");
  }
  DeadLetterFolder folder;
  SLUICE_ASSIGN(folder.store_, open_rocksdb_to_read(data_dir / "store"));
  SLUICE_ASSIGN(auto progress, read_progress(*folder.store_));
  if (!progress) {
    return stop_error(data_dir.string() + " holds nothing yet: its first start made no commit");
  }
  folder.progress_ = *std::move(progress);
  return folder;
}

Status DeadLetterFolder::read(const DeadLetterFilter& filter,
                              const std::function<bool(DeadLetter letter)>& visit) const {
  Status damaged;
  SLUICE_TRY(store_->scan(Space::dead_letters, dead_letter_key(progress_.first_dead_letter), {},
                          [&](std::string_view key, std::string_view value) {
                            auto letter = decode_dead_letter(key, value);
                            if (!letter) {
                              damaged = letter.error();
                              return false;
                            }
                            return !filter.allows(*letter) || visit(*std::move(letter));
                          }));
  return damaged;
}

Result<std::optional<DeadLetter>> DeadLetterFolder::find(std::uint64_t number) const {
  const std::string key = dead_letter_key(number);
  SLUICE_ASSIGN(const auto value, store_->get(Space::dead_letters, key));
  if (!value) return std::optional<DeadLetter>();
  SLUICE_ASSIGN(auto letter, decode_dead_letter(key, *value));
  return std::optional(std::move(letter));
}

Json dead_letter_json(const DeadLetter& letter, bool with_record) {
  const RefusedRecord& record = letter.record;
  Json json = {{"number", letter.number},
               {"wall_time", format_time(letter.wall_ms)},
               {"stream", kStreamNames[static_cast<std::size_t>(record.where.stream)]},
               {"partition", record.where.partition},
               {"position", record.position},
               {"reason", to_string(record.reason)},
               {"detail", record.detail},
               {"bytes", record.bytes.size()}};
  if (with_record && is_utf8(record.bytes)) json["text"] = record.bytes;
  if (with_record && !json.contains("text")) json["hex"] = hex(record.bytes);
  return json;
}

}  // namespace sluice
