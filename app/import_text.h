// Values of a table as JSON, and back from text.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "app/import_options.h"
#include "base/time.h"

namespace sluice {

// An integer where the text is one as JSON writes it, at most 18 digits long; else a string. For
// Sluice both are the same id.
void append_json_id(std::string& out, std::string_view text);

// A decimal number, finite, and nothing else.
std::optional<double> parse_number(std::string_view text);
// 0 or 1, also written as 0.0 or 1.0.
std::optional<bool> parse_label(std::string_view text);
// An event time; what counts from the start has `start` added. "2013-06-30 12:00:00" is UTC.
std::optional<TimeMs> parse_table_time(std::string_view text, TimeUnit unit, TimeMs start);
// Seconds, with decimals or without; none below zero or above 1000 years.
std::optional<DurationMs> parse_seconds(std::string_view text);

// A column's name as a feature's: what may not stand there becomes '_', and 64 bytes are kept.
std::string feature_name(std::string_view column);

}  // namespace sluice
