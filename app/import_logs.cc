#include "app/import_logs.h"

#include <algorithm>
#include <string>
#include <utility>

#include <zlib.h>

#include "app/import_text.h"
#include "app/shop_random.h"
#include "app/shop_text.h"

namespace sluice {
namespace {

constexpr DurationMs kSecond = 1'000;
constexpr DurationMs kMinute = 60 * kSecond;
constexpr DurationMs kHour = 60 * kMinute;
constexpr DurationMs kDay = 24 * kHour;

// Drawn delays: of a click from its impression, of a purchase from its click.
constexpr DurationMs kLeastClickDelay = kSecond, kMostClickDelay = 2 * kMinute;
constexpr DurationMs kLeastPurchaseDelay = 10 * kMinute, kMostPurchaseDelay = 12 * kHour;
constexpr std::uint64_t kClickPurpose = 0x636c69636b;  // of the random numbers
constexpr std::uint64_t kPurchasePurpose = 0x6275790a;

// The config's defaults, where they are long enough, and its bounds.
constexpr DurationMs kUsualClickWindow = 30 * kMinute, kUsualConversionWindow = kDay;
constexpr DurationMs kUsualOutOfOrderness = 10 * kSecond;
constexpr DurationMs kLongestWindow = 366 * kDay, kMostOutOfOrderness = 30 * kDay;
constexpr std::size_t kMostRecordBytes = 1 << 20;  // streams.max_record_bytes

constexpr std::uint64_t kRowsBetweenWrites = 64;

DurationMs drawn(std::uint64_t seed, std::uint64_t purpose, std::uint64_t number, DurationMs least,
                 DurationMs most) {
  Random random(seed, purpose, number);
  return least + static_cast<DurationMs>(random.below(static_cast<std::uint64_t>(most - least)));
}

DurationMs round_up(DurationMs duration, DurationMs step) {
  return (duration + step - 1) / step * step;
}

std::uint32_t partition_of(std::uint64_t number, const std::string& user_id,
                           std::uint32_t partitions) {
  std::string key = user_id;
  if (key.empty()) append_number(key, number);
  const auto* bytes = reinterpret_cast<const Bytef*>(key.data());
  return static_cast<std::uint32_t>(crc32(0, bytes, static_cast<uInt>(key.size())) % partitions);
}

}  // namespace

Result<ImportLogs> ImportLogs::create(FileSystem& files, const fs::path& root,
                                      const ImportOptions& options, UnclickedConversion unclicked) {
  ImportLogs logs(options, unclicked);
  Written& written = *logs.written_;
  written.shop.partitions = options.partitions;
  written.shop.compression = options.compression;
  written.highest.assign(kStreams * options.partitions, kTimeMin);
  const auto on_written = [&written](const ShopRecord& record, ShopVerdict) {
    TimeMs& highest =
        written.highest[static_cast<std::size_t>(record.stream) * written.shop.partitions +
                        record.partition];
    highest = std::max(highest, record.time);
    written.most_out_of_order = std::max(written.most_out_of_order, highest - record.time);
  };
  SLUICE_ASSIGN(logs.logs_, ShopLogs::create(files, root, written.shop, on_written));
  return logs;
}

ImportLogs::Times ImportLogs::times_of(std::uint64_t number, const ImportRow& row) const {
  Times times;
  const double offset = static_cast<double>(number - 1) * 1'000.0 / impressions_per_second_;
  times.impression = row.time ? *row.time : start_ + static_cast<TimeMs>(offset);
  times.click = row.click_time ? *row.click_time
                               : times.impression + drawn(seed_, kClickPurpose, number,
                                                          kLeastClickDelay, kMostClickDelay);
  // A row without a conversion may have anything where the conversion's time belongs.
  if (row.converted && row.conversion_time) {
    times.purchase = *row.conversion_time;
    // A drawn click gives way to a purchase whose time is known.
    if (!row.click_time) times.click = std::min(times.click, times.purchase);
  } else if (row.converted && row.conversion_delay) {
    times.purchase = times.click + *row.conversion_delay;
  } else {
    times.purchase = times.click + drawn(seed_, kPurchasePurpose, number, kLeastPurchaseDelay,
                                         kMostPurchaseDelay);
  }
  return times;
}

// Whether the join can give back what the row says.
std::optional<RowProblem> ImportLogs::check(const Times& times, const ImportRow& row) const {
  const auto refuse = [](std::string detail) { return RowProblem{"time", 0, std::move(detail)}; };
  const TimeMs last = row.converted ? times.purchase : row.clicked ? times.click : times.impression;
  if (times.impression < kEarliestEvent || times.impression > kLatestEvent || last > kLatestEvent) {
    return refuse("not between " + format_time(kEarliestEvent) + " and the year 9999");
  }
  if (row.clicked && times.click < times.impression) {
    return refuse("the click (" + format_time(times.click) + ") is before its impression (" +
                  format_time(times.impression) + ")");
  }
  if (row.converted && times.purchase < times.click) {
    return refuse("the conversion (" + format_time(times.purchase) + ") is before its click (" +
                  format_time(times.click) + ")");
  }
  if ((row.clicked && times.click - times.impression >= kLongestWindow) ||
      (row.converted && times.purchase - times.click >= kLongestWindow)) {
    return refuse("a click or conversion comes 366 days later or more");
  }
  return {};
}

// One line; `row.features` is of impressions only.
std::string ImportLogs::event(char kind, std::uint64_t number, TimeMs time,
                              const ImportRow& row) const {
  std::string line = "{\"event_id\":\"";
  line += kind;
  append_number(line, number);
  line += "\",\"ts\":";
  append_number(line, time);
  line += ",\"impression_id\":";
  append_number(line, number);
  if (!row.user_id.empty()) {
    line += ",\"user_id\":";
    append_json_id(line, row.user_id);
  }
  if (!row.item_id.empty()) {
    line += ",\"item_id\":";
    append_json_id(line, row.item_id);
  }
  if (kind == 'i') {
    line += ",\"features\":";
    line += row.features;
  }
  line += "}\n";
  return line;
}

void ImportLogs::put(Stream stream, TimeMs time, std::uint32_t partition, std::string line) {
  ShopRecord record;
  record.stream = stream;
  record.partition = partition;
  record.time = time;
  // The logs are in the order of event time, as far as the table is; they never go back.
  record.arrival = std::max(time, highest_impression_);
  record.line = std::move(line);
  logs_->add(std::move(record));
  ++counts_.records[static_cast<std::size_t>(stream)];
}

Result<std::optional<RowProblem>> ImportLogs::add(std::uint64_t number,
                                                  const ImportRow& table_row) {
  ImportRow row = table_row;
  const bool is_unclicked_conversion = row.converted && !row.clicked;
  if (is_unclicked_conversion) {
    row.clicked = unclicked_ == UnclickedConversion::implies_click;
    row.converted = row.clicked;
  }
  const Times times = times_of(number, row);
  if (auto problem = check(times, row)) return problem;
  std::string impression = event('i', number, times.impression, row);
  if (impression.size() > kMostRecordBytes) {
    return std::optional(RowProblem{"oversized", 0, "its event is longer than 1 MiB"});
  }
  const std::uint32_t partition = partition_of(number, row.user_id, written_->shop.partitions);
  highest_impression_ = std::max(highest_impression_, times.impression);
  put(Stream::impressions, times.impression, partition, std::move(impression));
  if (row.clicked) {
    put(Stream::clicks, times.click, partition, event('c', number, times.click, row));
    longest_click_delay_ = std::max(longest_click_delay_, times.click - times.impression);
    ++counts_.clicked;
  }
  if (row.converted) {
    put(Stream::purchases, times.purchase, partition, event('p', number, times.purchase, row));
    longest_conversion_delay_ = std::max(longest_conversion_delay_, times.purchase - times.click);
    ++counts_.converted;
  }
  if (is_unclicked_conversion)
    ++(row.clicked ? counts_.implied_clicks : counts_.skipped_conversions);
  // What is added later arrives with these at the earliest, and then behind them.
  const std::uint64_t rows = counts_.records[static_cast<std::size_t>(Stream::impressions)];
  if (rows % kRowsBetweenWrites == 0) SLUICE_TRY(logs_->write_until(highest_impression_ + 1));
  return std::optional<RowProblem>();
}

Status ImportLogs::finish() {
  SLUICE_TRY(logs_->finish());
  if (written_->most_out_of_order <= kMostOutOfOrderness) return {};
  return stop_error("the table's times are out of order by " +
                    format_duration(written_->most_out_of_order) +
                    ", and a replay can bear 30 d: sort the table by time");
}

DurationMs ImportLogs::click_window() const {
  return std::max(kUsualClickWindow,
                  std::min(round_up(longest_click_delay_ + 1, kMinute), kLongestWindow));
}
DurationMs ImportLogs::conversion_window() const {
  return std::max(kUsualConversionWindow,
                  std::min(round_up(longest_conversion_delay_ + 1, kHour), kLongestWindow));
}
DurationMs ImportLogs::max_out_of_orderness() const {
  return std::max(kUsualOutOfOrderness,
                  std::min(round_up(written_->most_out_of_order, kSecond), kMostOutOfOrderness));
}

}  // namespace sluice
